//! A subcommand's side of the socket.

use std::io;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;

use super::request::{ControlRequest, ReplyLine, RequestLine, VERSION};
use super::server::{read_line, write_all};
use crate::sys::{Clock as _, SystemClock};

/// Longest answer in octets: a long queue is listed in one line.
const ANSWER_OCTETS_MAX: usize = 256 * 1024 * 1024;
/// Time for the whole exchange; a reload of many domains takes a while.
const EXCHANGE_TIMEOUT: Duration = Duration::from_secs(30);

/// Why there is no answer. Each is a sentence for whoever typed the command.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// Nobody listens.
    #[error("postrider is not running (nobody answers on {}): start it, with `systemctl start postrider` or `postrider serve`", .0.display())]
    NotRunning(PathBuf),
    /// The socket or its directory is closed to us.
    #[error("you may not speak to postrider at {}: run this as root, or as the user that postrider runs as", .0.display())]
    NotAllowed(PathBuf),
    /// The daemon answered: it cannot, or will not.
    #[error("{0}")]
    Refused(String),
    /// The daemon is of another version, or it is not ours that listens.
    #[error("what answers on {} is not this version of postrider: restart it after an upgrade", .0.display())]
    VersionMismatch(PathBuf),
    /// It broke off or took too long.
    #[error("postrider did not answer on {}: {error}", path.display())]
    NoAnswer {
        /// Which socket.
        path: PathBuf,
        /// What went wrong.
        error: io::Error,
    },
}

/// Asks the daemon behind `socket`, and waits at most half a minute for its answer.
///
/// # Errors
/// See [`ControlError`].
pub fn send_request(socket: &Path, request: &ControlRequest) -> Result<Value, ControlError> {
    let line = exchange(socket, request).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
            ControlError::NotRunning(socket.to_owned())
        }
        io::ErrorKind::PermissionDenied => ControlError::NotAllowed(socket.to_owned()),
        _ => ControlError::NoAnswer { path: socket.to_owned(), error },
    })?;
    let not_understood = || ControlError::VersionMismatch(socket.to_owned());
    let answered: ReplyLine = serde_json::from_slice(&line).map_err(|_| not_understood())?;
    match answered {
        ReplyLine { error: Some(error), .. } => Err(ControlError::Refused(error)),
        ReplyLine { version: VERSION, answer, error: None } => Ok(answer.unwrap_or_default()),
        ReplyLine { .. } => Err(not_understood()),
    }
}

fn exchange(socket: &Path, request: &ControlRequest) -> io::Result<Vec<u8>> {
    let deadline = SystemClock.now() + EXCHANGE_TIMEOUT;
    let mut stream = UnixStream::connect(socket)?;
    let mut line = serde_json::to_vec(&RequestLine { version: VERSION, request: request.clone() })?;
    line.push(b'\n');
    write_all(&mut stream, &line, deadline)?;
    let answer = read_line(&mut stream, deadline, ANSWER_OCTETS_MAX)?;
    if answer.is_empty() {
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it hung up"));
    }
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::{Read as _, Write as _};
    use std::os::unix::fs::PermissionsExt as _;
    use std::sync::Arc;

    use serde_json::json;
    use tempfile::tempdir;

    use super::*;
    use crate::control::{ControlServer, StartError};
    use crate::sys::StopFlag;

    /// A request to stop that does not come.
    fn never() -> Arc<StopFlag> {
        Arc::new(StopFlag::new().unwrap())
    }

    fn echo(request: ControlRequest) -> Result<Value, String> {
        match request {
            ControlRequest::Status => Ok(json!({"queue": 3})),
            other => Err(format!("cannot {other:?}")),
        }
    }

    #[test]
    fn a_question_is_answered_or_refused_in_words() {
        let dir = tempdir().unwrap();
        let socket = dir.path().join("control");
        let _control = ControlServer::start(&socket, Arc::new(echo), never()).unwrap();
        assert_eq!(fs::metadata(&socket).unwrap().permissions().mode() & 0o777, 0o600);
        // More than there are places for at once: each place is given back.
        for _ in 0..10 {
            assert_eq!(send_request(&socket, &ControlRequest::Status).unwrap(), json!({"queue": 3}));
        }
        let error = send_request(&socket, &ControlRequest::Reload).unwrap_err();
        assert!(matches!(&error, ControlError::Refused(text) if text == "cannot Reload"), "{error}");
    }

    #[test]
    fn without_a_daemon_the_message_says_how_to_start_it() {
        let dir = tempdir().unwrap();
        let socket = dir.path().join("control");
        let missing = send_request(&socket, &ControlRequest::Status).unwrap_err().to_string();
        drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
        let refused = send_request(&socket, &ControlRequest::Status).unwrap_err().to_string();
        for message in [missing, refused] {
            assert!(message.starts_with("postrider is not running"), "{message}");
            assert!(message.contains("systemctl start postrider"), "{message}");
        }
    }

    #[test]
    fn a_socket_is_replaced_only_when_nobody_answers_on_it() {
        let dir = tempdir().unwrap();
        let socket = dir.path().join("control");
        drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
        let control = ControlServer::start(&socket, Arc::new(echo), never()).unwrap();
        assert!(matches!(
            ControlServer::start(&socket, Arc::new(echo), never()),
            Err(StartError::AlreadyRunning(_))
        ));
        assert!(send_request(&socket, &ControlRequest::Status).is_ok(), "the first one still answers");
        drop(control);
        assert!(!socket.exists());
        fs::File::create(&socket).unwrap();
        assert!(matches!(
            ControlServer::start(&socket, Arc::new(echo), never()),
            Err(StartError::NotASocket(_))
        ));
    }

    #[test]
    fn nonsense_and_endless_lines_get_no_further() {
        let dir = tempdir().unwrap();
        let socket = dir.path().join("control");
        let _control = ControlServer::start(&socket, Arc::new(echo), never()).unwrap();
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
    fn a_stop_answers_those_who_wait_and_is_not_held_up_by_those_who_say_nothing() {
        let dir = tempdir().unwrap();
        let socket = dir.path().join("control");
        let stop = never();
        let (asked, is_asked) = crossbeam_channel::unbounded();
        let (hold, held) = crossbeam_channel::bounded::<()>(0);
        let answers = move |request: ControlRequest| match request {
            ControlRequest::Status => Ok(json!({})),
            _ => {
                asked.send(()).unwrap();
                let _ = held.recv();
                Ok(json!({"late": true}))
            }
        };
        let control = ControlServer::start(&socket, Arc::new(answers), Arc::clone(&stop)).unwrap();
        let silent = UnixStream::connect(&socket).unwrap();
        std::thread::scope(|scope| {
            // One more than there are places for.
            let waiting: Vec<_> = (0..4)
                .map(|_| scope.spawn(|| send_request(&socket, &ControlRequest::Reload).unwrap_err()))
                .collect();
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
        assert_eq!(
            send_request(&socket, &ControlRequest::Status).unwrap(),
            json!({}),
            "who asks later is answered"
        );
        let began = SystemClock.now();
        drop(control);
        assert!(SystemClock.now().since(began) < Duration::from_secs(4));
        drop((silent, hold));
    }
}
