//! Items on disk: put, load, note what became of them, remove, sweep, and find them again.
//!
//! ```text
//! DATA/lock                                 held while a process owns the spool
//! DATA/spool/version                        a later one is refused at the start
//! DATA/spool/journal/NUMBER-SALT.journal    small messages and notes about them: `frame`, `journal`
//! DATA/spool/journal/NUMBER-SALT.spare      the file of a segment that is gone, to be written over
//! DATA/spool/incoming/ID                    a parcel that is being written: nobody's yet
//! DATA/spool/waiting/ID.OCTETS              a message in a file of its own: `parcel`
//! DATA/spool/damaged/                       what could not be read, set aside, never removed by us
//! ```
//!
//! | state | what is on disk | next, by whom | after a crash |
//! |---|---|---|---|
//! | coming, small | nothing (memory) | session: journaled | nothing: not promised |
//! | coming, large | `incoming/ID` | session: waiting | removed: not promised |
//! | journaled | `put`, synced | worker: noted, settled or waiting; manager: waiting | tried again from the start |
//! | noted (some recipients settled) | `put`, `note` | as above | the rest is tried again |
//! | moving | `put`, `incoming/ID` | the same thread: waiting | journaled; `incoming/ID` is removed |
//! | waiting, seen twice | `put`, `waiting/ID.N`, synced with its directory | the same thread notes `moved` | the parcel counts, the `put` does not; `moved` is noted again |
//! | waiting | `put` and `moved`, or no `put`; `waiting/ID.N` | worker: adds a record, or settles | tried again when due |
//! | settled, journaled | `put`, `done` | manager: segment becomes a spare or is removed when nothing in it is left | gone; before `done` is synced, delivered twice |
//! | settled, waiting | no parcel, `moved` (synced before the parcel is removed) | manager: as above | gone; if the removal is undone, delivered twice |
//! | damaged | `damaged/…` | the operator | as it is |
//!
//! A message is *promised* when it is journaled or waiting; both are durable before `put` returns.
//! `moved` must be durable before the parcel is removed, or the `put` would rise again. Normally it
//! long is, carried by some later message's sync; on an idle host one sync is made for it.
//!
//! What may happen twice: a delivery whose record a crash undid (`done`, a parcel's removal), and
//! a message that was answered 451 because a sync failed, whose octets reached the disk all the
//! same. What may not happen: a promised message lost, or half of one.
//!
//! Departs from the plan in design.md in one point: what was settled for *some* recipients of a
//! parcel is synced at once, because the rest may wait for days.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::frame::Kind;
use super::item::{Progress, Record};
use super::journal::{Journal, Place, Ticket, read_all};
use super::octets::Extent;
use super::parcel::{self, Draft, ParcelError};
use super::recovery::{Finds, Puts, check_version};
use super::schedule::Settings;
use crate::mail::{Envelope, MessageId, Timestamp};
use crate::observe::{Counter, Gauge, Metrics};
use crate::sys::{Clock, Disk, Moment, Mutex, Random, create_dir_all};

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
    dirs: Dirs,
    journal: Journal,
    index: Mutex<BTreeMap<MessageId, Kept>>,
    /// Parcels that are settled and could not be removed, each with its `moved`.
    leftovers: Mutex<Vec<(PathBuf, Option<Ticket>)>>,
    damaged: Counter,
    length: Gauge,
}

pub(super) struct Dirs {
    pub(super) incoming: PathBuf,
    pub(super) waiting: PathBuf,
    pub(super) damaged: PathBuf,
}

/// Where a message is kept.
#[derive(Clone)]
enum Kept {
    Journal {
        place: Place,
        /// Notes about it, which stand elsewhere in the journal. Mostly empty.
        records: Vec<Record>,
    },
    Waiting {
        octets: u64,
        /// The note that must be durable before the parcel may go.
        moved: Option<Ticket>,
    },
}

/// A message that was promised before this process began.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Survivor {
    pub(super) id: MessageId,
    pub(super) due: Timestamp,
}

/// A message, read from disk.
pub(super) struct Loaded {
    pub(super) envelope: Arc<Envelope>,
    pub(super) progress: Progress,
    pub(super) octets: u64,
    /// What `progress` is the sum of.
    pub(super) records: Vec<Record>,
}

/// How far a sweep came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Swept {
    /// As far as it can.
    All,
    /// Its time was over.
    InPart,
}

/// Why a message cannot be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum LoadError {
    #[error("it is not in the queue")]
    Gone,
    #[error("somebody removed its file")]
    Missing,
    #[error("its envelope is damaged")]
    Damaged,
    #[error("it was written by a later version ({0}) of this program")]
    Newer(u64),
    #[error("{0}")]
    Io(#[from] io::Error),
}

impl From<ParcelError> for LoadError {
    fn from(error: ParcelError) -> Self {
        match error {
            ParcelError::Io(e) => Self::Io(e),
            ParcelError::Damaged => Self::Damaged,
            ParcelError::Newer(version) => Self::Newer(version),
        }
    }
}

impl Spool {
    /// Opens the spool below a data directory and finds what was promised, oldest first.
    pub(super) fn open(parts: &SpoolParts) -> Result<(Self, Vec<Survivor>), OpenError> {
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
            dirs,
            journal,
            index: Mutex::default(),
            leftovers: Mutex::default(),
            damaged,
            length,
        };
        let survivors = spool.adopt(waiting, puts);
        Ok((spool, survivors))
    }

    /// Builds the index from what was found: a parcel counts more than a `put`.
    fn adopt(&self, waiting: Vec<(MessageId, u64, Timestamp)>, puts: Puts) -> Vec<Survivor> {
        let mut index = self.index.lock();
        let mut survivors = Vec::with_capacity(waiting.len() + puts.len());
        for (id, octets, due) in waiting {
            let moved = puts.contains_key(&id).then(|| self.journal.note(Kind::Moved, &id, b""));
            index.insert(id, Kept::Waiting { octets, moved });
            survivors.push(Survivor { id, due });
        }
        for (id, (place, records)) in puts {
            if index.contains_key(&id) {
                continue;
            }
            let due = records.last().map_or(Timestamp::from_millis(0), |record| record.due);
            self.journal.add_live(place.segment);
            index.insert(id, Kept::Journal { place, records });
            survivors.push(Survivor { id, due });
        }
        self.length.set(i64::try_from(index.len()).unwrap_or(i64::MAX));
        survivors.sort_unstable_by_key(|survivor| survivor.id);
        survivors
    }

    /// Messages in our care.
    pub(super) fn count(&self) -> usize {
        self.index.lock().len()
    }

    /// In our care.
    pub(super) fn has(&self, id: &MessageId) -> bool {
        self.index.lock().contains_key(id)
    }

    /// All, oldest first.
    pub(super) fn ids(&self) -> Vec<MessageId> {
        self.index.lock().keys().copied().collect()
    }

    /// Begins a message in a file of its own.
    pub(super) fn draft(&self, id: &MessageId) -> io::Result<Draft> {
        Draft::create(&self.disk, &self.dirs.incoming, id)
    }

    /// Promises a small message. Durable on return; one shared sync.
    pub(super) fn put_small(&self, envelope: &Envelope, octets: &[u8]) -> io::Result<()> {
        let place = self.journal.put(&envelope.id, &serde_json::to_vec(envelope)?, octets)?;
        self.keep(&envelope.id, Kept::Journal { place, records: Vec::new() });
        Ok(())
    }

    /// Promises a message in a file of its own. Durable on return; two syncs.
    pub(super) fn put_large(&self, draft: Draft, envelope: &Envelope) -> io::Result<()> {
        let octets = draft.octets();
        draft.finish(&self.dirs.waiting, envelope, None, self.clock.wall())?;
        self.keep(&envelope.id, Kept::Waiting { octets, moved: None });
        Ok(())
    }

    fn keep(&self, id: &MessageId, kept: Kept) {
        let mut index = self.index.lock();
        index.insert(*id, kept);
        self.length.set(i64::try_from(index.len()).unwrap_or(i64::MAX));
    }

    fn forget(&self, id: &MessageId) {
        let mut index = self.index.lock();
        index.remove(id);
        self.length.set(i64::try_from(index.len()).unwrap_or(i64::MAX));
    }

    fn kept(&self, id: &MessageId) -> Option<Kept> {
        self.index.lock().get(id).cloned()
    }

    fn parcel_path(&self, id: &MessageId, octets: u64) -> PathBuf {
        self.dirs.waiting.join(parcel::file_name(id, octets))
    }

    /// Reads envelope and progress.
    pub(super) fn load(&self, id: &MessageId) -> Result<Loaded, LoadError> {
        match self.load_once(id) {
            Err(LoadError::Io(e)) if e.kind() == io::ErrorKind::NotFound => match self.load_once(id) {
                Err(LoadError::Io(e)) if e.kind() == io::ErrorKind::NotFound && self.is_missing(id) => {
                    Err(LoadError::Missing)
                }
                other => other,
            },
            other => other,
        }
    }

    /// Its parcel is not where it should be, though the place is: somebody removed it by hand. A
    /// file system that is not mounted has no place.
    fn is_missing(&self, id: &MessageId) -> bool {
        let Some(Kept::Waiting { octets, .. }) = self.kept(id) else { return false };
        let name = parcel::file_name(id, octets);
        self.disk.list(&self.dirs.waiting).is_ok_and(|files| files.iter().all(|file| file.name != name))
    }

    /// Forgets a message whose parcel somebody removed by hand; says whether that is so.
    pub(super) fn forget_missing(&self, id: &MessageId) -> bool {
        let is_missing = self.is_missing(id);
        if is_missing {
            log::warn!(target: "queue", "{id} is forgotten: somebody removed its file from the spool");
            self.forget(id);
        }
        is_missing
    }

    /// Where the octets of a message stand now.
    pub(super) fn extent(&self, id: &MessageId) -> io::Result<Extent> {
        match self.extent_once(id) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => self.extent_once(id),
            other => other,
        }
    }

    /// As all that look up a place and then the file: between the two, the message may move and
    /// its segment go. It moves once, so that looking again is enough.
    fn load_once(&self, id: &MessageId) -> Result<Loaded, LoadError> {
        let (envelope, records, octets) = match self.kept(id).ok_or(LoadError::Gone)? {
            Kept::Journal { place, records } => {
                let file = self.journal.file(place.segment)?;
                let json = read_all(file.as_ref(), place.offset, place.envelope_octets as usize)?;
                (parcel::read_envelope(&json)?, records, place.octets)
            }
            Kept::Waiting { octets, .. } => {
                let path = self.parcel_path(id, octets);
                let file = match self.disk.open(&path) {
                    Err(e) if e.kind() == io::ErrorKind::NotFound && !self.has(id) => {
                        return Err(LoadError::Gone);
                    }
                    other => other?,
                };
                let lines = parcel::read(file.as_ref(), octets)?;
                (lines.envelope, lines.records, octets)
            }
        };
        let mut progress = Progress::new(&envelope);
        records.iter().for_each(|record| progress.apply(record));
        // Only a parcel has been rerouted, and its envelope is not written again.
        let envelope = Arc::new(progress.rerouted(envelope));
        Ok(Loaded { envelope, progress, octets, records })
    }

    fn extent_once(&self, id: &MessageId) -> io::Result<Extent> {
        match self.kept(id).ok_or(io::ErrorKind::NotFound)? {
            Kept::Journal { place, .. } => Ok(Extent {
                file: self.journal.file(place.segment)?,
                offset: place.offset + u64::from(place.envelope_octets),
                octets: place.octets,
            }),
            Kept::Waiting { octets, .. } => {
                Ok(Extent { file: self.disk.open(&self.parcel_path(id, octets))?, offset: 0, octets })
            }
        }
    }

    /// Writes down what an attempt changed. `after` is the message's progress with `record` in
    /// it. For one thread at a time per message.
    ///
    /// On an error the message is as safe as before, and `after` holds only in memory.
    pub(super) fn note(&self, envelope: &Envelope, record: &Record, after: &Progress) -> io::Result<()> {
        let id = &envelope.id;
        if after.is_settled() {
            self.settle(id, Some(record));
            return Ok(());
        }
        let must_last = record.by_operator || record.states.iter().any(|(_, state)| state.is_settled());
        match self.kept(id).ok_or(io::ErrorKind::NotFound)? {
            Kept::Waiting { octets, .. } => {
                let path = self.parcel_path(id, octets);
                parcel::add(self.disk.as_ref(), &path, octets, record, must_last)?;
                // A hint, see `parcel`.
                let _ = self.disk.set_modified(&path, after.due);
                Ok(())
            }
            Kept::Journal { place, .. } => {
                let waits = record.by_operator || record.states.iter().any(|(_, state)| !state.is_settled());
                let moved = if waits { self.move_out(envelope, place, after) } else { Ok(()) };
                // An outcome is true though the message cannot move; a person hears that it cannot.
                if !waits || (moved.is_err() && !record.by_operator) {
                    self.note_in_journal(id, record);
                }
                moved
            }
        }
    }

    fn note_in_journal(&self, id: &MessageId, record: &Record) {
        if let Ok(json) = serde_json::to_vec(record) {
            self.journal.note(Kind::Note, id, &json);
        }
        if let Some(Kept::Journal { records, .. }) = self.index.lock().get_mut(id) {
            records.push(record.clone());
        }
    }

    /// Moves a message from the journal to a file of its own.
    fn move_out(&self, envelope: &Envelope, place: Place, progress: &Progress) -> io::Result<()> {
        let id = &envelope.id;
        let file = self.journal.file(place.segment)?;
        let mut draft = self.draft(id)?;
        let start = place.offset + u64::from(place.envelope_octets);
        let mut copied = 0;
        while copied < place.octets {
            let wanted = usize::try_from(place.octets - copied).unwrap_or(usize::MAX).min(COPY_OCTETS);
            let chunk = read_all(file.as_ref(), start + copied, wanted)?;
            if chunk.is_empty() {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            draft.append(&chunk)?;
            copied += chunk.len() as u64;
        }
        draft.finish(&self.dirs.waiting, envelope, Some(&progress.to_record()), progress.due)?;
        let moved = Some(self.journal.note(Kind::Moved, id, b""));
        self.keep(id, Kept::Waiting { octets: place.octets, moved });
        self.journal.take_live(place.segment);
        Ok(())
    }

    /// Nothing is left to do for a message: it goes. Cannot fail: what the disk refuses now is
    /// done by a later sweep, and until then a restart delivers it again.
    pub(super) fn settle(&self, id: &MessageId, record: Option<&Record>) {
        self.settle_by(id, record);
    }

    /// The same, durable on return: a crash does not bring it back.
    ///
    /// On an error it has left the queue all the same, unless a crash comes before the next sync.
    pub(super) fn settle_durably(&self, id: &MessageId, record: &Record) -> io::Result<()> {
        match self.settle_by(id, Some(record)) {
            Some(done) => self.journal.sync(&done),
            None => self.disk.sync_dir(&self.dirs.waiting),
        }
    }

    /// The note that says so, for a message that is in the journal.
    fn settle_by(&self, id: &MessageId, record: Option<&Record>) -> Option<Ticket> {
        let mut done = None;
        match self.kept(id) {
            None => {}
            Some(Kept::Journal { place, .. }) => {
                done = Some(self.journal.note(Kind::Done, id, b""));
                self.journal.take_live(place.segment);
            }
            Some(Kept::Waiting { octets, moved }) => {
                let path = self.parcel_path(id, octets);
                if let Err(e) = self.remove_parcel(&path, moved.as_ref()) {
                    log::error!(target: "queue", "{id} is settled, but {} stays for now: {e}", path.display());
                    if let Some(record) = record {
                        // So that a restart knows; may fail for the same reason.
                        let _ = parcel::add(self.disk.as_ref(), &path, octets, record, true);
                    }
                    self.leftovers.lock().push((path, moved));
                }
            }
        }
        self.forget(id);
        done
    }

    fn remove_parcel(&self, path: &Path, moved: Option<&Ticket>) -> io::Result<()> {
        if let Some(moved) = moved {
            self.journal.sync(moved)?;
        }
        self.disk.remove(path)
    }

    /// Moves a message that cannot be read aside, a copy of it if it is in the journal, and
    /// forgets it. If the disk refuses, it stays where it is, to be set aside later.
    pub(super) fn set_aside(&self, id: &MessageId) -> io::Result<()> {
        let aside = match self.kept(id) {
            None => return Ok(()),
            Some(Kept::Waiting { octets, .. }) => {
                let name = parcel::file_name(id, octets);
                let to = self.dirs.damaged.join(&name);
                self.disk.rename(&self.dirs.waiting.join(&name), &to).map(|()| to)
            }
            Some(Kept::Journal { place, .. }) => self.copy_out(id, place),
        };
        match aside {
            Ok(path) => {
                self.damaged.add_one();
                log::error!(target: "queue", "{id} is damaged and was set aside as {}", path.display());
                self.forget(id);
                Ok(())
            }
            Err(e) => {
                log::error!(target: "queue", "{id} is damaged and could not be set aside: {e}");
                Err(e)
            }
        }
    }

    /// Copies what the journal has of a message to the damaged ones; its segment may go then.
    fn copy_out(&self, id: &MessageId, place: Place) -> io::Result<PathBuf> {
        let octets = usize::try_from(place.octets).unwrap_or(usize::MAX);
        let octets = octets.saturating_add(place.envelope_octets as usize);
        let copy = read_all(self.journal.file(place.segment)?.as_ref(), place.offset, octets)?;
        let path = self.dirs.damaged.join(id.as_str());
        let file = parcel::create_anew(self.disk.as_ref(), &path)?;
        file.append(&copy)?;
        file.sync()?;
        self.disk.sync_dir(&self.dirs.damaged)?;
        self.journal.note(Kind::Done, id, b"");
        self.journal.take_live(place.segment);
        Ok(path)
    }

    /// Clears away: old segments, and what could not be removed earlier. When there are more
    /// than `segments_max`, messages of the oldest move to files of their own, apart from `active`
    /// ones. Stops soon after `until`. For the manager's thread only.
    pub(super) fn sweep(
        &self,
        segments_max: usize,
        active: &dyn Fn(&MessageId) -> bool,
        until: Moment,
    ) -> io::Result<Swept> {
        let is_late = || self.clock.now() >= until;
        self.journal.sweep(&is_late)?;
        // If the disk is still full, the next sweep tries again.
        let _ = self.journal.pay_owed();
        self.remove_leftovers(&is_late);
        let Some(oldest) = self.journal.crowded(segments_max) else {
            return Ok(if is_late() { Swept::InPart } else { Swept::All });
        };
        // One that cannot be moved must not keep those behind it here.
        let mut refused = Ok(());
        // At least one, however late it is.
        for (id, place) in self.tenants(oldest, active) {
            match self.load(&id) {
                Ok(loaded) => {
                    let moved = self.move_out(&loaded.envelope, place, &loaded.progress);
                    refused = refused.and(moved);
                }
                Err(LoadError::Gone | LoadError::Missing | LoadError::Newer(_)) => {}
                Err(LoadError::Io(e)) => refused = refused.and(Err(e)),
                Err(LoadError::Damaged) => refused = refused.and(self.set_aside(&id)),
            }
            if is_late() {
                return Ok(Swept::InPart);
            }
        }
        self.journal.sweep(&is_late)?;
        refused?;
        Ok(if is_late() { Swept::InPart } else { Swept::All })
    }

    fn remove_leftovers(&self, is_late: &dyn Fn() -> bool) {
        let mut leftovers = std::mem::take(&mut *self.leftovers.lock()).into_iter();
        let mut refused = Vec::new();
        for (path, moved) in leftovers.by_ref() {
            let removed = self.remove_parcel(&path, moved.as_ref());
            if removed.is_err_and(|e| e.kind() != io::ErrorKind::NotFound) {
                refused.push((path, moved));
            }
            if is_late() {
                break;
            }
        }
        // What was refused is tried again after what was not tried yet.
        self.leftovers.lock().extend(leftovers.chain(refused));
    }

    /// Whether there is something that a later sweep might get rid of though nothing new is
    /// settled: what the disk refused, or more than `segments_max` segments.
    pub(super) fn is_untidy(&self, segments_max: usize) -> bool {
        !self.leftovers.lock().is_empty() || self.journal.is_untidy(segments_max)
    }

    fn tenants(&self, segment: u64, active: &dyn Fn(&MessageId) -> bool) -> Vec<(MessageId, Place)> {
        let index = self.index.lock();
        let tenants = index.iter().filter_map(|(id, kept)| match kept {
            Kept::Journal { place, .. } if place.segment == segment && !active(id) => Some((*id, *place)),
            Kept::Journal { .. } | Kept::Waiting { .. } => None,
        });
        tenants.take(MOVES_PER_SWEEP).collect()
    }
}

/// Read and written at once when a message moves.
const COPY_OCTETS: usize = 64 * 1024;

/// Messages moved by one sweep at most.
const MOVES_PER_SWEEP: usize = 100;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::fakes::{SeededRandom, SimulatedDisk, TestClock};
    use crate::mail::{Mailbox, Recipient, ReversePath};
    use crate::sys::{DiskFile, Entry};

    const SYNC: Duration = Duration::from_millis(10);

    /// A disk on which a sync takes its time.
    struct SlowDisk(SimulatedDisk, Arc<TestClock>);
    struct SlowFile(Arc<dyn DiskFile>, Arc<TestClock>);

    impl Disk for SlowDisk {
        fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
            Ok(Arc::new(SlowFile(self.0.create(path)?, Arc::clone(&self.1))))
        }
        fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
            self.0.open(path)
        }
        fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
            self.0.rename(from, to)
        }
        fn remove(&self, path: &Path) -> io::Result<()> {
            self.0.remove(path)
        }
        fn sync_dir(&self, dir: &Path) -> io::Result<()> {
            self.1.advance(SYNC);
            self.0.sync_dir(dir)
        }
        fn create_dir(&self, dir: &Path) -> io::Result<()> {
            self.0.create_dir(dir)
        }
        fn list(&self, dir: &Path) -> io::Result<Vec<Entry>> {
            self.0.list(dir)
        }
        fn set_modified(&self, path: &Path, when: Timestamp) -> io::Result<()> {
            self.0.set_modified(path, when)
        }
    }

    impl DiskFile for SlowFile {
        fn write_at(&self, octets: &[u8], offset: u64) -> io::Result<()> {
            self.0.write_at(octets, offset)
        }
        fn sync(&self) -> io::Result<()> {
            self.1.advance(SYNC);
            self.0.sync()
        }
        fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
            self.0.read_at(buffer, offset)
        }
        fn length(&self) -> io::Result<u64> {
            self.0.length()
        }
        fn truncate(&self, octets: u64) -> io::Result<()> {
            self.0.truncate(octets)
        }
    }

    /// A spool with so many messages that they fill more than one small segment.
    fn crowded(disk: Arc<dyn Disk>, clock: &Arc<TestClock>, messages: u64) -> (Spool, Vec<MessageId>) {
        let parts = SpoolParts {
            disk,
            data_dir: PathBuf::from("/data"),
            clock: Arc::clone(clock) as Arc<dyn Clock>,
            random: Arc::new(SeededRandom::new(1)),
            metrics: Arc::new(Metrics::default()),
            settings: Settings { segment_octets: 10_000, ..Settings::default() },
        };
        let (spool, _) = Spool::open(&parts).unwrap();
        let recipient = Recipient::mailbox(Mailbox::parse("bo@here.example").unwrap());
        let ids: Vec<_> = (0..messages).map(|n| MessageId::new(clock.wall(), n)).collect();
        for id in &ids {
            let envelope = Envelope::new(*id, clock.wall(), ReversePath::Null, vec![recipient.clone()]);
            spool.put_small(&envelope, b"Subject: hello\r\n\r\n").unwrap();
        }
        assert!(spool.journal.crowded(1).is_some());
        (spool, ids)
    }

    #[test]
    fn a_sweep_on_a_slow_disk_comes_back_in_time_and_goes_on_later() {
        let clock = Arc::<TestClock>::default();
        let disk = SlowDisk(SimulatedDisk::default(), Arc::clone(&clock));
        let (spool, _) = crowded(Arc::new(disk), &clock, 100);
        for slice in 0.. {
            assert!(slice < 100, "it never ends");
            let began = clock.now();
            let swept = spool.sweep(1, &|_| false, began + 5 * SYNC).unwrap();
            // One move may begin in time and end late.
            assert!(clock.now().since(began) <= 7 * SYNC, "{slice}");
            if swept == Swept::All && spool.journal.crowded(1).is_none() {
                break;
            }
        }
        assert_eq!(spool.count(), 100);
    }

    #[test]
    fn one_message_that_cannot_be_moved_holds_up_nobody() {
        let clock = Arc::<TestClock>::default();
        let disk = Arc::new(SimulatedDisk::default());
        let (spool, ids) = crowded(Arc::clone(&disk) as Arc<dyn Disk>, &clock, 40);
        // What an earlier move of the first one left behind.
        disk.create(&PathBuf::from("/data/spool/incoming").join(ids[0].as_str())).unwrap();
        // The second one's envelope has rotted, and half a copy of it is aside already.
        disk.create(&PathBuf::from("/data/spool/damaged").join(ids[1].as_str())).unwrap();
        let segment = disk.names().into_iter().find(|path| path.starts_with("/data/spool/journal")).unwrap();
        let octets = disk.octets(&segment).unwrap();
        let needle = ids[1].as_str().as_bytes();
        let head = octets.windows(needle.len()).position(|window| window == needle).unwrap();
        let line_end = octets[head..].iter().position(|octet| *octet == b'\n').unwrap();
        disk.damage(&segment, head + line_end + 1);

        let late = clock.now() + Duration::from_secs(3600);
        for _ in 0..10 {
            spool.sweep(1, &|_| false, late).unwrap();
        }
        assert!(spool.journal.crowded(1).is_none(), "nothing is left in old segments");
        assert_eq!(spool.count(), 39, "all but the damaged one");
        let aside = disk.octets(&PathBuf::from("/data/spool/damaged").join(ids[1].as_str())).unwrap();
        assert!(aside.ends_with(b"Subject: hello\r\n\r\n"), "the whole of it");
    }
}
