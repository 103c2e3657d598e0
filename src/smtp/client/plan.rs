//! What a connection is for: the message, the recipients and the host.

use super::auth::Credentials;
use crate::mail::{Domain, Endpoint, Mailbox, Notify, Ret, ReversePath};

/// A recipient, and the reports that the sender asked for (RFC 3461 §4).
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

/// One message for one host.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The protocol.
    pub protocol: Protocol,
    /// The host's name, or an address literal.
    pub host: Domain,
    /// The address that was connected to.
    pub endpoint: Endpoint,
    /// The name of this server in EHLO, HELO and LHLO.
    pub hello: Domain,
    /// Where failures are reported.
    pub reverse_path: ReversePath,
    /// The recipients; results have the same order.
    pub recipients: Vec<PlannedRecipient>,
    /// RET (RFC 3461 §4.3).
    pub ret: Option<Ret>,
    /// ENVID, as xtext (RFC 3461 §4.4).
    pub envid: Option<String>,
    /// Length of the message in octets, as SIZE counts it (RFC 1870 §5): without stuffed dots.
    pub message_octets: u64,
    /// The message has octets above 127.
    pub has_8bit: bool,
    /// The header of the message has octets above 127: only a peer with SMTPUTF8 can take it.
    pub has_utf8_header: bool,
    /// Whether to use TLS.
    pub encryption: Encryption,
    /// The credentials to log in with before the transaction.
    pub credentials: Option<Credentials>,
}

impl Plan {
    /// The host for sentences: `mx1.there.example [192.0.2.1]:25`, or a Unix socket.
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

    /// The host for bounces (RFC 3464 §2.3.5).
    pub(super) fn remote_mta_name(&self) -> String {
        if self.host.as_address().is_some() { self.host.to_string() } else { self.host.as_ascii().to_owned() }
    }
}

/// The protocol of a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// One reply to the final dot, for all recipients.
    Smtp,
    /// One reply to the final dot for each accepted recipient (RFC 2033).
    Lmtp,
}

/// Whether a connection is to be encrypted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encryption {
    /// TLS from the first octet (RFC 8314 §3.3).
    ImplicitTls,
    /// STARTTLS if the peer offers it.
    Opportunistic,
    /// Plain text, even if the peer offers STARTTLS, because every handshake with it has failed.
    Never,
}
