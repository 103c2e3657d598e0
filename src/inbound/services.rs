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

/// What a session needs of the house. Shared by all of them.
pub struct SessionServices {
    /// The settings. A session reads them once, when it begins.
    pub settings: Arc<ArcSwap<Settings>>,
    /// Answers what a session cannot know.
    pub policy: Arc<dyn Policy>,
    /// The operator's own rules.
    pub hooks: SessionHooks,
    /// Where messages go.
    pub queue: queue::Handle,
    /// Encrypts.
    pub tls: TlsServer,
    /// The clock of all deadlines.
    pub clock: Arc<dyn Clock>,
    /// Draws the references of refusals.
    pub random: Arc<dyn Random>,
    /// Remembers what sessions did.
    pub traces: Arc<Traces>,
    /// Counts.
    pub counters: Counters,
}
