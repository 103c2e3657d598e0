//! Accepts connections and starts a session thread for each, or refuses it at a limit.
//!
//! Each listening socket has one thread, which waits with poll(2) for a client or for the request to stop. It
//! never shuts the socket down: a socket from the service manager is shared with the next process.

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::time::Duration;

use super::accepted_client::AcceptedClient;
use super::admission::{canonical_address, refuse_at_limit};
use super::listener_role::ListenerRole;
use super::log_throttle::LogThrottle;
use super::services::SessionServices;
use super::session_limits::SessionLimits;
use crate::mail::Network;
use crate::sys::{self, Clock as _, StopFlag, SystemClock, ThreadActivity, WaitResult};

/// One listening socket with its role.
pub struct Listener {
    /// The socket, bound and listening.
    pub socket: TcpListener,
    /// The protocol on this socket.
    pub role: ListenerRole,
    /// Proxies, whose connections begin with a PROXY header.
    pub proxy_networks: Vec<Network>,
    /// Shows whether this listener is stuck.
    pub pulse: Arc<ThreadActivity>,
    /// The sessions of all listeners.
    pub session_limits: Arc<SessionLimits>,
    /// What all sessions share.
    pub services: Arc<SessionServices>,
}

/// The pause when the host has no descriptors, memory or threads left.
const ACCEPT_RETRY_DELAY: Duration = Duration::from_millis(100);

impl Listener {
    /// Accepts clients until the server stops. A lack of descriptors or threads does not end it.
    ///
    /// # Errors
    /// The socket cannot be used.
    pub fn run(&self, stop: &StopFlag) -> io::Result<()> {
        self.pulse.set_busy();
        self.socket.set_nonblocking(true)?;
        let mut accept_errors = LogThrottle::default();
        loop {
            self.pulse.set_idle();
            let wait_result = stop.wait_until_readable(self.socket.as_fd(), None);
            self.pulse.set_busy();
            let accepted = match wait_result {
                Ok(WaitResult::StopRequested) => {
                    self.pulse.set_idle();
                    return Ok(());
                }
                Ok(WaitResult::TimedOut) => continue,
                Ok(WaitResult::Ready) => self.socket.accept(),
                Err(e) => Err(e),
            };
            match accepted {
                Ok((stream, address)) => self.start_session(stream, address, stop),
                Err(e)
                    if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::ConnectionAborted) => {}
                Err(e) => {
                    if let Some(times) = accept_errors.record(SystemClock.now()) {
                        log::error!(
                            "cannot accept on the {} port ({times} times): {e}; raise LimitNOFILE if this \
                             goes on",
                            self.role.name()
                        );
                    }
                    if stop.wait(ACCEPT_RETRY_DELAY) {
                        self.pulse.set_idle();
                        return Ok(());
                    }
                }
            }
        }
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
        let name = format!("sess-{}", slot.number());
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
