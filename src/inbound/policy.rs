//! The questions that a session asks.
//!
//! A session has the protocol and the facts about its client. Users, aliases, DNS and the rules of the operator
//! are behind this interface. Answers carry their reasons, for the log and the trace.

use super::circumstances::Circumstances;
use super::decision::Decision;
use super::originator_field::OriginatorField;
use crate::mail::{ForwardPath, Mailbox, ReversePath};
use crate::smtp::{SaslCredentials, Verdict};

/// The rules of the server, as a session asks for them.
pub trait Policy: Send + Sync {
    /// There are users who can log in, so that AUTH can be offered.
    fn has_logins(&self) -> bool;

    /// Every user who can log in has SCRAM keys.
    fn all_have_scram(&self) -> bool;

    /// Whether the reverse-path may send here, and what was found out about the sender. Asks limits first,
    /// then the rules that need no network, then DNS.
    fn check_sender(&self, circumstances: &Circumstances<'_>, reverse_path: &ReversePath) -> Verdict;

    /// Whether mail for the forward-path is accepted, and its recipients after aliases.
    fn check_recipient(&self, circumstances: &Circumstances<'_>, forward_path: &ForwardPath) -> Verdict;

    /// Whether the user may send a message with this originator field.
    fn check_originator(&self, user: &Mailbox, field: &OriginatorField) -> Decision;

    /// Whether the credentials are right.
    fn check_login(&self, circumstances: &Circumstances<'_>, login: &SaslCredentials) -> Verdict;

    /// The data for a SCRAM exchange with the user, whose name is as the client wrote it.
    fn scram_start(&self, circumstances: &Circumstances<'_>, user: &str) -> Verdict;
}
