//! From and Sender: the fields that say who wrote and who sent a message (RFC 5322 §3.6.2).

use crate::mail::Mailbox;

/// A From or Sender field of a message, as far as it was understood.
#[derive(Debug)]
pub struct OriginatorField {
    /// The field's name.
    pub name: &'static str,
    /// Whom it names, or why that is not known.
    pub mailboxes: Result<Vec<Mailbox>, String>,
}
