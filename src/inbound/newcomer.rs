//! From an accepted connection to a session: who is it, and is there room for it?
//!
//! The listener counts a connection in and gives it a thread; here, on that thread, a proxy says whom
//! it brings, and whoever has no place hears why before anything else is spoken.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use super::doors::Ticket;
use super::proxy::{self, ProxyError};
use super::session::{Role, Services, Session};
use crate::smtp::{Action, End, Server};
use crate::sys::Stream;

/// How long a refused client may take to hear why.
const REFUSAL_PATIENCE: Duration = Duration::from_millis(200);
/// How long a proxy may take to say whom it brings; more than one lost packet takes.
const PREFACE_PATIENCE: Duration = Duration::from_secs(5);

/// A connection that has a place in the house and has not spoken yet.
pub(super) struct Newcomer {
    pub(super) stream: Box<dyn Stream>,
    /// The socket's.
    pub(super) peer: SocketAddr,
    pub(super) role: Role,
    pub(super) ticket: Ticket,
    pub(super) services: Arc<Services>,
}

impl Newcomer {
    /// Serves a client that a proxy brings, from the preface to the end.
    pub(super) fn serve_behind_proxy(mut self) {
        let Some(client) = self.preface() else { return };
        let counters = &self.services.counters;
        counters.proxied(if client.is_some() { "client" } else { "itself" });
        let client = client.map_or(self.peer, canonical);
        match self.ticket.belongs_to(client.ip()) {
            Ok(()) => self.serve(client),
            Err(full) => {
                self.ticket.doors().turned_away(client.ip(), full);
                turn_away(self.stream, self.role, &self.services);
            }
        }
    }

    /// Serves a client to the end.
    pub(super) fn serve(self, client: SocketAddr) {
        Session::new(self.stream, client, self.role, self.ticket, self.services).run();
    }

    /// Whom the proxy brings, if it says so; `None` if what it says is of no use.
    fn preface(&mut self) -> Option<Option<SocketAddr>> {
        self.stream.set_deadline(self.services.clock.now() + PREFACE_PATIENCE);
        match proxy::read(&mut *self.stream) {
            Ok(client) => Some(client),
            // Only looks whether we are there.
            Err(ProxyError::Io(e)) if e.kind() == io::ErrorKind::UnexpectedEof => {
                self.services.counters.proxied("nobody");
                None
            }
            Err(e) => {
                self.services.counters.proxied("dropped");
                log::warn!(
                    target: "proxy", "a connection from the proxy {} to the {} port was dropped: {e}",
                    self.peer, self.role.name()
                );
                None
            }
        }
    }
}

/// An IPv4 client of a dual-stack socket is that IPv4 client, for limits and for the trace.
pub(super) fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// Tells a client why there is no place for it, where it can be told: the handshake is what the limit
/// saves us.
pub(super) fn turn_away(mut stream: Box<dyn Stream>, role: Role, services: &Services) {
    if role.is_tls_from_the_start() {
        return;
    }
    let mut server = Server::new(services.machine_settings(role), None);
    if let Action::ReplyAndClose(reply) = server.end(End::TooManySessions) {
        stream.set_deadline(services.clock.now() + REFUSAL_PATIENCE);
        // Whether the client listens is its own business.
        let _ = stream.write_all(&reply.to_octets());
    }
}
