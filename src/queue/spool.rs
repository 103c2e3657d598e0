//! Items on disk: put, load, note what became of them, remove, sweep, and find them again.
//!
//! ```text
//! DATA/lock                                 held while a process owns the spool
//! DATA/spool/version                        a later one is refused at the start
//! DATA/spool/clock                          how the clock for ages goes on: `age_clock`
//! DATA/spool/journal/NUMBER-SALT.journal    small messages and notes about them: `frame`, `journal`
//! DATA/spool/journal/NUMBER-SALT.spare      the file of a segment that is gone, to be written over
//! DATA/spool/journal/reserve                room for notes when the disk is full
//! DATA/spool/incoming/ID.NUMBER             a parcel that is being written: nobody's yet
//! DATA/spool/waiting/ID.OCTETS              a message in a file of its own: `parcel`
//! DATA/spool/damaged/                       what could not be read, set aside, never removed by us
//! ```
//!
//! | state | what is on disk | next, by whom | after a crash |
//! |---|---|---|---|
//! | coming, small | nothing (memory) | session: journaled | nothing: not promised |
//! | coming, large | `incoming/ID.NUMBER` | session: waiting | removed: not promised |
//! | journaled | `put`, synced | worker: noted, settled or waiting; manager: waiting | tried again from the start |
//! | noted (some recipients settled) | `put`, `note` | as above | the rest is tried again |
//! | moving | `put`, `incoming/ID.NUMBER` | the same thread: waiting | journaled; `incoming/ID.NUMBER` is removed |
//! | waiting, seen twice | `put`, `waiting/ID.N`, synced with its directory | the same thread notes `moved` | the parcel counts, the `put` does not; `moved` is noted again |
//! | waiting | `put` and `moved`, or no `put`; `waiting/ID.N` | worker: adds a record, or settles | tried again when due |
//! | settled, journaled | `put`, `done` | manager: segment becomes a spare or is removed when nothing in it is left | gone; before `done` is synced, delivered twice |
//! | settled, waiting | no parcel, `moved` (synced before the parcel is removed) | manager: as above | gone; if the removal is undone, delivered twice |
//! | damaged | `damaged/…` | the operator | as it is |
//!
//! A message is *promised* when it is journaled or waiting; both are durable, and where their paths lead,
//! before `put` returns.
//! `moved` must be durable before the parcel is removed, or the `put` would rise again. Normally it
//! long is, carried by some later message's sync; on an idle host one sync is made for it.
//!
//! What may happen twice: a delivery whose record a crash undid (`done`, a parcel's removal), and
//! a message that was answered 451 because a sync failed, whose octets reached the disk all the
//! same. What may not happen: a promised message lost, or half of one.
//!
//! What was settled for *some* recipients of a parcel is synced at once, because the rest may wait for
//! days.
//!
//! Here a message is put, noted, moved and settled. Beside it:
//!
//! - `index`: which messages are in our care, and where each of them is
//! - `lease`: the right to change one of them, which one thread has at a time
//! - `load`: a message is read
//! - `sweep`: what settled messages leave behind goes, and so does what crowds the journal
//! - `aside`: what we cannot deal with is set aside

mod index;
mod lease;
mod load;
mod set_aside;
mod sweep;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use self::index::{Index, MessageLocation};
use super::age_clock::AgeClock;
use super::journal::{Journal, NoteHandle, misplaced_error};
use super::journal_record::RecordKind;
use super::message_file::{self, MessageFileWriter};
use super::message_progress::{MessageProgress, ProgressUpdate};
use super::recovery::{JournaledMessages, SpoolRecovery, check_version};
use super::schedule::Settings;
use crate::mail::{Envelope, MessageId, Timestamp};
use crate::observe::{Counter, Metrics};
use crate::sys::{Clock, Disk, Mutex, Random, create_dir_all};

pub(super) use self::lease::{Lease, Leases};
pub(super) use self::load::LoadError;
pub(super) use self::sweep::SweepResult;

/// What a spool is made of.
pub struct SpoolParts {
    /// Where files are.
    pub disk: Arc<dyn Disk>,
    /// The data directory; the spool is `spool` below it.
    pub data_dir: PathBuf,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Ids, salts and jitter.
    pub random: Arc<dyn Random>,
    /// Where it counts.
    pub metrics: Arc<Metrics>,
    /// What it is told.
    pub settings: Settings,
}

/// Why the spool does not open. The process should not start.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has the lock.
    #[error("{0} belongs to another postrider that is running; stop that one first")]
    Busy(PathBuf),
    /// Written by a later version.
    #[error(
        "{path} was written by a later version ({version}) of postrider; start that one, or set the file aside"
    )]
    Newer {
        /// Which file.
        path: PathBuf,
        /// Its version.
        version: String,
    },
    /// As the file system says.
    #[error("the spool in {path} cannot be opened: {error}")]
    Io {
        /// Which directory.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
}

/// The spool of this process.
pub(super) struct Spool {
    disk: Arc<dyn Disk>,
    clock: Arc<dyn Clock>,
    /// How old messages are.
    pub(super) age_clock: AgeClock,
    dirs: SpoolDirs,
    journal: Journal,
    index: Index,
    /// Number of the last draft: no two writers use one name.
    next_file_number: AtomicU64,
    /// Parcels that are settled and could not be removed, each with its `moved`.
    leftovers: Mutex<Vec<(PathBuf, Option<NoteHandle>)>>,
    damaged: Counter,
}

pub(super) struct SpoolDirs {
    pub(super) incoming: PathBuf,
    pub(super) waiting: PathBuf,
    pub(super) damaged: PathBuf,
}

/// A message that was promised before this process began.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RecoveredMessage {
    pub(super) id: MessageId,
    /// By the age clock.
    pub(super) due: Timestamp,
}

impl Spool {
    /// Opens the spool below a data directory and finds what was promised, oldest first. Whoever
    /// holds what makes leases is the only one who may change messages.
    pub(super) fn open(parts: &SpoolParts) -> Result<(Self, Leases, Vec<RecoveredMessage>), OpenError> {
        let root = parts.data_dir.join("spool");
        let fail = |error| OpenError::Io { path: root.clone(), error };
        let disk = &parts.disk;
        let dirs = SpoolDirs {
            incoming: root.join("incoming"),
            waiting: root.join("waiting"),
            damaged: root.join("damaged"),
        };
        let journal_dir = root.join("journal");
        for dir in [&dirs.incoming, &dirs.waiting, &dirs.damaged, &journal_dir] {
            create_dir_all(disk.as_ref(), dir).map_err(fail)?;
        }
        disk.sync_dir(&root).map_err(fail)?;
        check_version(parts, &root)?;
        let damaged = parts.metrics.counter("queue_damaged", "Damaged records and files, set aside");
        let mut finds = SpoolRecovery {
            disk,
            dirs: &dirs,
            damaged: &damaged,
            journaled: HashMap::new(),
            newer_segment: None,
        };
        let waiting = finds.list().map_err(fail)?;
        let journal = finds.replay(parts, &journal_dir).map_err(fail)?;
        if let Some((path, version)) = finds.newer_segment {
            return Err(OpenError::Newer { path, version: version.to_string() });
        }
        let puts = finds.journaled;
        let length = parts.metrics.gauge("queue_length", "Messages in the queue");
        let spool = Self {
            disk: Arc::clone(disk),
            clock: Arc::clone(&parts.clock),
            age_clock: AgeClock::open(Arc::clone(disk), Arc::clone(&parts.clock), &root),
            dirs,
            journal,
            index: Index::new(length),
            next_file_number: AtomicU64::new(0),
            leftovers: Mutex::default(),
            damaged,
        };
        let survivors = spool.build_index(waiting, puts);
        Ok((spool, Leases::new(), survivors))
    }

    /// Builds the index from what was found: a parcel counts more than a `put`.
    fn build_index(
        &self,
        waiting: Vec<(MessageId, u64, Timestamp)>,
        puts: JournaledMessages,
    ) -> Vec<RecoveredMessage> {
        let mut survivors = Vec::with_capacity(waiting.len() + puts.len());
        for (id, octets, due) in waiting {
            let moved = puts.contains_key(&id).then(|| self.journal.note(RecordKind::Moved, &id, b""));
            self.index.insert(&id, MessageLocation::File { octets, moved_note: moved });
            survivors.push(RecoveredMessage { id, due });
        }
        for (id, (place, records)) in puts {
            if self.index.has(&id) {
                continue;
            }
            let due = records.last().map_or(Timestamp::from_millis(0), |record| record.due);
            self.journal.increment_live(place.segment);
            self.index.insert(&id, MessageLocation::Journal { position: place, updates: records });
            survivors.push(RecoveredMessage { id, due });
        }
        survivors.sort_unstable_by_key(|survivor| survivor.id);
        survivors
    }

    /// Messages in our care.
    pub(super) fn count(&self) -> usize {
        self.index.count()
    }

    /// In our care.
    pub(super) fn has(&self, id: &MessageId) -> bool {
        self.index.has(id)
    }

    /// The disk is full as far as we know: no message can be put.
    pub(super) fn is_disk_full(&self) -> bool {
        self.journal.is_disk_full()
    }

    /// All, oldest first.
    pub(super) fn ids(&self) -> Vec<MessageId> {
        self.index.ids()
    }

    /// Begins a message in a file of its own.
    pub(super) fn create_message_file(&self, id: &MessageId) -> io::Result<MessageFileWriter> {
        let number = self.next_file_number.fetch_add(1, Ordering::Relaxed);
        MessageFileWriter::create(&self.disk, &self.dirs.incoming, id, number)
    }

    /// Promises a small message. Durable on return; one shared sync.
    pub(super) fn put_in_journal(&self, envelope: &Envelope, octets: &[u8]) -> io::Result<()> {
        let place = self.journal.put(&envelope.id, &serde_json::to_vec(envelope)?, octets)?;
        self.index.insert(&envelope.id, MessageLocation::Journal { position: place, updates: Vec::new() });
        Ok(())
    }

    /// Promises a message in a file of its own. Durable on return; two syncs.
    pub(super) fn put_as_file(&self, draft: MessageFileWriter, envelope: &Envelope) -> io::Result<()> {
        let octets = draft.octets();
        let (path, file) = draft.finish(&self.dirs.waiting, envelope, None, self.age_clock.now())?;
        if !self.disk.is_file_at(&path, file.as_ref()).unwrap_or(false) {
            // Or it would be delivered although its sender is told that it is not taken.
            let _ = self.disk.remove(&path);
            return Err(misplaced_error(&self.dirs.waiting));
        }
        self.index.insert(&envelope.id, MessageLocation::File { octets, moved_note: None });
        Ok(())
    }

    fn message_file_path(&self, id: &MessageId, octets: u64) -> PathBuf {
        self.dirs.waiting.join(message_file::file_name(id, octets))
    }

    /// Writes down what an attempt or a command changed. `after` is the message's progress with `record`
    /// in it.
    ///
    /// On an error the message is as safe as before, and `after` holds only in memory.
    pub(super) fn record_update(
        &self,
        lease: &Lease,
        envelope: &Envelope,
        record: &ProgressUpdate,
        after: &MessageProgress,
    ) -> io::Result<()> {
        let id = lease.id();
        if after.is_settled() {
            self.settle(lease, Some(record));
            return Ok(());
        }
        let must_last = record.by_operator || record.states.iter().any(|(_, state)| state.is_settled());
        match self.index.get(id).ok_or(io::ErrorKind::NotFound)? {
            MessageLocation::File { octets, .. } => {
                let path = self.message_file_path(id, octets);
                message_file::append_update(self.disk.as_ref(), &path, octets, record, must_last)?;
                // A hint, see `parcel`.
                let _ = self.disk.set_modified(&path, after.due);
                Ok(())
            }
            MessageLocation::Journal { .. } => {
                let waits = record.by_operator || record.states.iter().any(|(_, state)| !state.is_settled());
                let moved = if waits { self.move_to_file(lease, envelope, after) } else { Ok(()) };
                match moved {
                    // A person hears that it cannot be done.
                    Err(e) if record.by_operator => return Err(e),
                    // An outcome is true though the message cannot move now: the next one moves it.
                    Err(e) => log::warn!(target: "queue", "{id} stays in the journal for now: {e}"),
                    Ok(()) if waits => return Ok(()),
                    Ok(()) => {}
                }
                self.append_update_note(id, record);
                Ok(())
            }
        }
    }

    fn append_update_note(&self, id: &MessageId, record: &ProgressUpdate) {
        if let Ok(json) = serde_json::to_vec(record) {
            self.journal.note(RecordKind::Note, id, &json);
        }
        self.index.add_update(id, record);
    }

    /// Moves a message from the journal to a file of its own; one that has a file stays there.
    fn move_to_file(&self, lease: &Lease, envelope: &Envelope, progress: &MessageProgress) -> io::Result<()> {
        let id = lease.id();
        let MessageLocation::Journal { position: place, .. } =
            self.index.get(id).ok_or(io::ErrorKind::NotFound)?
        else {
            return Ok(());
        };
        let file = self.journal.file(place.segment)?;
        let mut draft = self.create_message_file(id)?;
        let start = place.offset + u64::from(place.envelope_octets);
        let mut copied = 0;
        while copied < place.octets {
            let wanted = usize::try_from(place.octets - copied).unwrap_or(usize::MAX).min(COPY_OCTETS);
            let chunk = file.read_range(start + copied, wanted)?;
            if chunk.is_empty() {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            draft.append(&chunk)?;
            copied += chunk.len() as u64;
        }
        draft.finish(&self.dirs.waiting, envelope, Some(&progress.to_record()), progress.due)?;
        let moved = Some(self.journal.note(RecordKind::Moved, id, b""));
        // The segment holds one message less only if this is what took it out.
        if self.index.move_from(id, place, moved) {
            self.journal.decrement_live(place.segment);
        }
        Ok(())
    }

    /// Nothing is left to do for a message: it goes. Cannot fail: what the disk refuses now is
    /// done by a later sweep, and until then a restart delivers it again.
    pub(super) fn settle(&self, lease: &Lease, record: Option<&ProgressUpdate>) {
        // What the disk refused is said in the log, and kept for the next sweep.
        let _ = self.settle_on_disk(lease, record);
    }

    /// The same, durable on return: a crash does not bring it back.
    ///
    /// On an error it has left the queue all the same, unless a crash comes before the next sync.
    pub(super) fn settle_durably(&self, lease: &Lease, record: &ProgressUpdate) -> io::Result<()> {
        match self.settle_on_disk(lease, Some(record))? {
            SettlementTrace::JournalNote(done) => self.journal.sync(&done),
            SettlementTrace::FileRemoved => self.disk.sync_dir(&self.dirs.waiting),
            SettlementTrace::NotQueued | SettlementTrace::FileMarked => Ok(()),
        }
    }

    fn settle_on_disk(&self, lease: &Lease, record: Option<&ProgressUpdate>) -> io::Result<SettlementTrace> {
        let id = lease.id();
        match self.remove_from_index(id) {
            None => Ok(SettlementTrace::NotQueued),
            Some(RemovedEntry::Journal(done)) => Ok(SettlementTrace::JournalNote(done)),
            Some(RemovedEntry::Waiting { octets, moved }) => {
                let path = self.message_file_path(id, octets);
                let Err(e) = self.remove_message_file(&path, moved.as_ref()) else {
                    return Ok(SettlementTrace::FileRemoved);
                };
                log::error!(target: "queue", "{id} is settled, but {} stays for now: {e}", path.display());
                self.leftovers.lock().push((path.clone(), moved));
                // So that a restart knows; may fail for the same reason.
                match record.map(|record| {
                    message_file::append_update(self.disk.as_ref(), &path, octets, record, true)
                }) {
                    Some(Ok(())) => Ok(SettlementTrace::FileMarked),
                    Some(Err(_)) | None => Err(e),
                }
            }
        }
    }

    /// A message leaves the queue; in the journal that is noted, and its segment holds one less.
    fn remove_from_index(&self, id: &MessageId) -> Option<RemovedEntry> {
        match self.index.remove(id)? {
            MessageLocation::Journal { position: place, .. } => {
                let done = self.journal.note(RecordKind::Done, id, b"");
                self.journal.decrement_live(place.segment);
                Some(RemovedEntry::Journal(done))
            }
            MessageLocation::File { octets, moved_note: moved } => {
                Some(RemovedEntry::Waiting { octets, moved })
            }
        }
    }

    fn remove_message_file(&self, path: &Path, moved: Option<&NoteHandle>) -> io::Result<()> {
        if let Some(moved) = moved {
            self.journal.sync(moved)?;
        }
        self.disk.remove(path)
    }
}

/// What a message left behind on disk when it left the queue.
enum RemovedEntry {
    /// This note says so.
    Journal(NoteHandle),
    /// Its file, for the caller to deal with.
    Waiting { octets: u64, moved: Option<NoteHandle> },
}

/// How the end of a message stands on disk.
enum SettlementTrace {
    /// It was not in the queue.
    NotQueued,
    /// In the journal, durable with this note.
    JournalNote(NoteHandle),
    /// Its file is removed, durable with the directory.
    FileRemoved,
    /// Its file is still there and says, durably, that nothing is left to do.
    FileMarked,
}

/// Read and written at once when a message moves.
const COPY_OCTETS: usize = 64 * 1024;
