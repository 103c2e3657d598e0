//! Append-only segments with a shared sync.
//!
//! Small messages arrive here. A session appends its record under a short lock (a write into the
//! page cache; the one place where a lock is held across a system call, because the order of
//! records and of their numbers must be the same), then waits until it is durable. One of those
//! who wait becomes the leader and syncs for everybody; those who come meanwhile are carried by
//! the next sync. Notes (outcomes, moves) are appended without a sync of their own and ride on
//! the next.
//!
//! **A sync that fails** says nothing about what is durable, and the next one on the same file
//! may succeed without having written anything. So the segment is closed: it is cut back to what
//! was durable, whoever waited hears the error, notes in the lost part are written again into the
//! next segment, and a `cancel` is written there for each message that was refused, in case the
//! cut itself is lost. A segment of which nothing was durable goes at once, with its messages, or a
//! disk that refuses for hours would cost a file, a descriptor and a `cancel` for each of them.
//!
//! Segments go from the oldest on, each durably before the next: a note always stands in its
//! message's segment or a later one, and may not go before it. A segment that goes becomes a
//! **spare**: a file for one of the next segments to be written over. A sync of data that needs no
//! new room asks little of a file system: nothing but the data is written, and nobody else's changes
//! have to be.
//!
//! After a sync, and before a message is promised, the segment is looked for by its path: whoever renames or
//! removes the data directory under the server would not find the message there. See [`Disk::is_in_place`].
//!
//! One more such file is the reserve, for notes when the disk is full: see `reserve`.

mod replay;
mod reserve;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

pub(super) use self::replay::{ReplayProblem, ReplayedRecord};
use self::replay::{parse_name, replay};
pub(crate) use self::reserve::is_disk_full_error;
use super::journal_record::{PreparedRecord, RecordKind};
use crate::mail::MessageId;
use crate::sys::{Condvar, Disk, DiskFile, Mutex, MutexGuard, Random, catch_panic};

/// Where a message stands in the journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct JournalPosition {
    pub(super) segment: u64,
    /// Where its envelope begins; the octets follow it.
    pub(super) offset: u64,
    pub(super) envelope_octets: u32,
    pub(super) octets: u64,
}

/// A number for everything appended so far; durable together, in order.
type SequenceNumber = u64;

/// Of one note: whether it is durable is a question about it alone, since the mark under which it
/// stands changes when a failed sync loses it and it is written again.
#[derive(Clone)]
pub(super) struct NoteHandle(Arc<AtomicU64>);

impl NoteHandle {
    fn unwritten() -> Self {
        Self(Arc::new(AtomicU64::new(UNWRITTEN)))
    }

    /// Under the journal's lock, as is `set`.
    fn sequence(&self) -> SequenceNumber {
        self.0.load(Ordering::Relaxed)
    }

    fn set(&self, mark: SequenceNumber) {
        self.0.store(mark, Ordering::Relaxed);
    }
}

/// The mark of a note that is not in the journal (yet, or any more). Never durable.
const UNWRITTEN: SequenceNumber = SequenceNumber::MAX;

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
    /// See [`Journal::is_short_of_room`].
    is_disk_full: AtomicBool,
    /// The last sync was of files that are not where their paths lead.
    is_misplaced: AtomicBool,
}

#[derive(Default)]
struct JournalContents {
    segments: BTreeMap<u64, Segment>,
    /// Files that may be written over.
    spares: Vec<PathBuf>,
    /// There is a file for notes when the disk is full.
    has_reserve: bool,
    current: Option<u64>,
    last_number: u64,
    /// Counts records.
    last_sequence: SequenceNumber,
    durable_sequence: SequenceNumber,
    /// Records behind `durable`, in order.
    unsynced: VecDeque<(SequenceNumber, UnsyncedRecord)>,
    /// Notes that could not be written yet, in order.
    unwritten_notes: VecDeque<PendingNote>,
    /// Messages that a failed sync refused, until their sessions hear of it.
    failed_puts: HashMap<SequenceNumber, (io::ErrorKind, String)>,
    is_syncing: bool,
}

enum UnsyncedRecord {
    Put { id: MessageId, segment: u64 },
    Note(PendingNote),
}

struct PendingNote {
    record: PreparedRecord,
    handle: NoteHandle,
}

struct Segment {
    path: PathBuf,
    salt: u32,
    file: Option<Arc<dyn DiskFile>>,
    length: u64,
    /// Durable up to here.
    durable_octets: u64,
    /// The directory knows it, durably.
    is_name_durable: bool,
    /// Messages in it that are not settled and not moved.
    live: usize,
    /// Some of it could not be read: it is kept for somebody who can.
    is_unreadable: bool,
}

/// What becomes of a segment's file.
enum Disposal {
    Spare(PathBuf),
    SetAside(PathBuf),
    Removed,
}

impl Journal {
    /// Reads all segments of `dir`, in order; every sound record goes to `each`, what is not
    /// sound to `odd`. What is written from now on goes to a new segment.
    pub(super) fn open(
        disk: Arc<dyn Disk>,
        random: Arc<dyn Random>,
        dir: &Path,
        aside: &Path,
        segment_octets: u64,
        each: &mut dyn FnMut(ReplayedRecord<'_>),
        odd: &mut dyn FnMut(ReplayProblem) -> io::Result<()>,
    ) -> io::Result<Self> {
        let mut state = JournalContents::default();
        for entry in disk.list(dir)? {
            let path = dir.join(&entry.name);
            if entry.name.ends_with(SPARE_EXTENSION) {
                if state.spares.len() < SPARES_MAX {
                    state.spares.push(path);
                } else {
                    disk.remove(&path)?;
                }
                continue;
            }
            if entry.name == reserve::RESERVE_NAME {
                // A shorter one was made for other settings.
                state.has_reserve = entry.octets >= segment_octets;
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
            state.segments.insert(number, segment);
        }
        for (number, segment) in &mut state.segments {
            let file = disk.open(&segment.path)?;
            // What the last process wrote is taken for true below, so it must stay true.
            file.sync()?;
            replay(*number, segment, file.as_ref(), each, odd)?;
            segment.file = Some(file);
            state.last_number = *number;
        }
        disk.sync_dir(dir)?;
        Ok(Self {
            disk,
            random,
            dir: dir.to_owned(),
            damaged_dir: aside.to_owned(),
            segment_octets,
            contents: Mutex::new(state),
            sync_ended: Condvar::new(),
            is_disk_full: AtomicBool::new(false),
            is_misplaced: AtomicBool::new(false),
        })
    }

    /// Appends a message and waits until it is durable.
    pub(super) fn put(&self, id: &MessageId, envelope: &[u8], octets: &[u8]) -> io::Result<JournalPosition> {
        let mut blank = PreparedRecord::new(RecordKind::Put, id, envelope, octets);
        let mut state = self.contents.lock();
        self.write_pending_notes(&mut state)?;
        if self.is_disk_full() {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let (mark, segment, offset) = self.append(&mut state, &mut blank)?;
        let envelope_octets = u32::try_from(envelope.len()).unwrap_or(u32::MAX);
        let place = JournalPosition { segment, offset, envelope_octets, octets: octets.len() as u64 };
        state.unsynced.push_back((mark, UnsyncedRecord::Put { id: *id, segment: place.segment }));
        if let Some(segment) = state.segments.get_mut(&place.segment) {
            segment.live += 1;
        }
        self.wait_until_durable(state, mark).inspect_err(|_| {
            // Heard: nobody else waits for this record.
            self.contents.lock().failed_puts.remove(&mark);
        })?;
        Ok(place)
    }

    /// Appends a note without a sync of its own. If the disk refuses, it is kept and written
    /// with the next record.
    pub(super) fn note(&self, kind: RecordKind, id: &MessageId, text: &[u8]) -> NoteHandle {
        let ticket = NoteHandle::unwritten();
        let note = PendingNote { record: PreparedRecord::new(kind, id, text, b""), handle: ticket.clone() };
        let mut state = self.contents.lock();
        state.unwritten_notes.push_back(note);
        if let Err(e) = self.write_pending_notes(&mut state) {
            log::warn!(target: "queue", "{id} cannot be noted in the journal yet: {e}");
        }
        ticket
    }

    /// Makes one note durable. Needs no room on the disk if it has been written, whatever else
    /// is owed.
    pub(super) fn sync(&self, ticket: &NoteHandle) -> io::Result<()> {
        loop {
            let mut state = self.contents.lock();
            // Comes back when another thread's sync failed meanwhile.
            if ticket.sequence() == UNWRITTEN {
                self.write_pending_notes(&mut state)?;
            }
            let mark = ticket.sequence();
            if state.durable_sequence >= mark {
                return Ok(());
            }
            self.wait_until_durable(state, mark)?;
        }
    }

    /// Writes the notes that are owed, and makes all notes durable.
    pub(super) fn sync_notes(&self) -> io::Result<()> {
        loop {
            let mut state = self.contents.lock();
            // Another thread's sync may fail meanwhile and lose some.
            self.write_pending_notes(&mut state)?;
            let mut unsynced = state.unsynced.iter().rev();
            let last =
                unsynced.find(|(_, one)| matches!(one, UnsyncedRecord::Note(_))).map(|(mark, _)| *mark);
            let Some(mark) = last else { return Ok(()) };
            self.wait_until_durable(state, mark)?;
        }
    }

    /// The file of a segment, to read from.
    pub(super) fn file(&self, segment: u64) -> io::Result<Arc<dyn DiskFile>> {
        let state = self.contents.lock();
        let file = state.segments.get(&segment).and_then(|segment| segment.file.clone());
        file.ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// A segment holds one more message that is not settled; for the start.
    pub(super) fn increment_live(&self, segment: u64) {
        if let Some(segment) = self.contents.lock().segments.get_mut(&segment) {
            segment.live += 1;
        }
    }

    /// A segment holds one less.
    pub(super) fn decrement_live(&self, segment: u64) {
        if let Some(segment) = self.contents.lock().segments.get_mut(&segment) {
            segment.live = segment.live.saturating_sub(1);
        }
    }

    /// The oldest segment, if there are more than `max`: its messages should move.
    pub(super) fn oldest_excess_segment(&self, max: usize) -> Option<u64> {
        let state = self.contents.lock();
        let oldest = state.segments.first_key_value().map(|(number, _)| *number)?;
        (state.segments.len() > max.max(1) && state.current != Some(oldest)).then_some(oldest)
    }

    /// Whether there is something that a sweep might get rid of without further news.
    pub(super) fn has_sweep_work(&self, max: usize) -> bool {
        !self.contents.lock().unwritten_notes.is_empty() || self.oldest_excess_segment(max).is_some()
    }

    /// Tries again to write what is owed.
    pub(super) fn retry_unwritten_notes(&self) -> io::Result<()> {
        self.write_pending_notes(&mut self.contents.lock())
    }

    /// Lets segments go in which nothing is left to do, the oldest first, until it is late.
    /// For one thread only.
    pub(super) fn remove_finished_segments(&self, is_late: &dyn Fn() -> bool) -> io::Result<()> {
        while let Some((number, path, fate)) = self.next_disposable() {
            let gone = match &fate {
                Disposal::Spare(to) => self.disk.rename(&path, to),
                Disposal::SetAside(to) => {
                    self.disk.rename(&path, to).and_then(|()| self.disk.sync_dir(&self.damaged_dir))
                }
                Disposal::Removed => self.disk.remove(&path),
            };
            match gone {
                Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
                _ => self.disk.sync_dir(&self.dir)?,
            }
            let mut state = self.contents.lock();
            state.segments.remove(&number);
            if let (Ok(()), Disposal::Spare(path)) = (gone, fate) {
                state.spares.push(path);
            }
            drop(state);
            if is_late() {
                break;
            }
        }
        Ok(())
    }

    /// The oldest segment, if nothing is left to do in it, and what becomes of its file.
    fn next_disposable(&self) -> Option<(u64, PathBuf, Disposal)> {
        let mut state = self.contents.lock();
        let (is_wanted, current) = (state.spares.len() < SPARES_MAX, state.current);
        let mut oldest = state.segments.first_entry()?;
        let number = *oldest.key();
        let segment = oldest.get_mut();
        if segment.live > 0 || current == Some(number) {
            return None;
        }
        let path = segment.path.clone();
        // Whoever still reads in it must not read what is written over it.
        let is_free = segment.file.as_ref().is_none_or(|file| Arc::strong_count(file) == 1);
        let fate = if segment.is_unreadable {
            Disposal::SetAside(self.damaged_dir.join(path.file_name()?))
        } else if is_wanted && is_free {
            segment.file = None;
            Disposal::Spare(path.with_extension(SPARE_EXTENSION))
        } else {
            Disposal::Removed
        };
        Some((number, path, fate))
    }

    /// Writes the notes that are owed; to the reserve, if the disk is full.
    fn write_pending_notes(&self, state: &mut MutexGuard<'_, JournalContents>) -> io::Result<()> {
        while let Some(mut note) = state.unwritten_notes.pop_front() {
            let appended = match self.append(state, &mut note.record) {
                Err(e) if is_disk_full_error(e.kind()) && self.use_reserve(state) => {
                    self.append(state, &mut note.record)
                }
                other => other,
            };
            match appended {
                Ok((mark, ..)) => {
                    note.handle.set(mark);
                    state.unsynced.push_back((mark, UnsyncedRecord::Note(note)));
                }
                Err(e) => {
                    state.unwritten_notes.push_front(note);
                    return Err(e);
                }
            }
        }
        Ok(())
    }

    /// The record's mark, its segment, and where its text begins there.
    fn append(
        &self,
        state: &mut MutexGuard<'_, JournalContents>,
        blank: &mut PreparedRecord,
    ) -> io::Result<(SequenceNumber, u64, u64)> {
        let number = self.current(state)?;
        let Some(segment) = state.segments.get_mut(&number) else {
            return Err(io::ErrorKind::NotFound.into());
        };
        let Some(file) = segment.file.clone() else { return Err(io::ErrorKind::NotFound.into()) };
        let (record, text_at) = blank.finish_with_salt(segment.salt);
        // A panic here must not cost the record: whoever holds its ticket would wait for ever.
        let appended = catch_panic(|| file.write_at(record, segment.length));
        if let Err(e) = appended.unwrap_or_else(|_| Err(io::Error::other("the write panicked"))) {
            // What was half written must not stand before the next record. If it cannot be cut
            // off, the segment is closed, and it is a torn tail.
            if file.truncate(segment.length).is_err() {
                state.current = None;
            }
            return Err(e);
        }
        let offset = segment.length + text_at as u64;
        segment.length += record.len() as u64;
        state.last_sequence += 1;
        Ok((state.last_sequence, number, offset))
    }

    /// The segment to write to; a new one when there is none or it is long enough.
    fn current(&self, state: &mut MutexGuard<'_, JournalContents>) -> io::Result<u64> {
        if let Some(number) = state.current
            && state.segments.get(&number).is_some_and(|segment| segment.length < self.segment_octets)
        {
            return Ok(number);
        }
        let spare = state.spares.pop();
        self.begin_segment(state, spare)
    }

    /// Goes on in a new segment: in this file, which is written over, or in a new one.
    fn begin_segment(
        &self,
        state: &mut MutexGuard<'_, JournalContents>,
        file: Option<PathBuf>,
    ) -> io::Result<u64> {
        let number = state.last_number + 1;
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
        state.segments.insert(number, segment);
        state.last_number = number;
        state.current = Some(number);
        Ok(number)
    }

    /// A spare that cannot be had is left alone: the next record gets another file.
    fn reuse_file(&self, spare: &Path, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        self.disk.rename(spare, path)?;
        self.disk.open(path).inspect_err(|_| {
            let _ = self.disk.remove(path);
        })
    }

    /// Waits until `mark` is durable; leads a sync when nobody else does.
    fn wait_until_durable<'a>(
        &'a self,
        mut state: MutexGuard<'a, JournalContents>,
        mark: SequenceNumber,
    ) -> io::Result<()> {
        loop {
            if let Some((kind, text)) = state.failed_puts.get(&mark) {
                return Err(io::Error::new(*kind, text.clone()));
            }
            if state.durable_sequence >= mark {
                return Ok(());
            }
            if state.is_syncing {
                state = self.sync_ended.wait(state);
                continue;
            }
            state.is_syncing = true;
            let (upto, dirty) = (state.last_sequence, unsynced_segments(&state));
            drop(state);
            // A panic must not leave the others waiting for a leader for ever.
            let synced = catch_panic(|| self.sync_segments(&dirty));
            let result = synced.unwrap_or_else(|_| Err(io::Error::other("the sync panicked")));
            state = self.contents.lock();
            state.is_syncing = false;
            let failed = match result {
                Ok(misplaced) => {
                    self.sync_succeeded(&mut state, upto, &dirty, &misplaced);
                    None
                }
                Err(e) => {
                    self.sync_failed(&mut state, &(e.kind(), e.to_string()));
                    Some(e)
                }
            };
            self.sync_ended.notify_all();
            // Whoever only waits for a mark, without a message of its own, hears it here.
            if let Some(e) = failed {
                return Err(e);
            }
        }
    }

    /// A sync succeeded: everything up to `upto` is durable. Messages in `misplaced` segments are not where
    /// their path leads: whoever put them hears of it.
    fn sync_succeeded(
        &self,
        state: &mut JournalContents,
        upto: SequenceNumber,
        dirty: &[UnsyncedSegment],
        misplaced: &[u64],
    ) {
        state.durable_sequence = state.durable_sequence.max(upto);
        for one in dirty {
            if let Some(segment) = state.segments.get_mut(&one.number) {
                segment.durable_octets = segment.durable_octets.max(one.length);
                segment.is_name_durable = true;
            }
        }
        while state.unsynced.front().is_some_and(|(mark, _)| *mark <= upto) {
            let Some((mark, UnsyncedRecord::Put { id, segment })) = state.unsynced.pop_front() else {
                continue;
            };
            if misplaced.contains(&segment) {
                let why = misplaced_error(&self.dir);
                state.failed_puts.insert(mark, (why.kind(), why.to_string()));
                if let Some(segment) = state.segments.get_mut(&segment) {
                    segment.live = segment.live.saturating_sub(1);
                }
                let blank = PreparedRecord::new(RecordKind::Cancel, &id, b"", b"");
                state
                    .unwritten_notes
                    .push_back(PendingNote { record: blank, handle: NoteHandle::unwritten() });
            }
        }
    }

    /// A sync failed: see the head of this file.
    fn sync_failed(&self, state: &mut MutexGuard<'_, JournalContents>, why: &(io::ErrorKind, String)) {
        log::error!(target: "queue", "the journal cannot be synced: {}", why.1);
        for segment in state.segments.values_mut().filter(|segment| segment.length > segment.durable_octets) {
            if let Some(file) = &segment.file {
                // If it cannot be cut, the `cancel` records do it.
                let _ = file.truncate(segment.durable_octets);
            }
            segment.length = segment.durable_octets;
        }
        state.current = None;
        // Nothing stands in these. One that cannot be removed is left to a sweep, and not kept open.
        state.segments.retain(|_, segment| {
            if segment.length > 0 {
                return true;
            }
            segment.file = None;
            self.disk.remove(&segment.path).is_err()
        });
        requeue_unsynced(state, why);
        if is_disk_full_error(why.0) {
            self.use_reserve(state);
        }
    }

    /// Names first: a record is worth nothing in a file that a power cut forgets. Returns the segments that
    /// are not where their paths lead.
    fn sync_segments(&self, dirty: &[UnsyncedSegment]) -> io::Result<Vec<u64>> {
        if dirty.iter().any(|one| !one.is_name_durable) {
            self.disk.sync_dir(&self.dir)?;
        }
        dirty.iter().try_for_each(|one| one.file.sync())?;
        // What cannot be looked up is as good as gone.
        let is_in_place =
            |one: &UnsyncedSegment| self.disk.is_file_at(&one.path, one.file.as_ref()).unwrap_or(false);
        let misplaced: Vec<_> = dirty.iter().filter(|one| !is_in_place(one)).map(|one| one.number).collect();
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

/// A segment to be synced.
struct UnsyncedSegment {
    number: u64,
    path: PathBuf,
    file: Arc<dyn DiskFile>,
    length: u64,
    is_name_durable: bool,
}

fn unsynced_segments(state: &JournalContents) -> Vec<UnsyncedSegment> {
    let unsynced = state.segments.iter().filter(|(_, segment)| segment.length > segment.durable_octets);
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

/// Why a message is not promised although it is durable: nobody would find it.
pub(super) fn misplaced_error(dir: &Path) -> io::Error {
    io::Error::other(format!(
        "{} was moved, removed or replaced while the server runs; put it back, or restart postrider",
        dir.display()
    ))
}

/// Takes back what was appended and is not durable: whoever put it hears of it, notes are owed.
fn requeue_unsynced(state: &mut JournalContents, why: &(io::ErrorKind, String)) {
    // They were written before what is owed already, and are written again before it.
    let behind = std::mem::take(&mut state.unwritten_notes);
    for (mark, one) in std::mem::take(&mut state.unsynced) {
        let note = match one {
            UnsyncedRecord::Note(note) => {
                note.handle.set(UNWRITTEN);
                note
            }
            UnsyncedRecord::Put { id, segment } => {
                state.failed_puts.insert(mark, why.clone());
                // Gone with its segment: a cut that holds, or the owed would grow with each retry.
                let Some(segment) = state.segments.get_mut(&segment) else { continue };
                segment.live = segment.live.saturating_sub(1);
                PendingNote {
                    record: PreparedRecord::new(RecordKind::Cancel, &id, b"", b""),
                    handle: NoteHandle::unwritten(),
                }
            }
        };
        state.unwritten_notes.push_back(note);
    }
    state.unwritten_notes.extend(behind);
}

/// Files kept to be written over: a few seconds of heavy mail.
const SPARES_MAX: usize = 8;
/// The last part of their names.
const SPARE_EXTENSION: &str = "spare";
