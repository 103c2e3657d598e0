//! The questions a session may ask.
//!
//! A session knows the protocol and its client; everything else (users, aliases, DNS, what the
//! operator allows) it asks here. Answers carry their reasons, for the log and the trace.

use std::net::IpAddr;

use super::originator_field::OriginatorField;
use crate::mail::{ForwardPath, Mailbox, ReversePath};
use crate::smtp::{SaslCredentials, Verdict};

/// Who asks.
#[derive(Debug, Clone, Copy)]
pub struct ClientContext<'a> {
    /// Where it connects from.
    pub address: IpAddr,
    /// What it calls itself; printable, otherwise unchecked.
    pub hello: &'a str,
    /// TLS is in use.
    pub is_encrypted: bool,
    /// The user of ours that it has proved to be.
    pub login: Option<&'a Mailbox>,
    /// What belongs to its TLS connection and no other (RFC 9266); `None` before TLS 1.3.
    pub channel_binding: Option<&'a [u8]>,
}

/// Everything a session cannot know by itself.
pub trait Policy: Send + Sync {
    /// There are users who could log in, so that AUTH can be offered.
    fn has_logins(&self) -> bool;

    /// Everybody who could log in can do so by SCRAM.
    fn all_have_scram(&self) -> bool;

    /// May this reverse-path send here?
    fn check_sender(&self, client: &ClientContext<'_>, reverse_path: &ReversePath) -> Verdict;

    /// Do we take mail for this forward-path, and who is behind it?
    fn check_recipient(&self, client: &ClientContext<'_>, forward_path: &ForwardPath) -> Verdict;

    /// May this user send a message with this originator field?
    fn check_originator(&self, user: &Mailbox, authorship: &OriginatorField) -> Verdict;

    /// Is this the user?
    fn check_login(&self, client: &ClientContext<'_>, login: &SaslCredentials) -> Verdict;

    /// What does SCRAM need to know of this user, named in the client's words?
    fn scram_start(&self, client: &ClientContext<'_>, user: &str) -> Verdict;
}
