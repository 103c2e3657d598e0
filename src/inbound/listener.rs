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
use super::newcomer::{Newcomer, canonical, turn_away};
use super::seldom::Seldom;
use super::session::{Role, Services};
use crate::mail::Network;
use crate::sys::{self, Clock as _, Pulse, Stop, SystemClock, Woken};

/// One listening socket and what is spoken on it.
pub struct Listener {
    /// The socket, bound and listening.
    pub socket: TcpListener,
    /// What is spoken.
    pub role: Role,
    /// Whose connections begin with a PROXY preface.
    pub proxies: Vec<Network>,
    /// By which to see whether this listener is stuck.
    pub pulse: Arc<Pulse>,
    /// Everyone who is inside, shared by all listeners.
    pub doors: Arc<Doors>,
    /// What a session needs.
    pub services: Arc<Services>,
}

/// How long to wait when the host has no descriptors, memory or threads to give.
const BREATH: Duration = Duration::from_millis(100);

impl Listener {
    /// Accepts clients until it is time to stop, whatever the host has no room for meanwhile.
    ///
    /// # Errors
    /// When the socket cannot be used from the first.
    pub fn run(&self, stop: &Stop) -> io::Result<()> {
        self.pulse.works();
        self.socket.set_nonblocking(true)?;
        let mut troubles = Seldom::default();
        loop {
            self.pulse.waits();
            let woken = stop.wait_for(self.socket.as_fd(), None);
            self.pulse.works();
            let accepted = match woken {
                Ok(Woken::Stop) => {
                    self.pulse.waits();
                    return Ok(());
                }
                Ok(Woken::Nothing) => continue,
                Ok(Woken::Ready) => self.socket.accept(),
                Err(e) => Err(e),
            };
            match accepted {
                Ok((stream, address)) => self.welcome(stream, address, stop),
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
                        self.pulse.waits();
                        return Ok(());
                    }
                }
            }
        }
    }

    fn welcome(&self, stream: TcpStream, peer: SocketAddr, stop: &Stop) {
        let peer = canonical(peer);
        let Ok((mut stream, interrupt)) = sys::accepted(stream, SystemClock.now()) else { return };
        let is_proxied = self.proxies.iter().any(|network| network.contains(peer.ip()));
        let admitted = self.doors.enter(interrupt, self.role.name()).and_then(|mut ticket| {
            if !is_proxied {
                ticket.belongs_to(peer.ip())?;
            }
            Ok(ticket)
        });
        let ticket = match admitted {
            Ok(ticket) => ticket,
            Err(full) => {
                self.doors.turned_away(peer.ip(), full);
                return turn_away(&mut *stream, self.role, &self.services, full.end());
            }
        };
        if stop.is_asked() {
            ticket.guest.leave();
        }
        let name = format!("sess-{}", ticket.number());
        let newcomer =
            Newcomer { stream, peer, role: self.role, ticket, services: Arc::clone(&self.services) };
        let serve = move || if is_proxied { newcomer.serve_behind_proxy() } else { newcomer.serve(peer) };
        if let Err(e) = sys::spawn(name, serve) {
            log::error!("cannot start a thread for {peer}: {e}; raise TasksMax if this goes on");
        }
    }
}
