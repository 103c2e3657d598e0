//! Finds the fields of a header section, without interpreting them.
//!
//! Works on octets, because a header section may hold anything, and never fails: the first line that is not
//! a field (no colon, a space in the name) ends the header section. The caller limits how much of a message
//! it passes.

use std::ops::Range;

/// One header field (RFC 5322 §2.2).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeaderField<'a> {
    /// The name as written, without the colon.
    pub name: &'a str,
    /// The octets after the colon, folding and the last line end included.
    pub raw_value: &'a [u8],
    /// The position of the field, line end included.
    pub range: Range<usize>,
}

impl HeaderField<'_> {
    /// Names are compared without regard to case.
    #[must_use]
    pub fn has_name(&self, name: &str) -> bool {
        self.name.eq_ignore_ascii_case(name)
    }

    /// The value unfolded: line ends removed, white space trimmed (RFC 5322 §2.2.3).
    #[must_use]
    pub fn value(&self) -> String {
        let unfolded: Vec<u8> =
            self.raw_value.iter().copied().filter(|b| !matches!(b, b'\r' | b'\n')).collect();
        String::from_utf8_lossy(&unfolded).trim().to_owned()
    }
}

/// The fields of a header section, from the top.
#[derive(Debug, Clone)]
pub struct HeaderFields<'a> {
    octets: &'a [u8],
    position: usize,
}

impl<'a> HeaderFields<'a> {
    /// Reads the start of a message, with CRLF or LF line ends.
    #[must_use]
    pub fn new(octets: &'a [u8]) -> Self {
        Self { octets, position: 0 }
    }

    /// The header section of a message: its fields, and the empty line if there is one.
    #[must_use]
    pub fn section(octets: &'a [u8]) -> &'a [u8] {
        octets.get(..Self::section_octets(octets)).unwrap_or_default()
    }

    /// The length of the header section in octets, which is where the body begins.
    #[must_use]
    pub fn section_octets(octets: &'a [u8]) -> usize {
        let mut fields = Self::new(octets);
        while fields.next().is_some() {}
        let rest = octets.get(fields.position..).unwrap_or_default();
        fields.position
            + match rest {
                [b'\r', b'\n', ..] => 2,
                [b'\n', ..] => 1,
                _ => 0,
            }
    }
}

impl<'a> Iterator for HeaderFields<'a> {
    type Item = HeaderField<'a>;

    fn next(&mut self) -> Option<HeaderField<'a>> {
        let rest = self.octets.get(self.position..)?;
        let colon = rest.iter().position(|&b| b == b':')?;
        let name = rest.get(..colon)?;
        // RFC 5322 §2.2: printable US-ASCII except the colon. Space before the colon is obsolete syntax
        // (§4.5.8) and accepted.
        let spaces = name.iter().rev().take_while(|octet| matches!(octet, b' ' | b'\t')).count();
        let name = name.get(..name.len() - spaces)?;
        if name.is_empty() || !name.iter().all(|b| (33..=126).contains(b)) {
            return None;
        }
        let mut end = colon + 1;
        loop {
            end += match rest.get(end..)?.iter().position(|&b| b == b'\n') {
                Some(line_end) => line_end + 1,
                None => rest.len() - end,
            };
            // A line that starts with white space continues the field (RFC 5322 §2.2.3).
            if !matches!(rest.get(end), Some(b' ' | b'\t')) {
                break;
            }
        }
        let start = self.position;
        self.position += end;
        Some(HeaderField {
            name: std::str::from_utf8(name).ok()?,
            raw_value: rest.get(colon + 1..end)?,
            range: start..self.position,
        })
    }
}

/// Finds the empty line that ends a header section, in a message that comes in pieces of any size.
///
/// Only an empty line counts: unlike [`HeaderFields`] it goes on after a line that is not a field.
#[derive(Debug, Default)]
pub struct HeaderEnd {
    /// The current line has an octet that is not part of a line end.
    is_in_line: bool,
    is_found: bool,
}

impl HeaderEnd {
    /// Takes the next octets. Returns how many of them belong to the header section, the empty line
    /// included: all until the empty line has come, and none after it.
    pub fn feed(&mut self, octets: &[u8]) -> usize {
        if self.is_found {
            return 0;
        }
        let mut line_start = 0;
        while let Some(length) =
            octets.get(line_start..).and_then(|rest| rest.iter().position(|&octet| octet == b'\n'))
        {
            let line = octets.get(line_start..line_start + length).unwrap_or_default();
            let is_empty = !self.is_in_line && line.iter().all(|&octet| octet == b'\r');
            line_start += length + 1;
            self.is_in_line = false;
            if is_empty {
                self.is_found = true;
                return line_start;
            }
        }
        let rest = octets.get(line_start..).unwrap_or_default();
        self.is_in_line |= rest.iter().any(|&octet| octet != b'\r');
        octets.len()
    }

    /// The empty line has come.
    #[must_use]
    pub fn is_found(&self) -> bool {
        self.is_found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MESSAGE: &[u8] = b"Received: by a\r\n\twith b\r\nSubject : hello\r\n there\r\n\r\nBody: no\r\n";

    #[test]
    fn folded_fields_are_found_and_the_body_is_not_read() {
        let fields: Vec<_> = HeaderFields::new(MESSAGE).collect();
        assert_eq!(fields.len(), 2);
        assert_eq!(fields[0].value(), "by a\twith b");
        assert_eq!(fields[0].range, 0..25);
        assert_eq!(&MESSAGE[fields[1].range.clone()], b"Subject : hello\r\n there\r\n");
        assert_eq!(&MESSAGE[HeaderFields::section_octets(MESSAGE)..], b"Body: no\r\n");
    }

    #[test]
    fn a_line_that_is_not_a_field_ends_the_section() {
        assert_eq!(HeaderFields::new(b"not a field\r\nA: b\r\n").count(), 0);
        assert_eq!(HeaderFields::new(b"A\r\n\t: b\r\n").count(), 0, "a name is on one line with its colon");
        assert_eq!(HeaderFields::new(b"").count(), 0);
        assert_eq!(HeaderFields::new(b"A:").count(), 1);
        assert_eq!(HeaderFields::section_octets(b"A: b"), 4);
        assert_eq!(HeaderFields::section_octets(b"\r\nbody"), 2);
    }

    #[test]
    fn the_empty_line_is_found_however_the_octets_are_cut() {
        for (message, header_octets) in [
            (MESSAGE, MESSAGE.len() - "Body: no\r\n".len()),
            (b"A: b\n\nbody\n\n", 6),
            (b"A: b\r\nno field\r\n\r\nbody", 18),
            (b"\r\nbody", 2),
            (b"A: b\r\n", 6),
            (b"A: b\r\n\t\r\n", 9),
            (b"", 0),
        ] {
            for size in 1..=message.len().max(1) {
                let mut end = HeaderEnd::default();
                let octets: usize = message.chunks(size).map(|piece| end.feed(piece)).sum();
                assert_eq!(octets, header_octets, "{message:?} by {size}");
                assert_eq!(end.is_found(), header_octets < message.len(), "{message:?} by {size}");
            }
        }
    }
}
