//! The settings of a session.

use std::net::IpAddr;
use std::time::Duration;

use crate::mail::{Domain, Network};
use crate::smtp::BareLineEndPolicy;

/// The settings of every session.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The name of this server.
    pub hostname: Domain,
    /// Largest message that is accepted, in octets (RFC 1870 §5).
    pub message_octets_max: u64,
    /// Forward-paths in one transaction.
    pub recipients_max: usize,
    /// Clients whose messages may have a CR or LF alone, which is repaired
    /// ([`BareLineEndPolicy::Normalize`]); from all other clients it is refused.
    pub line_end_repair_networks: Vec<Network>,
    /// Received fields in a message before it is a loop (RFC 5321 §6.3).
    pub received_max: usize,
    /// Clients that may send to all domains without a login, and whose messages are submissions.
    pub relay_networks: Vec<Network>,
    /// 5yz replies between two messages, after which the server ends the session.
    pub errors_max: u32,
    /// Pause before the greeting on the smtp port, in which an early talker shows; zero for none.
    pub greeting_delay: Duration,
    /// Time for a whole command, for some octets of a message, or for a handshake (at most a minute).
    pub command_timeout: Duration,
    /// Time for a whole message.
    pub message_timeout: Duration,
    /// Time for a whole session.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ipv4_client_of_a_dual_stack_socket_is_in_its_ipv4_network() {
        let settings = Settings {
            hostname: Domain::parse("here.example").unwrap(),
            message_octets_max: 0,
            recipients_max: 1,
            line_end_repair_networks: vec!["192.0.2.0/25".parse().unwrap()],
            received_max: 1,
            relay_networks: vec!["192.0.2.0/24".parse().unwrap()],
            errors_max: 1,
            greeting_delay: Duration::ZERO,
            command_timeout: Duration::ZERO,
            message_timeout: Duration::ZERO,
            session_timeout: Duration::ZERO,
        };
        for (client, may_relay, line_ends) in [
            ("192.0.2.9", true, BareLineEndPolicy::Normalize),
            ("::ffff:192.0.2.9", true, BareLineEndPolicy::Normalize),
            ("192.0.2.200", true, BareLineEndPolicy::Reject),
            ("198.51.100.1", false, BareLineEndPolicy::Reject),
        ] {
            let client = client.parse().unwrap();
            assert_eq!(settings.is_in_relay_networks(client), may_relay, "{client}");
            assert_eq!(settings.line_ends_for(client), line_ends, "{client}");
        }
    }
}
