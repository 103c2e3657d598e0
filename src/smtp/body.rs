//! A message on the wire after DATA: read strictly, written strictly (RFC 5321 §4.1.1.4, §4.5.2).
//!
//! Only CRLF.CRLF ends a message, and a CR or LF by itself ends the conversation: a server that
//! is generous here hands on octets in which the next one may see a second message. What passes
//! through is as it will be kept: CRLF line ends, without stuffed dots.
//!
//! Both directions stream through slices of what they are given; nothing is copied or kept.

/// Reads one message. Fed with whatever segments arrive.
#[derive(Debug)]
pub struct BodyReader {
    octets_max: u64,
    state: State,
    facts: BodyFacts,
    /// Octets of the line so far, without its end and without a stuffed dot.
    line_octets: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    LineStart,
    InLine,
    /// A CR inside or at the end of a line.
    Cr,
    /// A dot at the start of a line.
    Dot,
    /// A dot at the start of a line, and a CR.
    DotCr,
}

/// What was noticed while a message passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct BodyFacts {
    /// Octets with CRLF line ends and without stuffed dots: as SIZE counts them (RFC 1870 §5).
    pub octets: u64,
    /// Octets above 127 were seen.
    pub has_8bit: bool,
    /// Lines over 998 octets, CRLF not counted, were seen (RFC 5322 §2.1.1).
    pub has_long_lines: bool,
}

/// How a message ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyEnd {
    /// With CRLF.CRLF. All of it went to the sink.
    Complete(BodyFacts),
    /// With CRLF.CRLF, but it was larger than allowed. What went to the sink is to be thrown away.
    TooBig,
    /// A lone CR or LF: somebody tries to smuggle, or does not speak SMTP. The message has not
    /// ended and never will; what went to the sink is to be thrown away.
    BareLineEnd,
}

impl BodyReader {
    /// Longest line in octets, CRLF not counted, that has nothing special (RFC 5322 §2.1.1).
    pub const LINE_OCTETS_MAX: usize = 998;

    /// A reader for one message of at most `octets_max` octets after unstuffing; 0 is no limit.
    #[must_use]
    pub fn new(octets_max: u64) -> Self {
        Self {
            octets_max: if octets_max == 0 { u64::MAX } else { octets_max },
            state: State::LineStart,
            facts: BodyFacts::default(),
            line_octets: 0,
        }
    }

    /// Reads on. The message's octets go to `sink` in order, as slices of `octets`, until the
    /// message is too big. At its end says how it ended, and how many of `octets` belong to it:
    /// what is behind them are commands again. Not to be fed after that.
    pub fn feed(&mut self, octets: &[u8], sink: &mut impl FnMut(&[u8])) -> Option<(usize, BodyEnd)> {
        // Octets from here on have not gone to the sink yet.
        let mut kept = 0;
        let mut at = 0;
        while let Some(&octet) = octets.get(at) {
            match (self.state, octet) {
                (State::Cr, b'\n') => {
                    self.facts.has_long_lines |= self.line_octets > Self::LINE_OCTETS_MAX;
                    self.line_octets = 0;
                    self.state = State::LineStart;
                    at += 1;
                }
                (State::DotCr, b'\n') => return Some((at + 1, self.finish())),
                (State::Cr | State::DotCr, _) | (_, b'\n') => return Some((at + 1, BodyEnd::BareLineEnd)),
                (State::Dot, b'\r') => {
                    self.state = State::DotCr;
                    at += 1;
                }
                (State::LineStart, b'.') => {
                    // RFC 5321 §4.5.2: it is there for transparency, or it is the end.
                    self.keep(octets.get(kept..at), sink);
                    self.state = State::Dot;
                    at += 1;
                    kept = at;
                }
                (State::LineStart | State::InLine, b'\r') => {
                    self.state = State::Cr;
                    at += 1;
                }
                (State::LineStart | State::Dot | State::InLine, _) => {
                    if self.state == State::Dot {
                        kept = at;
                    }
                    let rest = octets.get(at..).unwrap_or_default();
                    let length = rest.iter().position(|o| matches!(o, b'\r' | b'\n')).unwrap_or(rest.len());
                    self.line_octets = self.line_octets.saturating_add(length);
                    self.state = State::InLine;
                    at += length;
                }
            }
        }
        if !matches!(self.state, State::Dot | State::DotCr) {
            self.keep(octets.get(kept..), sink);
        }
        None
    }

    fn keep(&mut self, octets: Option<&[u8]>, sink: &mut impl FnMut(&[u8])) {
        let octets = octets.unwrap_or_default();
        if octets.is_empty() {
            return;
        }
        self.facts.octets = self.facts.octets.saturating_add(octets.len() as u64);
        if self.facts.octets <= self.octets_max {
            self.facts.has_8bit |= !octets.is_ascii();
            sink(octets);
        }
    }

    fn finish(&self) -> BodyEnd {
        if self.facts.octets > self.octets_max { BodyEnd::TooBig } else { BodyEnd::Complete(self.facts) }
    }
}

/// Writes one message: stuffs dots, and ends it.
///
/// What it is given should have CRLF line ends. A CR or LF by itself goes out as CRLF, so that
/// no message of ours can hold what another server takes for its end.
#[derive(Debug)]
pub struct DotStuffer {
    is_line_start: bool,
    /// A CR is held back until we know whether its LF comes.
    has_cr: bool,
}

impl Default for DotStuffer {
    fn default() -> Self {
        Self::new()
    }
}

impl DotStuffer {
    /// For one message.
    #[must_use]
    pub fn new() -> Self {
        Self { is_line_start: true, has_cr: false }
    }

    /// Writes on. What goes on the wire goes to `sink`, mostly as slices of `octets`.
    pub fn feed(&mut self, octets: &[u8], sink: &mut impl FnMut(&[u8])) {
        let mut rest = octets;
        if self.has_cr && !rest.is_empty() {
            self.has_cr = false;
            self.is_line_start = true;
            sink(b"\r\n");
            rest = rest.strip_prefix(b"\n").unwrap_or(rest);
        }
        // Octets of `rest` before this are sound, and go out together.
        let mut sound = 0;
        loop {
            let line = rest.get(sound..).unwrap_or_default();
            if self.is_line_start && line.first() == Some(&b'.') {
                let (before, behind) = rest.split_at(sound);
                sink(before);
                sink(b".");
                (rest, sound) = (behind, 0);
            }
            let line = rest.get(sound..).unwrap_or_default();
            if line.is_empty() {
                break;
            }
            let Some(length) = line.iter().position(|o| matches!(o, b'\r' | b'\n')) else {
                self.is_line_start = false;
                sound = rest.len();
                break;
            };
            self.is_line_start = true;
            match (line.get(length), line.get(length + 1)) {
                (Some(b'\r'), Some(b'\n')) => sound += length + 2,
                (Some(b'\r'), None) => {
                    self.is_line_start = false;
                    self.has_cr = true;
                    rest = rest.get(..sound + length).unwrap_or_default();
                    sound = rest.len();
                    break;
                }
                _ => {
                    sink(rest.get(..sound + length).unwrap_or_default());
                    sink(b"\r\n");
                    rest = rest.get(sound + length + 1..).unwrap_or_default();
                    sound = 0;
                }
            }
        }
        if sound > 0 {
            sink(rest.get(..sound).unwrap_or_default());
        }
    }

    /// Ends the message: the line, if one is open, and then the dot.
    pub fn finish(self, sink: &mut impl FnMut(&[u8])) {
        sink(if self.is_line_start { b".\r\n" } else { b"\r\n.\r\n" });
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What comes out when `octets` arrive in pieces of `size`: what went to the sink, how many
    /// octets were read, and the end.
    fn read_by(octets: &[u8], size: usize, octets_max: u64) -> (Vec<u8>, usize, Option<BodyEnd>) {
        let mut reader = BodyReader::new(octets_max);
        let mut content = Vec::new();
        let mut read = 0;
        for piece in octets.chunks(size.max(1)) {
            if let Some((used, end)) = reader.feed(piece, &mut |o| content.extend_from_slice(o)) {
                return (content, read + used, Some(end));
            }
            read += piece.len();
        }
        (content, read, None)
    }

    fn read(octets: &[u8]) -> (Vec<u8>, usize, Option<BodyEnd>) {
        let whole = read_by(octets, octets.len(), 0);
        for size in 1..8 {
            let cut = read_by(octets, size, 0);
            assert_eq!((cut.1, cut.2), (whole.1, whole.2), "by {size}");
            // What was kept of a message that broke off is of no matter.
            assert!(cut.0 == whole.0 || cut.2 == Some(BodyEnd::BareLineEnd), "by {size}");
        }
        whole
    }

    fn write_by(octets: &[u8], size: usize) -> Vec<u8> {
        let mut stuffer = DotStuffer::new();
        let mut wire = Vec::new();
        for piece in octets.chunks(size.max(1)) {
            stuffer.feed(piece, &mut |o| wire.extend_from_slice(o));
        }
        stuffer.finish(&mut |o| wire.extend_from_slice(o));
        wire
    }

    fn complete(octets: u64) -> Option<BodyEnd> {
        Some(BodyEnd::Complete(BodyFacts { octets, ..BodyFacts::default() }))
    }

    #[test]
    fn stuffed_dots_are_taken_out_and_the_end_is_found() {
        for (wire, content) in [
            (&b".\r\n"[..], &b""[..]),
            (b"\r\n.\r\n", b"\r\n"),
            (b"a\r\n.\r\n", b"a\r\n"),
            (b"..\r\n.\r\n", b".\r\n"),
            (b"...a\r\na.\r\n..\r\n.\r\n", b"..a\r\na.\r\n.\r\n"),
            // RFC 5321 §4.5.2: a dot with something behind it is taken out, whatever that is.
            (b".a\r\n.\r\n", b"a\r\n"),
        ] {
            assert_eq!(read(wire), (content.to_vec(), wire.len(), complete(content.len() as u64)));
        }
    }

    #[test]
    fn what_is_behind_the_end_is_left_alone() {
        assert_eq!(read(b"a\r\n.\r\nQUIT\r\n"), (b"a\r\n".to_vec(), 6, complete(3)));
    }

    #[test]
    fn every_way_to_smuggle_an_end_is_noticed() {
        for end in [
            "\n.\n",
            "\n.\r\n",
            "\r.\r",
            "\r.\r\n",
            "\r\n.\n",
            "\r\n.\r",
            "\n\n.\r\n",
            "\r\r\n.\r\n",
            "\r\n.\r\r\n",
            "\r\n.\n\r\n",
            "\r\n\r.\r\n",
            "\n.\r\r\n",
            "\r\n.\0\r\n.\r",
            "\r\n\n",
        ] {
            let wire = format!("Subject: x\r\n\r\ntext{end}MAIL FROM:<x@y.example>\r\n.\r\n");
            let (_, used, end_seen) = read(wire.as_bytes());
            assert_eq!(end_seen, Some(BodyEnd::BareLineEnd), "{end:?}");
            assert!(used <= "Subject: x\r\n\r\ntext".len() + end.len() + 1, "{end:?}");
        }
    }

    #[test]
    fn a_message_that_is_too_big_is_read_to_its_end_and_not_kept() {
        let wire = b"0123456789\r\n0123456789\r\n.\r\nNOOP\r\n";
        for size in [1, 3, 100] {
            let (content, used, end) = read_by(wire, size, 23);
            assert_eq!((used, end), (27, Some(BodyEnd::TooBig)));
            assert!(content.len() <= 23);
            assert_eq!(read_by(wire, size, 24).2, complete(24), "exactly as large as allowed");
        }
        // RFC 1870 §5: stuffed dots and the end do not count.
        assert_eq!(read_by(b"..\r\n.\r\n", 100, 3).2, complete(3));
        let (_, _, end) = read_by(b"0123456789\r\n\n.\r\n", 100, 3);
        assert_eq!(end, Some(BodyEnd::BareLineEnd), "too big is no excuse");
    }

    #[test]
    fn octets_beyond_ascii_and_long_lines_are_noticed() {
        let facts = |wire: &[u8]| match read(wire).2 {
            Some(BodyEnd::Complete(facts)) => (facts.has_8bit, facts.has_long_lines),
            other => panic!("{other:?}"),
        };
        assert_eq!(facts("grüße\r\n.\r\n".as_bytes()), (true, false));
        let line = |length: usize| format!("a\r\n..{}\r\n.\r\n", "x".repeat(length - 1)).into_bytes();
        assert_eq!(facts(&line(998)), (false, false));
        assert_eq!(facts(&line(999)), (false, true));
    }

    #[test]
    fn what_goes_out_has_one_end_and_no_lone_line_end() {
        for (content, wire) in [
            (&b""[..], &b".\r\n"[..]),
            (b"a\r\n", b"a\r\n.\r\n"),
            (b"a", b"a\r\n.\r\n"),
            (b".\r\n..\r\na.", b"..\r\n...\r\na.\r\n.\r\n"),
            (b"a\n.\nb\r.\rc\r", b"a\r\n..\r\nb\r\n..\r\nc\r\n.\r\n"),
            (b"\r\r\n\n", b"\r\n\r\n\r\n.\r\n"),
        ] {
            for size in 1..12 {
                assert_eq!(write_by(content, size), wire, "{content:?} by {size}");
            }
        }
    }

    /// Octets in which everything that matters is frequent.
    fn octets() -> impl Strategy<Value = Vec<u8>> {
        prop::collection::vec(prop::sample::select(b"..\r\n\r\nab\xfc".to_vec()), 0..80)
    }

    fn lines() -> impl Strategy<Value = Vec<u8>> {
        prop::collection::vec("[.a-cü]{0,5}", 0..12)
            .prop_map(|lines| lines.iter().flat_map(|line| format!("{line}\r\n").into_bytes()).collect())
    }

    proptest! {
        #[test]
        fn what_is_read_does_not_depend_on_the_segments(octets in octets(), size in 1..20_usize, max in 0..60_u64) {
            let (content, used, end) = read_by(&octets, size, max);
            let whole = read_by(&octets, octets.len(), max);
            prop_assert_eq!((used, end), (whole.1, whole.2));
            // Of a message that broke off or was too big, nothing is kept.
            if matches!(end, Some(BodyEnd::Complete(_))) || (end.is_none() && max == 0) {
                prop_assert_eq!(content, whole.0);
            }
        }

        #[test]
        fn what_was_written_is_read_back(content in lines(), out in 1..20_usize, back in 1..20_usize) {
            let wire = write_by(&content, out);
            let (read, used, end) = read_by(&wire, back, 0);
            prop_assert_eq!(used, wire.len());
            prop_assert!(matches!(end, Some(BodyEnd::Complete(facts)) if facts.octets == content.len() as u64));
            prop_assert_eq!(read, content);
        }

        #[test]
        fn whatever_is_written_is_one_message(content in octets(), size in 1..20_usize) {
            let wire = write_by(&content, size);
            let (_, used, end) = read_by(&wire, 7, 0);
            prop_assert_eq!(used, wire.len());
            prop_assert!(matches!(end, Some(BodyEnd::Complete(_))));
        }
    }
}
