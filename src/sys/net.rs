//! Connections with a deadline.
//!
//! A timeout for each read is not enough: a peer that sends one octet a second would hold a
//! session for ever. Every stream has a deadline, and each read or write waits for what is left.

use std::fmt::Debug;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::{Arc, Weak};
use std::time::Duration;

use super::clock::{Clock as _, Moment, SystemClock};

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

    /// The address of the other side; for a stand-in, whatever the test says.
    fn peer(&self) -> SocketAddr;
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

    fn peer(&self) -> SocketAddr {
        (**self).peer()
    }
}

/// Opens connections.
pub trait Dial: Send + Sync {
    /// Connects to `address` by `deadline`, which then also holds for the stream.
    ///
    /// # Errors
    /// As the network says; [`io::ErrorKind::TimedOut`] after the deadline.
    fn dial(&self, address: SocketAddr, deadline: Moment) -> io::Result<Box<dyn Stream>>;
}

/// Dials by TCP.
#[derive(Debug, Clone, Copy, Default)]
pub struct TcpDial;

impl Dial for TcpDial {
    fn dial(&self, address: SocketAddr, deadline: Moment) -> io::Result<Box<dyn Stream>> {
        let left = time_left(deadline)?;
        let stream = TcpStream::connect_timeout(&address, left)?;
        Ok(accepted(stream, deadline)?.0)
    }
}

/// Wraps a connected socket, and gives a handle by which another thread can end its reads.
///
/// # Errors
/// When the socket is already gone.
pub fn accepted(stream: TcpStream, deadline: Moment) -> io::Result<(Box<dyn Stream>, Interrupt)> {
    // A reply is one small write and must not wait for the peer's acknowledgement.
    stream.set_nodelay(true)?;
    let peer = stream.peer_addr()?;
    let stream = Arc::new(stream);
    let interrupt = Interrupt(Arc::downgrade(&stream));
    Ok((
        Box::new(TcpConnection {
            stream,
            peer,
            deadline,
            read_timeout: Duration::ZERO,
            write_timeout: Duration::ZERO,
        }),
        interrupt,
    ))
}

/// Wakes the thread that waits for a peer: its reads end as if the peer had hung up. What it
/// writes still goes out, so that it can say why.
#[derive(Debug, Clone)]
pub struct Interrupt(Weak<TcpStream>);

impl Interrupt {
    /// Ends reading, now and from now on. Nothing happens if the connection is closed already.
    pub fn end_reads(&self) {
        if let Some(stream) = self.0.upgrade() {
            // Fails when the peer is gone, and then there is nothing to end.
            let _ = stream.shutdown(Shutdown::Read);
        }
    }
}

#[derive(Debug)]
struct TcpConnection {
    stream: Arc<TcpStream>,
    peer: SocketAddr,
    deadline: Moment,
    /// What the system was last told for reads and for writes.
    read_timeout: Duration,
    write_timeout: Duration,
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

impl Read for TcpConnection {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if let Some(timeout) = renewed(self.deadline, self.read_timeout)? {
            self.stream.set_read_timeout(Some(timeout))?;
            self.read_timeout = timeout;
        }
        (&*self.stream).read(buffer).map_err(timed_out)
    }
}

impl Write for TcpConnection {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        if let Some(timeout) = renewed(self.deadline, self.write_timeout)? {
            self.stream.set_write_timeout(Some(timeout))?;
            self.write_timeout = timeout;
        }
        (&*self.stream).write(octets).map_err(timed_out)
    }

    fn flush(&mut self) -> io::Result<()> {
        (&*self.stream).flush()
    }
}

impl Stream for TcpConnection {
    fn set_deadline(&mut self, deadline: Moment) {
        self.deadline = deadline;
    }

    fn finish(&mut self) -> io::Result<()> {
        self.stream.shutdown(Shutdown::Write)
    }

    fn abort(&mut self) {
        // Already closed by the peer is as good.
        let _ = self.stream.shutdown(Shutdown::Both);
    }

    fn peer(&self) -> SocketAddr {
        self.peer
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn a_peer_that_dribbles_cannot_outlast_the_deadline() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let deadline = SystemClock.now() + Duration::from_millis(200);
        let mut client = TcpDial.dial(address, deadline).unwrap();
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
}
