//! Append-only segment files whose records share syncs.
//!
//! Small messages are written here. A session appends its record while it holds the journal's lock, because
//! records and their sequence numbers must have the same order, and then waits until the record is durable.
//! One of the waiting threads becomes the leader and syncs for all; threads that come meanwhile wait for the
//! next sync. Notes (outcomes, moves, removals) are appended without a sync of their own; the next sync makes
//! them durable.
//!
//! **The lock is held across system calls**, but not across a sync: an append writes into the page cache, a
//! segment that begins is created or renamed, and a failed sync truncates and removes files.
//!
//! **A sync that fails** says nothing about what is durable, and the next sync of the same file may succeed
//! without having written anything. So the segment is closed and cut back to what was durable. Every session
//! that waited gets the error. Notes in the lost part are written again into the next segment, and a `cancel`
//! is written there for each refused message, in case the cut itself is lost. A segment without a durable
//! record is removed at once, with its messages: otherwise a disk that refuses for hours would cost a file, a
//! descriptor and a `cancel` for each refused message.
//!
//! **Segments are removed from the oldest on,** each durably before the next, because a note is always in its
//! message's segment or in a later one, and may not be removed before the message. A segment is synced before
//! it is removed. Its file becomes a **spare**: a later segment is written over it. A sync of data that needs
//! no new room costs a file system little: it writes only the data, and no changes of other programs.
//!
//! After a sync, and before a message is accepted, the segment is looked up by its path: if somebody renames
//! or removes the data directory while the server runs, a message in it would not be found again. See
//! [`Disk::is_file_at`].
//!
//! One more file of this kind is the reserve, for notes when the disk is full: see `reserve`.
//!
//! - `contents`: the journal in memory: segments, and records that are not durable yet
//! - `note_handle`: finds out whether one note is durable
//! - `append`: writes records to the current segment, and begins segments
//! - `sync`: makes records durable, for all threads that wait
//! - `disposal`: removes segments in which nothing is left to do
//! - `replay`: reads the segments at a start
//! - `reserve`: room for notes when the disk is full

mod append;
mod contents;
mod disposal;
mod note_handle;
mod replay;
mod reserve;
mod sync;
#[cfg(test)]
mod tests;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use self::contents::{JournalContents, PendingNote, Segment, UnsyncedRecord};
pub(super) use self::note_handle::NoteHandle;
pub(super) use self::replay::{ReplayProblem, ReplayedRecord};
use self::replay::{parse_name, replay};
pub(crate) use self::reserve::is_disk_full_error;
pub(super) use self::sync::misplaced_error;
use super::journal_record::{PreparedRecord, RecordKind};
use crate::mail::MessageId;
use crate::sys::{Condvar, Disk, DiskFile, Mutex, Random};

/// Where a message is in the journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct JournalPosition {
    pub(super) segment: u64,
    /// Where its envelope begins; the octets follow it.
    pub(super) offset: u64,
    pub(super) envelope_octets: u32,
    pub(super) octets: u64,
}

/// The segments of one directory.
pub(super) struct Journal {
    disk: Arc<dyn Disk>,
    random: Arc<dyn Random>,
    dir: PathBuf,
    /// Where damaged files are kept.
    damaged_dir: PathBuf,
    segment_octets: u64,
    contents: Mutex<JournalContents>,
    sync_ended: Condvar,
    /// See [`Journal::is_disk_full`].
    is_disk_full: AtomicBool,
    /// At the last sync, some file was not where its path leads.
    is_misplaced: AtomicBool,
}

/// Spare files at most: enough for a few seconds of heavy mail.
const SPARES_MAX: usize = 8;
/// The extension of spare files.
const SPARE_EXTENSION: &str = "spare";

impl Journal {
    /// Reads all segments of `dir`, in order. Every sound record goes to `each`, everything else to
    /// `on_problem`. New records go to a new segment.
    pub(super) fn open(
        disk: Arc<dyn Disk>,
        random: Arc<dyn Random>,
        dir: &Path,
        damaged_dir: &Path,
        segment_octets: u64,
        each: &mut dyn FnMut(ReplayedRecord<'_>),
        on_problem: &mut dyn FnMut(ReplayProblem) -> io::Result<()>,
    ) -> io::Result<Self> {
        let mut contents = JournalContents::default();
        for entry in disk.list(dir)? {
            let path = dir.join(&entry.name);
            if entry.name.ends_with(SPARE_EXTENSION) {
                if contents.spares.len() < SPARES_MAX {
                    contents.spares.push(path);
                } else {
                    disk.remove(&path)?;
                }
                continue;
            }
            if entry.name == reserve::RESERVE_NAME {
                // A shorter one was made for other settings.
                contents.has_reserve = entry.octets >= segment_octets;
            }
            let Some((number, salt)) = parse_name(&entry.name) else { continue };
            let segment = Segment {
                path,
                salt,
                file: None,
                length: entry.octets,
                durable_octets: entry.octets,
                is_name_durable: true,
                live: 0,
                is_unreadable: false,
            };
            contents.segments.insert(number, segment);
        }
        for (number, segment) in &mut contents.segments {
            let file = disk.open(&segment.path)?;
            // Records of the last process count from here on, so they must be durable.
            file.sync()?;
            replay(*number, segment, file.as_ref(), each, on_problem)?;
            segment.file = Some(file);
            contents.last_number = *number;
        }
        disk.sync_dir(dir)?;
        Ok(Self {
            disk,
            random,
            dir: dir.to_owned(),
            damaged_dir: damaged_dir.to_owned(),
            segment_octets,
            contents: Mutex::new(contents),
            sync_ended: Condvar::new(),
            is_disk_full: AtomicBool::new(false),
            is_misplaced: AtomicBool::new(false),
        })
    }

    /// Appends a message and waits until it is durable.
    pub(super) fn put(&self, id: &MessageId, envelope: &[u8], octets: &[u8]) -> io::Result<JournalPosition> {
        let mut record = PreparedRecord::new(RecordKind::Put, id, envelope, octets);
        let mut contents = self.contents.lock();
        self.write_pending_notes(&mut contents)?;
        if self.is_disk_full() {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let (sequence, segment, offset) = self.append(&mut contents, &mut record)?;
        let envelope_octets = u32::try_from(envelope.len()).unwrap_or(u32::MAX);
        let position = JournalPosition { segment, offset, envelope_octets, octets: octets.len() as u64 };
        contents.unsynced.push_back((sequence, UnsyncedRecord::Put { id: *id, segment: position.segment }));
        if let Some(segment) = contents.segments.get_mut(&position.segment) {
            segment.live += 1;
        }
        self.wait_until_durable(contents, sequence).inspect_err(|_| {
            // No other thread waits for this record.
            self.contents.lock().failed_puts.remove(&sequence);
        })?;
        Ok(position)
    }

    /// Appends a note without a sync of its own. If the disk refuses, the note is kept and written before the
    /// next record.
    pub(super) fn note(&self, kind: RecordKind, id: &MessageId, text: &[u8]) -> NoteHandle {
        let handle = NoteHandle::unwritten();
        let note = PendingNote { record: PreparedRecord::new(kind, id, text, b""), handle: handle.clone() };
        let mut contents = self.contents.lock();
        contents.unwritten_notes.push_back(note);
        if let Err(e) = self.write_pending_notes(&mut contents) {
            log::warn!(target: "queue", "{id} cannot be noted in the journal yet: {e}");
        }
        handle
    }

    /// Makes one note durable. If the note is written, this needs no room on the disk, even while other notes
    /// are not written.
    pub(super) fn sync(&self, handle: &NoteHandle) -> io::Result<()> {
        loop {
            let mut contents = self.contents.lock();
            // The note is unwritten again after another thread's sync failed.
            if handle.is_unwritten() {
                self.write_pending_notes(&mut contents)?;
            }
            let sequence = handle.sequence();
            if contents.durable_sequence >= sequence {
                return Ok(());
            }
            self.wait_until_durable(contents, sequence)?;
        }
    }

    /// Writes the notes that are not written, and makes all notes durable.
    pub(super) fn sync_notes(&self) -> io::Result<()> {
        loop {
            let mut contents = self.contents.lock();
            // Another thread's sync may fail meanwhile, and some notes are unwritten again.
            self.write_pending_notes(&mut contents)?;
            let Some(sequence) = contents.last_unsynced_note() else { return Ok(()) };
            self.wait_until_durable(contents, sequence)?;
        }
    }

    /// The file of a segment, to read from.
    pub(super) fn file(&self, segment: u64) -> io::Result<Arc<dyn DiskFile>> {
        let contents = self.contents.lock();
        let file = contents.segments.get(&segment).and_then(|segment| segment.file.clone());
        file.ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// Counts one more message as live in a segment; for the start.
    pub(super) fn increment_live(&self, segment: u64) {
        if let Some(segment) = self.contents.lock().segments.get_mut(&segment) {
            segment.live += 1;
        }
    }

    /// Counts one message less as live in a segment.
    pub(super) fn decrement_live(&self, segment: u64) {
        self.contents.lock().decrement_live(segment);
    }

    /// The oldest segment, if there are more than `max` segments: its messages should move to files.
    pub(super) fn oldest_excess_segment(&self, max: usize) -> Option<u64> {
        let contents = self.contents.lock();
        let oldest = contents.segments.first_key_value().map(|(number, _)| *number)?;
        (contents.segments.len() > max.max(1) && contents.current != Some(oldest)).then_some(oldest)
    }

    /// Whether a sweep may have something to do although no message was settled since the last one.
    pub(super) fn has_sweep_work(&self, max: usize) -> bool {
        !self.contents.lock().unwritten_notes.is_empty() || self.oldest_excess_segment(max).is_some()
    }

    /// Tries again to write notes that the disk refused.
    pub(super) fn retry_unwritten_notes(&self) -> io::Result<()> {
        self.write_pending_notes(&mut self.contents.lock())
    }
}
