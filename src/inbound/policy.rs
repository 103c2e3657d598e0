//! The questions a session may ask.
//!
//! A session knows the protocol and its client; everything else (users, aliases, DNS, what the
//! operator allows) it asks here. Answers carry their reasons, for the log and the trace.

use super::circumstances::Circumstances;
use super::decision::Decision;
use super::originator_field::OriginatorField;
use crate::mail::{ForwardPath, Mailbox, ReversePath};
use crate::smtp::{SaslCredentials, Verdict};

/// Everything a session cannot know by itself.
pub trait Policy: Send + Sync {
    /// There are users who could log in, so that AUTH can be offered.
    fn has_logins(&self) -> bool;

    /// Everybody who could log in can do so by SCRAM.
    fn all_have_scram(&self) -> bool;

    /// May this reverse-path send here, and what was found out about it? Asks limits first, then the rules
    /// that need no network, then DNS.
    fn check_sender(&self, circumstances: &Circumstances<'_>, reverse_path: &ReversePath) -> Verdict;

    /// Do we take mail for this forward-path, and who is behind it?
    fn check_recipient(&self, circumstances: &Circumstances<'_>, forward_path: &ForwardPath) -> Verdict;

    /// May this user send a message with this originator field?
    fn check_originator(&self, user: &Mailbox, field: &OriginatorField) -> Decision;

    /// Is this the user?
    fn check_login(&self, circumstances: &Circumstances<'_>, login: &SaslCredentials) -> Verdict;

    /// What does SCRAM need to know of this user, named in the client's words?
    fn scram_start(&self, circumstances: &Circumstances<'_>, user: &str) -> Verdict;
}
