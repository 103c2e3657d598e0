//! What an SMTP or LMTP client must know of a message's octets before it sends the first of them.

use std::io::{self, Read as _};

use super::contract::Delivery;
use crate::mail::HeaderEnd;

/// Properties of a message that decide which extensions the peer must offer.
pub(super) struct MessageFacts {
    /// The message has octets above 127.
    pub(super) has_8bit: bool,
    /// The header section has octets above 127.
    pub(super) has_utf8_header: bool,
}

impl MessageFacts {
    /// Reads the header section if the sender has asked for SMTPUTF8, and nothing else.
    ///
    /// # Errors
    /// The message cannot be read.
    pub(super) fn from_delivery(delivery: &Delivery<'_>) -> io::Result<Self> {
        let envelope = delivery.envelope;
        // A sender may have asked for SMTPUTF8 for the sake of an address only.
        let has_utf8_header = envelope.smtputf8 && has_utf8_header(delivery.message.open()?)?;
        let has_8bit = envelope.has_8bit || has_utf8_header || !envelope.added_text().is_ascii();
        Ok(Self { has_8bit, has_utf8_header })
    }
}

/// Octets above 127 come before the first empty line.
fn has_utf8_header(mut message: Box<dyn io::Read + '_>) -> io::Result<bool> {
    let mut block = vec![0; 4096];
    let mut end = HeaderEnd::default();
    loop {
        let count = match message.read(&mut block) {
            Ok(0) => return Ok(false),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        let piece = block.get(..count).unwrap_or_default();
        let header_octets = end.feed(piece);
        if !piece.get(..header_octets).unwrap_or_default().is_ascii() {
            return Ok(true);
        }
        if end.is_found() {
            return Ok(false);
        }
    }
}
