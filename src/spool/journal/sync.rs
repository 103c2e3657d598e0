//! Makes records durable, for all threads that wait.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::Journal;
use super::contents::{JournalContents, PendingNote, UnsyncedRecord};
use super::note_handle::SequenceNumber;
use super::reserve::is_disk_full_error;
use crate::sys::{DiskFile, MutexGuard, catch_panic};

/// A segment to be synced.
struct UnsyncedSegment {
    number: u64,
    path: PathBuf,
    file: Arc<dyn DiskFile>,
    length: u64,
    is_name_durable: bool,
}

impl Journal {
    /// Waits until the record with this sequence number is durable. Leads a sync if no other thread does.
    pub(super) fn wait_until_durable<'a>(
        &'a self,
        mut contents: MutexGuard<'a, JournalContents>,
        sequence: SequenceNumber,
    ) -> io::Result<()> {
        loop {
            if let Some((kind, text)) = contents.failed_puts.get(&sequence) {
                return Err(io::Error::new(*kind, text.clone()));
            }
            if contents.durable_sequence >= sequence {
                return Ok(());
            }
            if contents.is_syncing {
                contents = self.sync_ended.wait(contents);
                continue;
            }
            contents.is_syncing = true;
            let (upto, unsynced) = (contents.last_sequence, unsynced_segments(&contents));
            drop(contents);
            // After a panic the other threads must not wait for a leader for ever.
            let synced = catch_panic(|| self.sync_segments(&unsynced));
            let result = synced.unwrap_or_else(|_| Err(io::Error::other("the sync panicked")));
            contents = self.contents.lock();
            contents.is_syncing = false;
            let failed = match result {
                Ok(misplaced) => {
                    self.sync_succeeded(&mut contents, upto, &unsynced, &misplaced);
                    None
                }
                Err(e) => {
                    self.sync_failed(&mut contents, &(e.kind(), e.to_string()));
                    Some(e)
                }
            };
            self.sync_ended.notify_all();
            // A thread that waits for a note is in no list of failed messages: it gets the error here.
            if let Some(e) = failed {
                return Err(e);
            }
        }
    }

    /// A sync succeeded: everything up to `upto` is durable. Messages in `misplaced` segments are not where
    /// their path leads: the sessions that put them get an error.
    fn sync_succeeded(
        &self,
        contents: &mut JournalContents,
        upto: SequenceNumber,
        synced: &[UnsyncedSegment],
        misplaced: &[u64],
    ) {
        contents.durable_sequence = contents.durable_sequence.max(upto);
        for one in synced {
            if let Some(segment) = contents.segments.get_mut(&one.number) {
                segment.durable_octets = segment.durable_octets.max(one.length);
                segment.is_name_durable = true;
            }
        }
        while contents.unsynced.front().is_some_and(|(sequence, _)| *sequence <= upto) {
            let Some((sequence, UnsyncedRecord::Put { id, segment })) = contents.unsynced.pop_front() else {
                continue;
            };
            if misplaced.contains(&segment) {
                let error = misplaced_error(&self.dir);
                contents.failed_puts.insert(sequence, (error.kind(), error.to_string()));
                contents.decrement_live(segment);
                contents.unwritten_notes.push_back(PendingNote::cancel(&id));
            }
        }
    }

    /// A sync failed: see the head of `journal`.
    fn sync_failed(&self, contents: &mut MutexGuard<'_, JournalContents>, error: &(io::ErrorKind, String)) {
        log::error!(target: "queue", "the journal cannot be synced: {}", error.1);
        for segment in contents.segments.values_mut().filter(|segment| segment.is_unsynced()) {
            if let Some(file) = &segment.file {
                // If it cannot be cut, the `cancel` records take the messages back.
                let _ = file.truncate(segment.durable_octets);
            }
            segment.length = segment.durable_octets;
        }
        contents.current = None;
        // These have no record. One that cannot be removed is left to a sweep, and not kept open.
        contents.segments.retain(|_, segment| {
            if segment.length > 0 {
                return true;
            }
            segment.file = None;
            self.disk.remove(&segment.path).is_err()
        });
        contents.requeue_unsynced(error);
        if is_disk_full_error(error.0) {
            self.use_reserve(contents);
        }
    }

    /// Syncs the directory first: a record is of no use in a file whose name a power cut loses. Returns the
    /// segments that are not where their paths lead.
    fn sync_segments(&self, unsynced: &[UnsyncedSegment]) -> io::Result<Vec<u64>> {
        if unsynced.iter().any(|one| !one.is_name_durable) {
            self.disk.sync_dir(&self.dir)?;
        }
        unsynced.iter().try_for_each(|one| one.file.sync())?;
        // A file that cannot be looked up counts as misplaced.
        let is_in_place =
            |one: &UnsyncedSegment| self.disk.is_file_at(&one.path, one.file.as_ref()).unwrap_or(false);
        let misplaced: Vec<_> =
            unsynced.iter().filter(|one| !is_in_place(one)).map(|one| one.number).collect();
        let is_misplaced = !misplaced.is_empty();
        if self.is_misplaced.swap(is_misplaced, Ordering::AcqRel) != is_misplaced {
            match is_misplaced {
                true => log::error!(target: "queue", "no mail is taken: {}", misplaced_error(&self.dir)),
                false => log::info!(target: "queue", "{} is back: mail is taken", self.dir.display()),
            }
        }
        Ok(misplaced)
    }
}

fn unsynced_segments(contents: &JournalContents) -> Vec<UnsyncedSegment> {
    let unsynced = contents.segments.iter().filter(|(_, segment)| segment.is_unsynced());
    unsynced
        .filter_map(|(number, segment)| {
            let file = segment.file.clone()?;
            let path = segment.path.clone();
            Some(UnsyncedSegment {
                number: *number,
                path,
                file,
                length: segment.length,
                is_name_durable: segment.is_name_durable,
            })
        })
        .collect()
}

/// The error for a message that is durable and not accepted, because a restart would not find it.
pub(in crate::spool) fn misplaced_error(dir: &Path) -> io::Error {
    io::Error::other(format!(
        "{} was moved, removed or replaced while the server runs; put it back, or restart postrider",
        dir.display()
    ))
}
