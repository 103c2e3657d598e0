//! Accepts, refuses when full, and starts a session thread.
//!
//! One thread for each listening socket. It waits for a client or for the request to stop by
//! poll(2), never by shutting the socket down: a socket that the service manager lent us is shared
//! with our successor.

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::time::Duration;

use super::doors::Doors;
use super::session::{Role, Services, Session};
use crate::smtp::{Action, End, Server};
use crate::sys::{self, Clock as _, Moment, Stop, Stream, SystemClock, Woken};

/// One listening socket and what is spoken on it.
pub struct Listener {
    /// The socket, bound and listening.
    pub socket: TcpListener,
    /// What is spoken.
    pub role: Role,
    /// Everyone who is inside, shared by all listeners.
    pub doors: Arc<Doors>,
    /// What a session needs.
    pub services: Arc<Services>,
}

/// How long to wait when the host has no descriptors, memory or threads to give.
const BREATH: Duration = Duration::from_millis(100);
/// How long a refused client may take to hear why.
const REFUSAL_PATIENCE: Duration = Duration::from_millis(200);
/// What happens to many clients is logged once in this time.
const LOG_INTERVAL: Duration = Duration::from_secs(1);

/// Something that is not logged each time that it happens: a flood would flood the log too.
#[derive(Debug, Default)]
struct Seldom {
    said: Option<Moment>,
    unsaid: u64,
}

impl Seldom {
    /// It happened; how often since it was last said, if it is to be said now.
    fn happened(&mut self, now: Moment) -> Option<u64> {
        self.unsaid += 1;
        if self.said.is_some_and(|said| now.since(said) < LOG_INTERVAL) {
            return None;
        }
        self.said = Some(now);
        Some(std::mem::take(&mut self.unsaid))
    }
}

impl Listener {
    /// Accepts clients until it is time to stop, whatever the host has no room for meanwhile.
    ///
    /// # Errors
    /// When the socket cannot be used from the first.
    pub fn run(&self, stop: &Stop) -> io::Result<()> {
        self.socket.set_nonblocking(true)?;
        let mut refusals = Seldom::default();
        let mut troubles = Seldom::default();
        loop {
            let accepted = match stop.wait_for(self.socket.as_fd(), None) {
                Ok(Woken::Stop) => return Ok(()),
                Ok(Woken::Nothing) => continue,
                Ok(Woken::Ready) => self.socket.accept(),
                Err(e) => Err(e),
            };
            match accepted {
                Ok((stream, address)) => self.welcome(stream, address, stop, &mut refusals),
                Err(e)
                    if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::ConnectionAborted) => {}
                Err(e) => {
                    if let Some(times) = troubles.happened(SystemClock.now()) {
                        log::error!(
                            "cannot accept on the {} port ({times} times): {e}; raise LimitNOFILE if this \
                             goes on",
                            self.role.name()
                        );
                    }
                    if stop.wait(BREATH) {
                        return Ok(());
                    }
                }
            }
        }
    }

    fn welcome(&self, stream: TcpStream, address: SocketAddr, stop: &Stop, refusals: &mut Seldom) {
        let deadline = SystemClock.now() + REFUSAL_PATIENCE;
        let Ok((stream, interrupt)) = sys::accepted(stream, deadline) else { return };
        // An IPv4 client of a dual-stack socket is that IPv4 client, for limits and for the trace.
        let address = SocketAddr::new(address.ip().to_canonical(), address.port());
        let ticket = match self.doors.enter(address.ip(), interrupt, self.role.name()) {
            Ok(ticket) => ticket,
            Err(full) => {
                if let Some(times) = refusals.happened(SystemClock.now()) {
                    log::warn!("{address} refused: limits.{} is reached ({times} refused)", full.limit());
                }
                return self.refuse(stream);
            }
        };
        if stop.is_asked() {
            ticket.guest.leave();
        }
        let name = format!("sess-{}", ticket.number());
        let session = Session::new(stream, address, self.role, ticket, Arc::clone(&self.services));
        if let Err(e) = sys::spawn(name, move || session.run()) {
            log::error!("cannot start a thread for {address}: {e}; raise TasksMax if this goes on");
        }
    }

    fn refuse(&self, mut stream: Box<dyn Stream>) {
        if self.role.is_tls_from_the_start() {
            return;
        }
        let mut server = Server::new(self.services.machine_settings(self.role), None);
        if let Action::ReplyAndClose(reply) = server.end(End::TooManySessions) {
            // Whether the client listens is its own business.
            let _ = stream.write_all(&reply.to_octets());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_said_once_a_second_with_how_much_it_was() {
        let mut flood = Seldom::default();
        let at = |millis| Moment::new(Duration::from_millis(millis));
        let said: Vec<_> = (0..2500).step_by(10).filter_map(|millis| flood.happened(at(millis))).collect();
        assert_eq!(said, [1, 100, 100]);
    }
}
