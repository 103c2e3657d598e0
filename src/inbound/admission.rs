//! From an accepted connection to a session.
//!
//! The listener has counted the connection and started its thread. On this thread the header of a proxy is
//! read, which names the client, and a client that sends something before the greeting is refused. The
//! listener itself refuses a connection for which a limit is reached, unless a proxy opened it.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use super::accepted_client::AcceptedClient;
use super::listener_role::ListenerRole;
use super::proxy::{self, ProxyError};
use super::refusal::{Refusal, RefusalStage};
use super::server_settings::server_settings;
use super::services::SessionServices;
use super::session::Session;
use super::session_limits::{LimitReached, SessionLimits};
use crate::observe::RefusalReference;
use crate::smtp::{CommandPaths, Server, ServerAction, SessionEnd};
use crate::sys::Stream;

/// Longest time to send a refusal.
const REFUSAL_TIMEOUT: Duration = Duration::from_millis(200);
/// Octets that are read from an early talker after its refusal.
const EARLY_TALKER_OCTETS_MAX: usize = 4096;
/// Longest time for the header of a proxy: more than one lost packet takes.
const PROXY_HEADER_TIMEOUT: Duration = Duration::from_secs(5);

impl AcceptedClient {
    /// Serves the client of a proxy, from the PROXY header to the end.
    pub(super) fn serve_behind_proxy(mut self) {
        let Some(client) = self.read_proxy_header() else { return };
        let counters = &self.services.counters;
        counters.count_proxied(if client.is_some() { "client" } else { "local" });
        let client = client.map_or(self.peer, canonical_address);
        match self.slot.assign_address(client.ip()) {
            Ok(()) => self.serve(client),
            Err(limit) => {
                let limits = self.slot.limits();
                refuse_at_limit(&mut *self.stream, client, self.role, &self.services, limits, limit);
            }
        }
    }

    /// Serves a client to the end, unless it sends something before the greeting.
    pub(super) fn serve(mut self, client: SocketAddr) {
        if self.is_early_talker(client) {
            self.services.counters.early_talkers.add_one();
            self.refuse_early_talker(client);
            return self.drain();
        }
        Session::new(self, client).run();
    }

    /// RFC 5321 §3.1: the client waits for the greeting; many that only send spam do not. Not checked where
    /// the TLS handshake comes first, and not for networks that the operator trusts.
    fn is_early_talker(&mut self, client: SocketAddr) -> bool {
        let delay = self.settings.greeting_delay;
        if delay.is_zero()
            || self.role != ListenerRole::Smtp
            || self.slot.rate_limits().is_exempt(client.ip())
        {
            return false;
        }
        self.stream.set_deadline(self.services.clock.now() + delay);
        // A timeout and the end of the connection are for the session.
        matches!(self.stream.read(&mut [0]), Ok(1..))
    }

    /// This client has a session slot, so that its refusal is traced like one in a session.
    #[inline(never)]
    fn refuse_early_talker(&mut self, client: SocketAddr) {
        let because = "the client did not wait for the greeting".to_owned();
        let traces = &self.services.traces;
        let reference = traces.new_reference(&*self.services.random);
        let end = SessionEnd::SpokeBeforeGreeting;
        if let Some(refusal) =
            refusal_before_greeting(client, self.role, &self.services, reference, end, because)
        {
            let trace = traces.begin("session", format!("{} {client}", self.role.name()));
            refusal.record(client.ip(), Some(&trace));
            send_refusal(&mut *self.stream, &self.services, &refusal);
        }
    }

    /// Reads for a moment what else the client sends: closing a socket with unread octets resets the
    /// connection, and the client may lose the reply.
    #[inline(never)]
    fn drain(&mut self) {
        self.stream.set_deadline(self.services.clock.now() + REFUSAL_TIMEOUT);
        let mut octets = [0; EARLY_TALKER_OCTETS_MAX];
        if self.stream.shutdown_write().is_ok() {
            let _ = self.stream.read_exact(&mut octets);
        }
    }

    /// The client that the header names; `None` in it if the proxy connects for itself. `None` if there is no
    /// valid header.
    fn read_proxy_header(&mut self) -> Option<Option<SocketAddr>> {
        self.stream.set_deadline(self.services.clock.now() + PROXY_HEADER_TIMEOUT);
        match proxy::read_header(&mut *self.stream) {
            Ok(client) => Some(client),
            // A health check that sends nothing.
            Err(ProxyError::Io(e)) if e.kind() == io::ErrorKind::UnexpectedEof => {
                self.services.counters.count_proxied("closed");
                None
            }
            Err(e) => {
                self.services.counters.count_proxied("rejected");
                log::warn!(
                    target: "proxy", "a connection from the proxy {} to the {} port was dropped: {e}",
                    self.peer, self.role.name()
                );
                None
            }
        }
    }
}

/// The IPv4 address of an IPv4 client of a dual-stack socket, for limits and for the trace.
pub(super) fn canonical_address(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// Refuses a client at a limit. The refusal is in the log if this limit was not logged just
/// now, and in no trace: a flood of such clients would push out all others.
pub(super) fn refuse_at_limit(
    stream: &mut dyn Stream,
    client: SocketAddr,
    role: ListenerRole,
    services: &SessionServices,
    limits: &SessionLimits,
    limit: LimitReached,
) {
    let is_logged = limits.record_refusal(client.ip(), limit);
    // A handshake costs what the limit saves.
    if role.is_implicit_tls() {
        return;
    }
    let because = format!("limits.{} is reached", limit.limit_name());
    let reference = RefusalReference::draw(&*services.random);
    if let Some(refusal) =
        refusal_before_greeting(client, role, services, reference, limit.end_reason(), because)
    {
        if is_logged {
            refusal.record(client.ip(), None);
        }
        send_refusal(stream, services, &refusal);
    }
}

fn refusal_before_greeting(
    client: SocketAddr,
    role: ListenerRole,
    services: &SessionServices,
    reference: RefusalReference,
    end: SessionEnd,
    because: String,
) -> Option<Refusal> {
    let settings = server_settings(services, &services.settings.load(), role, client.ip());
    let mut server = Server::new(settings, None);
    let ServerAction::ReplyAndClose(reply) = server.end(end) else { return None };
    let (stage, subject) = (RefusalStage::Connection, CommandPaths::default());
    Some(Refusal::new(reference, stage, reply, vec![because], subject))
}

fn send_refusal(stream: &mut dyn Stream, services: &SessionServices, refusal: &Refusal) {
    stream.set_deadline(services.clock.now() + REFUSAL_TIMEOUT);
    // The client may be gone already.
    let _ = stream.write_all(&refusal.reply().to_octets());
}
