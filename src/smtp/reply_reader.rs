//! Octets from a peer become replies.
//!
//! The reading side of `client`: pure, fed with whatever a read returned. Takes LF for CRLF, since a
//! reply is never relayed and a lenient reading of it can be turned against nobody. Lines and
//! replies are bounded; what does not end is an error and the connection of no more use.

use super::reply::{Reply, ReplyError};

/// Octets of one reply line that we read. RFC 5321 §4.5.3.1.5 allows 512.
const LINE_OCTETS_MAX: usize = 4096;

/// Octets of all replies of one connection that we read: what a peer says is kept for reports, and
/// it may be asked about many recipients.
const REPLIES_OCTETS_MAX: usize = 2 * 1024 * 1024;

/// What came and is not yet a reply.
#[derive(Debug, Default)]
pub struct ReplyReader {
    total: usize,
    octets: Vec<u8>,
    lines: Vec<Vec<u8>>,
}

impl ReplyReader {
    /// More octets came.
    pub fn feed(&mut self, octets: &[u8]) {
        self.total = self.total.saturating_add(octets.len());
        self.octets.extend_from_slice(octets);
    }

    /// The next reply, if all of it is there.
    ///
    /// # Errors
    /// [`ReplyError`]: what came is no reply, or does not end.
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

    /// Forgets what was read ahead, and says how many octets that were: behind the reply to STARTTLS
    /// there must be none, and what is there was put in by somebody else (RFC 3207 §4.2).
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
    fn replies_come_out_whole_however_the_octets_came_in() {
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
    fn a_peer_that_never_stops_talking_is_an_error() {
        let mut replies = ReplyReader::default();
        let line = format!("250 {}\r\n", "a".repeat(900));
        let answers = (0..10_000).map(|_| {
            replies.feed(line.as_bytes());
            replies.next_reply()
        });
        assert_eq!(answers.filter(Result::is_ok).count(), REPLIES_OCTETS_MAX / line.len());
    }

    #[test]
    fn what_was_read_ahead_can_be_forgotten() {
        let mut replies = ReplyReader::default();
        replies.feed(b"220 go\r\n250 injected\r\n250-half");
        assert_eq!(replies.next_reply().unwrap().unwrap().code, 220);
        assert_eq!(replies.discard(), 22);
        assert_eq!(replies.next_reply(), Ok(None));
    }
}
