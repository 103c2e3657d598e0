//! Directories that are renamed or removed while a process works in them.
//!
//! An operator does so at once, or after a number of verbs. It is durable at once, as directories are on
//! this disk. A handle that is rooted goes on in the renamed directory, as `RootedDisk` does; a handle
//! that is not looks every path up anew, as `SystemDisk` does.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, MutexGuard};

use super::{DiskState, NameChange, SimulatedDisk};

/// Which of the roots in the world.
pub(super) type RootIndex = usize;

/// A directory that a handle holds open.
pub(super) struct RootHandle {
    /// Where it was when it was opened: paths that are asked for begin so.
    original_path: PathBuf,
    /// Where it is; none if it was removed.
    current_path: Option<PathBuf>,
}

/// What an operator does to a directory.
pub(super) enum DirChange {
    Move { from: PathBuf, to: PathBuf },
    Remove(PathBuf),
}

impl SimulatedDisk {
    /// Another handle, as `RootedDisk` is one: it takes paths below `root`, and goes on in the directory
    /// that is there now, also when that is renamed.
    #[must_use]
    pub fn rooted(&self, root: &Path) -> Self {
        let mut world = self.0.lock();
        world.roots.push(RootHandle { original_path: root.to_owned(), current_path: Some(root.to_owned()) });
        Self(Arc::clone(&self.0), Some(world.roots.len() - 1))
    }

    /// Renames a directory with all that is in it, durably; `to` must be free. What was not synced is
    /// still not synced. Open files and rooted handles go on.
    pub fn move_dir(&self, from: &Path, to: &Path) {
        self.move_dir_after(0, from, to);
        self.0.lock().apply_due_dir_change();
    }

    /// Removes a directory with all that is in it, durably. Open files go on without a name.
    pub fn remove_dir_all(&self, dir: &Path) {
        self.remove_dir_after(0, dir);
        self.0.lock().apply_due_dir_change();
    }

    /// Renames a directory after `n` more verbs, before whatever is asked next.
    pub fn move_dir_after(&self, n: usize, from: &Path, to: &Path) {
        let mut world = self.0.lock();
        let change = DirChange::Move { from: from.to_owned(), to: to.to_owned() };
        world.due_dir_change = Some((world.operations.len() + n, change));
    }

    /// Removes a directory after `n` more verbs, before whatever is asked next.
    pub fn remove_dir_after(&self, n: usize, dir: &Path) {
        let mut world = self.0.lock();
        world.due_dir_change = Some((world.operations.len() + n, DirChange::Remove(dir.to_owned())));
    }

    /// The world, after the change of directories that is due.
    pub(super) fn state_after_dir_change(&self) -> MutexGuard<'_, DiskState> {
        let mut world = self.0.lock();
        world.apply_due_dir_change();
        world
    }

    /// Where a path of this handle leads.
    pub(super) fn resolve(&self, world: &DiskState, path: &Path) -> io::Result<PathBuf> {
        let Some(root) = self.1.and_then(|number| world.roots.get(number)) else {
            return Ok(path.to_owned());
        };
        let below = path.strip_prefix(&root.original_path).map_err(|_| io::ErrorKind::InvalidInput)?;
        Ok(root.current_path.as_ref().ok_or(io::ErrorKind::NotFound)?.join(below))
    }
}

impl DiskState {
    /// Does what an operator is to do, if it is time.
    fn apply_due_dir_change(&mut self) {
        let verbs = self.operations.len();
        let Some((_, change)) = self.due_dir_change.take_if(|(after, _)| verbs >= *after) else { return };
        let (from, to) = match &change {
            DirChange::Move { from, to } => (from, Some(to)),
            DirChange::Remove(dir) => (dir, None),
        };
        // Where a path is afterwards; none if it is gone.
        let after = |path: &Path| match (path.strip_prefix(from), to) {
            (Err(_), _) => Some(path.to_owned()),
            (Ok(_), None) => None,
            (Ok(below), Some(to)) if below.as_os_str().is_empty() => Some(to.clone()),
            (Ok(below), Some(to)) => Some(to.join(below)),
        };
        for names in [&mut self.names, &mut self.durable_names] {
            let old = std::mem::take(names);
            names.extend(old.into_iter().filter_map(|(path, inode)| Some((after(&path)?, inode))));
        }
        let pending = std::mem::take(&mut self.pending_name_changes);
        self.pending_name_changes =
            pending.into_iter().filter_map(|change| change.map_paths(&after)).collect();
        self.dirs = self.dirs.iter().filter_map(|dir| after(dir)).collect();
        self.roots
            .iter_mut()
            .for_each(|root| root.current_path = root.current_path.as_deref().and_then(after));
    }
}

impl NameChange {
    /// The same when paths lead elsewhere; none if nothing of it is left.
    fn map_paths(self, after: &impl Fn(&Path) -> Option<PathBuf>) -> Option<Self> {
        match self {
            Self::Link { path, inode } => Some(Self::Link { path: after(&path)?, inode }),
            Self::Unlink { path, inode } => Some(Self::Unlink { path: after(&path)?, inode }),
            Self::Rename { from, to, inode } => match (after(&from), after(&to)) {
                (Some(from), Some(to)) => Some(Self::Rename { from, to, inode }),
                (None, Some(path)) => Some(Self::Link { path, inode }),
                (Some(path), None) => Some(Self::Unlink { path, inode }),
                (None, None) => None,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fakes::Crash;
    use crate::sys::{Disk as _, DiskFile};

    /// A disk with a file in /data/spool, by a handle that is rooted in /data.
    fn rooted() -> (SimulatedDisk, SimulatedDisk, Arc<dyn DiskFile>) {
        let disk = SimulatedDisk::default();
        let rooted = disk.rooted(Path::new("/data"));
        rooted.create_dir(Path::new("/data/spool")).unwrap();
        let file = rooted.create(Path::new("/data/spool/file")).unwrap();
        file.append(b"12").unwrap();
        (disk, rooted, file)
    }

    #[test]
    fn a_rooted_handle_goes_on_in_a_directory_that_was_moved_and_sees_that_it_was() {
        let (data, path) = (Path::new("/data"), Path::new("/data/spool/file"));
        let moved = Path::new("/moved/spool/file");
        let (disk, rooted, file) = rooted();
        assert!(rooted.is_file_at(path, &*file).unwrap());
        disk.move_dir(data, Path::new("/moved"));
        assert!(!rooted.is_file_at(path, &*file).unwrap());
        assert!(disk.is_file_at(moved, &*file).unwrap());
        // A second server on a new directory of the old name.
        let second = disk.rooted(data);
        second.create_dir(Path::new("/data/spool")).unwrap();
        let theirs = second.create(path).unwrap();
        assert!(second.is_file_at(path, &*theirs).unwrap() && !rooted.is_file_at(path, &*file).unwrap());

        file.append(b"34").unwrap();
        file.sync().unwrap();
        let other = Path::new("/data/spool/other");
        rooted.create(other).unwrap();
        rooted.rename(other, Path::new("/data/spool/renamed")).unwrap();
        rooted.sync_dir(Path::new("/data/spool")).unwrap();
        assert_eq!(rooted.list(Path::new("/data/spool")).unwrap().len(), 2);
        assert_eq!(second.list(Path::new("/data/spool")).unwrap().len(), 1);
        assert_eq!(rooted.remove(Path::new("/elsewhere")).unwrap_err().kind(), io::ErrorKind::InvalidInput);
        disk.crash(Crash::UnsyncedLost);
        let expected = [moved, Path::new("/moved/spool/renamed")];
        assert_eq!(disk.file_paths(), expected, "only what was synced, and where it was moved to");
        assert_eq!(disk.contents(moved).unwrap(), b"1234");
    }

    #[test]
    fn a_handle_whose_directory_was_removed_makes_nothing_and_open_files_go_on() {
        let (disk, rooted, file) = rooted();
        let path = Path::new("/data/spool/file");
        rooted.sync_dir(Path::new("/data/spool")).unwrap();
        disk.remove_dir_all(Path::new("/data"));
        file.append(b"34").unwrap();
        file.sync().unwrap();
        assert_eq!(file.read_range(0, 10).unwrap(), b"1234");
        assert_eq!(file.identity().unwrap().links, 0);
        disk.create_dir(Path::new("/data/spool")).unwrap();
        assert!(!rooted.is_file_at(path, &*file).unwrap());
        for refused in [
            rooted.create(path).map(drop),
            rooted.open(path).map(drop),
            rooted.create_dir(Path::new("/data/spool")),
            rooted.sync_dir(Path::new("/data/spool")),
            rooted.list(Path::new("/data/spool")).map(drop),
        ] {
            assert_eq!(refused.unwrap_err().kind(), io::ErrorKind::NotFound);
        }
        disk.crash(Crash::UnsyncedLost);
        assert!(disk.file_paths().is_empty(), "it does not come back");
    }

    #[test]
    fn a_directory_is_moved_or_removed_after_a_number_of_verbs() {
        let path = Path::new("/data/spool/file");
        for is_removed in [false, true] {
            for n in 0..3 {
                let (disk, rooted, file) = rooted();
                match is_removed {
                    false => disk.move_dir_after(n, Path::new("/data"), Path::new("/moved")),
                    true => disk.remove_dir_after(n, Path::new("/data")),
                }
                let mut done = 0;
                while rooted.is_file_at(path, &*file).unwrap() {
                    file.append(b"x").unwrap();
                    done += 1;
                }
                assert_eq!(done, n);
                assert_eq!(file.length().unwrap(), 2 + n as u64);
                assert_eq!(rooted.open(path).is_err(), is_removed);
            }
        }
    }

    #[test]
    fn a_rename_out_of_a_directory_that_was_removed_can_still_become_durable() {
        let (disk, rooted, file) = rooted();
        rooted.create_dir(Path::new("/data/other")).unwrap();
        file.sync().unwrap();
        rooted.rename(Path::new("/data/spool/file"), Path::new("/data/other/file")).unwrap();
        disk.remove_dir_all(Path::new("/data/spool"));
        rooted.sync_dir(Path::new("/data/other")).unwrap();
        disk.crash(Crash::UnsyncedLost);
        assert_eq!(disk.contents(Path::new("/data/other/file")).unwrap(), b"12");
    }
}
