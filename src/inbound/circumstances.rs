//! The circumstances in which the server decides something about a client.
//!
//! A session makes one value for each question. The policy, the hooks, the Received field and the
//! envelope take their facts about the client from it.

use std::net::{IpAddr, SocketAddr};

use crate::mail::{Client, Domain, Mailbox, ReversePath, SenderFacts, TlsInfo};

/// What a session has learned about its client so far.
#[derive(Debug, Clone, Copy)]
pub struct Circumstances<'a> {
    /// The address and port from which the client connects.
    pub peer: SocketAddr,
    /// The address is in `relay.networks`: the client may send to all domains without a login.
    pub is_in_relay_networks: bool,
    /// The name in HELO or EHLO: printable, otherwise unchecked; empty before.
    pub hello: &'a str,
    /// The client has sent EHLO, not HELO.
    pub is_esmtp: bool,
    /// The TLS connection, if there is one.
    pub tls: Option<&'a TlsInfo>,
    /// Data that belong to this TLS connection and to no other (RFC 9266); `None` before TLS 1.3.
    pub channel_binding: Option<&'a [u8]>,
    /// The user that has logged in.
    pub login: Option<&'a Mailbox>,
    /// The reverse-path of the transaction, once MAIL is accepted.
    pub reverse_path: Option<&'a ReversePath>,
    /// What was looked up about the sender, once MAIL is accepted.
    pub sender: Option<&'a SenderFacts>,
}

impl Circumstances<'_> {
    /// A client that has connected from `peer` and has sent nothing.
    #[must_use]
    pub fn at_connection(peer: SocketAddr) -> Self {
        Self {
            peer,
            is_in_relay_networks: false,
            hello: "",
            is_esmtp: false,
            tls: None,
            channel_binding: None,
            login: None,
            reverse_path: None,
            sender: None,
        }
    }

    /// The address from which the client connects.
    #[must_use]
    pub fn address(&self) -> IpAddr {
        self.peer.ip()
    }

    /// The confirmed name of the client's address in DNS, if it was looked up and there is one.
    pub(super) fn reverse_name(&self) -> Option<&Domain> {
        self.sender.and_then(|facts| facts.reverse_name.as_ref())
    }

    /// A message of this client is a submission: it is new, and we are its first server.
    pub(super) fn is_submission(&self) -> bool {
        self.login.is_some() || self.is_in_relay_networks
    }

    /// The part that is stored in the envelope.
    pub(super) fn to_client(self) -> Client {
        Client { address: self.address(), helo_name: self.hello.to_owned(), tls: self.tls.cloned() }
    }
}
