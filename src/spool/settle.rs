//! Removes a message of which nothing is left to do.

use std::io;
use std::path::Path;

use super::index::MessageLocation;
use super::journal::NoteHandle;
use super::journal_record::RecordKind;
use super::lease::Lease;
use super::message_file;
use super::message_store::Spool;
use super::progress_update::ProgressUpdate;
use crate::mail::MessageId;

/// What a message left behind on disk when it was removed from the index.
enum RemovedEntry {
    /// This note marks it as settled.
    Journal(NoteHandle),
    /// Its file, which the caller removes.
    File { octets: u64, moved_note: Option<NoteHandle> },
}

/// How the end of a message is recorded on disk.
enum SettlementTrace {
    /// It was not in the spool.
    NotQueued,
    /// By a note in the journal, durable when the note is.
    JournalNote(NoteHandle),
    /// Its file is removed, durable when the directory is synced.
    FileRemoved,
    /// Its file could not be removed, and has a synced update that settles the message.
    FileMarked,
}

impl Spool {
    /// Removes a message of which nothing is left to do. Cannot fail: a later sweep does what the disk
    /// refuses now, and until then a restart delivers the message again.
    pub(crate) fn settle(&self, lease: &Lease, update: Option<&ProgressUpdate>) {
        // What the disk refused is logged, and left to the next sweep.
        let _ = self.settle_on_disk(lease, update);
    }

    /// As [`Spool::settle`], but durable on return: after a crash the message is not in the spool.
    ///
    /// On an error the message is not in the spool either, unless a crash comes before the next sync.
    pub(crate) fn settle_durably(&self, lease: &Lease, update: &ProgressUpdate) -> io::Result<()> {
        match self.settle_on_disk(lease, Some(update))? {
            SettlementTrace::JournalNote(done) => self.journal.sync(&done),
            SettlementTrace::FileRemoved => self.disk.sync_dir(&self.dirs.waiting),
            SettlementTrace::NotQueued | SettlementTrace::FileMarked => Ok(()),
        }
    }

    fn settle_on_disk(&self, lease: &Lease, update: Option<&ProgressUpdate>) -> io::Result<SettlementTrace> {
        let id = lease.id();
        match self.take_from_index(id) {
            None => Ok(SettlementTrace::NotQueued),
            Some(RemovedEntry::Journal(done)) => Ok(SettlementTrace::JournalNote(done)),
            Some(RemovedEntry::File { octets, moved_note }) => {
                let path = self.message_file_path(id, octets);
                let Err(e) = self.remove_message_file(&path, moved_note.as_ref()) else {
                    return Ok(SettlementTrace::FileRemoved);
                };
                log::error!(target: "queue", "{id} is settled, but {} stays for now: {e}", path.display());
                self.leftovers.lock().push((path.clone(), moved_note));
                // For a restart; may fail for the same reason.
                match update.map(|update| {
                    message_file::append_update(self.disk.as_ref(), &path, octets, update, true)
                }) {
                    Some(Ok(())) => Ok(SettlementTrace::FileMarked),
                    Some(Err(_)) | None => Err(e),
                }
            }
        }
    }

    /// Forgets a message. If it is in the journal, a note says so, and its segment has one live message less.
    pub(super) fn remove_from_index(&self, id: &MessageId) {
        drop(self.take_from_index(id));
    }

    fn take_from_index(&self, id: &MessageId) -> Option<RemovedEntry> {
        match self.index.remove(id)? {
            MessageLocation::Journal { position, .. } => {
                let done = self.journal.note(RecordKind::Done, id, b"");
                self.journal.decrement_live(position.segment);
                Some(RemovedEntry::Journal(done))
            }
            MessageLocation::File { octets, moved_note } => Some(RemovedEntry::File { octets, moved_note }),
        }
    }

    /// Removes the file of a settled message.
    pub(super) fn remove_message_file(&self, path: &Path, moved_note: Option<&NoteHandle>) -> io::Result<()> {
        self.sync_move(moved_note)?;
        self.disk.remove(path)
    }

    /// Makes the note durable that a message has moved from the journal to its file. It must be before the file
    /// leaves its place or the message is forgotten: otherwise a power cut would bring the older copy in the
    /// journal back into the queue, without the changes of later commands and attempts.
    pub(super) fn sync_move(&self, moved_note: Option<&NoteHandle>) -> io::Result<()> {
        moved_note.map_or(Ok(()), |note| self.journal.sync(note))
    }
}
