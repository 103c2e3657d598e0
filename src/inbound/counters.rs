//! What sessions count.

use crate::observe::{Counter, CounterFamily, Metrics};

/// The counters of sessions.
pub struct Counters {
    pub(super) commands: CounterFamily,
    pub(super) replies: CounterFamily,
    pub(super) tls: CounterFamily,
    proxied_connections: CounterFamily,
    pub(super) early_talkers: Counter,
    pub(super) non_smtp_clients: CounterFamily,
    pub(super) messages: Counter,
    pub(super) mail_loops: Counter,
}

impl Counters {
    /// Registers them.
    #[must_use]
    pub fn new(metrics: &Metrics) -> Self {
        Self {
            commands: metrics.counter_family("session_command", "Commands of clients, by verb", "verb"),
            replies: metrics.counter_family("session_reply", "Replies given to clients, by code", "code"),
            tls: metrics.counter_family("session_tls", "TLS handshakes with clients, by result", "result"),
            early_talkers: metrics
                .counter("session_early_talker", "Clients that did not wait for the greeting"),
            proxied_connections: metrics.counter_family(
                "session_proxied",
                "Connections by proxies, by result",
                "result",
            ),
            non_smtp_clients: metrics.counter_family(
                "session_non_smtp_client",
                "Refused clients that do not speak SMTP, by protocol",
                "protocol",
            ),
            messages: metrics.counter("session_message", "Messages taken from clients"),
            mail_loops: metrics.counter("session_mail_loop", "Messages refused as mail loops"),
        }
    }

    pub(super) fn count_proxied(&self, client: &str) {
        self.proxied_connections.add_one(client);
    }
}
