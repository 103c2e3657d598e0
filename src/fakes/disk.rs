//! A disk in memory that keeps only what was synced.
//!
//! Data is durable after `sync` of the file, names after `sync_dir` of the directory. A test can stop the
//! disk after the n-th operation (every later operation fails, as if the process had been killed), let one
//! operation fail (a full disk, an I/O error), and simulate a crash: what was not synced is kept, lost, or
//! torn by a seed. Torn means that a part of the data and some of the names are there, in no order: a rename
//! may be durable without the data of the file, and a write over old data may be durable in part.
//!
//! A whole directory can be renamed or removed while a process works in it: see `dir_changes`.
//!
//! - `disk_state`: files, names, and the faults that a test has set
//! - `inode`: the contents of one file
//! - `simulated_file`: an open file
//! - `dir_changes`: directories that are renamed or removed

mod dir_changes;
mod disk_state;
mod inode;
mod simulated_file;

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, MutexGuard};

use self::dir_changes::RootIndex;
use self::disk_state::{DiskState, NameChange, disk_scheduling_point};
use self::inode::Inode;
use self::simulated_file::SimulatedFile;
use super::SeededRandom;
use crate::mail::Timestamp;
use crate::sys::{DirEntry, Disk, DiskFile, FileLock, PlainMutex as Mutex};

/// What a crash does to data and names that were not synced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Crash {
    /// The process was killed and the machine goes on: nothing is lost, unless a later power cut takes
    /// what is still not synced then.
    ProcessKilled,
    /// Power was cut, and everything that was not synced is lost.
    UnsyncedLost,
    /// Power was cut, and some of what was not synced is there, in part and in no order, by this seed.
    UnsyncedTorn(u64),
}

/// A disk in memory; clones share it.
#[derive(Clone, Default)]
pub struct SimulatedDisk {
    state: Arc<Mutex<DiskState>>,
    /// The directory that this handle holds open; see [`Self::rooted`].
    root: Option<RootIndex>,
}

impl SimulatedDisk {
    /// Lets everything fail after `n` more operations.
    pub fn stop_after(&self, n: usize) {
        let mut state = self.state.lock();
        state.stop_after = Some(state.operations.len() + n);
    }

    /// Lets the operation after `n` more fail once; half of a write is done.
    pub fn fail_after(&self, n: usize, kind: io::ErrorKind) {
        let mut state = self.state.lock();
        state.failing_operation = Some((state.operations.len() + n, kind));
    }

    /// Lets every write that needs more room fail with [`io::ErrorKind::StorageFull`], or no longer.
    pub fn set_full(&self, is_full: bool) {
        let mut state = self.state.lock();
        (state.is_full, state.full_after) = (is_full, None);
    }

    /// Like [`Self::set_full`], after `n` more operations.
    pub fn set_full_after(&self, n: usize) {
        let mut state = self.state.lock();
        state.full_after = Some(state.operations.len() + n);
    }

    /// Lets this kind of sync, as [`Self::sync_kinds`] names it, have no effect: simulates a program that
    /// forgets it.
    pub fn ignore_sync(&self, sync: &str) {
        self.state.lock().ignored_sync = Some(sync.to_owned());
    }

    /// The kinds of syncs so far: of a file or of a directory, the name of the directory, whether names were
    /// added or removed, and whether the process was starting. One kind is one line of a program, or two
    /// that do the same.
    #[must_use]
    pub fn sync_kinds(&self) -> BTreeSet<String> {
        self.state.lock().sync_kinds.clone()
    }

    /// From now on the process is starting, or no longer.
    pub fn set_starting(&self, is_starting: bool) {
        self.state.lock().is_starting = is_starting;
    }

    /// The operations so far that write, sync or change names, those that failed included.
    #[must_use]
    pub fn operations(&self) -> Vec<&'static str> {
        self.state.lock().operations.clone()
    }

    /// How many of [`Self::operations`] have this name.
    #[must_use]
    pub fn operation_count(&self, operation: &'static str) -> usize {
        self.state.lock().operations.iter().filter(|one| **one == operation).count()
    }

    /// How often an existing file was opened.
    #[must_use]
    pub fn open_count(&self) -> usize {
        self.state.lock().open_count
    }

    /// Simulates a crash and a new start: the disk works again, with what the crash has left.
    pub fn crash(&self, crash: Crash) {
        let mut guard = self.state.lock();
        let state = &mut *guard;
        match crash {
            Crash::ProcessKilled => {}
            Crash::UnsyncedLost => {
                state.names = state.durable_names.clone();
                state.files.values_mut().for_each(|inode| inode.contents.clone_from(&inode.durable_contents));
            }
            Crash::UnsyncedTorn(seed) => state.tear_unsynced(&SeededRandom::new(seed)),
        }
        if crash != Crash::ProcessKilled {
            state.durable_names = state.names.clone();
            state.files.values_mut().for_each(Inode::mark_durable);
            state.pending_name_changes.clear();
        }
        state.stop_after = None;
        state.due_dir_change = None;
        state.failing_operation = None;
        state.is_full = false;
        state.full_after = None;
        state.epoch += 1;
    }

    /// The octets of a file as a reader sees them now.
    #[must_use]
    pub fn contents(&self, path: &Path) -> Option<Vec<u8>> {
        let state = self.state.lock();
        state.names.get(path).and_then(|inode| state.files.get(inode)).map(|inode| inode.contents.clone())
    }

    /// Damages one octet of a file.
    pub fn damage(&self, path: &Path, offset: usize) {
        self.with_inode_at(path, |inode| {
            for octets in [&mut inode.contents, &mut inode.durable_contents] {
                octets.get_mut(offset).into_iter().for_each(|octet| *octet ^= 0x55);
            }
        });
    }

    /// Lets every read of the octet at `offset` of a file fail.
    pub fn make_unreadable(&self, path: &Path, offset: u64) {
        self.with_inode_at(path, |inode| inode.unreadable_offset = Some(offset));
    }

    /// The paths of all files, sorted.
    #[must_use]
    pub fn file_paths(&self) -> Vec<PathBuf> {
        self.state.lock().names.keys().cloned().collect()
    }

    /// Changes the file at `path`, if there is one.
    fn with_inode_at(&self, path: &Path, change: impl FnOnce(&mut Inode)) {
        let mut state = self.state.lock();
        let inode = state.names.get(path).copied();
        if let Some(inode) = inode.and_then(|inode| state.files.get_mut(&inode)) {
            change(inode);
        }
    }

    /// The state, after the change of directories that is due.
    fn state_after_dir_change(&self) -> MutexGuard<'_, DiskState> {
        let mut state = self.state.lock();
        state.apply_due_dir_change();
        state
    }

    fn open_file(&self, state: &DiskState, inode: u64, path: PathBuf) -> Arc<dyn DiskFile> {
        Arc::new(SimulatedFile { disk: self.clone(), inode, path, epoch: state.epoch })
    }
}

impl Disk for SimulatedDisk {
    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        disk_scheduling_point("create", path);
        let mut state = self.state_after_dir_change();
        state.begin_whole_operation("create")?;
        let path = state.resolve(self.root, path)?;
        if state.names.contains_key(&path) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        if !path.parent().is_some_and(|dir| state.dirs.contains(dir)) {
            return Err(io::ErrorKind::NotFound.into());
        }
        state.last_inode_number += 1;
        let inode = state.last_inode_number;
        state.files.insert(inode, Inode::default());
        state.names.insert(path.clone(), inode);
        state.pending_name_changes.push(NameChange::Link { path: path.clone(), inode });
        Ok(self.open_file(&state, inode, path))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        disk_scheduling_point("open", path);
        let mut state = self.state_after_dir_change();
        let path = state.resolve(self.root, path)?;
        let inode = *state.names.get(&path).ok_or(io::ErrorKind::NotFound)?;
        state.open_count += 1;
        Ok(self.open_file(&state, inode, path))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        disk_scheduling_point("rename", from);
        let mut state = self.state_after_dir_change();
        state.begin_whole_operation("rename")?;
        let (from, to) = (state.resolve(self.root, from)?, state.resolve(self.root, to)?);
        let inode = *state.names.get(&from).ok_or(io::ErrorKind::NotFound)?;
        if !to.parent().is_some_and(|dir| state.dirs.contains(dir)) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let change = NameChange::Rename { from, to, inode };
        change.apply(&mut state.names);
        state.pending_name_changes.push(change);
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        disk_scheduling_point("remove", path);
        let mut state = self.state_after_dir_change();
        state.begin_whole_operation("remove")?;
        let path = state.resolve(self.root, path)?;
        let inode = state.names.remove(&path).ok_or(io::ErrorKind::NotFound)?;
        state.pending_name_changes.push(NameChange::Unlink { path, inode });
        Ok(())
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        disk_scheduling_point("sync_dir", dir);
        let mut state = self.state_after_dir_change();
        state.begin_whole_operation("sync_dir")?;
        let dir = state.resolve(self.root, dir)?;
        if !state.dirs.contains(&dir) {
            return Err(io::ErrorKind::NotFound.into());
        }
        state.sync_names_in(&dir);
        Ok(())
    }

    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        // Directories are durable at once: the spool makes them only at its first start.
        let mut state = self.state_after_dir_change();
        for above in state.resolve(self.root, dir)?.ancestors() {
            state.dirs.insert(above.to_owned());
        }
        Ok(())
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<DirEntry>> {
        let state = self.state_after_dir_change();
        let dir = &*state.resolve(self.root, dir)?;
        if !state.dirs.contains(dir) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let inside = state.names.iter().filter(|(path, _)| path.parent() == Some(dir));
        let entries = inside.filter_map(|(path, inode)| {
            let inode = state.files.get(inode)?;
            Some(DirEntry {
                name: path.file_name()?.to_str()?.to_owned(),
                octets: inode.contents.len() as u64,
                modified: Timestamp::from_millis(inode.modified),
            })
        });
        Ok(entries.collect())
    }

    fn set_modified(&self, path: &Path, when: Timestamp) -> io::Result<()> {
        let mut state = self.state_after_dir_change();
        let path = state.resolve(self.root, path)?;
        let inode = *state.names.get(&path).ok_or(io::ErrorKind::NotFound)?;
        if let Some(inode) = state.files.get_mut(&inode) {
            inode.modified = when.as_millis();
        }
        Ok(())
    }

    fn is_file_at(&self, path: &Path, file: &dyn DiskFile) -> io::Result<bool> {
        let found = self.state_after_dir_change().names.get(path).copied();
        Ok(found == Some(file.identity()?.inode))
    }

    /// Not needed: no other process can see this disk.
    fn lock(&self, _: &Path) -> io::Result<FileLock> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::{ScheduleEnd, Scheduler};

    #[test]
    fn a_second_power_cut_neither_loses_nor_restores_anything() {
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
    fn another_scheduled_thread_may_act_before_each_operation() {
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
        let operations = [
            "create /dir/new",
            "write /dir/new",
            "sync /dir/new",
            "truncate /dir/new",
            "rename /dir/new",
            "sync_dir /dir",
            "open /dir/file",
            "remove /dir/file",
        ];
        let lines = operations.iter().enumerate();
        let lines: Vec<_> =
            lines.map(|(n, operation)| format!("{} writes: disk {operation}", n + 1)).collect();
        assert_eq!(scheduler.trace(), lines);
    }
}
