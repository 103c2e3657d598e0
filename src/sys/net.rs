//! Connections with a deadline.
//!
//! A timeout for each read is not enough: a peer that sends one octet each second would keep a session for
//! ever. So every stream has a deadline, and each read or write waits at most for the remaining time.

use std::fmt::Debug;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Shutdown, TcpStream, UdpSocket};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::{Arc, Weak};
use std::time::Duration;

use nix::errno::Errno;
use socket2::{Domain, SockAddr, Socket, Type};

use super::clock::{Clock as _, Moment, SystemClock};
use super::stop_flag::{StopFlag, WaitResult};
use crate::mail::Endpoint;

/// An open connection, encrypted or not. Closed when dropped.
pub trait Stream: Read + Write + Send + Debug {
    /// Sets the time after which reads and writes fail with [`io::ErrorKind::TimedOut`].
    fn set_deadline(&mut self, deadline: Moment);

    /// Closes the sending direction: the peer reads the end of the stream, and may still send.
    ///
    /// # Errors
    /// When the connection is already closed.
    fn shutdown_write(&mut self) -> io::Result<()>;

    /// Closes both directions at once, without TLS close_notify: for a peer that violated the protocol.
    fn abort(&mut self);
}

impl Stream for Box<dyn Stream> {
    fn set_deadline(&mut self, deadline: Moment) {
        (**self).set_deadline(deadline);
    }

    fn shutdown_write(&mut self) -> io::Result<()> {
        (**self).shutdown_write()
    }

    fn abort(&mut self) {
        (**self).abort();
    }
}

/// Opens connections.
pub trait Connector: Send + Sync {
    /// Connects to `endpoint` by `deadline`, which is the first deadline of the stream as well.
    ///
    /// # Errors
    /// As the network says; [`io::ErrorKind::TimedOut`] after the deadline.
    fn connect(&self, endpoint: &Endpoint, deadline: Moment) -> io::Result<Box<dyn Stream>>;
}

/// Connects over the host's network.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemConnector;

impl Connector for SystemConnector {
    fn connect(&self, endpoint: &Endpoint, deadline: Moment) -> io::Result<Box<dyn Stream>> {
        let left = time_left(deadline)?;
        match endpoint {
            Endpoint::Tcp(address) => {
                Ok(interruptible_stream(TcpStream::connect_timeout(address, left)?, deadline)?.0)
            }
            Endpoint::Unix(path) => {
                Ok(Box::new(Connection::new(Arc::new(connect_unix(path, left)?), deadline)))
            }
        }
    }
}

/// Connects over the host's network until the server stops: then connecting and reading fail with
/// [`io::ErrorKind::ConnectionAborted`]. For requests on which no accepted message depends.
#[derive(Debug)]
pub struct StoppableConnector {
    stop: Arc<StopFlag>,
}

impl StoppableConnector {
    /// Connects until `stop` is raised.
    #[must_use]
    pub fn new(stop: Arc<StopFlag>) -> Self {
        Self { stop }
    }

    fn connect_socket(&self, socket: &Socket, address: &SockAddr, deadline: Moment) -> io::Result<()> {
        socket.set_nonblocking(true)?;
        loop {
            match socket.connect(address).map_err(|e| (e.raw_os_error().map(Errno::from_raw), e)) {
                Ok(()) | Err((Some(Errno::EISCONN), _)) => break,
                Err((Some(Errno::EINPROGRESS | Errno::EALREADY), _)) => {
                    match self.stop.wait_until_writable(socket.as_fd(), Some(time_left(deadline)?))? {
                        WaitResult::Ready => socket.take_error()?.map_or(Ok(()), Err)?,
                        WaitResult::StopRequested => return Err(stopping_error()),
                        WaitResult::TimedOut => {}
                    }
                }
                // The backlog of a Unix socket is full, and poll(2) cannot wait for room in it.
                Err((Some(Errno::EAGAIN), _)) => {
                    if self.stop.wait(FULL_BACKLOG_RETRY_DELAY.min(time_left(deadline)?)) {
                        return Err(stopping_error());
                    }
                }
                Err((Some(Errno::EINTR), _)) => {}
                Err((_, e)) => return Err(e),
            }
        }
        socket.set_nonblocking(false)
    }
}

/// Delay before the next try to connect to a server whose backlog is full.
const FULL_BACKLOG_RETRY_DELAY: Duration = Duration::from_millis(20);

/// The error of a wait that ended because the server stops.
#[must_use]
pub fn stopping_error() -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionAborted, "the server is stopping")
}

impl Connector for StoppableConnector {
    fn connect(&self, endpoint: &Endpoint, deadline: Moment) -> io::Result<Box<dyn Stream>> {
        let (domain, address) = match endpoint {
            Endpoint::Tcp(address) => (Domain::for_address(*address), SockAddr::from(*address)),
            Endpoint::Unix(path) => (Domain::UNIX, SockAddr::unix(path)?),
        };
        let socket = Socket::new(domain, Type::STREAM, None)?;
        self.connect_socket(&socket, &address, deadline)?;
        let connection = Connection::new(Arc::new(socket), deadline);
        Ok(Box::new(Connection { stop: Some(Arc::clone(&self.stop)), ..connection }))
    }
}

/// Connects to a Unix socket. If the server accepts no connections and its backlog is full, connect(2) waits for
/// ever, unless a timeout for writes was set before.
fn connect_unix(path: &Path, left: Duration) -> io::Result<Socket> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_write_timeout(Some(left))?;
    socket.connect(&SockAddr::unix(path)?).map_err(timed_out)?;
    Ok(socket)
}

/// A stream of a connected socket, and a handle by which another thread can end its reads.
///
/// # Errors
/// When the connection is already closed.
pub fn interruptible_stream(
    stream: TcpStream,
    deadline: Moment,
) -> io::Result<(Box<dyn Stream>, ReadInterrupt)> {
    // Without Nagle's algorithm: a small write must not wait until the peer has acknowledged the one before.
    stream.set_nodelay(true)?;
    let socket = Arc::new(Socket::from(stream));
    let interrupt = ReadInterrupt(Arc::downgrade(&socket));
    Ok((Box::new(Connection::new(socket, deadline)), interrupt))
}

/// Wraps a connected Unix socket.
#[must_use]
pub fn unix_stream(stream: UnixStream, deadline: Moment) -> Box<dyn Stream> {
    Box::new(Connection::new(Arc::new(Socket::from(OwnedFd::from(stream))), deadline))
}

/// Wakes a thread that waits for its peer: reads end as if the peer had closed the connection. Writes still
/// work, so that the thread can send a last reply.
#[derive(Debug, Clone)]
pub struct ReadInterrupt(Weak<Socket>);

impl ReadInterrupt {
    /// Ends the current read and all later ones. Does nothing if the connection is already closed.
    pub fn end_reads(&self) {
        if let Some(socket) = self.0.upgrade() {
            // Fails if the peer has closed the connection, which ends reads as well.
            let _ = socket.shutdown(Shutdown::Read);
        }
    }
}

#[derive(Debug)]
struct Connection {
    socket: Arc<Socket>,
    deadline: Moment,
    /// The timeouts that were last set on the socket.
    read_timeout: Duration,
    write_timeout: Duration,
    /// Ends reads when it is raised.
    stop: Option<Arc<StopFlag>>,
}

impl Connection {
    fn new(socket: Arc<Socket>, deadline: Moment) -> Self {
        let (read_timeout, write_timeout) = (Duration::ZERO, Duration::ZERO);
        Self { socket, deadline, read_timeout, write_timeout, stop: None }
    }
}

/// The timeout of the socket is set again only if it is wrong by more than this: so most reads and writes need
/// one system call instead of two.
const TIMEOUT_SLACK: Duration = Duration::from_millis(500);

/// The timeout to set on the socket; `None` if the one that was last set is close enough.
fn timeout_to_set(deadline: Moment, last_set: Duration) -> io::Result<Option<Duration>> {
    let left = time_left(deadline)?;
    let is_close = last_set >= left && last_set - left <= TIMEOUT_SLACK;
    Ok((!is_close).then_some(left))
}

fn time_left(deadline: Moment) -> io::Result<Duration> {
    let left = deadline.since(SystemClock.now());
    if left.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(left) }
}

/// Linux reports `WouldBlock` when the timeout of a socket has passed.
fn timed_out(error: io::Error) -> io::Error {
    if error.kind() == io::ErrorKind::WouldBlock { io::ErrorKind::TimedOut.into() } else { error }
}

impl Read for Connection {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while let Some(stop) = &self.stop {
            match stop.wait_until_readable(self.socket.as_fd(), Some(time_left(self.deadline)?))? {
                WaitResult::Ready => break,
                WaitResult::StopRequested => return Err(stopping_error()),
                WaitResult::TimedOut => {}
            }
        }
        if let Some(timeout) = timeout_to_set(self.deadline, self.read_timeout)? {
            self.socket.set_read_timeout(Some(timeout))?;
            self.read_timeout = timeout;
        }
        (&*self.socket).read(buffer).map_err(timed_out)
    }
}

impl Write for Connection {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        if let Some(timeout) = timeout_to_set(self.deadline, self.write_timeout)? {
            self.socket.set_write_timeout(Some(timeout))?;
            self.write_timeout = timeout;
        }
        (&*self.socket).write(octets).map_err(timed_out)
    }

    fn flush(&mut self) -> io::Result<()> {
        (&*self.socket).flush()
    }
}

impl Stream for Connection {
    fn set_deadline(&mut self, deadline: Moment) {
        self.deadline = deadline;
    }

    fn shutdown_write(&mut self) -> io::Result<()> {
        self.socket.shutdown(Shutdown::Write)
    }

    fn abort(&mut self) {
        // Fails if the peer has closed the connection.
        let _ = self.socket.shutdown(Shutdown::Both);
    }
}

/// Whether this is an address of this host: only an own address can be bound.
#[must_use]
pub fn is_own_address(address: IpAddr) -> bool {
    UdpSocket::bind((address, 0)).is_ok()
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn a_peer_that_sends_octet_by_octet_cannot_outlast_the_deadline() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let deadline = SystemClock.now() + Duration::from_millis(200);
        let mut client = SystemConnector.connect(&address.into(), deadline).unwrap();
        let (mut server, _) = listener.accept().unwrap();
        let sender = super::super::spawn("sender", move || while server.write_all(b"x").is_ok() {}).unwrap();
        let mut octet = [0];
        let error = loop {
            if let Err(e) = client.read_exact(&mut octet) {
                break e;
            }
        };
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        drop(client);
        sender.join().unwrap();
    }

    #[test]
    fn a_unix_socket_is_connected_like_an_address() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        let listener = UnixListener::bind(&path).unwrap();
        let deadline = SystemClock.now() + Duration::from_secs(60);
        let mut client = SystemConnector.connect(&Endpoint::Unix(path), deadline).unwrap();
        let (mut server, _) = listener.accept().unwrap();
        client.write_all(b"ping").unwrap();
        client.shutdown_write().unwrap();
        let mut received = String::new();
        server.read_to_string(&mut received).unwrap();
        server.write_all(b"pong").unwrap();
        let mut answer = [0; 4];
        client.read_exact(&mut answer).unwrap();
        assert_eq!((received.as_str(), &answer), ("ping", b"pong"));
    }

    #[test]
    fn connecting_to_a_unix_socket_that_accepts_nothing_ends_at_the_deadline() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        let listener = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
        listener.bind(&SockAddr::unix(&path).unwrap()).unwrap();
        listener.listen(0).unwrap();
        let mut waiting = Vec::new();
        let error = loop {
            let deadline = SystemClock.now() + Duration::from_millis(100);
            match SystemConnector.connect(&Endpoint::Unix(path.clone()), deadline) {
                Ok(stream) => waiting.push(stream),
                Err(error) => break error,
            }
        };
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        let deadline = SystemClock.now() + Duration::from_millis(100);
        let error = SystemConnector.connect(&Endpoint::Unix(dir.path().join("none")), deadline).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn a_stoppable_connector_ends_connecting_and_reading_when_the_server_stops() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        let listener = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
        listener.bind(&SockAddr::unix(&path).unwrap()).unwrap();
        listener.listen(0).unwrap();
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        let stop = Arc::new(StopFlag::new().unwrap());
        let connector = StoppableConnector::new(Arc::clone(&stop));
        let soon = || SystemClock.now() + Duration::from_millis(100);
        let minute = SystemClock.now() + Duration::from_secs(60);
        let mut silent = connector.connect(&tcp.local_addr().unwrap().into(), minute).unwrap();
        silent.set_deadline(soon());
        assert_eq!(silent.read(&mut [0]).unwrap_err().kind(), io::ErrorKind::TimedOut);
        silent.set_deadline(minute);
        let (mut server, _) = tcp.accept().unwrap();
        server.write_all(b"x").unwrap();
        assert_eq!(silent.read(&mut [0; 2]).unwrap(), 1);
        let mut waiting = Vec::new();
        let error = loop {
            match connector.connect(&Endpoint::Unix(path.clone()), soon()) {
                Ok(stream) => waiting.push(stream),
                Err(error) => break error,
            }
        };
        assert_eq!(error.kind(), io::ErrorKind::TimedOut, "its backlog is full");
        let errors = std::thread::scope(|scope| {
            let reads = scope.spawn(|| silent.read(&mut [0]).unwrap_err());
            let connects =
                scope.spawn(|| connector.connect(&Endpoint::Unix(path.clone()), minute).unwrap_err());
            stop.raise();
            [reads.join().unwrap(), connects.join().unwrap()]
        });
        assert!(errors.iter().all(|error| error.kind() == io::ErrorKind::ConnectionAborted), "{errors:?}");
        let error = connector.connect(&Endpoint::Unix(dir.path().join("none")), minute).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }
}
