//! From and Sender: the fields that say who wrote and who sent a message (RFC 5322 §3.6.2).

use crate::mail::Mailbox;

/// A From or Sender field of a message.
#[derive(Debug)]
pub struct OriginatorField {
    /// The field's name.
    pub name: &'static str,
    /// Its mailboxes, or the reason why they are not clear.
    pub mailboxes: Result<Vec<Mailbox>, String>,
}
