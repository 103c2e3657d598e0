//! The octets of a message on the wire: a strict reader and a strict writer (RFC 5321 §4.1.1.4, §4.5.2; RFC
//! 3030).
//!
//! After DATA only CRLF.CRLF ends a message. After BDAT its octets are counted, and a dot has no meaning.
//! In both cases a CR or LF by itself is refused: if one server accepts it and the next server takes it for
//! a line end, the next server may see a second message (SMTP smuggling). For clients that cannot do better
//! the operator may choose [`BareLineEndPolicy::Normalize`]. The sink gets the octets in the form in which
//! they are kept: CRLF line ends, without stuffed dots.
//!
//! Reader and writer pass slices of their input on; they copy and keep nothing.

#[cfg(test)]
mod tests;

/// Reads one message, in pieces of any size.
#[derive(Debug, Clone)]
pub struct BodyReader {
    octets_max: u64,
    bare_line_ends: BareLineEndPolicy,
    framing: Framing,
    state: BodyState,
    facts: BodyFacts,
}

/// What the reader does with a CR or LF by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum BareLineEndPolicy {
    /// Refuses the message.
    #[default]
    Reject,
    /// Makes it CRLF: each LF, and each run of CRs with or without an LF after it. A dot after such a line
    /// end is content: it does not end the message and is not removed.
    Normalize,
}

/// How the end of a message is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Framing {
    /// CRLF.CRLF (RFC 5321 §4.1.1.4).
    Dot,
    /// The caller counts the octets (RFC 3030 §2).
    Chunks,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum BodyState {
    LineStart,
    /// The start of a line after a line end that was normalized: a dot here is content.
    NormalizedLineStart,
    InLine,
    /// A CR inside or at the end of a line. It has not gone to the sink.
    Cr,
    /// A dot at the start of a line.
    Dot,
    /// A dot and a CR at the start of a line.
    DotCr,
}

/// Facts about a message that was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct BodyFacts {
    /// Length in octets, with CRLF line ends and without stuffed dots: as SIZE counts them (RFC 1870 §5).
    pub octets: u64,
    /// The message has octets above 127.
    pub has_8bit: bool,
}

/// How a message ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyEnd {
    /// The message is complete. All of it went to the sink.
    Complete(BodyFacts),
    /// The message is complete, but larger than allowed. Discard what went to the sink.
    TooBig,
    /// The message has a CR or LF by itself: an attempt at smuggling, or not SMTP. Discard what went to the
    /// sink. After DATA the end of the message is unknown.
    BareLineEnd,
}

impl BodyReader {
    /// A reader for one message after DATA. `octets_max` counts octets without stuffed dots; 0 is no limit.
    #[must_use]
    pub fn new(octets_max: u64, line_ends: BareLineEndPolicy) -> Self {
        Self {
            octets_max: if octets_max == 0 { u64::MAX } else { octets_max },
            bare_line_ends: line_ends,
            framing: Framing::Dot,
            state: BodyState::LineStart,
            facts: BodyFacts::default(),
        }
    }

    /// A reader for one message in chunks. It gets nothing but their octets, and [`Self::finish`] after the
    /// last one.
    #[must_use]
    pub fn in_chunks(octets_max: u64, line_ends: BareLineEndPolicy) -> Self {
        Self { framing: Framing::Chunks, ..Self::new(octets_max, line_ends) }
    }

    /// Whether the message would be too large with so many more octets.
    #[must_use]
    pub fn is_too_big_with(&self, octets: u64) -> bool {
        self.facts.octets.saturating_add(octets) > self.octets_max
    }

    /// Takes the next octets. The octets of the message go to `sink` in order, mostly as slices of
    /// `octets`, until the message is too large. At the end of the message returns how it ended and how
    /// many of `octets` belong to it; commands follow them. Must not be called again after that.
    pub fn feed(&mut self, octets: &[u8], sink: &mut impl FnMut(&[u8])) -> Option<(usize, BodyEnd)> {
        // Octets from here on have not gone to the sink yet.
        let mut kept = 0;
        let mut at = 0;
        while let Some(&octet) = octets.get(at) {
            match (self.state, octet) {
                (BodyState::Cr, b'\n') => {
                    if at == 0 {
                        // The CR came in an earlier piece.
                        self.emit(b"\r\n", sink);
                        kept = 1;
                    }
                    self.state = BodyState::LineStart;
                    at += 1;
                }
                (BodyState::DotCr, b'\n') => return Some((at + 1, self.end())),
                (BodyState::Cr | BodyState::DotCr, _) | (_, b'\n') => {
                    if self.bare_line_ends == BareLineEndPolicy::Reject {
                        return Some((at + 1, BodyEnd::BareLineEnd));
                    }
                    (kept, at) = self.normalize_line_end(octets, kept, at, sink);
                }
                (BodyState::Dot, b'\r') => {
                    self.state = BodyState::DotCr;
                    at += 1;
                }
                (BodyState::LineStart, b'.') if self.framing == Framing::Dot => {
                    // RFC 5321 §4.5.2: a stuffed dot, or the end of the message.
                    self.emit(octets.get(kept..at).unwrap_or_default(), sink);
                    self.state = BodyState::Dot;
                    at += 1;
                    kept = at;
                }
                (BodyState::LineStart | BodyState::NormalizedLineStart | BodyState::InLine, b'\r') => {
                    self.state = BodyState::Cr;
                    at += 1;
                }
                (
                    BodyState::LineStart
                    | BodyState::NormalizedLineStart
                    | BodyState::Dot
                    | BodyState::InLine,
                    _,
                ) => {
                    let rest = octets.get(at..).unwrap_or_default();
                    let length = memchr::memchr2(b'\r', b'\n', rest).unwrap_or(rest.len());
                    self.state = BodyState::InLine;
                    at += length;
                }
            }
        }
        let end = match self.state {
            BodyState::Cr => at.saturating_sub(1),
            BodyState::LineStart | BodyState::NormalizedLineStart | BodyState::InLine => at,
            BodyState::Dot | BodyState::DotCr => kept,
        };
        self.emit(octets.get(kept..end).unwrap_or_default(), sink);
        None
    }

    /// Writes a CRLF for the CR or LF by itself at `at`, or for the CR before it. Returns the positions
    /// from which octets have not gone to the sink, and at which the reader goes on.
    fn normalize_line_end(
        &mut self,
        octets: &[u8],
        kept: usize,
        at: usize,
        sink: &mut impl FnMut(&[u8]),
    ) -> (usize, usize) {
        let is_cr = octets.get(at) == Some(&b'\r');
        let end = if self.state == BodyState::Cr { at.saturating_sub(1) } else { at };
        match self.state {
            // The dot was not stuffed: a stuffed dot has more octets on its line.
            BodyState::Dot | BodyState::DotCr => self.emit(b".", sink),
            BodyState::LineStart | BodyState::NormalizedLineStart | BodyState::InLine | BodyState::Cr => {
                self.emit(octets.get(kept..end).unwrap_or_default(), sink);
            }
        }
        match self.state {
            // Another CR of a run. The CR before it is dropped.
            BodyState::Cr | BodyState::DotCr if is_cr => {
                self.state = BodyState::Cr;
                (at, at + 1)
            }
            // The run ended without an LF.
            BodyState::Cr | BodyState::DotCr => {
                self.emit(b"\r\n", sink);
                self.state = BodyState::NormalizedLineStart;
                (at, at)
            }
            BodyState::LineStart | BodyState::NormalizedLineStart | BodyState::InLine | BodyState::Dot => {
                self.emit(b"\r\n", sink);
                self.state = BodyState::NormalizedLineStart;
                (at + 1, at + 1)
            }
        }
    }

    /// The last chunk is over. If its last line has no end, a CRLF is added: every stored message has whole
    /// lines, like one that came after DATA, and a signature is computed over whole lines.
    pub fn finish(&mut self, sink: &mut impl FnMut(&[u8])) -> BodyEnd {
        match (self.state, self.bare_line_ends) {
            (BodyState::Cr, BareLineEndPolicy::Reject) => return BodyEnd::BareLineEnd,
            (BodyState::InLine, _) | (BodyState::Cr, BareLineEndPolicy::Normalize) => {
                self.emit(b"\r\n", sink);
                self.state = BodyState::LineStart;
            }
            (
                BodyState::LineStart | BodyState::NormalizedLineStart | BodyState::Dot | BodyState::DotCr,
                _,
            ) => {}
        }
        self.end()
    }

    fn emit(&mut self, octets: &[u8], sink: &mut impl FnMut(&[u8])) {
        if octets.is_empty() {
            return;
        }
        self.facts.octets = self.facts.octets.saturating_add(octets.len() as u64);
        if self.facts.octets <= self.octets_max {
            self.facts.has_8bit |= !octets.is_ascii();
            sink(octets);
        }
    }

    fn end(&self) -> BodyEnd {
        if self.facts.octets > self.octets_max { BodyEnd::TooBig } else { BodyEnd::Complete(self.facts) }
    }
}

/// Writes one message: stuffs dots, and ends it.
///
/// The message should have CRLF line ends. A CR or LF by itself goes out as CRLF, so that no other server
/// can see the end of the message in it.
#[derive(Debug)]
pub struct DotStuffer {
    is_line_start: bool,
    /// A CR is held back until the next octet is there.
    has_cr: bool,
}

impl Default for DotStuffer {
    fn default() -> Self {
        Self::new()
    }
}

impl DotStuffer {
    /// A writer for one message.
    #[must_use]
    pub fn new() -> Self {
        Self { is_line_start: true, has_cr: false }
    }

    /// Takes the next octets of the message. What goes on the wire goes to `sink`, mostly as slices of
    /// `octets`.
    pub fn feed(&mut self, octets: &[u8], sink: &mut impl FnMut(&[u8])) {
        let mut rest = octets;
        if self.has_cr && !rest.is_empty() {
            self.has_cr = false;
            self.is_line_start = true;
            sink(b"\r\n");
            rest = rest.strip_prefix(b"\n").unwrap_or(rest);
        }
        // Octets of `rest` before this position go out together, unchanged.
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
            let Some(length) = memchr::memchr2(b'\r', b'\n', line) else {
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

    /// Ends the last line if it is open, and writes the final dot.
    pub fn finish(self, sink: &mut impl FnMut(&[u8])) {
        sink(if self.is_line_start { b".\r\n" } else { b"\r\n.\r\n" });
    }
}
