//! The spool of this process: put, note, move and settle messages.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::age_clock::AgeClock;
use super::index::{Index, MessageLocation};
use super::journal::{Journal, NoteHandle, misplaced_error};
use super::journal_record::RecordKind;
use super::lease::{Lease, Leases};
use super::message_file::{self, MessageFileWriter};
use super::message_progress::{MessageProgress, ProgressUpdate};
use super::recovery::{JournaledMessages, SpoolRecovery, check_version};
use crate::mail::{Envelope, MessageId, Timestamp};
use crate::observe::{Counter, Metrics};
use crate::sys::{Clock, Disk, Mutex, Random, create_dir_all};

/// What a spool is made of.
pub(crate) struct SpoolParts {
    /// Where files are.
    pub(crate) disk: Arc<dyn Disk>,
    /// The data directory; the spool is `spool` below it.
    pub(crate) data_dir: PathBuf,
    /// Time.
    pub(crate) clock: Arc<dyn Clock>,
    /// Ids, salts and jitter.
    pub(crate) random: Arc<dyn Random>,
    /// Where it counts.
    pub(crate) metrics: Arc<Metrics>,
    /// A journal segment is closed when it is this long, in octets.
    pub(crate) segment_octets: u64,
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
pub(crate) struct Spool {
    pub(super) disk: Arc<dyn Disk>,
    pub(super) clock: Arc<dyn Clock>,
    /// How old messages are.
    pub(crate) age_clock: AgeClock,
    pub(super) dirs: SpoolDirs,
    pub(super) journal: Journal,
    pub(super) index: Index,
    /// Number of the last draft: no two writers use one name.
    pub(super) next_file_number: AtomicU64,
    /// Parcels that are settled and could not be removed, each with its `moved`.
    pub(super) leftovers: Mutex<Vec<(PathBuf, Option<NoteHandle>)>>,
    pub(super) damaged: Counter,
}

pub(super) struct SpoolDirs {
    pub(super) incoming: PathBuf,
    pub(super) waiting: PathBuf,
    pub(super) damaged: PathBuf,
}

/// A message that was promised before this process began.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RecoveredMessage {
    pub(crate) id: MessageId,
    /// By the age clock.
    pub(crate) due: Timestamp,
}

impl Spool {
    /// Opens the spool below a data directory and finds what was promised, oldest first. Whoever
    /// holds what makes leases is the only one who may change messages.
    pub(crate) fn open(parts: &SpoolParts) -> Result<(Self, Leases, Vec<RecoveredMessage>), OpenError> {
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
    pub(crate) fn count(&self) -> usize {
        self.index.count()
    }

    /// In our care.
    pub(crate) fn has(&self, id: &MessageId) -> bool {
        self.index.has(id)
    }

    /// The disk is full as far as we know: no message can be put.
    pub(crate) fn is_disk_full(&self) -> bool {
        self.journal.is_disk_full()
    }

    /// All, oldest first.
    pub(crate) fn ids(&self) -> Vec<MessageId> {
        self.index.ids()
    }

    /// Begins a message in a file of its own.
    pub(crate) fn create_message_file(&self, id: &MessageId) -> io::Result<MessageFileWriter> {
        let number = self.next_file_number.fetch_add(1, Ordering::Relaxed);
        MessageFileWriter::create(&self.disk, &self.dirs.incoming, id, number)
    }

    /// Promises a small message. Durable on return; one shared sync.
    pub(crate) fn put_in_journal(&self, envelope: &Envelope, octets: &[u8]) -> io::Result<()> {
        let place = self.journal.put(&envelope.id, &serde_json::to_vec(envelope)?, octets)?;
        self.index.insert(&envelope.id, MessageLocation::Journal { position: place, updates: Vec::new() });
        Ok(())
    }

    /// Promises a message in a file of its own. Durable on return; two syncs.
    pub(crate) fn put_as_file(&self, draft: MessageFileWriter, envelope: &Envelope) -> io::Result<()> {
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

    pub(super) fn message_file_path(&self, id: &MessageId, octets: u64) -> PathBuf {
        self.dirs.waiting.join(message_file::file_name(id, octets))
    }

    /// Writes down what an attempt or a command changed. `after` is the message's progress with `record`
    /// in it.
    ///
    /// On an error the message is as safe as before, and `after` holds only in memory.
    pub(crate) fn record_update(
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
    pub(super) fn move_to_file(
        &self,
        lease: &Lease,
        envelope: &Envelope,
        progress: &MessageProgress,
    ) -> io::Result<()> {
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
    pub(crate) fn settle(&self, lease: &Lease, record: Option<&ProgressUpdate>) {
        // What the disk refused is said in the log, and kept for the next sweep.
        let _ = self.settle_on_disk(lease, record);
    }

    /// The same, durable on return: a crash does not bring it back.
    ///
    /// On an error it has left the queue all the same, unless a crash comes before the next sync.
    pub(crate) fn settle_durably(&self, lease: &Lease, record: &ProgressUpdate) -> io::Result<()> {
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
    pub(super) fn remove_from_index(&self, id: &MessageId) -> Option<RemovedEntry> {
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

    pub(super) fn remove_message_file(&self, path: &Path, moved: Option<&NoteHandle>) -> io::Result<()> {
        if let Some(moved) = moved {
            self.journal.sync(moved)?;
        }
        self.disk.remove(path)
    }
}

/// What a message left behind on disk when it left the queue.
pub(super) enum RemovedEntry {
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
