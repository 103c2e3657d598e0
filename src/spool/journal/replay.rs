//! Reads the segments at a start.
//!
//! A segment is read as far as the disk returns it. Sound records count; everything else is reported to the
//! caller.

use std::io;
use std::path::PathBuf;

use super::JournalPosition;
use super::contents::Segment;
use crate::mail::MessageId;
use crate::spool::journal_record::{RecordKind, ScanResult, Scanner};
use crate::sys::DiskFile;

/// A sound record of a segment.
pub(in crate::spool) struct ReplayedRecord<'a> {
    pub(in crate::spool) kind: RecordKind,
    pub(in crate::spool) id: MessageId,
    pub(in crate::spool) text: &'a [u8],
    pub(in crate::spool) position: JournalPosition,
}

/// What is wrong with a segment, for the operator.
pub(in crate::spool) enum ReplayProblem {
    /// These octets of a segment are no record; the caller copies them to `damaged`.
    Damaged { segment: PathBuf, octets: Vec<u8>, offset: u64 },
    /// The disk does not return so many octets of a segment.
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
    on_problem: &mut dyn FnMut(ReplayProblem) -> io::Result<()>,
) -> io::Result<()> {
    let length = usize::try_from(segment.length).unwrap_or(usize::MAX);
    let octets = match file.read_range(0, length) {
        Ok(octets) => octets,
        Err(error) => {
            let (octets, missing) = read_skipping_errors(file, length);
            segment.is_unreadable = true;
            on_problem(ReplayProblem::Unreadable { segment: segment.path.clone(), octets: missing, error })?;
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
                return on_problem(ReplayProblem::Newer { segment: segment.path.clone(), version });
            }
            ScanResult::Damaged(range) => {
                on_problem(damaged(&range))?;
                position = range.end;
            }
            ScanResult::ChecksumMismatch(range) => return on_problem(damaged(&range)),
            ScanResult::Record(record) => {
                let position_in_journal = JournalPosition {
                    segment: number,
                    offset: record.text.start as u64,
                    envelope_octets: u32::try_from(record.text.len()).unwrap_or(u32::MAX),
                    octets: record.octets.len() as u64,
                };
                let text = octets.get(record.text).unwrap_or_default();
                each(ReplayedRecord {
                    kind: record.kind,
                    id: record.id,
                    text,
                    position: position_in_journal,
                });
                position = record.end;
            }
        }
    }
}

/// Reads a file that cannot be read as a whole. Returns its octets, with zeros for those that are missing,
/// and how many are missing.
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
