//! Reads the header section of a message while it arrives, and keeps what the content rules ask about.
//!
//! Memory is bounded, however long the header section is: a count, a few flags, the first octets of the
//! originator fields, and a limited number of ranges to leave out. Fields are recognised as in
//! `mail::HeaderFields`: the section ends at the first line that is no field (no colon, a space in the name).

use super::content_observer::ContentObserver;

/// Octets kept of each originator field: fifty long addresses.
const ORIGINATOR_OCTETS_MAX: usize = 8 * 1024;
/// Ranges kept of fields to leave out; adjacent fields share one range.
const FIELD_RANGES_MAX: usize = 32;
/// The longest name of interest.
const FIELD_NAME_OCTETS_MAX: usize = b"return-path".len();

/// What was found in the header section so far.
#[derive(Debug, Default)]
pub struct HeaderScanner {
    state: ScannerState,
    /// Octets of the message so far.
    position: u64,
    /// The position at which the current line begins.
    line_start: u64,
    /// The position at which the current field begins.
    field_start: u64,
    /// The first octets of the name that is being read.
    name: Vec<u8>,
    /// The kind of the current field.
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

/// The part of the header section at the current position.
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

/// The fields of interest.
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

/// A From or Sender field: the author or the sender of the message.
#[derive(Debug, Default)]
pub struct RawOriginatorField {
    /// The number of such fields.
    pub count: usize,
    /// The first one's value, folding included.
    pub raw_value: Vec<u8>,
    /// The value was longer than the part that is kept.
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

    /// The number of Received fields.
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

    /// After some fields comes a line that is neither a field nor empty. The body begins there; a reader that
    /// skips such a line sees fields that were not looked at here.
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

    /// There are more separate ranges of Bcc fields than can be left out.
    #[must_use]
    pub fn has_too_many_bcc_fields(&self) -> bool {
        self.bcc_fields.is_full
    }

    /// The ranges of the Return-Path fields that are kept, and of a submission also those of the Bcc fields;
    /// in order.
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

    fn scan(octets: &[u8], size: usize) -> HeaderScanner {
        let mut header = HeaderScanner::default();
        octets.chunks(size).for_each(|piece| header.feed(piece));
        header.finish();
        header
    }

    fn without_removed_ranges(octets: &[u8], header: &HeaderScanner) -> String {
        let mut text = String::from_utf8(octets.to_vec()).unwrap();
        for (start, end) in header.removed_ranges(true).into_iter().rev() {
            text.replace_range(usize::try_from(start).unwrap()..usize::try_from(end).unwrap(), "");
        }
        text
    }

    #[test]
    fn fields_are_found_in_pieces_of_any_size() {
        for size in 1..MESSAGE.len() {
            let header = scan(MESSAGE, size);
            assert_eq!(header.received_count(), 3, "in pieces of {size}");
            assert_eq!(header.from().count, 1);
            assert_eq!(header.from().raw_value, b" Ana\r\n <ana@here.example>\r\n");
            assert!(!header.has_date() && !header.has_message_id() && !header.is_header_missing());
            assert_eq!(
                without_removed_ranges(MESSAGE, &header),
                "Received: by a\r\n\tReceived: folded\r\nreceived: by b\r\nFROM : Ana\r\n <ana@here.example>\r\n\
                 Received:\r\nBccx: no\r\n\r\nReceived: body\r\nBcc: body\r\n"
            );
        }
    }

    #[test]
    fn only_a_submission_loses_its_bcc_fields() {
        let header = scan(MESSAGE, MESSAGE.len());
        assert_eq!(header.removed_ranges(false), [(0, 28)]);
    }

    #[test]
    fn the_header_section_ends_at_the_first_line_that_is_no_field() {
        for (message, has_date, is_headless) in [
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
                let header = scan(message, size);
                let shown = String::from_utf8_lossy(message);
                assert_eq!(
                    (header.has_date(), header.is_header_missing()),
                    (has_date, is_headless),
                    "{shown:?}"
                );
            }
        }
    }

    #[test]
    fn a_bcc_field_at_the_end_of_the_message_is_left_out_whole() {
        for message in
            [&b"A: b\r\nBcc: x"[..], b"A: b\r\nBcc: x\r\n", b"A: b\r\nBcc: x\r\n y", b"A: b\r\nbcc:\r\n\r\n"]
        {
            let header = scan(message, 1);
            assert!(
                without_removed_ranges(message, &header).trim_end() == "A: b",
                "{}",
                String::from_utf8_lossy(message)
            );
        }
    }

    #[test]
    fn memory_does_not_grow_with_the_header() {
        let mut header = HeaderScanner::default();
        for number in 0..1000 {
            header.feed(
                format!("From: {}\r\nX-{number}: y\r\nBcc: z\r\nA: b\r\n", "x".repeat(1000)).as_bytes(),
            );
        }
        header.feed(b"Y");
        (0..1000).for_each(|_| header.feed(&[b'x'; 1000]));
        assert!(header.from().count == 1000 && header.from().raw_value.len() == 1003);
        assert!(header.has_too_many_bcc_fields() && header.removed_ranges(true).len() == FIELD_RANGES_MAX);
        assert!(header.name.capacity() < 64);

        let mut header = HeaderScanner::default();
        header.feed(b"Sender: ");
        (0..1000).for_each(|_| header.feed(&[b'x'; 1000]));
        assert!(header.sender().is_truncated && header.sender().raw_value.len() == ORIGINATOR_OCTETS_MAX);
    }
}
