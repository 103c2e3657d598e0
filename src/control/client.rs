//! The subcommand's end of the socket.

use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::de::DeserializeOwned;

use super::answer::{
    AliasList, AliasStep, ChangeAnswer, ListedAlias, ListedMessage, PeerList, QueueList, ShownMessage,
    StatusAnswer,
};
use super::reply::{self, MessageCount, Nothing, ReplyError};
use super::request::{ControlRequest, MessagePart, RequestLine, VERSION};
use crate::domaininfo::PeerEntry;
use crate::mail::{Domain, Endpoint, Mailbox, MessageId};
use crate::queue::{QueueChange, Selection};
use crate::sys::{Clock as _, Connector as _, SystemClock, SystemConnector};

/// Longest reply in octets: a long queue is a line for each message.
const REPLY_OCTETS_MAX: u64 = 256 * 1024 * 1024;
/// Time for the whole exchange; a reload of many domains takes a while.
const EXCHANGE_TIMEOUT: Duration = Duration::from_secs(30);

/// Why there is no answer. Each is a sentence for the person who typed the command.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// No process listens on the socket.
    #[error("postrider is not running (nobody answers on {}): start it, with `systemctl start postrider` or `postrider serve`", .0.display())]
    NotRunning(PathBuf),
    /// The user of this process may not open the socket or its directory.
    #[error("no permission to connect to the control socket {}: run this as root, or as the user that postrider runs as", .0.display())]
    NotAllowed(PathBuf),
    /// The daemon answered with an error.
    #[error("{0}")]
    Refused(String),
    /// The daemon has another version, or another program listens on the socket.
    #[error("what answers on {} is not this version of postrider: restart it after an upgrade", .0.display())]
    VersionMismatch(PathBuf),
    /// The connection ended before the answer did, or the time was over.
    #[error("postrider did not answer on {}: {error}", path.display())]
    NoAnswer {
        /// Which socket.
        path: PathBuf,
        /// What went wrong.
        error: io::Error,
    },
}

/// Sends requests to the daemon. Each call is one connection, and waits at most half a minute; its error is
/// a [`ControlError`].
#[derive(Debug)]
pub struct ControlClient {
    socket: PathBuf,
}

#[expect(clippy::missing_errors_doc, reason = "the type says it once for all")]
impl ControlClient {
    /// For the daemon that listens on `socket`.
    #[must_use]
    pub fn new(socket: &Path) -> Self {
        Self { socket: socket.to_owned() }
    }

    /// The messages that `selection` matches, at most `limit`, the oldest first.
    pub fn queue_list(&self, selection: Selection, limit: usize) -> Result<QueueList, ControlError> {
        let request = ControlRequest::QueueList { selection, limit };
        let (messages, MessageCount { count }) = self.send::<ListedMessage, _>(&request)?;
        Ok(QueueList { count, messages })
    }

    /// All that is known of a message.
    pub fn queue_show(&self, id: MessageId, part: Option<MessagePart>) -> Result<ShownMessage, ControlError> {
        self.send_for_one(&ControlRequest::QueueShow { id, part })
    }

    /// Changes the messages that `selection` matches.
    pub fn queue_change(
        &self,
        selection: Selection,
        change: QueueChange,
    ) -> Result<ChangeAnswer, ControlError> {
        self.send_for_one(&ControlRequest::QueueChange { selection, change })
    }

    /// The other servers' domains whose security level is known.
    pub fn peer_list(&self) -> Result<PeerList, ControlError> {
        let (peers, Nothing {}) = self.send(&ControlRequest::PeerList)?;
        Ok(PeerList { peers })
    }

    /// What is known of another server's domain.
    pub fn peer_show(&self, domain: Domain) -> Result<PeerEntry, ControlError> {
        self.send_for_one(&ControlRequest::PeerShow { domain })
    }

    /// Forgets what is known of another server's domain.
    pub fn peer_forget(&self, domain: Domain) -> Result<(), ControlError> {
        self.send_for_one(&ControlRequest::PeerForget { domain }).map(|Nothing {}| ())
    }

    /// Resolves an address of a local domain.
    pub fn alias_resolve(&self, address: Mailbox) -> Result<AliasStep, ControlError> {
        self.send_for_one(&ControlRequest::AliasResolve { address })
    }

    /// The aliases of all local domains, or of one.
    pub fn alias_list(&self, domain: Option<Domain>) -> Result<AliasList, ControlError> {
        let (aliases, Nothing {}) = self.send::<ListedAlias, _>(&ControlRequest::AliasList { domain })?;
        Ok(AliasList { aliases })
    }

    /// Lets the daemon read the files beside postrider.toml again.
    pub fn reload(&self) -> Result<(), ControlError> {
        self.send_for_one(&ControlRequest::Reload).map(|Nothing {}| ())
    }

    /// The state of the daemon.
    pub fn status(&self) -> Result<StatusAnswer, ControlError> {
        self.send_for_one(&ControlRequest::Status)
    }

    fn send_for_one<A: DeserializeOwned>(&self, request: &ControlRequest) -> Result<A, ControlError> {
        self.send::<Nothing, A>(request).map(|(_, answer)| answer)
    }

    fn send<I: DeserializeOwned, A: DeserializeOwned>(
        &self,
        request: &ControlRequest,
    ) -> Result<(Vec<I>, A), ControlError> {
        let path = || self.socket.clone();
        let octets = self.exchange(request).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => ControlError::NotRunning(path()),
            io::ErrorKind::PermissionDenied => ControlError::NotAllowed(path()),
            _ => ControlError::NoAnswer { path: path(), error },
        })?;
        reply::decode(&octets).map_err(|error| match error {
            ReplyError::Refused(text) => ControlError::Refused(text),
            ReplyError::NotUnderstood => ControlError::VersionMismatch(path()),
            ReplyError::CutShort => ControlError::NoAnswer {
                path: path(),
                error: io::Error::new(io::ErrorKind::UnexpectedEof, "it hung up"),
            },
        })
    }

    /// Sends one request and reads to the end of the connection.
    fn exchange(&self, request: &ControlRequest) -> io::Result<Vec<u8>> {
        let deadline = SystemClock.now() + EXCHANGE_TIMEOUT;
        let mut stream = SystemConnector.connect(&Endpoint::Unix(self.socket.clone()), deadline)?;
        let mut line = serde_json::to_vec(&RequestLine { version: VERSION, request: request.clone() })?;
        line.push(b'\n');
        stream.write_all(&line)?;
        let mut octets = Vec::new();
        stream.take(REPLY_OCTETS_MAX).read_to_end(&mut octets)?;
        Ok(octets)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;
    use std::os::unix::net::UnixStream;
    use std::sync::Arc;

    use tempfile::tempdir;

    use super::*;
    use crate::control::{ControlAnswer, ControlServer, StartError};
    use crate::sys::StopFlag;

    /// A flag that is not raised.
    fn never() -> Arc<StopFlag> {
        Arc::new(StopFlag::new().unwrap())
    }

    fn answer_peer_list(request: ControlRequest) -> Result<ControlAnswer, String> {
        match request {
            ControlRequest::PeerList => Ok(ControlAnswer::PeerList(PeerList { peers: Vec::new() })),
            other => Err(format!("cannot {other:?}")),
        }
    }

    #[test]
    fn a_request_gets_an_answer_or_an_error() {
        let dir = tempdir().unwrap();
        let socket = dir.path().join("control");
        let _control = ControlServer::start(&socket, Arc::new(answer_peer_list), never()).unwrap();
        assert_eq!(fs::metadata(&socket).unwrap().permissions().mode() & 0o777, 0o600);
        let client = ControlClient::new(&socket);
        // More than are served at once: each slot is given back.
        for _ in 0..10 {
            assert_eq!(client.peer_list().unwrap().peers, []);
        }
        let error = client.reload().unwrap_err();
        assert!(matches!(&error, ControlError::Refused(text) if text == "cannot Reload"), "{error}");
    }

    #[test]
    fn without_a_daemon_the_error_says_how_to_start_it() {
        let dir = tempdir().unwrap();
        let socket = dir.path().join("control");
        let missing = ControlClient::new(&socket).status().unwrap_err().to_string();
        drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
        let refused = ControlClient::new(&socket).status().unwrap_err().to_string();
        for message in [missing, refused] {
            assert!(message.starts_with("postrider is not running"), "{message}");
            assert!(message.contains("systemctl start postrider"), "{message}");
        }
    }

    #[test]
    fn a_socket_is_replaced_only_if_no_process_answers_on_it() {
        let dir = tempdir().unwrap();
        let socket = dir.path().join("control");
        drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
        let control = ControlServer::start(&socket, Arc::new(answer_peer_list), never()).unwrap();
        assert!(matches!(
            ControlServer::start(&socket, Arc::new(answer_peer_list), never()),
            Err(StartError::AlreadyRunning(_))
        ));
        assert!(ControlClient::new(&socket).peer_list().is_ok(), "the first one still answers");
        drop(control);
        assert!(!socket.exists());
        fs::File::create(&socket).unwrap();
        assert!(matches!(
            ControlServer::start(&socket, Arc::new(answer_peer_list), never()),
            Err(StartError::NotASocket(_))
        ));
    }

    #[test]
    fn a_line_that_is_not_a_request_or_has_no_end_is_refused() {
        let dir = tempdir().unwrap();
        let socket = dir.path().join("control");
        let _control = ControlServer::start(&socket, Arc::new(answer_peer_list), never()).unwrap();
        let mut stream = UnixStream::connect(&socket).unwrap();
        stream.write_all(b"hello\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.contains("\"error\":\"not a request"), "{answer}");

        let mut stream = UnixStream::connect(&socket).unwrap();
        // The other side hangs up while we write.
        let _ = stream.write_all(&vec![b'x'; 1 << 20]);
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        assert!(answer.is_empty());
    }

    #[test]
    fn a_stop_answers_waiting_clients_and_does_not_wait_for_silent_ones() {
        let dir = tempdir().unwrap();
        let socket = dir.path().join("control");
        let stop = never();
        let (asked, is_asked) = crossbeam_channel::unbounded();
        let (hold, held) = crossbeam_channel::bounded::<()>(0);
        let answers = move |request: ControlRequest| match request {
            ControlRequest::PeerForget { .. } => Ok(ControlAnswer::Done),
            _ => {
                asked.send(()).unwrap();
                let _ = held.recv();
                Ok(ControlAnswer::Done)
            }
        };
        let control = ControlServer::start(&socket, Arc::new(answers), Arc::clone(&stop)).unwrap();
        let silent = UnixStream::connect(&socket).unwrap();
        let client = ControlClient::new(&socket);
        std::thread::scope(|scope| {
            // With the silent client one more than are served at once.
            let waiting: Vec<_> = (0..4).map(|_| scope.spawn(|| client.reload().unwrap_err())).collect();
            for _ in 0..3 {
                is_asked.recv_timeout(EXCHANGE_TIMEOUT).unwrap();
            }
            stop.raise();
            for one in waiting {
                let error = one.join().unwrap();
                let text = "the server is stopping: it reads everything anew when it starts";
                assert!(matches!(&error, ControlError::Refused(said) if said == text), "{error}");
            }
        });
        let domain = Domain::parse("there.example").unwrap();
        client.peer_forget(domain).expect("a later request is answered");
        let began = SystemClock.now();
        drop(control);
        assert!(SystemClock.now().since(began) < Duration::from_secs(4));
        drop((silent, hold));
    }
}
