//! Splits octets into command lines.
//!
//! A line ends with CRLF and with nothing else (RFC 5321 §2.3.8): if one server takes an octet for a line
//! end and the next server does not, a second message can be smuggled inside the first. A line that is too
//! long is discarded up to its end and reported once, in its place in the order of lines, so that the
//! session can go on (RFC 5321 §4.5.3.1.9).
//!
//! The first octets of a TLS handshake are recognised: they have no line end to wait for.
//!
//! The buffer holds no memory until octets arrive, and at most one line and one read of the caller. The
//! octets after the line end of DATA belong to the message: the caller gives [`LineBuffer::pending`] to the
//! body reader, and consumes what it took.

/// Collects octets and returns lines. One for each connection.
#[derive(Debug, Default)]
pub struct LineBuffer {
    octets: Vec<u8>,
    /// Octets before this position have been returned.
    start: usize,
    /// Octets before this position, counted from the beginning of `octets`, hold no line end.
    scanned: usize,
    /// The current line is too long; octets are discarded until it ends.
    is_draining: bool,
    /// The last discarded octet was a CR.
    has_drained_cr: bool,
}

/// Why the input is not a line; the client is at fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LineError {
    /// A CR without LF or an LF without CR. The connection must be closed: the two sides may disagree about
    /// where lines end.
    #[error("a line ends with something else than CR and LF")]
    BareLineEnd,
    /// Longer than allowed. The line was discarded, and the next line can be read.
    #[error("the line is too long")]
    TooLong,
    /// The first octets of a TLS handshake, which no command begins with. The connection must be closed.
    #[error("a TLS handshake where a line should be")]
    TlsHandshake,
}

/// Where the next line ends.
enum LineScan {
    /// At this LF, which has a CR before it.
    Line(usize),
    /// A CR or LF by itself comes first. The octets before this position are consumed with it.
    BareLineEnd(usize),
    /// A TLS record.
    TlsHandshake,
    /// The line is not complete. Octets before this position need not be looked at again.
    Incomplete(usize),
}

impl LineBuffer {
    /// Longest command line in octets, CRLF included. RFC 5321 §4.5.3.1.4 requires 512, and extensions add
    /// to that: SIZE 26, 8BITMIME 17, SMTPUTF8 10, AUTH 500 in MAIL, DSN 120 in MAIL and 550 in RCPT.
    pub const COMMAND_OCTETS_MAX: usize = 1200;

    /// Longest line of an authentication exchange in octets, CRLF included (RFC 4954 §4). Also the limit of
    /// every line that begins with AUTH, because of initial responses.
    pub const AUTH_OCTETS_MAX: usize = 12288;

    /// An empty buffer, which holds no memory.
    #[must_use]
    pub const fn new() -> Self {
        Self { octets: Vec::new(), start: 0, scanned: 0, is_draining: false, has_drained_cr: false }
    }

    /// Takes the next octets. The caller reads only when [`Self::has_line`] is false, so that the buffer
    /// stays small.
    pub fn push(&mut self, octets: &[u8]) {
        if self.start > 0 {
            self.octets.drain(..self.start);
            self.scanned -= self.start.min(self.scanned);
            self.start = 0;
        }
        self.octets.extend_from_slice(octets);
    }

    /// The next line without its CRLF, or `None` while it is not complete. `octets_max` is the longest line
    /// with CRLF, from [`super::Server::line_octets_max`].
    ///
    /// # Errors
    /// Inside the option: there was a line, but it is not valid; see [`LineError`].
    pub fn next_line(&mut self, octets_max: usize) -> Option<Result<&[u8], LineError>> {
        if self.is_draining {
            return self.drain().map(Err);
        }
        match self.find() {
            LineScan::BareLineEnd(end) => {
                self.consume_to(end);
                Some(Err(LineError::BareLineEnd))
            }
            LineScan::TlsHandshake => {
                self.release();
                Some(Err(LineError::TlsHandshake))
            }
            LineScan::Line(lf) => {
                let start = self.start;
                self.consume_to(lf + 1);
                let line = self.octets.get(start..lf - 1).unwrap_or_default();
                if line.len() + 2 > line_octets_max(line, octets_max) {
                    return Some(Err(LineError::TooLong));
                }
                Some(Ok(line))
            }
            LineScan::Incomplete(scanned) => {
                self.scanned = scanned;
                let partial = self.pending();
                let (is_long, has_cr) =
                    (partial.len() >= line_octets_max(partial, octets_max), partial.ends_with(b"\r"));
                if is_long {
                    (self.is_draining, self.has_drained_cr) = (true, has_cr);
                    self.release();
                }
                None
            }
        }
    }

    /// A line or an error is complete: [`Self::next_line`] will not return `None`. While this is true,
    /// replies are collected and not yet sent (RFC 2920 §3.2).
    #[must_use]
    pub fn has_line(&self) -> bool {
        !matches!(self.find(), LineScan::Incomplete(_))
    }

    /// All octets have been returned.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.start >= self.octets.len()
    }

    /// Octets that have not been returned: after DATA, the beginning of the message.
    #[must_use]
    pub fn pending(&self) -> &[u8] {
        self.octets.get(self.start..).unwrap_or_default()
    }

    /// Removes the first `octets` of [`Self::pending`], which the caller has used.
    pub fn consume(&mut self, octets: usize) {
        self.consume_to(self.start.saturating_add(octets).min(self.octets.len()));
    }

    /// Discards all octets. For STARTTLS: octets that came before the handshake were not protected by it
    /// (RFC 3207 §4.2).
    pub fn clear(&mut self) {
        *self = Self::new();
    }

    /// Frees the memory of an empty buffer, when the session becomes idle.
    pub fn release_if_empty(&mut self) {
        if self.is_empty() {
            self.release();
        }
    }

    fn find(&self) -> LineScan {
        if !self.is_draining && self.pending().starts_with(TLS_HANDSHAKE_RECORD) {
            return LineScan::TlsHandshake;
        }
        let from = self.scanned.max(self.start);
        let rest = self.octets.get(from..).unwrap_or_default();
        // A CR that waits for its LF is still in the buffer, behind `scanned`, unless it was discarded with
        // a line that is too long.
        let had_cr = self.is_draining && self.has_drained_cr && from == self.start;
        match (had_cr, rest.first()) {
            (true, Some(b'\n')) => return LineScan::Line(from),
            (true, Some(_)) => return LineScan::BareLineEnd(from),
            _ => {}
        }
        let Some(at) = memchr::memchr2(b'\r', b'\n', rest) else {
            return LineScan::Incomplete(self.octets.len());
        };
        match (rest.get(at), rest.get(at + 1)) {
            (Some(b'\r'), Some(b'\n')) => LineScan::Line(from + at + 1),
            (Some(b'\r'), None) => LineScan::Incomplete(from + at),
            _ => LineScan::BareLineEnd(from + at + 1),
        }
    }

    /// Discards octets up to the end of the line that is too long.
    fn drain(&mut self) -> Option<LineError> {
        match self.find() {
            LineScan::Line(lf) => {
                self.is_draining = false;
                self.has_drained_cr = false;
                self.consume_to(lf + 1);
                Some(LineError::TooLong)
            }
            LineScan::BareLineEnd(end) => {
                self.is_draining = false;
                self.has_drained_cr = false;
                self.consume_to(end);
                Some(LineError::BareLineEnd)
            }
            LineScan::Incomplete(_) | LineScan::TlsHandshake => {
                if let Some(last) = self.pending().last() {
                    self.has_drained_cr = *last == b'\r';
                }
                self.release();
                None
            }
        }
    }

    fn consume_to(&mut self, end: usize) {
        self.start = end;
        self.scanned = end;
    }

    fn release(&mut self) {
        self.octets = Vec::new();
        self.start = 0;
        self.scanned = 0;
    }
}

/// A record of the type handshake, of any version since SSL 3 (RFC 8446 §5.1).
const TLS_HANDSHAKE_RECORD: &[u8] = b"\x16\x03";

fn line_octets_max(line: &[u8], octets_max: usize) -> usize {
    match line.get(..5) {
        Some(verb) if verb.eq_ignore_ascii_case(b"AUTH ") => octets_max.max(LineBuffer::AUTH_OCTETS_MAX),
        _ => octets_max,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    type Line = Result<Vec<u8>, LineError>;

    /// All lines of `octets`, when they come in pieces of `size`.
    fn lines(octets: &[u8], size: usize) -> Vec<Line> {
        let mut buffer = LineBuffer::new();
        let mut lines = Vec::new();
        for piece in octets.chunks(size.max(1)) {
            buffer.push(piece);
            loop {
                let has_line = buffer.has_line();
                let line =
                    buffer.next_line(LineBuffer::COMMAND_OCTETS_MAX).map(|line| line.map(<[u8]>::to_vec));
                assert_eq!(has_line, line.is_some());
                let Some(line) = line else { break };
                let is_over = matches!(line, Err(LineError::BareLineEnd | LineError::TlsHandshake));
                lines.push(line);
                if is_over {
                    return lines;
                }
            }
        }
        lines
    }

    fn line(text: &str) -> Line {
        Ok(text.as_bytes().to_vec())
    }

    #[test]
    fn a_line_ends_with_crlf_and_with_nothing_else() {
        for size in 1..12 {
            assert_eq!(lines(b"NOOP\r\n\r\nQUIT\r\n", size), [line("NOOP"), line(""), line("QUIT")]);
            for bare in [&b"NOOP\nQUIT\r\n"[..], b"NOOP\rQUIT\r\n", b"NOOP\r\r\n", b"NOOP\n\r\n"] {
                assert_eq!(lines(bare, size), [Err(LineError::BareLineEnd)], "{bare:?} by {size}");
            }
        }
    }

    #[test]
    fn a_line_that_is_too_long_is_discarded_and_the_next_one_is_read() {
        for length in [LineBuffer::COMMAND_OCTETS_MAX - 1, 5000, 100_000] {
            let octets = format!("RSET\r\n{}\r\nQUIT\r\n", "x".repeat(length)).into_bytes();
            for size in [1, 7, 1199, 1200, 4096, octets.len()] {
                assert_eq!(
                    lines(&octets, size),
                    [line("RSET"), Err(LineError::TooLong), line("QUIT")],
                    "{length} octets by {size}"
                );
            }
        }
        let longest = "x".repeat(LineBuffer::COMMAND_OCTETS_MAX - 2);
        assert_eq!(lines(format!("{longest}\r\n").as_bytes(), 10), [line(&longest)]);
    }

    #[test]
    fn a_line_that_is_too_long_takes_no_memory() {
        let mut buffer = LineBuffer::new();
        for _ in 0..1000 {
            buffer.push(&[b'x'; 4096]);
            assert!(buffer.next_line(LineBuffer::COMMAND_OCTETS_MAX).is_none());
            assert!(buffer.octets.capacity() <= 8192);
        }
    }

    #[test]
    fn an_auth_line_may_be_longer() {
        let auth = format!("auth PLAIN {}", "A".repeat(12000));
        for size in [1, 4096] {
            assert_eq!(lines(format!("{auth}\r\n").as_bytes(), size), [line(&auth)]);
        }
        let longer = format!("AUTH PLAIN {}\r\n", "A".repeat(13000));
        assert_eq!(lines(longer.as_bytes(), 100), [Err(LineError::TooLong)]);
    }

    #[test]
    fn octets_after_a_line_can_be_taken_as_a_body() {
        let mut buffer = LineBuffer::new();
        buffer.push(b"DATA\r\nhello\r\n.\r\nQUIT\r\n");
        assert_eq!(buffer.next_line(1000), Some(Ok(&b"DATA"[..])));
        assert_eq!(buffer.pending(), b"hello\r\n.\r\nQUIT\r\n");
        buffer.consume(10);
        assert_eq!(buffer.next_line(1000), Some(Ok(&b"QUIT"[..])));
        assert!(buffer.is_empty());
        buffer.release_if_empty();
        assert_eq!(buffer.octets.capacity(), 0);
    }

    #[test]
    fn a_handshake_is_recognised_by_its_first_octets_and_only_where_a_line_begins() {
        let hello = b"\x16\x03\x01\x02\x00\x01\n\x00";
        for size in 1..9 {
            assert_eq!(lines(hello, size), [Err(LineError::TlsHandshake)], "by {size}");
        }
        assert_eq!(lines(b"\x16\r\nx\x16\x03\r\n", 3), [line("\x16"), line("x\x16\x03")]);
    }

    #[test]
    fn nothing_is_left_after_clear() {
        let mut buffer = LineBuffer::new();
        buffer.push(b"STARTTLS\r\nMAIL FROM:<x@y.example>\r\n");
        assert!(buffer.next_line(1000).is_some());
        buffer.clear();
        assert!(buffer.is_empty() && !buffer.has_line());
        assert_eq!(buffer.next_line(1000), None);
    }

    proptest! {
        #[test]
        fn lines_do_not_depend_on_the_segments(
            octets in prop::collection::vec(prop::sample::select(b"ax \r\n\x16\x03".to_vec()), 0..60),
            size in 1..20_usize,
        ) {
            prop_assert_eq!(lines(&octets, size), lines(&octets, octets.len()));
        }
    }
}
