//! A disk in memory that keeps only what was synced.
//!
//! Data is durable after `sync` of the file, names after `sync_dir` of the directory. A test can
//! stop it after the n-th verb (everything fails from then on, as for a process that was killed),
//! let one verb fail (a full disk, an I/O error), and crash it: what was not synced is kept,
//! dropped, or torn by a seed: a part of the data, some of the names, in no order, so that a rename
//! may be durable without the data behind it, or a write over old data in part.
//!
//! A whole directory can be renamed or removed under the process: see `dir_changes`.

mod dir_changes;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use self::dir_changes::{DirChange, RootHandle, RootIndex};
use super::SeededRandom;
use crate::mail::Timestamp;
use crate::sys::{
    DirEntry, Disk, DiskFile, FileIdentity, FileLock, PlainMutex as Mutex, Random as _, scheduling_point,
};

/// What a crash does to what was not synced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Crash {
    /// The process was killed; the machine goes on: nothing is lost, unless a later power cut takes
    /// what is still not synced then.
    ProcessKilled,
    /// Power was cut, and nothing that was not synced is there.
    UnsyncedLost,
    /// Power was cut, and by this seed some of it is there, in part, in no order.
    UnsyncedTorn(u64),
}

/// One verb, by name.
type OperationName = &'static str;

/// The disk; clones share it.
#[derive(Clone, Default)]
pub struct SimulatedDisk(Arc<Mutex<DiskState>>, Option<RootIndex>);

#[derive(Default)]
struct DiskState {
    files: HashMap<u64, Inode>,
    names: BTreeMap<PathBuf, u64>,
    durable_names: BTreeMap<PathBuf, u64>,
    /// Changes of names that are not durable, in order.
    pending_name_changes: Vec<NameChange>,
    dirs: BTreeSet<PathBuf>,
    last_inode_number: u64,
    operations: Vec<OperationName>,
    stop_after: Option<usize>,
    failing_operation: Option<(usize, io::ErrorKind)>,
    is_full: bool,
    full_after: Option<usize>,
    ignored_sync: Option<String>,
    sync_kinds: BTreeSet<String>,
    is_starting: bool,
    open_count: usize,
    /// Raised by a crash: files that were open then are gone.
    epoch: u64,
    roots: Vec<RootHandle>,
    /// After so many verbs in all.
    due_dir_change: Option<(usize, DirChange)>,
}

#[derive(Default, Clone)]
struct Inode {
    contents: Vec<u8>,
    durable_contents: Vec<u8>,
    /// What makes the one of the other.
    unsynced_writes: Vec<PendingWrite>,
    modified: i64,
    /// Where it cannot be read.
    unreadable_offset: Option<u64>,
}

#[derive(Clone)]
enum PendingWrite {
    Data(usize, Vec<u8>),
    Truncate(usize),
}

impl Inode {
    fn write(&mut self, octets: &[u8], at: usize) {
        let write = PendingWrite::Data(at, octets.to_owned());
        write.apply(&mut self.contents, octets.len());
        self.unsynced_writes.push(write);
    }

    fn truncate(&mut self, length: usize) {
        self.contents.truncate(length);
        self.unsynced_writes.push(PendingWrite::Truncate(length));
    }

    fn sync(&mut self) {
        for write in std::mem::take(&mut self.unsynced_writes) {
            let octets = if let PendingWrite::Data(_, octets) = &write { octets.len() } else { 0 };
            write.apply(&mut self.durable_contents, octets);
        }
    }

    /// After a power cut, what is there is all there ever was.
    fn mark_durable(&mut self) {
        self.durable_contents.clone_from(&self.contents);
        self.unsynced_writes.clear();
    }

    /// Power was cut: a random part of what was not synced was written, in order, and perhaps a page
    /// of it was not, though later ones were.
    fn tear_unsynced_writes(&mut self, dice: &SeededRandom) {
        let below = |n: usize| usize::try_from(dice.below(n as u64)).unwrap_or(0);
        let mut now = self.durable_contents.clone();
        let lengths = self.unsynced_writes.iter().map(|write| match write {
            PendingWrite::Data(_, octets) => octets.len(),
            PendingWrite::Truncate(_) => 0,
        });
        let mut left = below(lengths.sum::<usize>() + 1);
        for write in &self.unsynced_writes {
            if left == 0 {
                break;
            }
            match write {
                // A cut may be lost.
                PendingWrite::Truncate(_) if below(2) == 0 => {}
                PendingWrite::Truncate(_) => write.apply(&mut now, 0),
                PendingWrite::Data(at, octets) => {
                    let kept = octets.len().min(left);
                    left -= kept;
                    write.apply(&mut now, kept);
                    if below(4) == 0 {
                        let hole = at + below(kept + 1);
                        let old =
                            self.durable_contents.iter().copied().skip(hole).chain(std::iter::repeat(0));
                        let page = now.iter_mut().take(at + kept).skip(hole).take(64);
                        page.zip(old).for_each(|(slot, octet)| *slot = octet);
                    }
                }
            }
        }
        self.contents = now;
    }
}

impl PendingWrite {
    /// Does it, as far as `octets` of it.
    fn apply(&self, file: &mut Vec<u8>, octets: usize) {
        match self {
            Self::Data(at, all) => {
                let end = at + octets;
                if file.len() < end {
                    file.resize(end, 0);
                }
                if let (Some(slots), Some(octets)) = (file.get_mut(*at..end), all.get(..octets)) {
                    slots.copy_from_slice(octets);
                }
            }
            Self::Truncate(length) => file.truncate(*length),
        }
    }
}

#[derive(Clone)]
enum NameChange {
    Link {
        path: PathBuf,
        inode: u64,
    },
    Unlink {
        path: PathBuf,
        inode: u64,
    },
    /// As one: a journalling file system never loses both names.
    Rename {
        from: PathBuf,
        to: PathBuf,
        inode: u64,
    },
}

impl SimulatedDisk {
    /// Everything fails after `n` more verbs.
    pub fn stop_after(&self, n: usize) {
        let mut world = self.0.lock();
        world.stop_after = Some(world.operations.len() + n);
    }

    /// The verb after `n` more fails once; a write leaves half of itself behind.
    pub fn fail_after(&self, n: usize, kind: io::ErrorKind) {
        let mut world = self.0.lock();
        world.failing_operation = Some((world.operations.len() + n, kind));
    }

    /// Every write fails for want of space until this is taken back.
    pub fn set_full(&self, is_full: bool) {
        let mut world = self.0.lock();
        (world.is_full, world.full_after) = (is_full, None);
    }

    /// The same from the verb after `n` more on.
    pub fn set_full_after(&self, n: usize) {
        let mut world = self.0.lock();
        world.full_after = Some(world.operations.len() + n);
    }

    /// A program that forgot: this kind of sync, as [`Self::syncs`] names it, does nothing.
    pub fn ignore_sync(&self, sync: &str) {
        self.0.lock().ignored_sync = Some(sync.to_owned());
    }

    /// Kinds of syncs so far: of a file or of a directory, of which directory, whether names came
    /// or went, and whether the process was starting. One kind is one line of a program, or two
    /// that do the same.
    #[must_use]
    pub fn sync_kinds(&self) -> BTreeSet<String> {
        self.0.lock().sync_kinds.clone()
    }

    /// From now on the process is starting, or it is not any more.
    pub fn set_starting(&self, is_starting: bool) {
        self.0.lock().is_starting = is_starting;
    }

    /// Verbs done so far that change something.
    #[must_use]
    pub fn operations(&self) -> Vec<&'static str> {
        self.0.lock().operations.clone()
    }

    /// How many of one kind.
    #[must_use]
    pub fn operation_count(&self, verb: &'static str) -> usize {
        self.0.lock().operations.iter().filter(|one| **one == verb).count()
    }

    /// How often a file that was there was opened.
    #[must_use]
    pub fn open_count(&self) -> usize {
        self.0.lock().open_count
    }

    /// The machine stops and starts again: what is left can be opened.
    pub fn crash(&self, crash: Crash) {
        let mut guard = self.0.lock();
        let world = &mut *guard;
        match crash {
            Crash::ProcessKilled => {}
            Crash::UnsyncedLost => {
                world.names = world.durable_names.clone();
                world.files.values_mut().for_each(|inode| inode.contents.clone_from(&inode.durable_contents));
            }
            Crash::UnsyncedTorn(seed) => world.tear_unsynced(&SeededRandom::new(seed)),
        }
        if crash != Crash::ProcessKilled {
            world.durable_names = world.names.clone();
            world.files.values_mut().for_each(Inode::mark_durable);
            world.pending_name_changes.clear();
        }
        world.stop_after = None;
        world.due_dir_change = None;
        world.failing_operation = None;
        world.is_full = false;
        world.full_after = None;
        world.epoch += 1;
    }

    /// A file's octets as they are now.
    #[must_use]
    pub fn contents(&self, path: &Path) -> Option<Vec<u8>> {
        let world = self.0.lock();
        world.names.get(path).and_then(|inode| world.files.get(inode)).map(|inode| inode.contents.clone())
    }

    /// Damages one octet of a file.
    pub fn damage(&self, path: &Path, offset: usize) {
        let mut world = self.0.lock();
        let inode = world.names.get(path).copied();
        if let Some(inode) = inode.and_then(|inode| world.files.get_mut(&inode)) {
            for octets in [&mut inode.contents, &mut inode.durable_contents] {
                octets.get_mut(offset).into_iter().for_each(|octet| *octet ^= 0x55);
            }
        }
    }

    /// The octet at `offset` of a file cannot be read any more.
    pub fn make_unreadable(&self, path: &Path, offset: u64) {
        let mut world = self.0.lock();
        let inode = world.names.get(path).copied();
        if let Some(inode) = inode.and_then(|inode| world.files.get_mut(&inode)) {
            inode.unreadable_offset = Some(offset);
        }
    }

    /// All files, by name.
    #[must_use]
    pub fn file_paths(&self) -> Vec<PathBuf> {
        self.0.lock().names.keys().cloned().collect()
    }
}

impl DiskState {
    /// One verb more; says why it fails, if it does. The flag: half of a write is done.
    fn begin_operation(&mut self, verb: OperationName) -> Result<(), (io::Error, bool)> {
        let number = self.operations.len();
        if self.stop_after.is_some_and(|stop| number >= stop) {
            // The verb at which we stop may be half done; later ones are not.
            let is_half = self.stop_after == Some(number);
            self.operations.push(verb);
            return Err((io::Error::other("the machine stopped"), is_half));
        }
        self.operations.push(verb);
        if let Some((_, kind)) = self.failing_operation.take_if(|(at, _)| *at == number) {
            return Err((kind.into(), true));
        }
        self.is_full |= self.full_after.take_if(|at| *at <= number).is_some();
        if self.is_full && matches!(verb, "append" | "create") {
            return Err((io::ErrorKind::StorageFull.into(), true));
        }
        Ok(())
    }

    fn begin_whole_operation(&mut self, verb: OperationName) -> io::Result<()> {
        self.begin_operation(verb).map_err(|(e, _)| e)
    }

    /// Notes a kind of sync; whether it counts.
    fn takes_effect(&mut self, verb: OperationName, dir: Option<&Path>, what: &str) -> bool {
        let dir = dir.and_then(Path::file_name).unwrap_or_default().to_string_lossy();
        let when = if self.is_starting { " at the start" } else { "" };
        let sync = format!("{verb} {dir}{what}{when}");
        let is_heeded = self.ignored_sync.as_ref() != Some(&sync);
        self.sync_kinds.insert(sync);
        is_heeded
    }

    fn apply(names: &mut BTreeMap<PathBuf, u64>, change: &NameChange) {
        match change {
            NameChange::Link { path, inode } => {
                names.insert(path.clone(), *inode);
            }
            NameChange::Unlink { path, inode } => {
                if names.get(path) == Some(inode) {
                    names.remove(path);
                }
            }
            NameChange::Rename { from, to, inode } => {
                if names.get(from) == Some(inode) {
                    names.remove(from);
                }
                names.insert(to.clone(), *inode);
            }
        }
    }

    /// Keeps each unsynced name or not, and a random part of unsynced data.
    fn tear_unsynced(&mut self, dice: &SeededRandom) {
        let mut names = self.durable_names.clone();
        for change in &self.pending_name_changes {
            if dice.below(2) == 0 {
                Self::apply(&mut names, change);
            }
        }
        self.names = names;
        let mut numbers: Vec<_> = self.files.keys().copied().collect();
        numbers.sort_unstable();
        for number in numbers {
            if let Some(inode) = self.files.get_mut(&number) {
                inode.tear_unsynced_writes(dice);
            }
        }
    }
}

/// Another thread may act before this verb, in a test that schedules threads.
fn disk_scheduling_point(verb: OperationName, path: &Path) {
    scheduling_point(|| format!("disk {verb} {}", path.display()));
}

impl Disk for SimulatedDisk {
    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        disk_scheduling_point("create", path);
        let mut world = self.state_after_dir_change();
        world.begin_whole_operation("create")?;
        let path = self.resolve(&world, path)?;
        if world.names.contains_key(&path) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        if !path.parent().is_some_and(|dir| world.dirs.contains(dir)) {
            return Err(io::ErrorKind::NotFound.into());
        }
        world.last_inode_number += 1;
        let inode = world.last_inode_number;
        world.files.insert(inode, Inode::default());
        world.names.insert(path.clone(), inode);
        world.pending_name_changes.push(NameChange::Link { path: path.clone(), inode });
        Ok(Arc::new(SimulatedFile { disk: self.clone(), inode, path, epoch: world.epoch }))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        disk_scheduling_point("open", path);
        let mut world = self.state_after_dir_change();
        let path = self.resolve(&world, path)?;
        let inode = *world.names.get(&path).ok_or(io::ErrorKind::NotFound)?;
        world.open_count += 1;
        Ok(Arc::new(SimulatedFile { disk: self.clone(), inode, path, epoch: world.epoch }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        disk_scheduling_point("rename", from);
        let mut world = self.state_after_dir_change();
        world.begin_whole_operation("rename")?;
        let (from, to) = (self.resolve(&world, from)?, self.resolve(&world, to)?);
        let inode = *world.names.get(&from).ok_or(io::ErrorKind::NotFound)?;
        if !to.parent().is_some_and(|dir| world.dirs.contains(dir)) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let change = NameChange::Rename { from, to, inode };
        DiskState::apply(&mut world.names, &change);
        world.pending_name_changes.push(change);
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        disk_scheduling_point("remove", path);
        let mut world = self.state_after_dir_change();
        world.begin_whole_operation("remove")?;
        let path = self.resolve(&world, path)?;
        let inode = world.names.remove(&path).ok_or(io::ErrorKind::NotFound)?;
        world.pending_name_changes.push(NameChange::Unlink { path, inode });
        Ok(())
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        disk_scheduling_point("sync_dir", dir);
        let mut guard = self.state_after_dir_change();
        guard.begin_whole_operation("sync_dir")?;
        let dir = &*self.resolve(&guard, dir)?;
        let world = &mut *guard;
        if !world.dirs.contains(dir) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let in_dir = |path: &Path| path.parent() == Some(dir);
        let (synced, pending): (Vec<_>, Vec<_>) =
            world.pending_name_changes.iter().cloned().partition(|change| match change {
                NameChange::Link { path, .. } | NameChange::Unlink { path, .. } => in_dir(path),
                NameChange::Rename { from, to, .. } => in_dir(to) || in_dir(from),
            });
        let is_new = |change: &NameChange| match change {
            NameChange::Link { .. } => true,
            NameChange::Unlink { .. } => false,
            // A spare file is there for its room only.
            NameChange::Rename { to, .. } => to.extension().is_none_or(|extension| extension != "spare"),
        };
        let what = match (synced.is_empty(), synced.iter().any(is_new)) {
            (true, _) => " (nothing)",
            (false, true) => " (new names)",
            (false, false) => " (gone names)",
        };
        if !world.takes_effect("sync_dir", Some(dir), what) {
            return Ok(());
        }
        synced.iter().for_each(|change| DiskState::apply(&mut world.durable_names, change));
        let renamed: BTreeSet<_> = synced
            .iter()
            .filter_map(
                |change| if let NameChange::Rename { inode, .. } = change { Some(*inode) } else { None },
            )
            .collect();
        world.pending_name_changes = pending;
        // Who has another name durably does not get the old one back.
        world
            .pending_name_changes
            .retain(|change| !matches!(change, NameChange::Link { inode, .. } if renamed.contains(inode)));
        Ok(())
    }

    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        // Directories are durable at once: the spool makes them at its first start only.
        let mut world = self.state_after_dir_change();
        for above in self.resolve(&world, dir)?.ancestors() {
            world.dirs.insert(above.to_owned());
        }
        Ok(())
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<DirEntry>> {
        let world = self.state_after_dir_change();
        let dir = &*self.resolve(&world, dir)?;
        if !world.dirs.contains(dir) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let inside = world.names.iter().filter(|(path, _)| path.parent() == Some(dir));
        let entries = inside.filter_map(|(path, inode)| {
            let inode = world.files.get(inode)?;
            Some(DirEntry {
                name: path.file_name()?.to_str()?.to_owned(),
                octets: inode.contents.len() as u64,
                modified: Timestamp::from_millis(inode.modified),
            })
        });
        Ok(entries.collect())
    }

    fn set_modified(&self, path: &Path, when: Timestamp) -> io::Result<()> {
        let mut world = self.state_after_dir_change();
        let path = self.resolve(&world, path)?;
        let inode = *world.names.get(&path).ok_or(io::ErrorKind::NotFound)?;
        if let Some(inode) = world.files.get_mut(&inode) {
            inode.modified = when.as_millis();
        }
        Ok(())
    }

    fn is_file_at(&self, path: &Path, file: &dyn DiskFile) -> io::Result<bool> {
        let found = self.state_after_dir_change().names.get(path).copied();
        Ok(found == Some(file.identity()?.inode))
    }

    /// Nobody else can see this disk, so that nothing has to be locked.
    fn lock(&self, _: &Path) -> io::Result<FileLock> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

struct SimulatedFile {
    disk: SimulatedDisk,
    inode: u64,
    /// The name by which it was opened.
    path: PathBuf,
    epoch: u64,
}

impl SimulatedFile {
    fn with_inode<T>(&self, act: impl FnOnce(&mut DiskState, &mut Inode) -> io::Result<T>) -> io::Result<T> {
        let mut world = self.disk.state_after_dir_change();
        if world.epoch != self.epoch {
            return Err(io::Error::other("this file belongs to a process that is gone"));
        }
        let mut inode = world.files.remove(&self.inode).ok_or(io::ErrorKind::NotFound)?;
        let result = act(&mut world, &mut inode);
        world.files.insert(self.inode, inode);
        result
    }
}

impl DiskFile for SimulatedFile {
    fn write_at(&self, octets: &[u8], offset: u64) -> io::Result<()> {
        disk_scheduling_point("write", &self.path);
        let at = usize::try_from(offset).unwrap_or(usize::MAX);
        // A full disk takes what needs no more room.
        let verb = |inode: &Inode| if at + octets.len() > inode.contents.len() { "append" } else { "write" };
        self.with_inode(|world, inode| match world.begin_operation(verb(inode)) {
            Ok(()) => {
                inode.write(octets, at);
                Ok(())
            }
            Err((e, is_half)) => {
                let half = if is_half { octets.len() / 2 } else { 0 };
                inode.write(octets.get(..half).unwrap_or_default(), at);
                Err(e)
            }
        })
    }

    fn sync(&self) -> io::Result<()> {
        disk_scheduling_point("sync", &self.path);
        self.with_inode(|world, inode| {
            world.begin_whole_operation("sync")?;
            if world.takes_effect("sync", self.path.parent(), "") {
                inode.sync();
            }
            Ok(())
        })
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.with_inode(|_, inode| {
            let rest = usize::try_from(offset).ok().and_then(|offset| inode.contents.get(offset..));
            let rest = rest.unwrap_or_default();
            let n = rest.len().min(buffer.len());
            if inode.unreadable_offset.is_some_and(|spoilt| (offset..offset + n as u64).contains(&spoilt)) {
                return Err(io::Error::other("input/output error"));
            }
            buffer.iter_mut().zip(rest).for_each(|(slot, octet)| *slot = *octet);
            Ok(n)
        })
    }

    fn length(&self) -> io::Result<u64> {
        self.with_inode(|_, inode| Ok(inode.contents.len() as u64))
    }

    fn truncate(&self, octets: u64) -> io::Result<()> {
        disk_scheduling_point("truncate", &self.path);
        self.with_inode(|world, inode| {
            world.begin_whole_operation("truncate")?;
            inode.truncate(usize::try_from(octets).unwrap_or(usize::MAX));
            Ok(())
        })
    }

    fn identity(&self) -> io::Result<FileIdentity> {
        self.with_inode(|world, _| {
            let links = world.names.values().filter(|inode| **inode == self.inode).count();
            Ok(FileIdentity { device: 0, inode: self.inode, links: links as u64 })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::{ScheduleEnd, Scheduler};

    #[test]
    fn a_second_power_cut_takes_nothing_more_and_brings_nothing_back() {
        let path = Path::new("/dir/file");
        for crash in [Crash::UnsyncedLost].into_iter().chain((0..20).map(Crash::UnsyncedTorn)) {
            let disk = SimulatedDisk::default();
            disk.create_dir(Path::new("/dir")).unwrap();
            let file = disk.create(path).unwrap();
            file.append(b"first and durable").unwrap();
            file.sync().unwrap();
            disk.sync_dir(Path::new("/dir")).unwrap();
            file.write_at(b"FIRST", 0).unwrap();
            file.append(b", and then what was not synced").unwrap();
            disk.crash(crash);
            let left = disk.contents(path);
            disk.crash(Crash::UnsyncedLost);
            assert_eq!(disk.contents(path), left, "{crash:?}");
        }
    }

    #[test]
    fn a_scheduled_thread_may_be_overtaken_before_each_verb() {
        let scheduler = Scheduler::new(1);
        let disk = SimulatedDisk::default();
        disk.create_dir(Path::new("/dir")).unwrap();
        let theirs = disk.clone();
        let writes = move || {
            let file = theirs.create(Path::new("/dir/new")).unwrap();
            file.append(b"text").unwrap();
            file.sync().unwrap();
            file.truncate(2).unwrap();
            theirs.rename(Path::new("/dir/new"), Path::new("/dir/file")).unwrap();
            theirs.sync_dir(Path::new("/dir")).unwrap();
            theirs.open(Path::new("/dir/file")).unwrap();
            theirs.remove(Path::new("/dir/file")).unwrap();
        };
        scheduler.spawn("writes", writes).unwrap();
        assert_eq!(scheduler.run(), ScheduleEnd::AllFinished);
        let verbs = [
            "create /dir/new",
            "write /dir/new",
            "sync /dir/new",
            "truncate /dir/new",
            "rename /dir/new",
            "sync_dir /dir",
            "open /dir/file",
            "remove /dir/file",
        ];
        let lines = verbs.iter().enumerate();
        let lines: Vec<_> = lines.map(|(n, verb)| format!("{} writes: disk {verb}", n + 1)).collect();
        assert_eq!(scheduler.trace(), lines);
    }
}
