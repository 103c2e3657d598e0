//! The octets of a queued message as a courier reads them: added fields first, without the removed ranges,
//! and with a line end at the end.

use std::io::{self, Read};

use crate::courier::Message;
use crate::mail::Envelope;
use crate::spool::Extent;
use crate::sys::DiskFile;

/// A message on disk, with the fields that its envelope adds and the ranges that it removes.
pub(super) struct OutgoingContent {
    extent: Extent,
    added_text: String,
    /// Ranges of the file that are sent, in order.
    sent_ranges: Vec<(u64, u64)>,
    /// The octets that complete the last line end.
    final_line_end: &'static [u8],
}

impl OutgoingContent {
    /// Reads the last two octets only.
    pub(super) fn new(extent: Extent, envelope: &Envelope) -> io::Result<Self> {
        let mut parts = sent_ranges(envelope, extent.octets);
        for (start, end) in &mut parts {
            *start += extent.offset;
            *end += extent.offset;
        }
        // Content that came by BDAT need not end with a line end (RFC 3030 §3), but every next hop needs one.
        let ending: &[u8] = match parts.last() {
            Some((_, end)) => {
                let mut last = [0; 2];
                let from = end.saturating_sub(2).max(extent.offset);
                let n = extent.file.read_at(&mut last, from)?;
                match last.get(..n) {
                    Some([b'\r', b'\n']) => b"",
                    _ => b"\r\n",
                }
            }
            None => b"",
        };
        Ok(Self { extent, added_text: envelope.added_text(), sent_ranges: parts, final_line_end: ending })
    }
}

impl Message for OutgoingContent {
    fn octets(&self) -> u64 {
        let parts: u64 = self.sent_ranges.iter().map(|(start, end)| end - start).sum();
        self.added_text.len() as u64 + parts + self.final_line_end.len() as u64
    }

    fn open(&self) -> io::Result<Box<dyn Read + '_>> {
        let body = RangeReader { file: &*self.extent.file, current_range: None, rest: &self.sent_ranges };
        Ok(Box::new(self.added_text.as_bytes().chain(body).chain(self.final_line_end)))
    }
}

/// The ranges of a message of `octets` that are sent, in order.
pub(super) fn sent_ranges(envelope: &Envelope, octets: u64) -> Vec<(u64, u64)> {
    let mut parts = Vec::with_capacity(envelope.removed_ranges.len() + 1);
    let mut from = 0;
    for (start, end) in &envelope.removed_ranges {
        let (start, end) = ((*start).min(octets), (*end).min(octets));
        if from < start {
            parts.push((from, start));
        }
        from = from.max(end);
    }
    if from < octets {
        parts.push((from, octets));
    }
    parts
}

struct RangeReader<'a> {
    file: &'a dyn DiskFile,
    /// The rest of the range that is being read.
    current_range: Option<(u64, u64)>,
    rest: &'a [(u64, u64)],
}

impl Read for RangeReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let (start, end) = match (self.current_range, self.rest) {
            (Some(at), _) => at,
            (None, [first, rest @ ..]) => {
                self.rest = rest;
                *first
            }
            (None, []) => return Ok(0),
        };
        let wanted = buffer.len().min(usize::try_from(end - start).unwrap_or(usize::MAX));
        let Some(buffer) = buffer.get_mut(..wanted).filter(|buffer| !buffer.is_empty()) else {
            return Ok(0);
        };
        match self.file.read_at(buffer, start)? {
            // The file is shorter than the message. Half a message must not be sent as if it were whole.
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            n => {
                let start = start + n as u64;
                self.current_range = (start < end).then_some((start, end));
                Ok(n)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mail::{AddedField, MessageId, ReversePath, Timestamp};
    use crate::sys::{Disk as _, SystemDisk};

    fn sent(stored: &[u8], added: &str, removed: &[(u64, u64)]) -> String {
        let dir = tempfile::tempdir().unwrap();
        let file = SystemDisk.create(&dir.path().join("f")).unwrap();
        file.append(b"before").unwrap();
        file.append(stored).unwrap();
        file.append(b"behind").unwrap();
        let at = Timestamp::from_millis(0);
        let mut envelope = Envelope::new(MessageId::new(at, 0), at, ReversePath::Null, Vec::new());
        envelope.added_fields = AddedField::parse_all(added).unwrap();
        envelope.removed_ranges = removed.to_vec();
        let content =
            OutgoingContent::new(Extent { file, offset: 6, octets: stored.len() as u64 }, &envelope).unwrap();
        let mut text = String::new();
        content.open().unwrap().read_to_string(&mut text).unwrap();
        assert_eq!(content.octets(), text.len() as u64);
        text
    }

    #[test]
    fn added_fields_come_first_and_removed_ranges_are_left_out() {
        assert_eq!(sent(b"A: b\r\nC: d\r\n\r\nx\r\n", "R: s\r\n", &[]), "R: s\r\nA: b\r\nC: d\r\n\r\nx\r\n");
        assert_eq!(sent(b"A: b\r\nC: d\r\n\r\nx\r\n", "", &[(0, 6), (15, 15)]), "C: d\r\n\r\nx\r\n");
        assert_eq!(sent(b"A: b\r\nC: d\r\n\r\nx\r\n", "", &[(6, 12)]), "A: b\r\n\r\nx\r\n");
    }

    #[test]
    fn a_message_is_sent_with_a_line_end_even_if_it_arrived_without() {
        assert_eq!(sent(b"A: b\r\n\r\nx", "", &[]), "A: b\r\n\r\nx\r\n");
        assert_eq!(sent(b"x", "", &[]), "x\r\n");
        assert_eq!(sent(b"", "R: s\r\n", &[]), "R: s\r\n");
    }
}
