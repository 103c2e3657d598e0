//! The host's file system below one directory that is held open.
//!
//! A server must not write into the spool of another server if its data directory is renamed and a new
//! directory is made at the old path. So every operation starts at the descriptor of the directory that was
//! opened, wherever that directory is moved; after its removal, operations fail. The lock of the directory is
//! taken below the same descriptor. Only `is_file_at`, which checks whether other processes find a file by
//! its path, starts at `/`.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use rustix::fs::CWD;

use super::dir_entry::DirEntry;
use super::disk::{Disk, DiskFile};
use super::file_lock::FileLock;
use super::openat;
use super::system_disk::{SystemFile, path_leads_to};
use crate::mail::Timestamp;

/// The file system below an open directory. Its paths begin with the path by which the directory was opened;
/// other paths are refused with [`io::ErrorKind::InvalidInput`].
#[derive(Debug)]
pub struct RootedDisk {
    root: PathBuf,
    dir: File,
}

impl RootedDisk {
    /// Opens the existing directory at `root`; symbolic links in `root` are followed.
    ///
    /// # Errors
    /// As the file system says.
    pub fn open(root: &Path) -> io::Result<Self> {
        Ok(Self { root: root.to_owned(), dir: openat::open_dir(CWD, root)? })
    }

    /// The descriptor to start from, and the path relative to it.
    fn resolve<'a>(&self, path: &'a Path) -> io::Result<(BorrowedFd<'_>, &'a Path)> {
        match path.strip_prefix(&self.root) {
            Ok(rest) if rest.as_os_str().is_empty() => Ok((self.dir.as_fd(), Path::new("."))),
            Ok(rest) if rest.components().all(|part| matches!(part, Component::Normal(_))) => {
                Ok((self.dir.as_fd(), rest))
            }
            _ => Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("{} is not below {}", path.display(), self.root.display()),
            )),
        }
    }
}

impl Disk for RootedDisk {
    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let (dir, path) = self.resolve(path)?;
        Ok(Arc::new(SystemFile(openat::create(dir, path)?)))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let (dir, path) = self.resolve(path)?;
        Ok(Arc::new(SystemFile(openat::open(dir, path)?)))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let ((dir, from), (_, to)) = (self.resolve(from)?, self.resolve(to)?);
        openat::rename(dir, from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let (dir, path) = self.resolve(path)?;
        openat::remove(dir, path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        let (dir, path) = self.resolve(path)?;
        openat::open_dir(dir, path)?.sync_all()
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        let (dir, path) = self.resolve(path)?;
        openat::create_dir(dir, path)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        let (dir, path) = self.resolve(path)?;
        openat::list(dir, path)
    }

    fn set_modified(&self, path: &Path, when: Timestamp) -> io::Result<()> {
        let (dir, path) = self.resolve(path)?;
        openat::set_modified(dir, path, when)
    }

    fn is_file_at(&self, path: &Path, file: &dyn DiskFile) -> io::Result<bool> {
        path_leads_to(path, file)
    }

    fn lock(&self, path: &Path) -> io::Result<FileLock> {
        let (dir, path) = self.resolve(path)?;
        FileLock::from_file(openat::open_or_create(dir, path)?)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::MetadataExt as _;

    use tempfile::{TempDir, tempdir};

    use super::*;
    use crate::sys::{SystemDisk, SystemRandom, create_dir_all, replace_file};

    /// A directory `data` and a disk below it, with a directory `spool`.
    fn data() -> (TempDir, PathBuf, RootedDisk) {
        let base = tempdir().unwrap();
        let root = base.path().join("data");
        fs::create_dir(&root).unwrap();
        let disk = RootedDisk::open(&root).unwrap();
        create_dir_all(&disk, &root.join("spool/waiting")).unwrap();
        (base, root, disk)
    }

    fn names(dir: &Path) -> Vec<String> {
        let mut names: Vec<_> =
            fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn below_its_root_it_works_like_the_whole_disk() {
        let (_base, root, disk) = data();
        let waiting = root.join("spool/waiting");
        let (one, two) = (waiting.join("one"), waiting.join("two"));
        let file = disk.create(&one).unwrap();
        file.append(b"hello").unwrap();
        file.sync().unwrap();
        assert_eq!(disk.create(&one).map(drop).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        disk.rename(&one, &two).unwrap();
        disk.sync_dir(&waiting).unwrap();
        disk.sync_dir(&root).unwrap();
        let modified = Timestamp::from_millis(1_767_225_600_123);
        disk.set_modified(&two, modified).unwrap();
        let expected = [DirEntry { name: "two".to_owned(), octets: 5, modified }];
        assert_eq!(
            (disk.list(&waiting).unwrap(), SystemDisk.list(&waiting).unwrap()),
            (expected.to_vec(), expected.to_vec())
        );
        assert_eq!(disk.open(&two).unwrap().read_range(0, 10).unwrap(), b"hello");
        replace_file(&disk, &SystemRandom, &root.join("version"), b"1").unwrap();
        assert_eq!(fs::read(root.join("version")).unwrap(), b"1");
        assert_eq!(fs::metadata(&two).unwrap().mode() & 0o7777, 0o600);
        assert_eq!(fs::metadata(&waiting).unwrap().mode() & 0o7777, 0o700);
        disk.remove(&two).unwrap();
        assert_eq!(disk.remove(&two).unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn a_path_that_is_not_below_the_root_is_refused() {
        let (base, root, disk) = data();
        let inside = root.join("file");
        disk.create(&inside).unwrap();
        let outside = [
            base.path().join("file"),
            root.join("../file"),
            root.join("spool/../../file"),
            base.path().join("data-2/file"),
            PathBuf::from("file"),
        ];
        for path in &outside {
            let refused = [
                disk.create(path).map(drop),
                disk.open(path).map(drop),
                disk.rename(&inside, path),
                disk.rename(path, &inside),
                disk.remove(path),
                disk.sync_dir(path),
                disk.create_dir(path),
                disk.list(path).map(drop),
                disk.set_modified(path, Timestamp::from_millis(0)),
            ];
            for outcome in refused {
                assert_eq!(outcome.unwrap_err().kind(), io::ErrorKind::InvalidInput, "{}", path.display());
            }
        }
        assert_eq!(names(base.path()), ["data"]);
    }

    #[test]
    fn after_a_rename_of_its_root_it_writes_into_the_renamed_directory() {
        let (base, root, disk) = data();
        let (waiting, moved) = (root.join("spool/waiting"), base.path().join("moved"));
        let file = disk.create(&waiting.join("one")).unwrap();
        assert!(disk.is_file_at(&waiting.join("one"), &*file).unwrap());
        assert!(!disk.is_file_at(&waiting.join("two"), &*file).unwrap());
        fs::rename(&root, &moved).unwrap();
        assert!(!disk.is_file_at(&waiting.join("one"), &*file).unwrap());
        // A second server starts in a new directory at the old path.
        let second = {
            fs::create_dir(&root).unwrap();
            RootedDisk::open(&root).unwrap()
        };
        create_dir_all(&second, &waiting).unwrap();
        let theirs = second.create(&waiting.join("one")).unwrap();
        assert!(!disk.is_file_at(&waiting.join("one"), &*file).unwrap());
        assert!(second.is_file_at(&waiting.join("one"), &*theirs).unwrap());
        assert!(!disk.is_file_at(&waiting.join("one"), &*disk.open(&waiting.join("one")).unwrap()).unwrap());

        file.append(b"ours").unwrap();
        disk.create(&waiting.join("two")).unwrap();
        disk.rename(&waiting.join("two"), &waiting.join("three")).unwrap();
        disk.create_dir(&root.join("spool/damaged")).unwrap();
        disk.sync_dir(&root).unwrap();
        disk.set_modified(&waiting.join("three"), Timestamp::from_millis(0)).unwrap();
        assert_eq!(disk.list(&waiting).unwrap().len(), 2);
        assert_eq!(names(&moved.join("spool/waiting")), ["one", "three"]);
        assert_eq!(names(&moved.join("spool")), ["damaged", "waiting"]);
        assert_eq!(fs::read(moved.join("spool/waiting/one")).unwrap(), b"ours");
        disk.remove(&waiting.join("one")).unwrap();
        assert_eq!(
            (names(&waiting), names(&root.join("spool"))),
            (vec!["one".to_owned()], vec!["waiting".to_owned()])
        );

        // The renamed directory moves back to its old path.
        fs::rename(&root, base.path().join("other")).unwrap();
        fs::rename(&moved, &root).unwrap();
        let three = disk.open(&waiting.join("three")).unwrap();
        assert!(disk.is_file_at(&waiting.join("three"), &*three).unwrap());
        assert!(SystemDisk.is_file_at(&waiting.join("three"), &*three).unwrap());
        assert!(!disk.is_file_at(&waiting.join("one"), &*file).unwrap(), "it was removed");
        assert_eq!(file.identity().unwrap().links, 0);
    }

    #[test]
    fn after_the_removal_of_its_root_nothing_is_created_or_found() {
        let (_base, root, disk) = data();
        let path = root.join("spool/waiting/one");
        let file = disk.create(&path).unwrap();
        fs::remove_dir_all(&root).unwrap();
        assert!(!disk.is_file_at(&path, &*file).unwrap());
        file.append(b"into the void").unwrap();
        file.sync().unwrap();
        fs::create_dir_all(root.join("spool/waiting")).unwrap();
        fs::write(&path, "").unwrap();
        assert!(!disk.is_file_at(&path, &*file).unwrap());
        for refused in [
            disk.create(&path).map(drop),
            disk.create(&root.join("two")).map(drop),
            disk.create_dir(&root.join("spool")),
            disk.list(&root.join("spool")).map(drop),
        ] {
            assert_eq!(refused.unwrap_err().kind(), io::ErrorKind::NotFound);
        }
        assert_eq!(fs::read(&path).unwrap(), b"");
    }

    #[test]
    fn the_lock_belongs_to_the_directory_and_not_to_its_path() {
        let (base, root, disk) = data();
        let _first = disk.lock(&root.join("lock")).unwrap();
        assert_eq!(disk.lock(&root.join("lock")).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        assert_eq!(FileLock::acquire(&root.join("lock")).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        let moved = base.path().join("moved");
        fs::rename(&root, &moved).unwrap();
        fs::create_dir(&root).unwrap();
        let second = RootedDisk::open(&root).unwrap();
        let _second = second.lock(&root.join("lock")).unwrap();
        assert_eq!(disk.lock(&root.join("lock")).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        // The renamed directory is still locked, by its new path too.
        let third = RootedDisk::open(&moved).unwrap();
        assert_eq!(third.lock(&moved.join("lock")).unwrap_err().kind(), io::ErrorKind::WouldBlock);
    }
}
