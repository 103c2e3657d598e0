//! A message on the wire: read strictly, written strictly (RFC 5321 §4.1.1.4, §4.5.2; RFC 3030).
//!
//! Behind DATA only CRLF.CRLF ends a message; behind BDAT its octets are counted, and a dot is a dot.
//! Either way a CR or LF by itself is refused: a server that is generous here hands on octets in
//! which the next one may see a second message. For clients that cannot do better the operator may
//! have them mended instead, see [`LineEnds`]. What passes through is as it will be kept: CRLF line
//! ends, without stuffed dots.
//!
//! Both directions stream through slices of what they are given; nothing is copied or kept.

#[cfg(test)]
mod tests;

/// Reads one message. Fed with whatever segments arrive.
#[derive(Debug, Clone)]
pub struct BodyReader {
    octets_max: u64,
    bare_line_ends: BareLineEndPolicy,
    framing: Framing,
    state: BodyState,
    facts: BodyFacts,
}

/// What is done about a CR or LF by itself in a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum BareLineEndPolicy {
    /// The message is refused.
    #[default]
    Reject,
    /// It becomes CRLF: each LF, and a run of CRs with or without a LF behind it. A dot behind such a
    /// line end is content, so that it neither ends the message nor is taken away.
    Normalize,
}

/// How the end of a message is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Framing {
    /// CRLF.CRLF (RFC 5321 §4.1.1.4).
    Dot,
    /// Whoever feeds counts (RFC 3030 §2).
    Chunks,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum BodyState {
    LineStart,
    /// The start of a line behind a line end that was normalized: a dot here is content.
    NormalizedLineStart,
    InLine,
    /// A CR inside or at the end of a line, which has not gone to the sink.
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
}

/// How a message ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyEnd {
    /// As it should. All of it went to the sink.
    Complete(BodyFacts),
    /// As it should, but it was larger than allowed. What went to the sink is to be thrown away.
    TooBig,
    /// A lone CR or LF: somebody tries to smuggle, or does not speak SMTP. What went to the sink is
    /// to be thrown away. Behind DATA the message has not ended and never will.
    BareLineEnd,
}

impl BodyReader {
    /// A reader for one message behind DATA, of at most `octets_max` octets after unstuffing; 0 is
    /// no limit.
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

    /// The same for one message that comes in chunks. It is fed with nothing but their octets, and
    /// [`Self::finish`] is called behind the last one.
    #[must_use]
    pub fn in_chunks(octets_max: u64, line_ends: BareLineEndPolicy) -> Self {
        Self { framing: Framing::Chunks, ..Self::new(octets_max, line_ends) }
    }

    /// So many more octets would be too many.
    #[must_use]
    pub fn is_too_big_with(&self, octets: u64) -> bool {
        self.facts.octets.saturating_add(octets) > self.octets_max
    }

    /// Reads on. The message's octets go to `sink` in order, mostly as slices of `octets`, until the
    /// message is too big. At its end says how it ended, and how many of `octets` belong to it:
    /// what is behind them are commands again. Not to be fed after that.
    pub fn feed(&mut self, octets: &[u8], sink: &mut impl FnMut(&[u8])) -> Option<(usize, BodyEnd)> {
        // Octets from here on have not gone to the sink yet.
        let mut kept = 0;
        let mut at = 0;
        while let Some(&octet) = octets.get(at) {
            match (self.state, octet) {
                (BodyState::Cr, b'\n') => {
                    if at == 0 {
                        // Its CR came with an earlier segment.
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
                    // RFC 5321 §4.5.2: it is there for transparency, or it is the end.
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

    /// Makes a line end of what is none: the octet at `at`, or a CR before it. Says from where on
    /// octets have not gone to the sink now, and where to go on.
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
            // The dot was no stuffed one: more would have to be on its line.
            BodyState::Dot | BodyState::DotCr => self.emit(b".", sink),
            BodyState::LineStart | BodyState::NormalizedLineStart | BodyState::InLine | BodyState::Cr => {
                self.emit(octets.get(kept..end).unwrap_or_default(), sink);
            }
        }
        match self.state {
            // One more CR of a run; the one before it is gone.
            BodyState::Cr | BodyState::DotCr if is_cr => {
                self.state = BodyState::Cr;
                (at, at + 1)
            }
            // The run has ended without a LF.
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

    /// The last chunk is over. A line that it leaves open is ended: every message that we keep is
    /// made of whole lines, as DATA would have brought it; a signature is made as if it were so.
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

    /// Ends the message: the line, if one is open, and then the dot.
    pub fn finish(self, sink: &mut impl FnMut(&[u8])) {
        sink(if self.is_line_start { b".\r\n" } else { b"\r\n.\r\n" });
    }
}
