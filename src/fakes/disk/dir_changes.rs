//! Directories that are renamed or removed while a process works in them.
//!
//! A test lets an operator do so at once, or after a number of operations. The change is durable at once, like
//! every change of directories on this disk. A rooted handle goes on in the renamed directory, like
//! `RootedDisk`; a handle that is not rooted looks every path up again, like `SystemDisk`.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::SimulatedDisk;

/// The index of a [`RootHandle`] in the state of the disk.
pub(super) type RootIndex = usize;

/// A directory that a handle holds open.
pub(super) struct RootHandle {
    /// Its path when it was opened: the paths of the handle begin with it.
    original_path: PathBuf,
    /// Its path now; `None` if it was removed.
    current_path: Option<PathBuf>,
}

impl RootHandle {
    /// The path to which `path` of the handle leads.
    pub(super) fn resolve(&self, path: &Path) -> io::Result<PathBuf> {
        let below = path.strip_prefix(&self.original_path).map_err(|_| io::ErrorKind::InvalidInput)?;
        Ok(self.current_path.as_ref().ok_or(io::ErrorKind::NotFound)?.join(below))
    }

    pub(super) fn apply(&mut self, change: &DirChange) {
        self.current_path = self.current_path.as_deref().and_then(|path| change.path_after(path));
    }
}

/// What an operator does to a directory.
pub(super) enum DirChange {
    Move { from: PathBuf, to: PathBuf },
    Remove(PathBuf),
}

impl DirChange {
    /// The path of a file or directory after this change; `None` if it is gone.
    pub(super) fn path_after(&self, path: &Path) -> Option<PathBuf> {
        match self {
            Self::Move { from, to } => Some(match path.strip_prefix(from) {
                Err(_) => path.to_owned(),
                Ok(below) if below.as_os_str().is_empty() => to.clone(),
                Ok(below) => to.join(below),
            }),
            Self::Remove(dir) => (!path.starts_with(dir)).then(|| path.to_owned()),
        }
    }
}

impl SimulatedDisk {
    /// Another handle of this disk, which works like `RootedDisk`: it takes paths below `root`, and goes on in
    /// the directory that is there now, also after that directory was renamed.
    #[must_use]
    pub fn rooted(&self, root: &Path) -> Self {
        let mut state = self.state.lock();
        state.roots.push(RootHandle { original_path: root.to_owned(), current_path: Some(root.to_owned()) });
        Self { state: Arc::clone(&self.state), root: Some(state.roots.len() - 1) }
    }

    /// Renames a directory with everything in it, durably; `to` must not exist. What was not synced stays
    /// so. Open files and rooted handles go on.
    pub fn move_dir(&self, from: &Path, to: &Path) {
        self.move_dir_after(0, from, to);
        self.state.lock().apply_due_dir_change();
    }

    /// Removes a directory with everything in it, durably. Open files go on without a name.
    pub fn remove_dir_all(&self, dir: &Path) {
        self.remove_dir_after(0, dir);
        self.state.lock().apply_due_dir_change();
    }

    /// Does [`Self::move_dir`] after `n` more operations.
    pub fn move_dir_after(&self, n: usize, from: &Path, to: &Path) {
        self.change_dir_after(n, DirChange::Move { from: from.to_owned(), to: to.to_owned() });
    }

    /// Does [`Self::remove_dir_all`] after `n` more operations.
    pub fn remove_dir_after(&self, n: usize, dir: &Path) {
        self.change_dir_after(n, DirChange::Remove(dir.to_owned()));
    }

    fn change_dir_after(&self, n: usize, change: DirChange) {
        let mut state = self.state.lock();
        state.due_dir_change = Some((state.operations.len() + n, change));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fakes::Crash;
    use crate::sys::{Disk as _, DiskFile};

    /// A disk with a file in /data/spool, a handle that is rooted in /data, and the file.
    fn rooted() -> (SimulatedDisk, SimulatedDisk, Arc<dyn DiskFile>) {
        let disk = SimulatedDisk::default();
        let rooted = disk.rooted(Path::new("/data"));
        rooted.create_dir(Path::new("/data/spool")).unwrap();
        let file = rooted.create(Path::new("/data/spool/file")).unwrap();
        file.append(b"12").unwrap();
        (disk, rooted, file)
    }

    #[test]
    fn a_rooted_handle_goes_on_in_a_directory_that_was_moved() {
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
        assert_eq!(disk.file_paths(), expected, "only synced files, at their new paths");
        assert_eq!(disk.contents(moved).unwrap(), b"1234");
    }

    #[test]
    fn a_handle_whose_directory_was_removed_creates_nothing_and_open_files_go_on() {
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
        assert!(disk.file_paths().is_empty(), "the removed file does not come back");
    }

    #[test]
    fn a_directory_is_moved_or_removed_after_a_number_of_operations() {
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
    fn a_rename_out_of_a_removed_directory_can_still_become_durable() {
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
