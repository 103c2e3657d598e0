//! What is to be achieved on a connection.

use super::auth::Credentials;
use crate::mail::{Domain, Endpoint, Mailbox, Notify, Ret, ReversePath};

/// Whom a message is for, and what its sender wants to be told (RFC 3461 §4).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannedRecipient {
    /// The forward-path.
    pub mailbox: Mailbox,
    /// NOTIFY.
    pub notify: Notify,
    /// ORCPT, `addr-type;xtext`.
    pub orcpt: Option<String>,
}

impl From<Mailbox> for PlannedRecipient {
    fn from(mailbox: Mailbox) -> Self {
        Self { mailbox, notify: Notify::default(), orcpt: None }
    }
}

/// What one transaction is to achieve, and where.
#[derive(Debug, Clone)]
pub struct Plan {
    /// What is spoken.
    pub protocol: Protocol,
    /// The host's name, or an address literal.
    pub host: Domain,
    /// Where it was dialled.
    pub endpoint: Endpoint,
    /// Our name in EHLO, HELO and LHLO.
    pub hello: Domain,
    /// Where failures are reported.
    pub reverse_path: ReversePath,
    /// Whom the message is for; answers come in the same order.
    pub recipients: Vec<PlannedRecipient>,
    /// RET (RFC 3461 §4.3).
    pub ret: Option<Ret>,
    /// ENVID, as xtext (RFC 3461 §4.4).
    pub envid: Option<String>,
    /// Length of the message in octets, as SIZE counts it (RFC 1870 §5): without stuffed dots.
    pub message_octets: u64,
    /// The message has octets above 127.
    pub has_8bit: bool,
    /// The message's header has octets above 127: only a peer with SMTPUTF8 can take it.
    pub has_utf8_header: bool,
    /// Whether to use TLS.
    pub encryption: Encryption,
    /// What to log in with, before the message is mentioned.
    pub credentials: Option<Credentials>,
}

impl Plan {
    /// The host as it stands in sentences: `mx1.there.example [192.0.2.1]:25`, or a Unix socket.
    #[must_use]
    pub fn peer_description(&self) -> String {
        let Endpoint::Tcp(address) = &self.endpoint else { return self.endpoint.to_string() };
        let (address, port) = (Domain::from(address.ip()), address.port());
        if self.host == address {
            format!("{address}:{port}")
        } else {
            format!("{} {address}:{port}", self.host)
        }
    }

    /// The host as it stands in reports (RFC 3464 §2.3.5).
    pub(super) fn remote_mta_name(&self) -> String {
        if self.host.as_address().is_some() { self.host.to_string() } else { self.host.as_ascii().to_owned() }
    }
}

/// What is spoken with a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// With a server that takes a message for all of its recipients or for none.
    Smtp,
    /// With one that delivers to mailboxes, and answers for each of them (RFC 2033).
    Lmtp,
}

/// Whether a connection is to be encrypted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encryption {
    /// Before the first word (RFC 8314 §3.3).
    ImplicitTls,
    /// STARTTLS if the peer offers it.
    Opportunistic,
    /// Plain text, although the peer may offer more: every handshake has failed.
    Never,
}
