//! Writes records to the current segment, and begins segments.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::Journal;
use super::contents::{JournalContents, Segment, UnsyncedRecord};
use super::note_handle::SequenceNumber;
use super::reserve::is_disk_full_error;
use crate::spool::journal_record::PreparedRecord;
use crate::sys::{DiskFile, MutexGuard, catch_panic};

impl Journal {
    /// Writes the notes that are not written; to the reserve, if the disk is full.
    pub(super) fn write_pending_notes(
        &self,
        contents: &mut MutexGuard<'_, JournalContents>,
    ) -> io::Result<()> {
        while let Some(mut note) = contents.unwritten_notes.pop_front() {
            let appended = match self.append(contents, &mut note.record) {
                Err(e) if is_disk_full_error(e.kind()) && self.use_reserve(contents) => {
                    self.append(contents, &mut note.record)
                }
                other => other,
            };
            match appended {
                Ok((sequence, ..)) => {
                    note.handle.set(sequence);
                    contents.unsynced.push_back((sequence, UnsyncedRecord::Note(note)));
                }
                Err(e) => {
                    contents.unwritten_notes.push_front(note);
                    return Err(e);
                }
            }
        }
        Ok(())
    }

    /// Appends a record. Returns its sequence number, its segment, and where its text begins there.
    pub(super) fn append(
        &self,
        contents: &mut MutexGuard<'_, JournalContents>,
        record: &mut PreparedRecord,
    ) -> io::Result<(SequenceNumber, u64, u64)> {
        let number = self.current(contents)?;
        let Some(segment) = contents.segments.get_mut(&number) else {
            return Err(io::ErrorKind::NotFound.into());
        };
        let Some(file) = segment.file.clone() else { return Err(io::ErrorKind::NotFound.into()) };
        let (octets, text_at) = record.finish_with_salt(segment.salt);
        // After a panic the record must still be in the list: a thread may wait for its handle.
        let appended = catch_panic(|| file.write_at(octets, segment.length));
        if let Err(e) = appended.unwrap_or_else(|_| Err(io::Error::other("the write panicked"))) {
            // A record that is half written may not stand before the next one. If it cannot be cut off, the
            // segment is closed, and the half record is a torn tail.
            if file.truncate(segment.length).is_err() {
                contents.current = None;
            }
            return Err(e);
        }
        let offset = segment.length + text_at as u64;
        segment.length += octets.len() as u64;
        contents.last_sequence += 1;
        Ok((contents.last_sequence, number, offset))
    }

    /// The segment to write to; a new one when there is none, or when the current one is long enough.
    fn current(&self, contents: &mut MutexGuard<'_, JournalContents>) -> io::Result<u64> {
        if let Some(number) = contents.current
            && contents.segments.get(&number).is_some_and(|segment| segment.length < self.segment_octets)
        {
            return Ok(number);
        }
        let spare = contents.spares.pop();
        self.begin_segment(contents, spare)
    }

    /// Begins a segment in `file`, which is written over, or in a new file.
    pub(super) fn begin_segment(
        &self,
        contents: &mut MutexGuard<'_, JournalContents>,
        file: Option<PathBuf>,
    ) -> io::Result<u64> {
        let number = contents.last_number + 1;
        let salt = u32::try_from(self.random.bits() >> 32).unwrap_or(0);
        let path = self.dir.join(format!("{number:08}-{salt:08x}.journal"));
        let file = Some(match file {
            Some(old) => self.reuse_file(&old, &path)?,
            None => self.disk.create(&path)?,
        });
        let segment = Segment {
            path,
            salt,
            file,
            length: 0,
            durable_octets: 0,
            is_name_durable: false,
            live: 0,
            is_unreadable: false,
        };
        contents.segments.insert(number, segment);
        contents.last_number = number;
        contents.current = Some(number);
        Ok(number)
    }

    /// A spare that cannot be renamed is left alone: the next record gets another file.
    fn reuse_file(&self, spare: &Path, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        self.disk.rename(spare, path)?;
        self.disk.open(path).inspect_err(|_| {
            let _ = self.disk.remove(path);
        })
    }
}
