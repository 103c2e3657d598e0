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

mod aside;
mod index;
mod lease;
mod load;
mod sweep;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use self::index::{Index, Kept};
use super::age_clock::AgeClock;
use super::frame::Kind;
use super::item::{Progress, Record};
use super::journal::{Journal, Ticket, misplaced_at};
use super::parcel::{self, Draft};
use super::recovery::{Finds, Puts, check_version};
use super::schedule::Settings;
use crate::mail::{Envelope, MessageId, Timestamp};
use crate::observe::{Counter, Metrics};
use crate::sys::{Clock, Disk, Mutex, Random, create_dir_all};

pub(super) use self::lease::{Lease, Leases};
pub(super) use self::load::LoadError;
pub(super) use self::sweep::Swept;

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
    pub(super) ages: AgeClock,
    dirs: Dirs,
    journal: Journal,
    index: Index,
    /// Number of the last draft: no two writers use one name.
    drafts: AtomicU64,
    /// Parcels that are settled and could not be removed, each with its `moved`.
    leftovers: Mutex<Vec<(PathBuf, Option<Ticket>)>>,
    damaged: Counter,
}

pub(super) struct Dirs {
    pub(super) incoming: PathBuf,
    pub(super) waiting: PathBuf,
    pub(super) damaged: PathBuf,
}

/// A message that was promised before this process began.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Survivor {
    pub(super) id: MessageId,
    /// By the age clock.
    pub(super) due: Timestamp,
}

impl Spool {
    /// Opens the spool below a data directory and finds what was promised, oldest first. Whoever
    /// holds what makes leases is the only one who may change messages.
    pub(super) fn open(parts: &SpoolParts) -> Result<(Self, Leases, Vec<Survivor>), OpenError> {
        let root = parts.data_dir.join("spool");
        let fail = |error| OpenError::Io { path: root.clone(), error };
        let disk = &parts.disk;
        let dirs = Dirs {
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
        let mut finds = Finds { disk, dirs: &dirs, damaged: &damaged, puts: HashMap::new(), newer: None };
        let waiting = finds.list().map_err(fail)?;
        let journal = finds.replay(parts, &journal_dir).map_err(fail)?;
        if let Some((path, version)) = finds.newer {
            return Err(OpenError::Newer { path, version: version.to_string() });
        }
        let puts = finds.puts;
        let length = parts.metrics.gauge("queue_length", "Messages in the queue");
        let spool = Self {
            disk: Arc::clone(disk),
            clock: Arc::clone(&parts.clock),
            ages: AgeClock::open(Arc::clone(disk), Arc::clone(&parts.clock), &root),
            dirs,
            journal,
            index: Index::new(length),
            drafts: AtomicU64::new(0),
            leftovers: Mutex::default(),
            damaged,
        };
        let survivors = spool.adopt(waiting, puts);
        Ok((spool, Leases::new(), survivors))
    }

    /// Builds the index from what was found: a parcel counts more than a `put`.
    fn adopt(&self, waiting: Vec<(MessageId, u64, Timestamp)>, puts: Puts) -> Vec<Survivor> {
        let mut survivors = Vec::with_capacity(waiting.len() + puts.len());
        for (id, octets, due) in waiting {
            let moved = puts.contains_key(&id).then(|| self.journal.note(Kind::Moved, &id, b""));
            self.index.insert(&id, Kept::Waiting { octets, moved });
            survivors.push(Survivor { id, due });
        }
        for (id, (place, records)) in puts {
            if self.index.has(&id) {
                continue;
            }
            let due = records.last().map_or(Timestamp::from_millis(0), |record| record.due);
            self.journal.add_live(place.segment);
            self.index.insert(&id, Kept::Journal { place, records });
            survivors.push(Survivor { id, due });
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
    pub(super) fn is_short_of_room(&self) -> bool {
        self.journal.is_short_of_room()
    }

    /// All, oldest first.
    pub(super) fn ids(&self) -> Vec<MessageId> {
        self.index.ids()
    }

    /// Begins a message in a file of its own.
    pub(super) fn draft(&self, id: &MessageId) -> io::Result<Draft> {
        let number = self.drafts.fetch_add(1, Ordering::Relaxed);
        Draft::create(&self.disk, &self.dirs.incoming, id, number)
    }

    /// Promises a small message. Durable on return; one shared sync.
    pub(super) fn put_small(&self, envelope: &Envelope, octets: &[u8]) -> io::Result<()> {
        let place = self.journal.put(&envelope.id, &serde_json::to_vec(envelope)?, octets)?;
        self.index.insert(&envelope.id, Kept::Journal { place, records: Vec::new() });
        Ok(())
    }

    /// Promises a message in a file of its own. Durable on return; two syncs.
    pub(super) fn put_large(&self, draft: Draft, envelope: &Envelope) -> io::Result<()> {
        let octets = draft.octets();
        let (path, file) = draft.finish(&self.dirs.waiting, envelope, None, self.ages.now())?;
        if !self.disk.is_in_place(&path, file.as_ref()).unwrap_or(false) {
            // Or it would be delivered although its sender is told that it is not taken.
            let _ = self.disk.remove(&path);
            return Err(misplaced_at(&self.dirs.waiting));
        }
        self.index.insert(&envelope.id, Kept::Waiting { octets, moved: None });
        Ok(())
    }

    fn parcel_path(&self, id: &MessageId, octets: u64) -> PathBuf {
        self.dirs.waiting.join(parcel::file_name(id, octets))
    }

    /// Writes down what an attempt or a command changed. `after` is the message's progress with `record`
    /// in it.
    ///
    /// On an error the message is as safe as before, and `after` holds only in memory.
    pub(super) fn note(
        &self,
        lease: &Lease,
        envelope: &Envelope,
        record: &Record,
        after: &Progress,
    ) -> io::Result<()> {
        let id = lease.id();
        if after.is_settled() {
            self.settle(lease, Some(record));
            return Ok(());
        }
        let must_last = record.by_operator || record.states.iter().any(|(_, state)| state.is_settled());
        match self.index.get(id).ok_or(io::ErrorKind::NotFound)? {
            Kept::Waiting { octets, .. } => {
                let path = self.parcel_path(id, octets);
                parcel::add(self.disk.as_ref(), &path, octets, record, must_last)?;
                // A hint, see `parcel`.
                let _ = self.disk.set_modified(&path, after.due);
                Ok(())
            }
            Kept::Journal { .. } => {
                let waits = record.by_operator || record.states.iter().any(|(_, state)| !state.is_settled());
                let moved = if waits { self.move_out(lease, envelope, after) } else { Ok(()) };
                match moved {
                    // A person hears that it cannot be done.
                    Err(e) if record.by_operator => return Err(e),
                    // An outcome is true though the message cannot move now: the next one moves it.
                    Err(e) => log::warn!(target: "queue", "{id} stays in the journal for now: {e}"),
                    Ok(()) if waits => return Ok(()),
                    Ok(()) => {}
                }
                self.note_in_journal(id, record);
                Ok(())
            }
        }
    }

    fn note_in_journal(&self, id: &MessageId, record: &Record) {
        if let Ok(json) = serde_json::to_vec(record) {
            self.journal.note(Kind::Note, id, &json);
        }
        self.index.add_record(id, record);
    }

    /// Moves a message from the journal to a file of its own; one that has a file stays there.
    fn move_out(&self, lease: &Lease, envelope: &Envelope, progress: &Progress) -> io::Result<()> {
        let id = lease.id();
        let Kept::Journal { place, .. } = self.index.get(id).ok_or(io::ErrorKind::NotFound)? else {
            return Ok(());
        };
        let file = self.journal.file(place.segment)?;
        let mut draft = self.draft(id)?;
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
        let moved = Some(self.journal.note(Kind::Moved, id, b""));
        // The segment holds one message less only if this is what took it out.
        if self.index.move_from(id, place, moved) {
            self.journal.take_live(place.segment);
        }
        Ok(())
    }

    /// Nothing is left to do for a message: it goes. Cannot fail: what the disk refuses now is
    /// done by a later sweep, and until then a restart delivers it again.
    pub(super) fn settle(&self, lease: &Lease, record: Option<&Record>) {
        // What the disk refused is said in the log, and kept for the next sweep.
        let _ = self.settle_by(lease, record);
    }

    /// The same, durable on return: a crash does not bring it back.
    ///
    /// On an error it has left the queue all the same, unless a crash comes before the next sync.
    pub(super) fn settle_durably(&self, lease: &Lease, record: &Record) -> io::Result<()> {
        match self.settle_by(lease, Some(record))? {
            Settled::Noted(done) => self.journal.sync(&done),
            Settled::Removed => self.disk.sync_dir(&self.dirs.waiting),
            Settled::Gone | Settled::Written => Ok(()),
        }
    }

    fn settle_by(&self, lease: &Lease, record: Option<&Record>) -> io::Result<Settled> {
        let id = lease.id();
        match self.leave(id) {
            None => Ok(Settled::Gone),
            Some(Left::Journal(done)) => Ok(Settled::Noted(done)),
            Some(Left::Waiting { octets, moved }) => {
                let path = self.parcel_path(id, octets);
                let Err(e) = self.remove_parcel(&path, moved.as_ref()) else { return Ok(Settled::Removed) };
                log::error!(target: "queue", "{id} is settled, but {} stays for now: {e}", path.display());
                self.leftovers.lock().push((path.clone(), moved));
                // So that a restart knows; may fail for the same reason.
                match record.map(|record| parcel::add(self.disk.as_ref(), &path, octets, record, true)) {
                    Some(Ok(())) => Ok(Settled::Written),
                    Some(Err(_)) | None => Err(e),
                }
            }
        }
    }

    /// A message leaves the queue; in the journal that is noted, and its segment holds one less.
    fn leave(&self, id: &MessageId) -> Option<Left> {
        match self.index.remove(id)? {
            Kept::Journal { place, .. } => {
                let done = self.journal.note(Kind::Done, id, b"");
                self.journal.take_live(place.segment);
                Some(Left::Journal(done))
            }
            Kept::Waiting { octets, moved } => Some(Left::Waiting { octets, moved }),
        }
    }

    fn remove_parcel(&self, path: &Path, moved: Option<&Ticket>) -> io::Result<()> {
        if let Some(moved) = moved {
            self.journal.sync(moved)?;
        }
        self.disk.remove(path)
    }
}

/// What a message left behind on disk when it left the queue.
enum Left {
    /// This note says so.
    Journal(Ticket),
    /// Its file, for the caller to deal with.
    Waiting { octets: u64, moved: Option<Ticket> },
}

/// How the end of a message stands on disk.
enum Settled {
    /// It was not in the queue.
    Gone,
    /// In the journal, durable with this note.
    Noted(Ticket),
    /// Its file is removed, durable with the directory.
    Removed,
    /// Its file is still there and says, durably, that nothing is left to do.
    Written,
}

/// Read and written at once when a message moves.
const COPY_OCTETS: usize = 64 * 1024;
