//! One record of the journal, with its checksums.
//!
//! A record is a head line in ASCII, then a text (JSON), then octets, then a line end:
//!
//! ```text
//! postrider-2 KIND ID TEXT-OCTETS MESSAGE-OCTETS HEAD-CRC32 CRC32␊
//! ```
//!
//! The first checksum covers the head line before it, the second covers that, the text and the octets. Both
//! also cover a salt that is only in the segment's file name. A message may contain octets that look like a
//! record. When reading continues after a torn record and passes through such a message, the checksums do not
//! match, because no client can find out the salt. A segment that is written over still has its old records
//! after the new ones: the first checksum shows, at little cost, that they are not records of this segment.
//!
//! Reading takes time in proportion to the octets, whatever messages contain: no octet is read more than
//! twice for checksums. A checksum is computed only for text that has the form of a head line, and no such
//! line begins within another. If a head line is sound, so are its lengths: no record of this segment begins
//! within them.

use std::ops::Range;

use crate::mail::MessageId;

/// The kinds of records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RecordKind {
    /// A message: envelope and octets.
    Put,
    /// A change of a message's progress, as JSON.
    Note,
    /// The message is now in a file of its own.
    Moved,
    /// The message is settled.
    Done,
    /// The message was written but not accepted, because a sync failed.
    Cancel,
}

const RECORD_KIND_NAMES: [(RecordKind, &str); 5] = [
    (RecordKind::Put, "put"),
    (RecordKind::Note, "note"),
    (RecordKind::Moved, "moved"),
    (RecordKind::Done, "done"),
    (RecordKind::Cancel, "cancel"),
];
const VERSION: u32 = 2;
const MAGIC: &[u8] = b"postrider-";
/// A head line is not longer than this.
const HEAD_OCTETS_MAX: usize = 120;

/// A record that was found, and where it is in the segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct JournalRecord {
    pub(super) kind: RecordKind,
    pub(super) id: MessageId,
    pub(super) text: Range<usize>,
    pub(super) octets: Range<usize>,
    /// The position after its line end.
    pub(super) end: usize,
}

/// What is at a position of a segment.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum ScanResult {
    /// A sound record.
    Record(JournalRecord),
    /// Damage: octets that are no record, with a record after them.
    Damaged(Range<usize>),
    /// A record of full length whose checksum is wrong, with no record after it: a torn write, or damage to
    /// an accepted message.
    ChecksumMismatch(Range<usize>),
    /// Records of a later version of this program.
    Newer(u32),
    /// No more records; there may be a torn write, or old octets of a file that is written over.
    End,
}

/// A record without its segment's salt. It is copied and its checksum is computed before the journal is
/// locked.
pub(super) struct PreparedRecord {
    /// Room for the head line, then text, octets and line end.
    record: Vec<u8>,
    /// The head line without its checksums.
    head: String,
    /// The checksum of text and octets.
    crc: crc32fast::Hasher,
}

impl PreparedRecord {
    pub(super) fn new(kind: RecordKind, id: &MessageId, text: &[u8], octets: &[u8]) -> Self {
        let word = RECORD_KIND_NAMES.iter().find(|(other, _)| *other == kind).map_or("", |(_, word)| word);
        let head = format!("postrider-{VERSION} {word} {id} {} {}", text.len(), octets.len());
        let mut crc = crc32fast::Hasher::new();
        crc.update(text);
        crc.update(octets);
        let mut record = Vec::with_capacity(HEAD_OCTETS_MAX + text.len() + octets.len() + 1);
        record.resize(HEAD_OCTETS_MAX, 0);
        for part in [text, octets, b"\n"] {
            record.extend_from_slice(part);
        }
        Self { record, head, crc }
    }

    /// The record for a segment with this salt, and where its text begins in the record.
    pub(super) fn finish_with_salt(&mut self, salt: u32) -> (&[u8], usize) {
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(&salt.to_be_bytes());
        hasher.update(self.head.as_bytes());
        let head_sum = hasher.clone().finalize();
        hasher.combine(&self.crc);
        let line = format!("{} {head_sum:08x} {:08x}\n", self.head, hasher.finalize());
        // The head line is right before the text.
        let start = HEAD_OCTETS_MAX.saturating_sub(line.len());
        let room = self.record.iter_mut().skip(start);
        room.zip(line.bytes()).for_each(|(slot, octet)| *slot = octet);
        (self.record.get(start..).unwrap_or_default(), line.len())
    }
}

/// Reads the records of a segment.
pub(super) struct Scanner<'a> {
    segment: &'a [u8],
    salt: u32,
    /// The candidate after damage, examined when the end of the damage was searched.
    lookahead: Option<(usize, Candidate)>,
    /// Octets of the segment that went into checksums so far.
    hashed: u64,
}

/// What a position of a segment looks like, without regard to the records before and after it.
enum Candidate {
    Valid(JournalRecord),
    /// Of a later version.
    Newer(u32),
    /// A sound head line; the record that ends here has a wrong checksum.
    ChecksumMismatch {
        end: usize,
    },
    /// A sound head line; the record is longer than the rest of the segment.
    Torn,
    NoRecord,
}

/// Text that has the form of a head line.
struct RecordHeader<'a> {
    kind: RecordKind,
    id: MessageId,
    text_octets: usize,
    message_octets: usize,
    /// The part of the line that the checksums cover.
    checksummed: &'a str,
    header_crc: u32,
    record_crc: u32,
}

impl<'a> Scanner<'a> {
    pub(super) fn new(segment: &'a [u8], salt: u32) -> Self {
        Self { segment, salt, lookahead: None, hashed: 0 }
    }

    /// What is at `position`, which is 0 or the end of the last result.
    pub(super) fn scan(&mut self, position: usize) -> ScanResult {
        if position >= self.segment.len() {
            return ScanResult::End;
        }
        let candidate = match self.lookahead.take() {
            Some((at, candidate)) if at == position => candidate,
            _ => self.examine(position),
        };
        let is_wrong = matches!(candidate, Candidate::ChecksumMismatch { .. });
        let mut next = match candidate {
            Candidate::Valid(record) => return ScanResult::Record(record),
            // One version writes a whole segment, so only the version of the first record counts.
            Candidate::Newer(version) if position == 0 => return ScanResult::Newer(version),
            Candidate::Torn => return ScanResult::End,
            Candidate::ChecksumMismatch { end } => end,
            Candidate::Newer(_) | Candidate::NoRecord => position + 1,
        };
        while let Some(found) = find_magic(self.segment, next) {
            match self.examine(found) {
                candidate @ (Candidate::Valid(_) | Candidate::ChecksumMismatch { .. }) => {
                    self.lookahead = Some((found, candidate));
                    return ScanResult::Damaged(position..found);
                }
                Candidate::Torn => break,
                Candidate::Newer(_) | Candidate::NoRecord => next = found + 1,
            }
        }
        if is_wrong { ScanResult::ChecksumMismatch(position..self.segment.len()) } else { ScanResult::End }
    }

    fn examine(&mut self, position: usize) -> Candidate {
        self.read(position).unwrap_or(Candidate::NoRecord)
    }

    fn read(&mut self, position: usize) -> Option<Candidate> {
        let segment = self.segment;
        let rest = segment.get(position..)?;
        let line_end = memchr::memchr(b'\n', rest.get(..HEAD_OCTETS_MAX).unwrap_or(rest))?;
        let line = std::str::from_utf8(rest.get(..line_end)?).ok()?;
        let version: u32 = line.strip_prefix("postrider-")?.split_once(' ')?.0.parse().ok()?;
        if version > VERSION {
            return Some(Candidate::Newer(version));
        }
        let head = RecordHeader::parse(line)?;
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(&self.salt.to_be_bytes());
        self.add_to_checksum(&mut hasher, head.checksummed.as_bytes());
        if hasher.clone().finalize() != head.header_crc {
            return None;
        }
        let text_at = position + line_end + 1;
        let octets_at = text_at.checked_add(head.text_octets)?;
        let end = octets_at.checked_add(head.message_octets)?;
        if end >= segment.len() {
            return Some(Candidate::Torn);
        }
        self.add_to_checksum(&mut hasher, segment.get(text_at..end)?);
        if segment.get(end) != Some(&b'\n') || hasher.finalize() != head.record_crc {
            return Some(Candidate::ChecksumMismatch { end });
        }
        let RecordHeader { kind, id, .. } = head;
        Some(Candidate::Valid(JournalRecord {
            kind,
            id,
            text: text_at..octets_at,
            octets: octets_at..end,
            end: end + 1,
        }))
    }

    fn add_to_checksum(&mut self, hasher: &mut crc32fast::Hasher, octets: &[u8]) {
        self.hashed += octets.len() as u64;
        hasher.update(octets);
    }
}

impl<'a> RecordHeader<'a> {
    /// Reads a line without its line end. Computes no checksum.
    fn parse(line: &'a str) -> Option<Self> {
        let (head, sum) = line.rsplit_once(' ')?;
        let (covered, head_sum) = head.rsplit_once(' ')?;
        let words: Vec<&str> = covered.split(' ').collect();
        let [magic, word, id, text, message] = words.as_slice() else { return None };
        if magic.strip_prefix("postrider-")? != VERSION.to_string() {
            return None;
        }
        Some(Self {
            kind: RECORD_KIND_NAMES.iter().find(|(_, other)| other == word)?.0,
            id: id.parse().ok()?,
            text_octets: parse_decimal(text)?,
            message_octets: parse_decimal(message)?,
            checksummed: covered,
            header_crc: parse_crc(head_sum)?,
            record_crc: parse_crc(sum)?,
        })
    }
}

fn parse_decimal(word: &str) -> Option<usize> {
    word.bytes().all(|octet| octet.is_ascii_digit()).then(|| word.parse().ok())?
}

/// Reads a checksum: eight hexadecimal digits in lower case.
fn parse_crc(word: &str) -> Option<u32> {
    let is_form = word.len() == 8 && word.bytes().all(|octet| matches!(octet, b'0'..=b'9' | b'a'..=b'f'));
    is_form.then(|| u32::from_str_radix(word, 16).ok())?
}

fn find_magic(segment: &[u8], from: usize) -> Option<usize> {
    memchr::memmem::find(segment.get(from..)?, MAGIC).map(|at| from + at)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fakes::assert_golden;
    use crate::mail::Timestamp;

    const SALT: u32 = 7;

    fn id(n: u64) -> MessageId {
        MessageId::new(Timestamp::from_millis(1), n)
    }

    fn scan(segment: &[u8], salt: u32, position: usize) -> ScanResult {
        Scanner::new(segment, salt).scan(position)
    }

    fn encode(out: &mut Vec<u8>, salt: u32, kind: RecordKind, id: &MessageId, text: &[u8], octets: &[u8]) {
        out.extend_from_slice(PreparedRecord::new(kind, id, text, octets).finish_with_salt(salt).0);
    }

    #[test]
    fn a_record_can_be_written_again_to_another_segment() {
        let mut prepared = PreparedRecord::new(RecordKind::Put, &id(1), b"{}", b"Subject: x\r\n\r\n");
        for salt in [SALT, SALT + 1] {
            let (octets, text_at) = prepared.finish_with_salt(salt);
            let ScanResult::Record(record) = scan(octets, salt, 0) else { panic!("{salt}") };
            assert_eq!((record.text.start, record.end), (text_at, octets.len()));
        }
    }

    fn segment() -> (Vec<u8>, usize, usize) {
        let mut out = Vec::new();
        encode(&mut out, SALT, RecordKind::Put, &id(1), b"{}", b"Subject: x\r\n\r\n");
        let second = out.len();
        encode(&mut out, SALT, RecordKind::Put, &id(2), b"{}", b"two");
        let third = out.len();
        encode(&mut out, SALT, RecordKind::Done, &id(1), b"", b"");
        (out, second, third)
    }

    /// The records, the number of damaged ranges, and where reading ended. Checks how many octets were read.
    fn ids(segment: &[u8]) -> (Vec<MessageId>, usize, usize) {
        let (mut ids, mut damaged, mut position) = (Vec::new(), 0, 0);
        let mut scanner = Scanner::new(segment, SALT);
        loop {
            match scanner.scan(position) {
                ScanResult::Record(record) => {
                    ids.push(record.id);
                    position = record.end;
                }
                ScanResult::Damaged(range) => {
                    damaged += 1;
                    position = range.end;
                }
                ScanResult::ChecksumMismatch(range) => {
                    damaged += 1;
                    position = range.end;
                }
                ScanResult::Newer(_) | ScanResult::End => break,
            }
        }
        let (hashed, octets) = (scanner.hashed, segment.len() as u64);
        assert!(hashed <= 2 * octets, "checksums of {hashed} octets for {octets}");
        (ids, damaged, position)
    }

    #[test]
    fn the_format_of_a_record_is_the_golden_file() {
        let mut octets = Vec::new();
        for (kind, text, content) in [
            (RecordKind::Put, &b"{}"[..], &b"Subject: hello\n\nHello.\n"[..]),
            (RecordKind::Note, b"{\"attempts\":1}", b""),
            (RecordKind::Moved, b"", b""),
            (RecordKind::Done, b"", b""),
            (RecordKind::Cancel, b"", b""),
        ] {
            encode(&mut octets, SALT, kind, &id(1), text, content);
        }
        assert_golden("journal-records.txt", std::str::from_utf8(&octets).unwrap());
    }

    #[test]
    fn records_that_are_written_can_be_read() {
        let (octets, ..) = segment();
        let ScanResult::Record(record) = scan(&octets, SALT, 0) else { panic!() };
        assert_eq!(&octets[record.octets], b"Subject: x\r\n\r\n");
        assert_eq!(ids(&octets), (vec![id(1), id(2), id(1)], 0, octets.len()));
    }

    #[test]
    fn records_of_version_1_count_as_damage() {
        let mut octets = format!("postrider-1 put {} 2 3 0123abcd\n{{}}two\n", id(1)).into_bytes();
        encode(&mut octets, SALT, RecordKind::Done, &id(2), b"", b"");
        assert_eq!(ids(&octets), (vec![id(2)], 1, octets.len()));
    }

    /// Bodies that look like records of the journal, about 60 KB each.
    fn hostile_bodies() -> Vec<Vec<u8>> {
        const OCTETS: usize = 60_000;
        let fill = |line: &dyn Fn(u64) -> Vec<u8>| {
            let mut body = Vec::new();
            for n in 0.. {
                if body.len() >= OCTETS {
                    return body;
                }
                body.extend_from_slice(&line(n));
            }
            unreachable!()
        };
        let head = |version: u32, octets: u64| format!("postrider-{version} put {} 0 {octets}", id(66));
        let mut nested = b"postrider-2 ".to_vec();
        for _ in 0..300 {
            let mut outer = Vec::new();
            encode(&mut outer, SALT + 1, RecordKind::Put, &id(66), b"{}", &nested);
            nested = outer;
        }
        let mut own = Vec::new();
        (0..300)
            .for_each(|n| encode(&mut own, SALT + 1, RecordKind::Put, &id(n), b"{}", b"another segment's"));
        vec![
            fill(&|n| format!("{} 0123abcd\r\n", head(1, n)).into_bytes()),
            fill(&|n| format!("{} {n:08x} 0123abcd\n", head(2, n)).into_bytes()),
            fill(&|n| format!("{} {n:08x} 0123abcd\r\n", head(2, 1 << 15)).into_bytes()),
            fill(&|n| format!("{} {n:08x} 0123abcd\n", head(2, u64::MAX - n)).into_bytes()),
            fill(&|_| b"postrider-2 ".to_vec()),
            fill(&|_| b"postrider-2 put ".to_vec()),
            fill(&|_| format!("{} ", head(2, 9)).into_bytes()),
            fill(&|n| format!("{} {} {n:08x} 0123abcd\n", head(2, 9), head(2, 9)).into_bytes()),
            nested,
            own,
        ]
    }

    #[test]
    fn no_octet_is_read_more_than_twice_for_checksums_whatever_messages_contain() {
        for (number, body) in hostile_bodies().iter().enumerate() {
            let mut octets = Vec::new();
            let mut starts = Vec::new();
            for n in 0..3 {
                starts.push(octets.len());
                encode(&mut octets, SALT, RecordKind::Put, &id(n), b"{}", body);
            }
            starts.push(octets.len());
            encode(&mut octets, SALT, RecordKind::Done, &id(3), b"", b"");
            let all = vec![id(0), id(1), id(2), id(3)];
            assert_eq!(ids(&octets), (all, 0, octets.len()), "{number}: sound");

            let torn = &octets[..octets.len() - body.len() / 2];
            assert_eq!(ids(torn), (vec![id(0), id(1)], 0, starts[2]), "{number}: a torn tail");
            let torn = &octets[..starts[2] + 20];
            assert_eq!(ids(torn), (vec![id(0), id(1)], 0, starts[2]), "{number}: a torn head");

            for at in [starts[1] + 3, starts[1] + 40, starts[1] + 200, starts[2] - 1] {
                let mut damaged = octets.clone();
                damaged[at] ^= 1;
                assert_eq!(ids(&damaged), (vec![id(0), id(2), id(3)], 1, octets.len()), "{number}: {at}");
            }
            let mut heads = octets.clone();
            let mut bodies = octets.clone();
            starts[..3].iter().for_each(|start| heads[start + 20] ^= 1);
            starts[1..].iter().for_each(|start| bodies[start - 1] ^= 1);
            assert_eq!(ids(&heads), (vec![id(3)], 1, octets.len()), "{number}: no head");
            assert_eq!(ids(&bodies), (vec![id(3)], 3, octets.len()), "{number}: no body");

            // Written over: the old octets are after the end.
            let mut over = Vec::new();
            encode(&mut over, SALT, RecordKind::Put, &id(9), b"{}", b"new");
            let end = over.len();
            let mut old = Vec::new();
            (0..3).for_each(|n| encode(&mut old, SALT + 1, RecordKind::Put, &id(n), b"{}", body));
            for cut in [0, 10, 200, body.len()] {
                let over = [&over[..], &old[cut..]].concat();
                assert_eq!(ids(&over), (vec![id(9)], 0, end), "{number}: written over, {cut}");
            }
        }
    }

    #[test]
    fn damage_in_two_adjacent_records_is_found_in_both() {
        let (mut octets, second, third) = segment();
        octets.truncate(third);
        octets[30] ^= 1;
        octets[third - 2] ^= 1;
        assert_eq!(scan(&octets, SALT, 0), ScanResult::Damaged(0..second), "a head");
        assert_eq!(
            scan(&octets, SALT, second),
            ScanResult::ChecksumMismatch(second..third),
            "what follows a head"
        );
    }

    #[test]
    fn nothing_is_found_after_the_last_record_of_a_segment_that_is_written_over() {
        let (mut octets, ..) = segment();
        let length = octets.len();
        // The file had whole records before, one of which begins where the new records end.
        encode(&mut octets, SALT + 1, RecordKind::Put, &id(3), b"{}", b"old");
        octets.extend_from_slice(b"and the rest of one");
        assert_eq!(ids(&octets), (vec![id(1), id(2), id(1)], 0, length));
    }

    #[test]
    fn a_torn_tail_costs_no_other_record_wherever_it_is_torn() {
        let (octets, second, third) = segment();
        for end in third + 1..octets.len() {
            assert_eq!(ids(&octets[..end]), (vec![id(1), id(2)], 0, third), "{end}");
        }
        for end in second + 1..third {
            assert_eq!(ids(&octets[..end]), (vec![id(1)], 0, second), "{end}");
        }
    }

    #[test]
    fn damage_to_one_octet_costs_one_record() {
        let (octets, second, third) = segment();
        for at in second..third {
            let mut octets = octets.clone();
            octets[at] ^= 0x20;
            assert_eq!(ids(&octets), (vec![id(1), id(1)], 1, octets.len()), "{at}");
        }
    }

    #[test]
    fn a_record_inside_a_message_does_not_count() {
        let mut forged = Vec::new();
        encode(&mut forged, 0, RecordKind::Put, &id(66), b"{}", b"forged");
        let mut octets = Vec::new();
        encode(&mut octets, SALT, RecordKind::Put, &id(1), b"{}", &forged);
        octets[HEAD_OCTETS_MAX / 4] ^= 1;
        assert_eq!(ids(&octets).0, []);
    }

    #[test]
    fn a_later_version_is_recognised_at_the_start_of_a_segment() {
        assert_eq!(scan(b"postrider-3 what ever 1 2 3\n", SALT, 0), ScanResult::Newer(3));
    }
}
