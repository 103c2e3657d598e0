//! The one door for mail that we write ourselves.
//!
//! Reports go through here and nowhere else, so that one place looks up who is behind the address,
//! puts a trace field on top, and hands the letter to the queue. Whatever signs mail some day signs
//! it here too.

use std::sync::Arc;

use crate::mail::{BodyType, Domain, Envelope, Mailbox, MessageId, Notify, Recipient, ReversePath};

use super::handle::Handle;
use super::incoming_message::PutError;
use crate::observe::maillog;
use crate::stamp::{StampFacts, stamp};

/// A message of our own, complete but for what the door adds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutgoingBounce {
    /// Where failures are reported: null for a report (RFC 3464 §2).
    pub reverse_path: ReversePath,
    /// To whom.
    pub recipients: Vec<Recipient>,
    /// Our name, for the trace field.
    pub hostname: Domain,
    /// Header section and body, CRLF line ends, with a Message-ID and a Date.
    pub octets: Vec<u8>,
    /// There are octets above 127.
    pub has_8bit: bool,
    /// A header field or an address needs SMTPUTF8 (RFC 6531 §3.4).
    pub smtputf8: bool,
}

/// Takes mail of our own and promises to look after it.
pub trait GeneratedMail: Send + Sync {
    /// Puts one letter; its id is for the log, and nothing if nobody is there to get it. Durable
    /// when this returns.
    ///
    /// # Errors
    /// Not now: the disk refused, or nobody knows who is behind an address. The caller still owes
    /// the letter and tries again later.
    fn put(&self, letter: OutgoingBounce) -> Result<Option<MessageId>, PutError>;
}

/// Who is behind an address.
pub trait RecipientResolver: Send + Sync {
    /// Final recipients, after aliases; none if there is nobody of that name here.
    ///
    /// # Errors
    /// It cannot be found out now; says why, for the log.
    fn resolve(&self, mailbox: &Mailbox) -> Result<Vec<Recipient>, String>;
}

/// The last step: into the queue.
pub struct QueuedDirectly(pub Handle);

impl GeneratedMail for QueuedDirectly {
    fn put(&self, letter: OutgoingBounce) -> Result<Option<MessageId>, PutError> {
        let mut incoming = self.0.begin_generated()?;
        incoming.append(&letter.octets)?;
        let (id, arrived) = (incoming.id(), self.0.wall());
        let mut envelope = Envelope::new(id, arrived, letter.reverse_path, letter.recipients);
        envelope.has_8bit = letter.has_8bit;
        envelope.smtputf8 = letter.smtputf8;
        if letter.has_8bit {
            envelope.body_type = BodyType::EightBitMime;
        }
        stamp(&mut envelope, &StampFacts::local(&letter.hostname));
        let octets = incoming.octets();
        incoming.commit(envelope.clone())?;
        maillog::queued(&envelope, octets);
        Ok(Some(id))
    }
}

/// Looks up who is behind each address, and goes on.
pub struct AliasesResolved<N> {
    /// The next step.
    pub next: N,
    /// Who knows.
    pub resolver: Arc<dyn RecipientResolver>,
}

impl<N: GeneratedMail> GeneratedMail for AliasesResolved<N> {
    fn put(&self, mut letter: OutgoingBounce) -> Result<Option<MessageId>, PutError> {
        let mut found: Vec<Recipient> = Vec::new();
        for to in &letter.recipients {
            let behind = self.resolver.resolve(to.final_mailbox()).map_err(PutError::Io)?;
            // RFC 3461 §6.1: whatever becomes of a report, nobody reports it.
            found.extend(behind.into_iter().map(|one| Recipient { notify: Notify::Never, ..one }));
        }
        if found.is_empty() {
            return Ok(None);
        }
        letter.recipients = found;
        self.next.put(letter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mail::{Destination, Timestamp};
    use crate::sys::Mutex;

    #[derive(Default)]
    struct RecordingMail(Mutex<Vec<OutgoingBounce>>);

    impl GeneratedMail for Arc<RecordingMail> {
        fn put(&self, letter: OutgoingBounce) -> Result<Option<MessageId>, PutError> {
            self.0.lock().push(letter);
            Ok(Some(MessageId::new(Timestamp::from_millis(0), 1)))
        }
    }

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
    fn a_letter_goes_to_those_behind_its_address_and_nobody_reports_it() {
        let kept = Arc::new(RecordingMail::default());
        let door = AliasesResolved { next: Arc::clone(&kept), resolver: Arc::new(FixedRecipients) };
        let letter = |to: &str| OutgoingBounce {
            reverse_path: ReversePath::Null,
            recipients: vec![Recipient::for_mailbox(Mailbox::parse(to).unwrap())],
            hostname: Domain::parse("mx.here.example").unwrap(),
            octets: b"Subject: hello\r\n\r\n".to_vec(),
            has_8bit: false,
            smtputf8: false,
        };
        assert!(matches!(door.put(letter("team@here.example")), Ok(Some(_))));
        assert_eq!(door.put(letter("nobody@here.example")), Ok(None));
        assert!(matches!(door.put(letter("circle@here.example")), Err(PutError::Io(_))));
        let letters = kept.0.lock();
        let to: Vec<_> = letters[0].recipients.iter().map(|one| (one.to_string(), one.notify)).collect();
        let never = |raw: &str| (raw.to_owned(), Notify::Never);
        assert_eq!(to, [never("ana@here.example"), never("bo@there.example")]);
        assert_eq!(letters.len(), 1);
    }
}
