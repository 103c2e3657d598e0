//! What sessions share: one value for all of them.

use std::sync::Arc;

use super::counters::Counters;
use super::listener_role::ListenerRole;
use super::policy::Policy;
use super::session_hooks::SessionHooks;
use super::settings::Settings;
use crate::observe::Traces;
use crate::queue;
use crate::smtp::{self, BareLineEndPolicy};
use crate::sys::{Clock, Random};
use crate::tls::TlsServer;

/// What a session needs of the house. Shared by all of them.
pub struct SessionServices {
    /// Limits and names.
    pub settings: Settings,
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

impl SessionServices {
    /// What the machine needs to know of the house, for a session that begins now.
    pub(super) fn server_settings(&self, role: ListenerRole) -> smtp::Settings {
        smtp::Settings {
            hostname: self.settings.hostname.clone(),
            kind: role.kind(),
            message_octets_max: self.settings.message_octets_max,
            recipients_max: self.settings.recipients_max,
            bare_line_ends: BareLineEndPolicy::Reject,
            has_tls: self.tls.is_available(),
            has_users: self.policy.has_logins(),
            has_scram: self.policy.all_have_scram(),
            errors_max: self.settings.errors_max,
        }
    }
}
