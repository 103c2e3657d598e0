//! Watches the header section of a message go by, and remembers what the content rules ask about.
//!
//! Octets pass once, in pieces of any size. However long the header section is, and however many
//! fields it has, only bounded pieces of it are kept: a count, a few flags, the first octets of the
//! originator fields, and a limited number of places to leave out. What is a field is decided as in
//! `mail::Fields`: the first line that is none (no colon, a space in the name) ends the section.

use super::content_observer::ContentObserver;

/// Octets kept of each field that says who wrote the message. Fifty long addresses.
const ORIGINATOR_OCTETS_MAX: usize = 8 * 1024;
/// Places that are remembered of fields to leave out; neighbours are one place.
const FIELD_RANGES_MAX: usize = 32;
/// The longest name that is looked for.
const FIELD_NAME_OCTETS_MAX: usize = b"return-path".len();

/// The header section so far.
#[derive(Debug, Default)]
pub struct HeaderScanner {
    state: ScannerState,
    /// Octets of the message so far.
    position: u64,
    /// Where the current line begins.
    line_start: u64,
    /// Where the current field begins.
    field_start: u64,
    /// The first octets of the name that is being read.
    name: Vec<u8>,
    /// Of the current field.
    kind: FieldKind,
    has_fields: bool,
    is_header_missing: bool,
    has_malformed_line: bool,
    received_count: usize,
    has_date: bool,
    has_message_id: bool,
    from: RawOriginatorField,
    sender: RawOriginatorField,
    bcc_fields: FieldRanges,
    return_path_fields: FieldRanges,
}

/// Where in the header section we are.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum ScannerState {
    /// At the beginning of a line.
    #[default]
    LineStart,
    /// A CR at the beginning of a line.
    Cr,
    /// In what may be a field's name.
    Name,
    /// In white space between a name and its colon (RFC 5322 §4.5.8).
    AfterName,
    /// Behind the colon, or in a line that continues the field.
    Value,
    /// No more fields.
    Body,
}

/// What a field is to us.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum FieldKind {
    #[default]
    Other,
    Received,
    Date,
    MessageId,
    From,
    Sender,
    /// Bcc or Resent-Bcc.
    Bcc,
    ReturnPath,
}

impl FieldKind {
    /// Names are compared without regard to case (RFC 5322 §1.2.2).
    fn from_name(name: &[u8]) -> Self {
        const NAMES: &[(&[u8], FieldKind)] = &[
            (b"received", FieldKind::Received),
            (b"date", FieldKind::Date),
            (b"message-id", FieldKind::MessageId),
            (b"from", FieldKind::From),
            (b"sender", FieldKind::Sender),
            (b"bcc", FieldKind::Bcc),
            (b"resent-bcc", FieldKind::Bcc),
            (b"return-path", FieldKind::ReturnPath),
        ];
        NAMES
            .iter()
            .find(|(known, _)| name.eq_ignore_ascii_case(known))
            .map_or(Self::Other, |(_, kind)| *kind)
    }
}

/// A field that says who wrote or sent the message.
#[derive(Debug, Default)]
pub struct RawOriginatorField {
    /// How many such fields there are.
    pub count: usize,
    /// The first one's value, folding included.
    pub raw_value: Vec<u8>,
    /// The value was longer than what is kept.
    pub is_truncated: bool,
}

impl RawOriginatorField {
    fn append(&mut self, octets: &[u8]) {
        if self.count > 1 {
            return;
        }
        let room = ORIGINATOR_OCTETS_MAX - self.raw_value.len();
        self.is_truncated |= octets.len() > room;
        self.raw_value.extend_from_slice(octets.get(..octets.len().min(room)).unwrap_or_default());
    }
}

/// Ranges of octets, in order.
#[derive(Debug, Default)]
struct FieldRanges {
    ranges: Vec<(u64, u64)>,
    is_full: bool,
}

impl FieldRanges {
    fn add(&mut self, start: u64, end: u64) {
        let is_full = self.ranges.len() >= FIELD_RANGES_MAX;
        match self.ranges.last_mut() {
            Some(last) if last.1 == start => last.1 = end,
            _ if is_full => self.is_full = true,
            _ => self.ranges.push((start, end)),
        }
    }
}

impl ContentObserver for HeaderScanner {
    fn feed(&mut self, mut octets: &[u8]) {
        while self.state != ScannerState::Body
            && let Some(&octet) = octets.first()
        {
            let used = if self.state == ScannerState::Value {
                self.feed_value(octets)
            } else {
                self.feed_octet(octet)
            };
            self.position += used as u64;
            octets = octets.get(used..).unwrap_or_default();
        }
    }

    fn finish(&mut self) {
        match self.state {
            ScannerState::Value => self.end_field(self.position),
            // A last line without an end.
            ScannerState::LineStart | ScannerState::Cr | ScannerState::Name | ScannerState::AfterName => {
                self.end_section()
            }
            ScannerState::Body => {}
        }
    }
}

impl HeaderScanner {
    /// Takes octets of a value, at most to the end of the line.
    fn feed_value(&mut self, octets: &[u8]) -> usize {
        let line_end = octets.iter().position(|&octet| octet == b'\n');
        let used = line_end.map_or(octets.len(), |at| at + 1);
        let piece = octets.get(..used).unwrap_or_default();
        match self.kind {
            FieldKind::From => self.from.append(piece),
            FieldKind::Sender => self.sender.append(piece),
            FieldKind::Other
            | FieldKind::Received
            | FieldKind::Date
            | FieldKind::MessageId
            | FieldKind::Bcc
            | FieldKind::ReturnPath => {}
        }
        if line_end.is_some() {
            self.state = ScannerState::LineStart;
            self.line_start = self.position + used as u64;
        }
        used
    }

    /// Takes one octet, or none of it if it ends the section.
    fn feed_octet(&mut self, octet: u8) -> usize {
        match (self.state, octet) {
            // RFC 5322 §2.2.3: white space at the beginning of a line continues the field.
            (ScannerState::LineStart, b' ' | b'\t') if self.has_fields => {
                self.state = ScannerState::Value;
                0
            }
            (ScannerState::LineStart, b'\r') => self.advance(ScannerState::Cr),
            (ScannerState::LineStart, 33..=57 | 59..=126) => {
                self.name.clear();
                self.state = ScannerState::Name;
                0
            }
            (ScannerState::Name, 33..=57 | 59..=126) => {
                // One more than the longest, so that a longer one is not taken for it.
                if self.name.len() <= FIELD_NAME_OCTETS_MAX {
                    self.name.push(octet);
                }
                1
            }
            (ScannerState::Name | ScannerState::AfterName, b' ' | b'\t') => {
                self.advance(ScannerState::AfterName)
            }
            (ScannerState::Name | ScannerState::AfterName, b':') => {
                self.begin_field();
                self.advance(ScannerState::Value)
            }
            (ScannerState::LineStart | ScannerState::Cr, b'\n') => {
                // The empty line between header section and body is no sign of a missing header.
                self.has_fields = true;
                self.end_section();
                0
            }
            _ => {
                self.has_malformed_line = self.has_fields;
                self.end_section();
                0
            }
        }
    }

    fn advance(&mut self, state: ScannerState) -> usize {
        self.state = state;
        1
    }

    fn begin_field(&mut self) {
        self.end_field(self.line_start);
        self.field_start = self.line_start;
        self.has_fields = true;
        self.kind = FieldKind::from_name(&self.name);
        match self.kind {
            FieldKind::Received => self.received_count += 1,
            FieldKind::Date => self.has_date = true,
            FieldKind::MessageId => self.has_message_id = true,
            FieldKind::From => self.from.count += 1,
            FieldKind::Sender => self.sender.count += 1,
            FieldKind::Other | FieldKind::Bcc | FieldKind::ReturnPath => {}
        }
    }

    /// The current field, if there is one, ends at `end`.
    fn end_field(&mut self, end: u64) {
        match std::mem::take(&mut self.kind) {
            FieldKind::Bcc => self.bcc_fields.add(self.field_start, end),
            FieldKind::ReturnPath => self.return_path_fields.add(self.field_start, end),
            FieldKind::Other
            | FieldKind::Received
            | FieldKind::Date
            | FieldKind::MessageId
            | FieldKind::From
            | FieldKind::Sender => {}
        }
    }

    fn end_section(&mut self) {
        self.end_field(self.line_start);
        self.is_header_missing = !self.has_fields;
        self.state = ScannerState::Body;
    }

    /// How many Received fields there are.
    #[must_use]
    pub fn received_count(&self) -> usize {
        self.received_count
    }

    /// There is a Date field.
    #[must_use]
    pub fn has_date(&self) -> bool {
        self.has_date
    }

    /// There is a Message-ID field.
    #[must_use]
    pub fn has_message_id(&self) -> bool {
        self.has_message_id
    }

    /// The message begins with a line that is neither a field nor empty: all of it is body.
    #[must_use]
    pub fn is_header_missing(&self) -> bool {
        self.is_header_missing
    }

    /// Behind some fields comes a line that is neither a field nor empty. For us the body begins there;
    /// a reader that passes over such a line sees fields that we have not looked at.
    #[must_use]
    pub fn has_malformed_line(&self) -> bool {
        self.has_malformed_line
    }

    /// The From fields.
    #[must_use]
    pub fn from(&self) -> &RawOriginatorField {
        &self.from
    }

    /// The Sender fields.
    #[must_use]
    pub fn sender(&self) -> &RawOriginatorField {
        &self.sender
    }

    /// There are more Bcc fields than places that can be left out.
    #[must_use]
    pub fn has_too_many_bcc_fields(&self) -> bool {
        self.bcc_fields.is_full
    }

    /// Places of all Return-Path fields that could be remembered, and with `is_submission` of the
    /// Bcc fields; in order.
    #[must_use]
    pub fn removed_ranges(&self, is_submission: bool) -> Vec<(u64, u64)> {
        let mut ranges = self.return_path_fields.ranges.clone();
        if is_submission {
            ranges.extend_from_slice(&self.bcc_fields.ranges);
        }
        ranges.sort_unstable();
        ranges
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MESSAGE: &[u8] = b"Return-Path: <x@y.example>\r\nReceived: by a\r\n\tReceived: folded\r\nreceived: by b\r\n\
        FROM : Ana\r\n <ana@here.example>\r\nBcc: bo@there.example,\r\n\tcy@there.example\r\nResent-BCC: di@there.example\r\n\
        Received:\r\nBccx: no\r\nbcc:\r\n\r\nReceived: body\r\nBcc: body\r\n";

    fn head(octets: &[u8], size: usize) -> HeaderScanner {
        let mut head = HeaderScanner::default();
        octets.chunks(size).for_each(|piece| head.feed(piece));
        head.finish();
        head
    }

    fn without_removed_ranges(octets: &[u8], head: &HeaderScanner) -> String {
        let mut text = String::from_utf8(octets.to_vec()).unwrap();
        for (start, end) in head.removed_ranges(true).into_iter().rev() {
            text.replace_range(usize::try_from(start).unwrap()..usize::try_from(end).unwrap(), "");
        }
        text
    }

    #[test]
    fn fields_are_found_however_the_octets_are_cut() {
        for size in 1..MESSAGE.len() {
            let head = head(MESSAGE, size);
            assert_eq!(head.received_count(), 3, "in pieces of {size}");
            assert_eq!(head.from().count, 1);
            assert_eq!(head.from().raw_value, b" Ana\r\n <ana@here.example>\r\n");
            assert!(!head.has_date() && !head.has_message_id() && !head.is_header_missing());
            assert_eq!(
                without_removed_ranges(MESSAGE, &head),
                "Received: by a\r\n\tReceived: folded\r\nreceived: by b\r\nFROM : Ana\r\n <ana@here.example>\r\n\
                 Received:\r\nBccx: no\r\n\r\nReceived: body\r\nBcc: body\r\n"
            );
        }
    }

    #[test]
    fn only_a_submission_loses_its_bcc_fields() {
        let head = head(MESSAGE, MESSAGE.len());
        assert_eq!(head.removed_ranges(false), [(0, 28)]);
    }

    #[test]
    fn the_section_ends_where_every_reader_thinks_it_ends() {
        for (letter, has_date, is_headless) in [
            (&b"Date: now\r\n\r\n"[..], true, false),
            (b"Date: now", true, false),
            (b"Date\t: now\r\n", true, false),
            (b"date:\n", true, false),
            (b"\r\nDate: body\r\n", false, false),
            (b"", false, true),
            (b"Hello there: Ana\r\nDate: now\r\n", false, true),
            (b" Date: now\r\n", false, true),
            (b"Hello\r\nDate: now\r\n", false, true),
            (b": x\r\nDate: now\r\n", false, true),
            (b"A: b\r\nno field\r\nDate: now\r\n", false, false),
            (b"Dat: x\r\nDates: x\r\nX-Date: x\r\nA: b\r\n Date: x\r\n", false, false),
        ] {
            for size in [1, 2, 3, 100] {
                let head = head(letter, size);
                let shown = String::from_utf8_lossy(letter);
                assert_eq!((head.has_date(), head.is_header_missing()), (has_date, is_headless), "{shown:?}");
            }
        }
    }

    #[test]
    fn a_bcc_field_that_ends_the_message_is_left_out_whole() {
        for letter in
            [&b"A: b\r\nBcc: x"[..], b"A: b\r\nBcc: x\r\n", b"A: b\r\nBcc: x\r\n y", b"A: b\r\nbcc:\r\n\r\n"]
        {
            let head = head(letter, 1);
            assert!(
                without_removed_ranges(letter, &head).trim_end() == "A: b",
                "{}",
                String::from_utf8_lossy(letter)
            );
        }
    }

    #[test]
    fn memory_does_not_grow_with_the_header() {
        let mut head = HeaderScanner::default();
        for number in 0..1000 {
            head.feed(
                format!("From: {}\r\nX-{number}: y\r\nBcc: z\r\nA: b\r\n", "x".repeat(1000)).as_bytes(),
            );
        }
        head.feed(b"Y");
        (0..1000).for_each(|_| head.feed(&[b'x'; 1000]));
        assert!(head.from().count == 1000 && head.from().raw_value.len() == 1003);
        assert!(head.has_too_many_bcc_fields() && head.removed_ranges(true).len() == FIELD_RANGES_MAX);
        assert!(head.name.capacity() < 64);

        let mut head = HeaderScanner::default();
        head.feed(b"Sender: ");
        (0..1000).for_each(|_| head.feed(&[b'x'; 1000]));
        assert!(head.sender().is_truncated && head.sender().raw_value.len() == ORIGINATOR_OCTETS_MAX);
    }
}
