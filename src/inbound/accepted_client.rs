//! A connection that is accepted and counted; nothing was sent yet.

use std::net::SocketAddr;
use std::sync::Arc;

use super::listener_role::ListenerRole;
use super::services::SessionServices;
use super::session_limits::SessionSlot;
use super::settings::Settings;
use crate::sys::Stream;

/// All that a session begins with.
pub(super) struct AcceptedClient {
    pub(super) stream: Box<dyn Stream>,
    /// The other end of the socket: the client, or a proxy.
    pub(super) peer: SocketAddr,
    pub(super) role: ListenerRole,
    pub(super) slot: SessionSlot,
    pub(super) services: Arc<SessionServices>,
    /// The settings for all of the session.
    pub(super) settings: Arc<Settings>,
}
