//! Settings of the SMTP courier: those that the operator may change, and timeouts that only tests change.

use std::net::SocketAddr;
use std::time::Duration;

use crate::mail::{Domain, Via};
use crate::smtp::client::Wait;

/// Settings of the SMTP courier.
#[derive(Debug, Clone)]
pub struct Settings {
    /// TCP port of MX hosts, and of named hosts without a port of their own. Default: 25.
    pub port: u16,
    /// The name in EHLO.
    pub hello_mode: HelloMode,
    /// Hosts that take all mail, instead of MX hosts. Default: none.
    pub via: Option<Via>,
    /// This host's qualified name.
    pub hostname: Domain,
    /// The addresses at which this host takes mail in: an MX host there is this host. An unspecified address
    /// means every address of this host.
    pub listen_addresses: Vec<SocketAddr>,
    /// How long to wait for each step.
    pub timeouts: Timeouts,
    /// Messages on one connection at most. Default: 100; with 1 no connection is kept.
    pub messages_per_connection_max: u32,
}

impl Settings {
    /// The defaults, for a host of this qualified name.
    #[must_use]
    pub fn new(hostname: Domain) -> Self {
        Self {
            listen_addresses: Vec::new(),
            port: 25,
            hello_mode: HelloMode::default(),
            via: None,
            hostname,
            timeouts: Timeouts::default(),
            messages_per_connection_max: 100,
        }
    }
}

/// Which name stands in EHLO.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum HelloMode {
    /// The reverse-path's domain if it is local, else the host's name: mail of each domain goes out under
    /// its own name.
    #[default]
    SenderDomain,
    /// Always the host's name: for hosts whose address is compared with it.
    Hostname,
}

/// How long to wait for each step. The defaults are those of RFC 5321 §4.5.3.2 where it names one.
#[derive(Debug, Clone)]
pub struct Timeouts {
    /// For a connection. Default: 30 seconds.
    pub connect: Duration,
    /// No further address is tried after this part of an attempt, so that a domain whose hosts are all
    /// down does not hold a delivery thread longer. Default: 3 minutes.
    pub host_search: Duration,
    /// For a TLS handshake. Default: 1 minute.
    pub handshake: Duration,
    /// For the greeting. Default: 5 minutes.
    pub greeting: Duration,
    /// For the reply to EHLO, HELO or STARTTLS. Default: 5 minutes.
    pub hello: Duration,
    /// For the reply to MAIL. Default: 5 minutes.
    pub mail: Duration,
    /// For the reply to RCPT. Default: 5 minutes.
    pub rcpt: Duration,
    /// For the reply to DATA. Default: 2 minutes.
    pub data: Duration,
    /// For the peer to take one block of the message. Default: 3 minutes.
    pub write_block: Duration,
    /// For the reply to the final dot. Default: 10 minutes.
    pub final_dot: Duration,
    /// For the reply to QUIT, and for a reply that explains why a peer stopped reading; no outcome depends
    /// on either. Default: 1 second.
    pub quit: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        const MINUTE: Duration = Duration::from_secs(60);
        Self {
            connect: MINUTE / 2,
            host_search: MINUTE * 3,
            handshake: MINUTE,
            greeting: MINUTE * 5,
            hello: MINUTE * 5,
            mail: MINUTE * 5,
            rcpt: MINUTE * 5,
            data: MINUTE * 2,
            write_block: MINUTE * 3,
            final_dot: MINUTE * 10,
            quit: Duration::from_secs(1),
        }
    }
}

impl Timeouts {
    pub(super) const fn for_reply_to(&self, wait: Wait) -> Duration {
        match wait {
            Wait::Greeting => self.greeting,
            Wait::Hello => self.hello,
            Wait::Mail => self.mail,
            Wait::Rcpt => self.rcpt,
            Wait::Data => self.data,
            Wait::Dot => self.final_dot,
        }
    }
}
