//! Connections with a deadline.
//!
//! A timeout for each read is not enough: a peer that sends one octet a second would hold a
//! session for ever. Every stream has a deadline, and each read or write waits for what is left.

use std::fmt::Debug;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Shutdown, TcpStream, UdpSocket};
use std::path::Path;
use std::sync::{Arc, Weak};
use std::time::Duration;

use socket2::{Domain, SockAddr, Socket, Type};

use super::clock::{Clock as _, Moment, SystemClock};
use crate::mail::Endpoint;

/// An open connection, encrypted or not. Closed when dropped.
pub trait Stream: Read + Write + Send + Debug {
    /// From this moment on, reads and writes fail with [`io::ErrorKind::TimedOut`].
    fn set_deadline(&mut self, deadline: Moment);

    /// Ends our direction: the other side hears that nothing more comes, and may still speak.
    ///
    /// # Errors
    /// When the connection is gone already.
    fn finish(&mut self) -> io::Result<()>;

    /// Ends both directions at once, without a goodbye: for a peer that broke the rules.
    fn abort(&mut self);
}

impl Stream for Box<dyn Stream> {
    fn set_deadline(&mut self, deadline: Moment) {
        (**self).set_deadline(deadline);
    }

    fn finish(&mut self) -> io::Result<()> {
        (**self).finish()
    }

    fn abort(&mut self) {
        (**self).abort();
    }
}

/// Opens connections.
pub trait Dial: Send + Sync {
    /// Connects to `endpoint` by `deadline`, which then also holds for the stream.
    ///
    /// # Errors
    /// As the network says; [`io::ErrorKind::TimedOut`] after the deadline.
    fn dial(&self, endpoint: &Endpoint, deadline: Moment) -> io::Result<Box<dyn Stream>>;
}

/// Dials by the host's network.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemDial;

impl Dial for SystemDial {
    fn dial(&self, endpoint: &Endpoint, deadline: Moment) -> io::Result<Box<dyn Stream>> {
        let left = time_left(deadline)?;
        match endpoint {
            Endpoint::Address(address) => {
                Ok(accepted(TcpStream::connect_timeout(address, left)?, deadline)?.0)
            }
            Endpoint::Socket(path) => {
                Ok(Box::new(Connection::new(Arc::new(connect_unix(path, left)?), deadline)))
            }
        }
    }
}

/// A server that takes no more connections, and whose backlog is full, would hold us for ever: the
/// timeout for writes ends that wait, so it must be there before the connection is.
fn connect_unix(path: &Path, left: Duration) -> io::Result<Socket> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_write_timeout(Some(left))?;
    socket.connect(&SockAddr::unix(path)?).map_err(timed_out)?;
    Ok(socket)
}

/// Wraps a connected socket, and gives a handle by which another thread can end its reads.
///
/// # Errors
/// When the socket is already gone.
pub fn accepted(stream: TcpStream, deadline: Moment) -> io::Result<(Box<dyn Stream>, Interrupt)> {
    // A reply is one small write and must not wait for the peer's acknowledgement.
    stream.set_nodelay(true)?;
    let socket = Arc::new(Socket::from(stream));
    let interrupt = Interrupt(Arc::downgrade(&socket));
    Ok((Box::new(Connection::new(socket, deadline)), interrupt))
}

/// Wakes the thread that waits for a peer: its reads end as if the peer had hung up. What it
/// writes still goes out, so that it can say why.
#[derive(Debug, Clone)]
pub struct Interrupt(Weak<Socket>);

impl Interrupt {
    /// Ends reading, now and from now on. Nothing happens if the connection is closed already.
    pub fn end_reads(&self) {
        if let Some(socket) = self.0.upgrade() {
            // Fails when the peer is gone, and then there is nothing to end.
            let _ = socket.shutdown(Shutdown::Read);
        }
    }
}

#[derive(Debug)]
struct Connection {
    socket: Arc<Socket>,
    deadline: Moment,
    /// What the system was last told for reads and for writes.
    read_timeout: Duration,
    write_timeout: Duration,
}

impl Connection {
    fn new(socket: Arc<Socket>, deadline: Moment) -> Self {
        Self { socket, deadline, read_timeout: Duration::ZERO, write_timeout: Duration::ZERO }
    }
}

/// The socket's timeout is renewed when it is off by more than this: most reads and writes then cost
/// one system call and not two.
const SLACK: Duration = Duration::from_millis(500);

/// The timeout that the system should have, if it should be told another.
fn renewed(deadline: Moment, told: Duration) -> io::Result<Option<Duration>> {
    let left = time_left(deadline)?;
    let is_close = told >= left && told - left <= SLACK;
    Ok((!is_close).then_some(left))
}

fn time_left(deadline: Moment) -> io::Result<Duration> {
    let left = deadline.since(SystemClock.now());
    if left.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(left) }
}

/// Linux says `WouldBlock` when a socket's timeout is over; we say what it means.
fn timed_out(error: io::Error) -> io::Error {
    if error.kind() == io::ErrorKind::WouldBlock { io::ErrorKind::TimedOut.into() } else { error }
}

impl Read for Connection {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if let Some(timeout) = renewed(self.deadline, self.read_timeout)? {
            self.socket.set_read_timeout(Some(timeout))?;
            self.read_timeout = timeout;
        }
        (&*self.socket).read(buffer).map_err(timed_out)
    }
}

impl Write for Connection {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        if let Some(timeout) = renewed(self.deadline, self.write_timeout)? {
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

    fn finish(&mut self) -> io::Result<()> {
        self.socket.shutdown(Shutdown::Write)
    }

    fn abort(&mut self) {
        // Already closed by the peer is as good.
        let _ = self.socket.shutdown(Shutdown::Both);
    }
}

/// One of this host's own addresses. The system knows them all, whatever they were given by: nobody may
/// bind another.
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
    fn a_peer_that_dribbles_cannot_outlast_the_deadline() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let deadline = SystemClock.now() + Duration::from_millis(200);
        let mut client = SystemDial.dial(&address.into(), deadline).unwrap();
        let (mut server, _) = listener.accept().unwrap();
        let dribble =
            super::super::spawn("dribble", move || while server.write_all(b"x").is_ok() {}).unwrap();
        let mut octet = [0];
        let error = loop {
            if let Err(e) = client.read_exact(&mut octet) {
                break e;
            }
        };
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        drop(client);
        dribble.join().unwrap();
    }

    #[test]
    fn a_unix_socket_is_dialled_like_an_address() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        let listener = UnixListener::bind(&path).unwrap();
        let deadline = SystemClock.now() + Duration::from_secs(60);
        let mut client = SystemDial.dial(&Endpoint::Socket(path), deadline).unwrap();
        let (mut server, _) = listener.accept().unwrap();
        client.write_all(b"ping").unwrap();
        client.finish().unwrap();
        let mut heard = String::new();
        server.read_to_string(&mut heard).unwrap();
        server.write_all(b"pong").unwrap();
        let mut answer = [0; 4];
        client.read_exact(&mut answer).unwrap();
        assert_eq!((heard.as_str(), &answer), ("ping", b"pong"));
    }

    #[test]
    fn a_unix_socket_that_nobody_answers_cannot_outlast_the_deadline() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        let listener = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
        listener.bind(&SockAddr::unix(&path).unwrap()).unwrap();
        listener.listen(0).unwrap();
        let mut waiting = Vec::new();
        let error = loop {
            let deadline = SystemClock.now() + Duration::from_millis(100);
            match SystemDial.dial(&Endpoint::Socket(path.clone()), deadline) {
                Ok(stream) => waiting.push(stream),
                Err(error) => break error,
            }
        };
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        let deadline = SystemClock.now() + Duration::from_millis(100);
        let error = SystemDial.dial(&Endpoint::Socket(dir.path().join("none")), deadline).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }
}
