//! The one door for mail that we write ourselves.
//!
//! Reports go through here and nowhere else, so that one place can expand aliases, stamp and
//! sign. The default filling, [`Direct`], only puts; wiring may set a decorator before it.

use crate::mail::{BodyType, Envelope, Mailbox, MessageId, Recipient, ReversePath};

use super::handle::{Handle, PutError};
use crate::observe::maillog;

/// A message of our own, complete but for what the door adds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Letter {
    /// Where failures are reported: null for a report (RFC 3464 §2).
    pub reverse_path: ReversePath,
    /// To whom, before aliases.
    pub to: Mailbox,
    /// Header section and body, CRLF line ends, with a Message-ID and a Date.
    pub octets: Vec<u8>,
    /// There are octets above 127.
    pub has_8bit: bool,
    /// A header field or an address needs SMTPUTF8 (RFC 6531 §3.4).
    pub smtputf8: bool,
}

/// Takes mail of our own and promises to look after it.
pub trait OwnMail: Send + Sync {
    /// Puts one letter; its id is for the log. Durable when this returns.
    ///
    /// # Errors
    /// The disk refused; the caller still owes the letter and tries again later.
    fn put(&self, letter: Letter) -> Result<MessageId, PutError>;
}

/// Straight into the queue: no aliases, no stamp, no signature.
pub struct Direct(pub Handle);

impl OwnMail for Direct {
    fn put(&self, letter: Letter) -> Result<MessageId, PutError> {
        let mut incoming = self.0.begin_own()?;
        incoming.append(&letter.octets)?;
        let id = incoming.id();
        let recipients = vec![Recipient::mailbox(letter.to)];
        let mut envelope = Envelope::new(id, self.0.wall(), letter.reverse_path, recipients);
        envelope.has_8bit = letter.has_8bit;
        envelope.smtputf8 = letter.smtputf8;
        if letter.has_8bit {
            envelope.body = BodyType::EightBitMime;
        }
        let octets = incoming.octets();
        incoming.commit(envelope.clone())?;
        maillog::queued(&envelope, octets);
        Ok(id)
    }
}
