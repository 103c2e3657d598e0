//! Splits the octets of a peer into replies, for `client`.
//!
//! An LF ends a line like a CRLF: a reply is not relayed, so that this cannot be used for smuggling. The
//! length of lines and replies is limited.

use super::reply::{Reply, ReplyError};

/// Longest reply line in octets. RFC 5321 §4.5.3.1.5 allows 512.
const LINE_OCTETS_MAX: usize = 4096;

/// Most octets of all replies of one connection. Replies are kept for bounces, and there may be one for
/// each of many recipients.
const REPLIES_OCTETS_MAX: usize = 2 * 1024 * 1024;

/// Octets that are not yet a complete reply.
#[derive(Debug, Default)]
pub struct ReplyReader {
    total: usize,
    octets: Vec<u8>,
    lines: Vec<Vec<u8>>,
}

impl ReplyReader {
    /// Takes the next octets.
    pub fn feed(&mut self, octets: &[u8]) {
        self.total = self.total.saturating_add(octets.len());
        self.octets.extend_from_slice(octets);
    }

    /// The next reply, if it is complete.
    ///
    /// # Errors
    /// [`ReplyError`]: the octets are not a reply, or exceed a limit.
    pub fn next_reply(&mut self) -> Result<Option<Reply>, ReplyError> {
        if self.total > REPLIES_OCTETS_MAX {
            return Err(ReplyError::TooLong);
        }
        while let Some(end) = self.octets.iter().position(|&octet| octet == b'\n') {
            let mut line: Vec<u8> = self.octets.drain(..=end).collect();
            line.pop();
            if line.last() == Some(&b'\r') {
                line.pop();
            }
            self.lines.push(line);
            if let Some(reply) = Reply::read(&mut self.lines)? {
                return Ok(Some(reply));
            }
        }
        if self.octets.len() > LINE_OCTETS_MAX { Err(ReplyError::TooLong) } else { Ok(None) }
    }

    /// Discards the octets that follow the last reply, and returns their number. After the reply to
    /// STARTTLS there must be none: such octets were injected by a third party (RFC 3207 §4.2).
    pub fn discard(&mut self) -> usize {
        let ahead = self.octets.len() + self.lines.iter().map(Vec::len).sum::<usize>();
        *self = Self::default();
        ahead
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_are_read_whole_however_the_octets_are_cut() {
        let wire = b"250-a\r\n250 b\r\n354 go\n";
        for chunk in 1..wire.len() {
            let mut replies = ReplyReader::default();
            let mut codes = Vec::new();
            for part in wire.chunks(chunk) {
                replies.feed(part);
                while let Some(reply) = replies.next_reply().unwrap() {
                    codes.push((reply.code, reply.lines.len()));
                }
            }
            assert_eq!(codes, [(250, 2), (354, 1)]);
        }
    }

    #[test]
    fn a_line_without_an_end_is_an_error() {
        let mut replies = ReplyReader::default();
        replies.feed(&[b'2'; LINE_OCTETS_MAX + 1]);
        assert_eq!(replies.next_reply(), Err(ReplyError::TooLong));
    }

    #[test]
    fn too_many_octets_of_replies_are_an_error() {
        let mut replies = ReplyReader::default();
        let line = format!("250 {}\r\n", "a".repeat(900));
        let answers = (0..10_000).map(|_| {
            replies.feed(line.as_bytes());
            replies.next_reply()
        });
        assert_eq!(answers.filter(Result::is_ok).count(), REPLIES_OCTETS_MAX / line.len());
    }

    #[test]
    fn octets_after_a_reply_can_be_discarded() {
        let mut replies = ReplyReader::default();
        replies.feed(b"220 go\r\n250 injected\r\n250-half");
        assert_eq!(replies.next_reply().unwrap().unwrap().code, 220);
        assert_eq!(replies.discard(), 22);
        assert_eq!(replies.next_reply(), Ok(None));
    }
}
