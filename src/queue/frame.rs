//! One record of the journal, framed.
//!
//! A head line in ASCII, then a text (JSON), then octets, then a line end:
//!
//! ```text
//! postrider-2 KIND ID TEXT-OCTETS MESSAGE-OCTETS HEAD-CRC32 CRC32␊
//! ```
//!
//! The first checksum covers the head line before it, the second that, the text and the octets;
//! both also a salt that stands in the segment's file name and nowhere else. A message may hold
//! anything, also something that looks like a record; when reading goes on behind a torn record
//! and passes through such a message, the salt, which no client knows, keeps it from being taken
//! for one of ours. A segment that is used again still holds what it held, behind what is written
//! over it: the first checksum tells that these are not this segment's records, at little cost.
//!
//! Version 1 had only the last checksum. It is still read.

use std::ops::Range;

use crate::mail::MessageId;

/// What a record says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A message: envelope and octets.
    Put,
    /// News of a message: a record as JSON.
    Note,
    /// The message is in a file of its own now.
    Moved,
    /// Nothing is left to do for it.
    Done,
    /// It was put but not promised, because a sync failed.
    Cancel,
}

const KINDS: [(Kind, &str); 5] = [
    (Kind::Put, "put"),
    (Kind::Note, "note"),
    (Kind::Moved, "moved"),
    (Kind::Done, "done"),
    (Kind::Cancel, "cancel"),
];
const VERSION: u32 = 2;
const MAGIC: &[u8] = b"postrider-";
/// No head line is longer.
const HEAD_OCTETS_MAX: usize = 120;

/// A record that was found, with its place in what was scanned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Frame {
    pub(super) kind: Kind,
    pub(super) id: MessageId,
    pub(super) text: Range<usize>,
    pub(super) octets: Range<usize>,
    /// Behind its line end.
    pub(super) end: usize,
}

/// What stands at a position of a segment.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// A sound record.
    Frame(Frame),
    /// Octets that are no record, with one behind them: damage.
    Damaged(Range<usize>),
    /// A record of full length whose checksum is wrong, and none behind it: a torn write, or
    /// damage to a promised message.
    Wrong(Range<usize>),
    /// Records of a later version of this program.
    Newer(u32),
    /// Nothing more, apart from a torn write or what the segment held before it was used again.
    End,
}

/// A record that is ready but for its segment's salt: copied and summed up, so that little is left
/// to do where others wait.
pub(super) struct Blank {
    /// Room for the head line, then the rest.
    record: Vec<u8>,
    /// The head line without its checksums.
    head: String,
    /// Of what follows the head line.
    crc: crc32fast::Hasher,
}

impl Blank {
    pub(super) fn new(kind: Kind, id: &MessageId, text: &[u8], octets: &[u8]) -> Self {
        let word = KINDS.iter().find(|(other, _)| *other == kind).map_or("", |(_, word)| word);
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

    /// The record as it stands in a segment with this salt, and where its text begins in it.
    pub(super) fn fill(&mut self, salt: u32) -> (&[u8], usize) {
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(&salt.to_be_bytes());
        hasher.update(self.head.as_bytes());
        let head_sum = hasher.clone().finalize();
        hasher.combine(&self.crc);
        let line = format!("{} {head_sum:08x} {:08x}\n", self.head, hasher.finalize());
        // The line ends where the text begins.
        let start = HEAD_OCTETS_MAX.saturating_sub(line.len());
        let room = self.record.iter_mut().skip(start);
        room.zip(line.bytes()).for_each(|(slot, octet)| *slot = octet);
        (self.record.get(start..).unwrap_or_default(), line.len())
    }
}

/// Of these parts, one after the other, in a segment with this salt.
fn checksum(salt: u32, parts: &[&[u8]]) -> String {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&salt.to_be_bytes());
    parts.iter().for_each(|part| hasher.update(part));
    format!("{:08x}", hasher.finalize())
}

/// What stands at `position` of a segment's octets.
pub(super) fn scan(segment: &[u8], salt: u32, position: usize) -> Found {
    if position >= segment.len() {
        return Found::End;
    }
    let first = match look(segment, salt, position) {
        Look::Sound(frame) => return Found::Frame(frame),
        // A whole segment is written by one version: only its first record is believed.
        Look::Newer(version) if position == 0 => return Found::Newer(version),
        other => other,
    };
    let mut next = position + 1;
    while let Some(found) = find(segment, next) {
        if matches!(look(segment, salt, found), Look::Sound(_)) {
            return Found::Damaged(position..found);
        }
        next = found + 1;
    }
    if matches!(first, Look::Wrong) { Found::Wrong(position..segment.len()) } else { Found::End }
}

enum Look {
    Sound(Frame),
    Newer(u32),
    /// A head line and the length it names, but not its checksum.
    Wrong,
    Nothing,
}

fn look(segment: &[u8], salt: u32, position: usize) -> Look {
    read(segment, salt, position).unwrap_or(Look::Nothing)
}

fn read(segment: &[u8], salt: u32, position: usize) -> Option<Look> {
    let rest = segment.get(position..)?;
    let line_end = rest.iter().take(HEAD_OCTETS_MAX).position(|&b| b == b'\n')?;
    let line = std::str::from_utf8(rest.get(..line_end)?).ok()?;
    let (mut head, sum) = line.rsplit_once(' ')?;
    let version: u32 = line.strip_prefix("postrider-")?.split_once(' ')?.0.parse().ok()?;
    if version > VERSION {
        return Some(Look::Newer(version));
    }
    if version > 1 {
        let head_sum;
        (head, head_sum) = head.rsplit_once(' ')?;
        if head_sum != checksum(salt, &[head.as_bytes()]) {
            return None;
        }
    }
    let mut words = head.split(' ').skip(1);
    let word = words.next()?;
    let kind = KINDS.iter().find(|(_, other)| *other == word)?.0;
    let id: MessageId = words.next()?.parse().ok()?;
    let text_octets: usize = words.next()?.parse().ok()?;
    let message_octets: usize = words.next()?.parse().ok()?;
    let text_at = position + line_end + 1;
    let octets_at = text_at.checked_add(text_octets)?;
    let end = octets_at.checked_add(message_octets)?;
    let (text, octets) = (segment.get(text_at..octets_at)?, segment.get(octets_at..end)?);
    let closed = segment.get(end) == Some(&b'\n');
    if !closed || sum != checksum(salt, &[head.as_bytes(), text, octets]) {
        return Some(if end < segment.len() { Look::Wrong } else { Look::Nothing });
    }
    Some(Look::Sound(Frame { kind, id, text: text_at..octets_at, octets: octets_at..end, end: end + 1 }))
}

fn find(segment: &[u8], from: usize) -> Option<usize> {
    memchr::memmem::find(segment.get(from..)?, MAGIC).map(|at| from + at)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mail::Timestamp;

    const SALT: u32 = 7;

    fn id(n: u64) -> MessageId {
        MessageId::new(Timestamp::from_millis(1), n)
    }

    fn encode(out: &mut Vec<u8>, salt: u32, kind: Kind, id: &MessageId, text: &[u8], octets: &[u8]) {
        out.extend_from_slice(Blank::new(kind, id, text, octets).fill(salt).0);
    }

    #[test]
    fn a_record_can_be_written_again_to_another_segment() {
        let mut blank = Blank::new(Kind::Put, &id(1), b"{}", b"Subject: x\r\n\r\n");
        for salt in [SALT, SALT + 1] {
            let (record, text_at) = blank.fill(salt);
            let Found::Frame(frame) = scan(record, salt, 0) else { panic!("{salt}") };
            assert_eq!((frame.text.start, frame.end), (text_at, record.len()));
        }
    }

    fn segment() -> (Vec<u8>, usize, usize) {
        let mut out = Vec::new();
        encode(&mut out, SALT, Kind::Put, &id(1), b"{}", b"Subject: x\r\n\r\n");
        let second = out.len();
        encode(&mut out, SALT, Kind::Put, &id(2), b"{}", b"two");
        let third = out.len();
        encode(&mut out, SALT, Kind::Done, &id(1), b"", b"");
        (out, second, third)
    }

    /// Records, stretches of damage, and where reading ended.
    fn ids(segment: &[u8]) -> (Vec<MessageId>, usize, usize) {
        let (mut ids, mut damaged, mut position) = (Vec::new(), 0, 0);
        loop {
            match scan(segment, SALT, position) {
                Found::Frame(frame) => {
                    ids.push(frame.id);
                    position = frame.end;
                }
                Found::Damaged(range) => {
                    damaged += 1;
                    position = range.end;
                }
                Found::Wrong(range) => {
                    damaged += 1;
                    position = range.end;
                }
                Found::Newer(_) | Found::End => break,
            }
        }
        (ids, damaged, position)
    }

    #[test]
    fn what_is_written_is_read_again() {
        let (octets, ..) = segment();
        let Found::Frame(frame) = scan(&octets, SALT, 0) else { panic!() };
        assert_eq!(&octets[frame.octets], b"Subject: x\r\n\r\n");
        assert_eq!(ids(&octets), (vec![id(1), id(2), id(1)], 0, octets.len()));
    }

    #[test]
    fn what_version_1_wrote_is_read() {
        let head = format!("postrider-1 put {} 2 3", id(1));
        let mut octets = format!("{head} {}\n", checksum(SALT, &[head.as_bytes(), b"{}two"])).into_bytes();
        octets.extend_from_slice(b"{}two\n");
        encode(&mut octets, SALT, Kind::Done, &id(1), b"", b"");
        assert_eq!(ids(&octets), (vec![id(1), id(1)], 0, octets.len()));
        octets[head.len()] = b'x';
        assert_eq!(ids(&octets).0, [id(1)]);
    }

    #[test]
    fn behind_the_last_record_of_a_segment_that_is_used_again_nothing_is_found() {
        let (mut octets, ..) = segment();
        let length = octets.len();
        // It held whole records, one of which begins where the new ones end.
        encode(&mut octets, SALT + 1, Kind::Put, &id(3), b"{}", b"old");
        octets.extend_from_slice(b"and the rest of one");
        assert_eq!(ids(&octets), (vec![id(1), id(2), id(1)], 0, length));
    }

    #[test]
    fn a_torn_tail_spoils_nothing_but_itself_wherever_it_is_torn() {
        let (octets, second, third) = segment();
        for end in third + 1..octets.len() {
            assert_eq!(ids(&octets[..end]), (vec![id(1), id(2)], 0, third), "{end}");
        }
        for end in second + 1..third {
            assert_eq!(ids(&octets[..end]), (vec![id(1)], 0, second), "{end}");
        }
    }

    #[test]
    fn damage_to_any_octet_spoils_one_record() {
        let (octets, second, third) = segment();
        for at in second..third {
            let mut octets = octets.clone();
            octets[at] ^= 0x20;
            assert_eq!(ids(&octets), (vec![id(1), id(1)], 1, octets.len()), "{at}");
        }
    }

    #[test]
    fn a_record_inside_a_message_is_not_taken_for_one_of_ours() {
        let mut forged = Vec::new();
        encode(&mut forged, 0, Kind::Put, &id(66), b"{}", b"forged");
        let mut octets = Vec::new();
        encode(&mut octets, SALT, Kind::Put, &id(1), b"{}", &forged);
        octets[HEAD_OCTETS_MAX / 4] ^= 1;
        assert_eq!(ids(&octets).0, []);
    }

    #[test]
    fn a_later_version_is_recognised_at_the_head_of_a_segment() {
        assert_eq!(scan(b"postrider-3 what ever 1 2 3\n", SALT, 0), Found::Newer(3));
    }
}
