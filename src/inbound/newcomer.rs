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
/// Octets of an early talker that are read after its refusal.
const HEARD_OUT_OCTETS: usize = 4096;
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
                turn_away(&mut *self.stream, self.role, &self.services, full.end());
            }
        }
    }

    /// Serves a client to the end, unless it speaks before it is greeted.
    pub(super) fn serve(mut self, client: SocketAddr) {
        if self.speaks_first(client) {
            self.services.counters.early_talkers.add_one();
            turn_away(&mut *self.stream, self.role, &self.services, End::SpokeFirst);
            return self.hear_out();
        }
        Session::new(self.stream, client, self.role, self.ticket, self.services).run();
    }

    /// RFC 5321 §3.1: the client waits for the greeting; many that only send spam do not. Not where the
    /// handshake comes first, nor from those whom the operator trusts.
    fn speaks_first(&mut self, client: SocketAddr) -> bool {
        let delay = self.services.settings.greeting_delay;
        if delay.is_zero() || self.role != Role::Smtp || self.ticket.rates().is_exempt(client.ip()) {
            return false;
        }
        self.stream.set_deadline(self.services.clock.now() + delay);
        // Nothing, and the end of everything, are for the session to find out.
        matches!(self.stream.read(&mut [0]), Ok(1..))
    }

    /// Reads what else the client says, for a moment: a socket that is closed with octets unread may take
    /// our last reply with it.
    #[inline(never)]
    fn hear_out(&mut self) {
        self.stream.set_deadline(self.services.clock.now() + REFUSAL_PATIENCE);
        let mut octets = [0; HEARD_OUT_OCTETS];
        if self.stream.finish().is_ok() {
            let _ = self.stream.read_exact(&mut octets);
        }
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
pub(super) fn turn_away(stream: &mut dyn Stream, role: Role, services: &Services, why: End) {
    if role.is_tls_from_the_start() {
        return;
    }
    let mut server = Server::new(services.machine_settings(role), None);
    if let Action::ReplyAndClose(reply) = server.end(why) {
        stream.set_deadline(services.clock.now() + REFUSAL_PATIENCE);
        // Whether the client listens is its own business.
        let _ = stream.write_all(&reply.to_octets());
    }
}
