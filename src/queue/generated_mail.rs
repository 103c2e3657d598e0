//! Puts mail that this server writes itself into the queue.
//!
//! Every bounce takes this way: the recipients behind its address are looked up, the message is
//! stamped like every other, and it is committed.

use std::sync::Arc;

use crate::mail::{BodyType, Domain, Envelope, Mailbox, MessageId, Notify, Recipient, ReversePath};

use super::handle::Handle;
use super::incoming_message::PutError;
use crate::observe::maillog;
use crate::stamp::{StampFacts, stamp};

/// A message of this server, complete apart from the fields of the stamp.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutgoingBounce {
    /// Where failures are reported: null for a bounce (RFC 3464 §2).
    pub reverse_path: ReversePath,
    /// The recipients, before aliases.
    pub recipients: Vec<Recipient>,
    /// The name of this server, for the trace field.
    pub hostname: Domain,
    /// Header section and body, with CRLF line ends, a Message-ID and a Date.
    pub octets: Vec<u8>,
    /// There are octets above 127.
    pub has_8bit: bool,
    /// A header field or an address needs SMTPUTF8 (RFC 6531 §3.4).
    pub smtputf8: bool,
}

/// Looks up the recipients behind an address.
pub trait RecipientResolver: Send + Sync {
    /// Final recipients, after aliases; none if the address does not exist here.
    ///
    /// # Errors
    /// The look-up failed and may succeed later; says why, for the log.
    fn resolve(&self, mailbox: &Mailbox) -> Result<Vec<Recipient>, String>;
}

/// Takes every address as it is, for a queue without aliases.
#[derive(Debug, Clone, Copy)]
pub struct WithoutAliases;

impl RecipientResolver for WithoutAliases {
    fn resolve(&self, mailbox: &Mailbox) -> Result<Vec<Recipient>, String> {
        Ok(vec![Recipient::for_mailbox(mailbox.clone())])
    }
}

/// Takes mail of this server into the queue. Cheap to clone.
#[derive(Clone)]
pub struct GeneratedMail {
    queue: Handle,
    resolver: Arc<dyn RecipientResolver>,
}

impl GeneratedMail {
    /// Puts mail into `queue`, for the recipients that `resolver` finds.
    #[must_use]
    pub fn new(queue: Handle, resolver: Arc<dyn RecipientResolver>) -> Self {
        Self { queue, resolver }
    }

    /// Puts one message; returns its id, or `None` if its address does not exist. The message is
    /// durable when this returns.
    ///
    /// # Errors
    /// The disk refused, or the recipients could not be looked up. The message is not in the queue, and
    /// the caller tries again later.
    pub fn put(&self, mail: OutgoingBounce) -> Result<Option<MessageId>, PutError> {
        let recipients = resolve_recipients(&*self.resolver, &mail.recipients).map_err(PutError::Io)?;
        if recipients.is_empty() {
            return Ok(None);
        }
        let mut incoming = self.queue.begin_generated()?;
        incoming.append(&mail.octets)?;
        let (id, arrived) = (incoming.id(), self.queue.wall());
        let mut envelope = Envelope::new(id, arrived, mail.reverse_path, recipients);
        envelope.has_8bit = mail.has_8bit;
        envelope.smtputf8 = mail.smtputf8;
        if mail.has_8bit {
            envelope.body_type = BodyType::EightBitMime;
        }
        stamp(&mut envelope, &StampFacts::local(&mail.hostname));
        let octets = incoming.octets();
        incoming.commit(envelope.clone())?;
        maillog::queued(&envelope, octets);
        Ok(Some(id))
    }
}

/// The final recipients. RFC 3461 §6.1: no bounce is written about a bounce.
fn resolve_recipients(
    resolver: &dyn RecipientResolver,
    recipients: &[Recipient],
) -> Result<Vec<Recipient>, String> {
    let mut found = Vec::new();
    for recipient in recipients {
        let behind = resolver.resolve(recipient.final_mailbox())?;
        found.extend(behind.into_iter().map(|one| Recipient { notify: Notify::Never, ..one }));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mail::Destination;

    struct FixedRecipients;

    impl RecipientResolver for FixedRecipients {
        fn resolve(&self, mailbox: &Mailbox) -> Result<Vec<Recipient>, String> {
            let target = |raw: &str| Recipient {
                destination: Destination::Mailbox(Mailbox::parse(raw).unwrap()),
                ..Recipient::for_mailbox(mailbox.clone())
            };
            match mailbox.local_part.as_str() {
                "team" => Ok(vec![target("ana@here.example"), target("bo@there.example")]),
                "circle" => Err("aliases go round in circles".to_owned()),
                _ => Ok(Vec::new()),
            }
        }
    }

    #[test]
    fn a_bounce_goes_to_the_recipients_behind_its_address_and_asks_for_no_report() {
        let resolve = |to: &str| {
            let to = [Recipient::for_mailbox(Mailbox::parse(to).unwrap())];
            let found = resolve_recipients(&FixedRecipients, &to);
            found.map(|found| found.iter().map(|one| (one.to_string(), one.notify)).collect::<Vec<_>>())
        };
        let never = |raw: &str| (raw.to_owned(), Notify::Never);
        assert_eq!(
            resolve("team@here.example"),
            Ok(vec![never("ana@here.example"), never("bo@there.example")])
        );
        assert_eq!(resolve("nobody@here.example"), Ok(Vec::new()));
        assert!(resolve("circle@here.example").is_err());
    }
}
