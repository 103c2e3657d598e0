//! What sessions share: one value for all of them.

use std::sync::Arc;

use arc_swap::ArcSwap;

use super::counters::Counters;
use super::policy::Policy;
use super::session_hooks::SessionHooks;
use super::settings::Settings;
use crate::observe::Traces;
use crate::queue;
use crate::sys::{Clock, Random};
use crate::tls::TlsServer;

/// The services that all sessions share.
pub struct SessionServices {
    /// The settings. A session reads them once, when it begins.
    pub settings: Arc<ArcSwap<Settings>>,
    /// The rules of the server.
    pub policy: Arc<dyn Policy>,
    /// The operator's programs.
    pub hooks: SessionHooks,
    /// The queue for accepted messages.
    pub queue: queue::Handle,
    /// Makes TLS handshakes.
    pub tls: TlsServer,
    /// The clock of all deadlines.
    pub clock: Arc<dyn Clock>,
    /// Draws the references of refusals.
    pub random: Arc<dyn Random>,
    /// The traces of sessions.
    pub traces: Arc<Traces>,
    /// The counters of sessions.
    pub counters: Counters,
}
