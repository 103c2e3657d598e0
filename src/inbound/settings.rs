//! The settings of a session.

use std::net::IpAddr;
use std::time::Duration;

use crate::mail::{Domain, Network};
use crate::smtp::BareLineEndPolicy;

/// The settings of every session.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Our name.
    pub hostname: Domain,
    /// Largest message taken, in octets (RFC 1870 §5).
    pub message_octets_max: u64,
    /// Forward-paths in one transaction.
    pub recipients_max: usize,
    /// Clients whose lone CRs and LFs in a message are mended, see [`LineEnds::Mended`]; all others'
    /// are refused.
    pub line_end_repair_networks: Vec<Network>,
    /// Received fields in a message before it is a loop (RFC 5321 §6.3).
    pub received_max: usize,
    /// Clients whose messages are submissions without a login.
    pub relay_networks: Vec<Network>,
    /// Replies 5yz between two messages before we hang up.
    pub errors_max: u32,
    /// Wait before the greeting on the smtp port, for clients that do not; zero is not at all.
    pub greeting_delay: Duration,
    /// Wait for a whole command, or for some octets of a message, or for a handshake (at most a minute).
    pub command_timeout: Duration,
    /// A whole message must arrive within this.
    pub message_timeout: Duration,
    /// A whole session.
    pub session_timeout: Duration,
}

impl Settings {
    /// The client may send to all domains without a login.
    pub(super) fn is_in_relay_networks(&self, client: IpAddr) -> bool {
        self.relay_networks.iter().any(|network| network.contains(client))
    }

    pub(super) fn line_ends_for(&self, client: IpAddr) -> BareLineEndPolicy {
        match self.line_end_repair_networks.iter().any(|network| network.contains(client)) {
            true => BareLineEndPolicy::Normalize,
            false => BareLineEndPolicy::Reject,
        }
    }
}
