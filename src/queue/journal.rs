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

pub(super) use self::replay::{Oddity, Replayed};
use self::replay::{parse_name, replay};
pub(super) use self::reserve::is_full;
use super::frame::{Blank, Kind};
use crate::mail::MessageId;
use crate::sys::{Condvar, Disk, DiskFile, Mutex, MutexGuard, Random, catch_panic};

/// Where a message stands in the journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) segment: u64,
    /// Where its envelope begins; the octets follow it.
    pub(super) offset: u64,
    pub(super) envelope_octets: u32,
    pub(super) octets: u64,
}

/// A number for everything appended so far; durable together, in order.
type Mark = u64;

/// Of one note: whether it is durable is a question about it alone, since the mark under which it
/// stands changes when a failed sync loses it and it is written again.
#[derive(Clone)]
pub(super) struct Ticket(Arc<AtomicU64>);

impl Ticket {
    fn owed() -> Self {
        Self(Arc::new(AtomicU64::new(OWED)))
    }

    /// Under the journal's lock, as is `set`.
    fn mark(&self) -> Mark {
        self.0.load(Ordering::Relaxed)
    }

    fn set(&self, mark: Mark) {
        self.0.store(mark, Ordering::Relaxed);
    }
}

/// The mark of a note that is not in the journal (yet, or any more). Never durable.
const OWED: Mark = Mark::MAX;

/// The segments of one directory.
pub(super) struct Journal {
    disk: Arc<dyn Disk>,
    random: Arc<dyn Random>,
    dir: PathBuf,
    /// Where damaged files are kept.
    aside: PathBuf,
    segment_octets: u64,
    state: Mutex<State>,
    turned: Condvar,
    /// See [`Journal::is_short_of_room`].
    is_short_of_room: AtomicBool,
    /// The last sync was of files that are not where their paths lead.
    is_misplaced: AtomicBool,
}

#[derive(Default)]
struct State {
    segments: BTreeMap<u64, Segment>,
    /// Files that may be written over.
    spares: Vec<PathBuf>,
    /// There is a file for notes when the disk is full.
    has_reserve: bool,
    current: Option<u64>,
    last_number: u64,
    /// Counts records.
    mark: Mark,
    durable: Mark,
    /// Records behind `durable`, in order.
    tail: VecDeque<(Mark, Tail)>,
    /// Notes that could not be written yet, in order.
    owed: VecDeque<Note>,
    /// Messages that a failed sync refused, until their sessions hear of it.
    refused: HashMap<Mark, (io::ErrorKind, String)>,
    is_syncing: bool,
}

enum Tail {
    Put { id: MessageId, segment: u64 },
    Note(Note),
}

struct Note {
    blank: Blank,
    ticket: Ticket,
}

struct Segment {
    path: PathBuf,
    salt: u32,
    file: Option<Arc<dyn DiskFile>>,
    length: u64,
    /// Durable up to here.
    durable: u64,
    /// The directory knows it, durably.
    is_named: bool,
    /// Messages in it that are not settled and not moved.
    live: usize,
    /// Some of it could not be read: it is kept for somebody who can.
    is_unreadable: bool,
}

/// What becomes of a segment's file.
enum Fate {
    Spare(PathBuf),
    Kept(PathBuf),
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
        each: &mut dyn FnMut(Replayed<'_>),
        odd: &mut dyn FnMut(Oddity) -> io::Result<()>,
    ) -> io::Result<Self> {
        let mut state = State::default();
        for entry in disk.list(dir)? {
            let path = dir.join(&entry.name);
            if entry.name.ends_with(SPARE) {
                if state.spares.len() < SPARES_MAX {
                    state.spares.push(path);
                } else {
                    disk.remove(&path)?;
                }
                continue;
            }
            if entry.name == reserve::NAME {
                // A shorter one was made for other settings.
                state.has_reserve = entry.octets >= segment_octets;
            }
            let Some((number, salt)) = parse_name(&entry.name) else { continue };
            let segment = Segment {
                path,
                salt,
                file: None,
                length: entry.octets,
                durable: entry.octets,
                is_named: true,
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
            aside: aside.to_owned(),
            segment_octets,
            state: Mutex::new(state),
            turned: Condvar::new(),
            is_short_of_room: AtomicBool::new(false),
            is_misplaced: AtomicBool::new(false),
        })
    }

    /// Appends a message and waits until it is durable.
    pub(super) fn put(&self, id: &MessageId, envelope: &[u8], octets: &[u8]) -> io::Result<Place> {
        let mut blank = Blank::new(Kind::Put, id, envelope, octets);
        let mut state = self.state.lock();
        self.pay(&mut state)?;
        if self.is_short_of_room() {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let (mark, segment, offset) = self.append(&mut state, &mut blank)?;
        let envelope_octets = u32::try_from(envelope.len()).unwrap_or(u32::MAX);
        let place = Place { segment, offset, envelope_octets, octets: octets.len() as u64 };
        state.tail.push_back((mark, Tail::Put { id: *id, segment: place.segment }));
        if let Some(segment) = state.segments.get_mut(&place.segment) {
            segment.live += 1;
        }
        self.wait_for(state, mark).inspect_err(|_| {
            // Heard: nobody else waits for this record.
            self.state.lock().refused.remove(&mark);
        })?;
        Ok(place)
    }

    /// Appends a note without a sync of its own. If the disk refuses, it is kept and written
    /// with the next record.
    pub(super) fn note(&self, kind: Kind, id: &MessageId, text: &[u8]) -> Ticket {
        let ticket = Ticket::owed();
        let note = Note { blank: Blank::new(kind, id, text, b""), ticket: ticket.clone() };
        let mut state = self.state.lock();
        state.owed.push_back(note);
        if let Err(e) = self.pay(&mut state) {
            log::warn!(target: "queue", "{id} cannot be noted in the journal yet: {e}");
        }
        ticket
    }

    /// Makes one note durable. Needs no room on the disk if it has been written, whatever else
    /// is owed.
    pub(super) fn sync(&self, ticket: &Ticket) -> io::Result<()> {
        loop {
            let mut state = self.state.lock();
            // Comes back when another thread's sync failed meanwhile.
            if ticket.mark() == OWED {
                self.pay(&mut state)?;
            }
            let mark = ticket.mark();
            if state.durable >= mark {
                return Ok(());
            }
            self.wait_for(state, mark)?;
        }
    }

    /// Writes the notes that are owed, and makes all notes durable.
    pub(super) fn sync_notes(&self) -> io::Result<()> {
        loop {
            let mut state = self.state.lock();
            // Another thread's sync may fail meanwhile and lose some.
            self.pay(&mut state)?;
            let mut unsynced = state.tail.iter().rev();
            let last = unsynced.find(|(_, one)| matches!(one, Tail::Note(_))).map(|(mark, _)| *mark);
            let Some(mark) = last else { return Ok(()) };
            self.wait_for(state, mark)?;
        }
    }

    /// The file of a segment, to read from.
    pub(super) fn file(&self, segment: u64) -> io::Result<Arc<dyn DiskFile>> {
        let state = self.state.lock();
        let file = state.segments.get(&segment).and_then(|segment| segment.file.clone());
        file.ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// A segment holds one more message that is not settled; for the start.
    pub(super) fn add_live(&self, segment: u64) {
        if let Some(segment) = self.state.lock().segments.get_mut(&segment) {
            segment.live += 1;
        }
    }

    /// A segment holds one less.
    pub(super) fn take_live(&self, segment: u64) {
        if let Some(segment) = self.state.lock().segments.get_mut(&segment) {
            segment.live = segment.live.saturating_sub(1);
        }
    }

    /// The oldest segment, if there are more than `max`: its messages should move.
    pub(super) fn crowded(&self, max: usize) -> Option<u64> {
        let state = self.state.lock();
        let oldest = state.segments.first_key_value().map(|(number, _)| *number)?;
        (state.segments.len() > max.max(1) && state.current != Some(oldest)).then_some(oldest)
    }

    /// Whether there is something that a sweep might get rid of without further news.
    pub(super) fn is_untidy(&self, max: usize) -> bool {
        !self.state.lock().owed.is_empty() || self.crowded(max).is_some()
    }

    /// Tries again to write what is owed.
    pub(super) fn pay_owed(&self) -> io::Result<()> {
        self.pay(&mut self.state.lock())
    }

    /// Lets segments go in which nothing is left to do, the oldest first, until it is late.
    /// For one thread only.
    pub(super) fn sweep(&self, is_late: &dyn Fn() -> bool) -> io::Result<()> {
        while let Some((number, path, fate)) = self.doomed() {
            let gone = match &fate {
                Fate::Spare(to) => self.disk.rename(&path, to),
                Fate::Kept(to) => self.disk.rename(&path, to).and_then(|()| self.disk.sync_dir(&self.aside)),
                Fate::Removed => self.disk.remove(&path),
            };
            match gone {
                Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
                _ => self.disk.sync_dir(&self.dir)?,
            }
            let mut state = self.state.lock();
            state.segments.remove(&number);
            if let (Ok(()), Fate::Spare(path)) = (gone, fate) {
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
    fn doomed(&self) -> Option<(u64, PathBuf, Fate)> {
        let mut state = self.state.lock();
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
            Fate::Kept(self.aside.join(path.file_name()?))
        } else if is_wanted && is_free {
            segment.file = None;
            Fate::Spare(path.with_extension(SPARE))
        } else {
            Fate::Removed
        };
        Some((number, path, fate))
    }

    /// Writes the notes that are owed; to the reserve, if the disk is full.
    fn pay(&self, state: &mut MutexGuard<'_, State>) -> io::Result<()> {
        while let Some(mut note) = state.owed.pop_front() {
            let appended = match self.append(state, &mut note.blank) {
                Err(e) if is_full(e.kind()) && self.use_reserve(state) => self.append(state, &mut note.blank),
                other => other,
            };
            match appended {
                Ok((mark, ..)) => {
                    note.ticket.set(mark);
                    state.tail.push_back((mark, Tail::Note(note)));
                }
                Err(e) => {
                    state.owed.push_front(note);
                    return Err(e);
                }
            }
        }
        Ok(())
    }

    /// The record's mark, its segment, and where its text begins there.
    fn append(&self, state: &mut MutexGuard<'_, State>, blank: &mut Blank) -> io::Result<(Mark, u64, u64)> {
        let number = self.current(state)?;
        let Some(segment) = state.segments.get_mut(&number) else {
            return Err(io::ErrorKind::NotFound.into());
        };
        let Some(file) = segment.file.clone() else { return Err(io::ErrorKind::NotFound.into()) };
        let (record, text_at) = blank.fill(segment.salt);
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
        state.mark += 1;
        Ok((state.mark, number, offset))
    }

    /// The segment to write to; a new one when there is none or it is long enough.
    fn current(&self, state: &mut MutexGuard<'_, State>) -> io::Result<u64> {
        if let Some(number) = state.current
            && state.segments.get(&number).is_some_and(|segment| segment.length < self.segment_octets)
        {
            return Ok(number);
        }
        let spare = state.spares.pop();
        self.begin_segment(state, spare)
    }

    /// Goes on in a new segment: in this file, which is written over, or in a new one.
    fn begin_segment(&self, state: &mut MutexGuard<'_, State>, file: Option<PathBuf>) -> io::Result<u64> {
        let number = state.last_number + 1;
        let salt = u32::try_from(self.random.bits() >> 32).unwrap_or(0);
        let path = self.dir.join(format!("{number:08}-{salt:08x}.journal"));
        let file = Some(match file {
            Some(old) => self.use_again(&old, &path)?,
            None => self.disk.create(&path)?,
        });
        let segment = Segment {
            path,
            salt,
            file,
            length: 0,
            durable: 0,
            is_named: false,
            live: 0,
            is_unreadable: false,
        };
        state.segments.insert(number, segment);
        state.last_number = number;
        state.current = Some(number);
        Ok(number)
    }

    /// A spare that cannot be had is left alone: the next record gets another file.
    fn use_again(&self, spare: &Path, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        self.disk.rename(spare, path)?;
        self.disk.open(path).inspect_err(|_| {
            let _ = self.disk.remove(path);
        })
    }

    /// Waits until `mark` is durable; leads a sync when nobody else does.
    fn wait_for<'a>(&'a self, mut state: MutexGuard<'a, State>, mark: Mark) -> io::Result<()> {
        loop {
            if let Some((kind, text)) = state.refused.get(&mark) {
                return Err(io::Error::new(*kind, text.clone()));
            }
            if state.durable >= mark {
                return Ok(());
            }
            if state.is_syncing {
                state = self.turned.wait(state);
                continue;
            }
            state.is_syncing = true;
            let (upto, dirty) = (state.mark, dirty(&state));
            drop(state);
            // A panic must not leave the others waiting for a leader for ever.
            let synced = catch_panic(|| self.sync_segments(&dirty));
            let result = synced.unwrap_or_else(|_| Err(io::Error::other("the sync panicked")));
            state = self.state.lock();
            state.is_syncing = false;
            let failed = match result {
                Ok(misplaced) => {
                    self.settle(&mut state, upto, &dirty, &misplaced);
                    None
                }
                Err(e) => {
                    self.refuse(&mut state, &(e.kind(), e.to_string()));
                    Some(e)
                }
            };
            self.turned.notify_all();
            // Whoever only waits for a mark, without a message of its own, hears it here.
            if let Some(e) = failed {
                return Err(e);
            }
        }
    }

    /// A sync succeeded: everything up to `upto` is durable. Messages in `misplaced` segments are not where
    /// their path leads: whoever put them hears of it.
    fn settle(&self, state: &mut State, upto: Mark, dirty: &[Dirty], misplaced: &[u64]) {
        state.durable = state.durable.max(upto);
        for one in dirty {
            if let Some(segment) = state.segments.get_mut(&one.number) {
                segment.durable = segment.durable.max(one.length);
                segment.is_named = true;
            }
        }
        while state.tail.front().is_some_and(|(mark, _)| *mark <= upto) {
            let Some((mark, Tail::Put { id, segment })) = state.tail.pop_front() else { continue };
            if misplaced.contains(&segment) {
                let why = misplaced_at(&self.dir);
                state.refused.insert(mark, (why.kind(), why.to_string()));
                if let Some(segment) = state.segments.get_mut(&segment) {
                    segment.live = segment.live.saturating_sub(1);
                }
                let blank = Blank::new(Kind::Cancel, &id, b"", b"");
                state.owed.push_back(Note { blank, ticket: Ticket::owed() });
            }
        }
    }

    /// A sync failed: see the head of this file.
    fn refuse(&self, state: &mut MutexGuard<'_, State>, why: &(io::ErrorKind, String)) {
        log::error!(target: "queue", "the journal cannot be synced: {}", why.1);
        for segment in state.segments.values_mut().filter(|segment| segment.length > segment.durable) {
            if let Some(file) = &segment.file {
                // If it cannot be cut, the `cancel` records do it.
                let _ = file.truncate(segment.durable);
            }
            segment.length = segment.durable;
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
        take_back(state, why);
        if is_full(why.0) {
            self.use_reserve(state);
        }
    }

    /// Names first: a record is worth nothing in a file that a power cut forgets. Returns the segments that
    /// are not where their paths lead.
    fn sync_segments(&self, dirty: &[Dirty]) -> io::Result<Vec<u64>> {
        if dirty.iter().any(|one| !one.is_named) {
            self.disk.sync_dir(&self.dir)?;
        }
        dirty.iter().try_for_each(|one| one.file.sync())?;
        // What cannot be looked up is as good as gone.
        let is_in_place = |one: &Dirty| self.disk.is_in_place(&one.path, one.file.as_ref()).unwrap_or(false);
        let misplaced: Vec<_> = dirty.iter().filter(|one| !is_in_place(one)).map(|one| one.number).collect();
        let is_misplaced = !misplaced.is_empty();
        if self.is_misplaced.swap(is_misplaced, Ordering::AcqRel) != is_misplaced {
            match is_misplaced {
                true => log::error!(target: "queue", "no mail is taken: {}", misplaced_at(&self.dir)),
                false => log::info!(target: "queue", "{} is back: mail is taken", self.dir.display()),
            }
        }
        Ok(misplaced)
    }
}

/// A segment to be synced.
struct Dirty {
    number: u64,
    path: PathBuf,
    file: Arc<dyn DiskFile>,
    length: u64,
    is_named: bool,
}

fn dirty(state: &State) -> Vec<Dirty> {
    let unsynced = state.segments.iter().filter(|(_, segment)| segment.length > segment.durable);
    unsynced
        .filter_map(|(number, segment)| {
            let file = segment.file.clone()?;
            let path = segment.path.clone();
            Some(Dirty { number: *number, path, file, length: segment.length, is_named: segment.is_named })
        })
        .collect()
}

/// Why a message is not promised although it is durable: nobody would find it.
pub(super) fn misplaced_at(dir: &Path) -> io::Error {
    io::Error::other(format!(
        "{} was moved, removed or replaced while the server runs; put it back, or restart postrider",
        dir.display()
    ))
}

/// Takes back what was appended and is not durable: whoever put it hears of it, notes are owed.
fn take_back(state: &mut State, why: &(io::ErrorKind, String)) {
    // They were written before what is owed already, and are written again before it.
    let behind = std::mem::take(&mut state.owed);
    for (mark, one) in std::mem::take(&mut state.tail) {
        let note = match one {
            Tail::Note(note) => {
                note.ticket.set(OWED);
                note
            }
            Tail::Put { id, segment } => {
                state.refused.insert(mark, why.clone());
                // Gone with its segment: a cut that holds, or the owed would grow with each retry.
                let Some(segment) = state.segments.get_mut(&segment) else { continue };
                segment.live = segment.live.saturating_sub(1);
                Note { blank: Blank::new(Kind::Cancel, &id, b"", b""), ticket: Ticket::owed() }
            }
        };
        state.owed.push_back(note);
    }
    state.owed.extend(behind);
}

/// Files kept to be written over: a few seconds of heavy mail.
const SPARES_MAX: usize = 8;
/// The last part of their names.
const SPARE: &str = "spare";
