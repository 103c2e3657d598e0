//! What happens to a message's octets between DATA and the queue.
//!
//! A streaming sink from the first day: octets pass through once, in pieces of any size, and are
//! not held here. Today it counts Received fields, so that a loop is broken (RFC 5321 §6.3); what
//! later work adds (hashes for DKIM, ranges to leave out) looks at the same stream.

/// Watches the header section go by.
#[derive(Debug, Default)]
pub(super) struct HeaderWatch {
    /// The first octets of the current line, as many as the longest name we look for.
    line_start: Vec<u8>,
    /// Octets of the current line so far.
    line_octets: usize,
    is_body: bool,
    received: usize,
}

const RECEIVED: &[u8] = b"received:";

impl HeaderWatch {
    /// The next octets of the message.
    pub(super) fn feed(&mut self, mut octets: &[u8]) {
        while !self.is_body && !octets.is_empty() {
            let line_end = octets.iter().position(|&b| b == b'\n');
            let (line, rest) = octets.split_at(line_end.map_or(octets.len(), |at| at + 1));
            let wanted = RECEIVED.len().saturating_sub(self.line_start.len()).min(line.len());
            self.line_start.extend_from_slice(line.get(..wanted).unwrap_or_default());
            self.line_octets += line.len();
            if line_end.is_some() {
                self.end_line();
            }
            octets = rest;
        }
    }

    fn end_line(&mut self) {
        if self.line_start.eq_ignore_ascii_case(RECEIVED) {
            self.received += 1;
        }
        // "\r\n" or "\n" alone: the body begins.
        self.is_body = self.line_octets <= 2 && self.line_start.trim_ascii().is_empty();
        self.line_start.clear();
        self.line_octets = 0;
    }

    /// Received fields seen so far.
    #[must_use]
    pub(super) fn received(&self) -> usize {
        self.received
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LETTER: &[u8] =
        b"Received: by a\r\n\tReceived: folded\r\nreceived: by b\r\nX: y\r\nReceived:\r\n\r\nReceived: body\r\n";

    #[test]
    fn received_fields_are_counted_however_the_octets_are_cut() {
        for size in 1..LETTER.len() {
            let mut watch = HeaderWatch::default();
            LETTER.chunks(size).for_each(|piece| watch.feed(piece));
            assert_eq!(watch.received(), 3, "in pieces of {size}");
        }
    }

    #[test]
    fn a_long_line_takes_no_memory() {
        let mut watch = HeaderWatch::default();
        for _ in 0..1000 {
            watch.feed(&[b'x'; 1000]);
        }
        assert!(watch.line_start.capacity() < 64);
        assert_eq!(watch.received(), 0);
    }
}
