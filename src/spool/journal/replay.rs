//! What the segments hold, read at the start.
//!
//! A segment is read as far as the disk gives it back; what is sound in it counts, and of what is not
//! somebody hears.

use std::io;
use std::path::PathBuf;

use super::{JournalPosition, Segment};
use crate::mail::MessageId;
use crate::spool::journal_record::{RecordKind, ScanResult, Scanner};
use crate::sys::DiskFile;

/// What was found in the segments at the start.
pub(in crate::spool) struct ReplayedRecord<'a> {
    pub(in crate::spool) kind: RecordKind,
    pub(in crate::spool) id: MessageId,
    pub(in crate::spool) text: &'a [u8],
    pub(in crate::spool) position: JournalPosition,
}

/// What a start must tell the operator.
pub(in crate::spool) enum ReplayProblem {
    /// These octets of a segment are no record; they are to be copied aside.
    Damaged { segment: PathBuf, octets: Vec<u8>, offset: u64 },
    /// The disk does not give so many octets of a segment back.
    Unreadable { segment: PathBuf, octets: usize, error: io::Error },
    /// A segment was written by a later version.
    Newer { segment: PathBuf, version: u32 },
}

pub(super) fn parse_name(name: &str) -> Option<(u64, u32)> {
    let (number, salt) = name.strip_suffix(".journal")?.split_once('-')?;
    Some((number.parse().ok()?, u32::from_str_radix(salt, 16).ok()?))
}

pub(super) fn replay(
    number: u64,
    segment: &mut Segment,
    file: &dyn DiskFile,
    each: &mut dyn FnMut(ReplayedRecord<'_>),
    odd: &mut dyn FnMut(ReplayProblem) -> io::Result<()>,
) -> io::Result<()> {
    let length = usize::try_from(segment.length).unwrap_or(usize::MAX);
    let octets = match file.read_range(0, length) {
        Ok(octets) => octets,
        Err(error) => {
            let (octets, missing) = read_skipping_errors(file, length);
            segment.is_unreadable = true;
            odd(ReplayProblem::Unreadable { segment: segment.path.clone(), octets: missing, error })?;
            octets
        }
    };
    let (mut scanner, mut position) = (Scanner::new(&octets, segment.salt), 0);
    let damaged = |range: &std::ops::Range<usize>| ReplayProblem::Damaged {
        segment: segment.path.clone(),
        octets: octets.get(range.clone()).unwrap_or_default().to_vec(),
        offset: range.start as u64,
    };
    loop {
        match scanner.scan(position) {
            ScanResult::End => return Ok(()),
            ScanResult::Newer(version) => {
                return odd(ReplayProblem::Newer { segment: segment.path.clone(), version });
            }
            ScanResult::Damaged(range) => {
                odd(damaged(&range))?;
                position = range.end;
            }
            ScanResult::ChecksumMismatch(range) => return odd(damaged(&range)),
            ScanResult::Frame(frame) => {
                let place = JournalPosition {
                    segment: number,
                    offset: frame.text.start as u64,
                    envelope_octets: u32::try_from(frame.text.len()).unwrap_or(u32::MAX),
                    octets: frame.octets.len() as u64,
                };
                let text = octets.get(frame.text).unwrap_or_default();
                each(ReplayedRecord { kind: frame.kind, id: frame.id, text, position: place });
                position = frame.end;
            }
        }
    }
}

/// What can be read of a file that cannot be read as a whole, with zeros for the rest; and how much
/// that is.
fn read_skipping_errors(file: &dyn DiskFile, length: usize) -> (Vec<u8>, usize) {
    const PAGE: usize = 4096;
    let (mut all, mut missing) = (Vec::with_capacity(length), 0);
    while all.len() < length {
        let wanted = PAGE.min(length - all.len());
        let mut page = file.read_range(all.len() as u64, wanted).unwrap_or_else(|_| {
            missing += wanted;
            Vec::new()
        });
        page.resize(wanted, 0);
        all.append(&mut page);
    }
    (all, missing)
}
