//! Accepts clients on one listening socket, refuses them when a limit is reached, and starts a session
//! thread for each.
//!
//! One thread runs for each socket.

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;

use super::accepted_client::AcceptedClient;
use super::admission::{canonical_address, refuse_at_limit};
use super::listener_role::ListenerRole;
use super::services::SessionServices;
use super::session_limits::SessionLimits;
use crate::mail::Network;
use crate::sys::{self, AcceptLoop, Clock as _, StopFlag, SystemClock, ThreadActivity};

/// One listening socket.
pub struct Listener {
    /// The socket, bound and listening.
    pub socket: TcpListener,
    /// The protocol, and what its clients may do.
    pub role: ListenerRole,
    /// Networks whose connections begin with a PROXY header.
    pub proxy_networks: Vec<Network>,
    /// Shows the watchdog whether this listener is stuck.
    pub activity: Arc<ThreadActivity>,
    /// Limits on sessions, shared by all listeners.
    pub session_limits: Arc<SessionLimits>,
    /// The services that every session uses.
    pub services: Arc<SessionServices>,
}

impl Listener {
    /// Accepts clients until the server stops.
    ///
    /// # Errors
    /// When the socket cannot be used at all.
    pub fn run(&self, stop: &StopFlag) -> io::Result<()> {
        self.activity.set_busy();
        let name = format!("the {} port", self.role.name());
        let mut clients = AcceptLoop::new(&self.socket, stop, name)?.with_activity(&self.activity);
        while let Some((stream, address)) = clients.next_client() {
            self.start_session(stream, address, stop);
        }
        Ok(())
    }

    fn start_session(&self, stream: TcpStream, peer: SocketAddr, stop: &StopFlag) {
        let peer = canonical_address(peer);
        let Ok((mut stream, interrupt)) = sys::interruptible_stream(stream, SystemClock.now()) else {
            return;
        };
        let is_proxied = self.proxy_networks.iter().any(|network| network.contains(peer.ip()));
        let admitted = self.session_limits.admit(interrupt, self.role.name()).and_then(|mut slot| {
            if !is_proxied {
                slot.assign_address(peer.ip())?;
            }
            Ok(slot)
        });
        let slot = match admitted {
            Ok(slot) => slot,
            Err(limit) => {
                let limits = &self.session_limits;
                return refuse_at_limit(&mut *stream, peer, self.role, &self.services, limits, limit);
            }
        };
        if stop.is_raised() {
            slot.handle.stop();
        }
        let name = format!("session-{}", slot.number());
        let client = AcceptedClient {
            stream,
            peer,
            role: self.role,
            slot,
            services: Arc::clone(&self.services),
            settings: self.services.settings.load_full(),
        };
        let serve = move || if is_proxied { client.serve_behind_proxy() } else { client.serve(peer) };
        if let Err(e) = sys::spawn(name, serve) {
            log::error!("cannot start a thread for {peer}: {e}; raise TasksMax if this goes on");
        }
    }
}
