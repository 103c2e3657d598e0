//! The daemon's end of the socket.
//!
//! An answer may have to wait for an attempt or for a hook. When the server stops, a client that waits for
//! such an answer gets an error at once; later clients are answered until the process ends.

use std::fs;
use std::io::{self, PipeReader, PipeWriter, Read as _, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::FileTypeExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::{RecvTimeoutError, bounded};
use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use nix::unistd::Uid;
use rustix::fs::{Mode, fchmod};
use socket2::{Domain, SockAddr, Socket, Type};

use super::answer::ControlAnswer;
use super::reply;
use super::request::{ControlRequest, parse_request_line};
use crate::mail::Endpoint;
use crate::sys::{
    AcceptLoop, Clock as _, Connector as _, Disk as _, LineReader, Moment, StopFlag, Stream, SystemClock,
    SystemConnector, SystemDisk, WaitResult, spawn, unix_stream,
};

/// Longest request in octets; the longest one names thousands of messages.
const REQUEST_OCTETS_MAX: usize = 256 * 1024;
/// Time for a request to be read, and again for its answer to be written.
const CLIENT_TIMEOUT: Duration = Duration::from_secs(5);
/// Time for a process that has the socket already to accept a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// Clients that are answered at the same time; more wait in the backlog of the socket.
const CLIENTS_MAX: usize = 4;
/// Clients that may wait to be accepted.
const BACKLOG: i32 = 128;
/// While the server stops: time to read a request, time to answer it, and time to write the answer.
const CLIENT_TIMEOUT_AT_STOP: Duration = Duration::from_millis(150);
/// Time to answer the clients that are connected when the socket is closed.
const CLOSE_TIMEOUT: Duration = Duration::from_millis(400);

/// Answers requests.
pub trait RequestHandler: Send + Sync {
    /// Answers one request.
    ///
    /// # Errors
    /// A sentence for the person who sent the request.
    fn handle(&self, request: ControlRequest) -> Result<ControlAnswer, String>;
}

impl<F> RequestHandler for F
where
    F: Fn(ControlRequest) -> Result<ControlAnswer, String> + Send + Sync,
{
    fn handle(&self, request: ControlRequest) -> Result<ControlAnswer, String> {
        self(request)
    }
}

/// Why the socket cannot be opened. The fault is the operator's or another daemon's.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Another process answers on it.
    #[error("another postrider is running: it answers on {0}; stop it first")]
    AlreadyRunning(PathBuf),
    /// Another kind of file is at the path.
    #[error("{0} is in the way and is not a socket; remove it")]
    NotASocket(PathBuf),
    /// The operating system refuses.
    #[error("cannot open the control socket {path}: {error}")]
    System {
        /// Which socket.
        path: PathBuf,
        /// What went wrong.
        error: io::Error,
    },
}

/// The open socket and the thread `control` behind it. Dropping it ends both.
#[derive(Debug)]
pub struct ControlServer {
    path: PathBuf,
    closing: Arc<StopFlag>,
    thread: Option<JoinHandle<()>>,
}

impl ControlServer {
    /// Opens the socket at `path`, mode 0600, and answers on it until the value is dropped. Once `stop`
    /// is raised, a request that takes long gets an error. A socket that a dead daemon left is replaced.
    ///
    /// # Errors
    /// See [`StartError`].
    pub fn start(
        path: &Path,
        handler: Arc<dyn RequestHandler>,
        stop: Arc<StopFlag>,
    ) -> Result<Self, StartError> {
        let system = |error| StartError::System { path: path.to_owned(), error };
        remove_stale_socket(path)?;
        let listener = listen(path).map_err(system)?;
        let closing = Arc::new(StopFlag::new().map_err(system)?);
        let slots = ClientSlots::new().map_err(system)?;
        let context = Arc::new(RequestContext { handler, stop });
        let flag = Arc::clone(&closing);
        let thread = spawn("control", move || serve(&listener, &flag, &slots, &context)).map_err(system)?;
        Ok(Self { path: path.to_owned(), closing, thread: Some(thread) })
    }
}

impl Drop for ControlServer {
    fn drop(&mut self) {
        self.closing.raise();
        if let Some(thread) = self.thread.take() {
            // That thread logs its own panic.
            let _ = thread.join();
        }
        // A socket that stays is replaced at the next start.
        let _ = SystemDisk.remove(&self.path);
    }
}

/// The file of a socket gets the mode of the socket (unix(7)), less the process's umask. Mode 0600 is set
/// before the file exists: afterwards the path could be that of a file that another user has put there.
fn listen(path: &Path) -> io::Result<UnixListener> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    fchmod(&socket, Mode::RUSR | Mode::WUSR)?;
    socket.bind(&SockAddr::unix(path)?)?;
    socket.listen(BACKLOG)?;
    Ok(OwnedFd::from(socket).into())
}

/// Removes a socket on which no process answers.
fn remove_stale_socket(path: &Path) -> Result<(), StartError> {
    let system = |error| StartError::System { path: path.to_owned(), error };
    match fs::symlink_metadata(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(system(e)),
        Ok(metadata) if !metadata.file_type().is_socket() => {
            return Err(StartError::NotASocket(path.to_owned()));
        }
        Ok(_) => {}
    }
    // A process that accepts no connection in time runs all the same.
    match SystemConnector.connect(&Endpoint::Unix(path.to_owned()), SystemClock.now() + CONNECT_TIMEOUT) {
        Ok(_) => Err(StartError::AlreadyRunning(path.to_owned())),
        Err(e) if e.kind() == io::ErrorKind::TimedOut => Err(StartError::AlreadyRunning(path.to_owned())),
        Err(e) if e.kind() == io::ErrorKind::ConnectionRefused => SystemDisk.remove(path).map_err(system),
        Err(e) => Err(system(e)),
    }
}

/// What the thread of every client uses.
struct RequestContext {
    handler: Arc<dyn RequestHandler>,
    stop: Arc<StopFlag>,
}

fn serve(listener: &UnixListener, closing: &StopFlag, slots: &ClientSlots, context: &Arc<RequestContext>) {
    let mut clients = match AcceptLoop::new(listener, closing, "the control socket") {
        Ok(clients) => clients,
        Err(e) => return log::error!("the control socket is closed: {e}"),
    };
    // A client waits in the backlog until a slot is free. Each client is gone after its deadlines.
    loop {
        match slots.take(closing, None) {
            Ok(Ok(slot)) => match clients.next_client() {
                Some((stream, ())) => start_client(stream, slot, context),
                None => break,
            },
            Ok(Err(WaitResult::StopRequested)) => break,
            Ok(Err(WaitResult::Ready | WaitResult::TimedOut)) => {}
            Err(e) => return log::error!("the control socket is closed: {e}"),
        }
    }
    serve_backlog(&clients, slots, context);
}

/// Answers the clients that have connected already, and waits until all clients are gone, up to a limit.
fn serve_backlog(clients: &AcceptLoop<'_, UnixListener>, slots: &ClientSlots, context: &Arc<RequestContext>) {
    let (Ok(never), end) = (StopFlag::new(), SystemClock.now() + CLOSE_TIMEOUT) else { return };
    let free_slot = || slots.take(&never, Some(end.since(SystemClock.now()))).ok().and_then(Result::ok);
    while let Some(slot) = free_slot() {
        let Ok(Some((stream, ()))) = clients.pending_client() else { break };
        start_client(stream, slot, context);
    }
    let mut free = Vec::new();
    while free.len() < CLIENTS_MAX
        && let Some(slot) = free_slot()
    {
        free.push(slot);
    }
}

/// Answers a client on a thread of its own.
fn start_client(stream: UnixStream, slot: ClientSlot, context: &Arc<RequestContext>) {
    let context = Arc::clone(context);
    let started = spawn("control-client", move || {
        let _slot = slot;
        if let Err(e) = context.serve_client(stream) {
            log::debug!("a client of the control socket left: {e}");
        }
    });
    if let Err(e) = started {
        log::warn!("no thread for a client of the control socket: {e}");
    }
}

/// The slots for clients. A pipe holds one octet for each free slot, so that poll(2) can wait for a slot and
/// for a stop at the same time.
struct ClientSlots {
    slot_reader: PipeReader,
    slot_writer: Arc<PipeWriter>,
}

/// A slot, given back when it is dropped.
struct ClientSlot(Arc<PipeWriter>);

impl ClientSlots {
    fn new() -> io::Result<Self> {
        let (free, give_back) = io::pipe()?;
        (&give_back).write_all(&[0; CLIENTS_MAX])?;
        Ok(Self { slot_reader: free, slot_writer: Arc::new(give_back) })
    }

    /// Waits for a free slot; returns how the wait ended if it ended without one. For one thread only.
    fn take(&self, stop: &StopFlag, timeout: Option<Duration>) -> io::Result<Result<ClientSlot, WaitResult>> {
        match stop.wait_until_readable(self.slot_reader.as_fd(), timeout)? {
            WaitResult::Ready => {
                (&self.slot_reader).read_exact(&mut [0])?;
                Ok(Ok(ClientSlot(Arc::clone(&self.slot_writer))))
            }
            other => Ok(Err(other)),
        }
    }
}

impl Drop for ClientSlot {
    fn drop(&mut self) {
        // The pipe has room for the octet that was taken out of it.
        let _ = (&*self.0).write_all(&[0]);
    }
}

impl RequestContext {
    fn serve_client(&self, stream: UnixStream) -> io::Result<()> {
        let peer = Uid::from_raw(getsockopt(&stream, PeerCredentials)?.uid());
        let is_authorized = is_authorized(peer, Uid::effective());
        if is_authorized {
            // The first octets are usually the whole request. A stop does not wait for a client that sends none.
            self.stop.wait_until_readable(stream.as_fd(), Some(CLIENT_TIMEOUT))?;
        }
        let mut stream = unix_stream(stream, self.next_deadline());
        let result = if is_authorized {
            parse_request_line(&read_line(&mut *stream, REQUEST_OCTETS_MAX)?).and_then(|request| {
                log::debug!("asked by user {peer}: {request:?}");
                self.handle_with_deadline(request)
            })
        } else {
            log::warn!("user {peer} was refused at the control socket");
            Err("only the user that postrider runs as, and root, may do this".to_owned())
        };
        let lines = reply::encode(&result)?;
        stream.set_deadline(self.next_deadline());
        stream.write_all(&lines)
    }

    /// The deadline for the next read or write.
    fn next_deadline(&self) -> Moment {
        SystemClock.now() + if self.stop.is_raised() { CLIENT_TIMEOUT_AT_STOP } else { CLIENT_TIMEOUT }
    }

    /// The answer; an error if the server stops and the answer takes long.
    fn handle_with_deadline(&self, request: ControlRequest) -> Result<ControlAnswer, String> {
        let cannot = |e: io::Error| format!("cannot be answered just now: {e}");
        let stopping = request.reply_at_stop();
        let (ended, end) = io::pipe().map_err(cannot)?;
        let (give, take) = bounded(1);
        let answers = Arc::clone(&self.handler);
        spawn("control-answer", move || {
            // Closed at the end of the thread, after a panic too.
            let _end = end;
            let _ = give.send(answers.handle(request));
        })
        .map_err(cannot)?;
        while self.stop.wait_until_readable(ended.as_fd(), None).map_err(cannot)? == WaitResult::TimedOut {}
        take.recv_timeout(CLIENT_TIMEOUT_AT_STOP).unwrap_or_else(|e| {
            Err(match e {
                RecvTimeoutError::Timeout => stopping.to_owned(),
                RecvTimeoutError::Disconnected => "a fault of ours, see the log".to_owned(),
            })
        })
    }
}

fn is_authorized(peer: Uid, us: Uid) -> bool {
    peer == us || peer.is_root()
}

/// Reads up to a line end, which is left out, or to the end of the stream.
fn read_line(stream: &mut dyn Stream, octets_max: usize) -> io::Result<Vec<u8>> {
    let mut lines = LineReader::new(stream, octets_max);
    match lines.read_line() {
        Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => Ok(lines.take_rest()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use super::*;

    #[test]
    fn the_file_of_the_socket_has_its_mode_from_the_beginning() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("control");
        let _listener = listen(&path).unwrap();
        assert_eq!(fs::symlink_metadata(&path).unwrap().mode() & 0o7777, 0o600);
        // A link that another user has put at the path is not followed.
        let link = dir.path().join("link");
        std::os::unix::fs::symlink(dir.path().join("elsewhere"), &link).unwrap();
        assert_eq!(listen(&link).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        assert!(!dir.path().join("elsewhere").exists());
    }

    #[test]
    fn only_the_daemons_user_and_root_are_answered() {
        let us = Uid::from_raw(8);
        assert!(is_authorized(us, us));
        assert!(is_authorized(Uid::from_raw(0), us));
        assert!(!is_authorized(Uid::from_raw(1000), us));
    }
}
