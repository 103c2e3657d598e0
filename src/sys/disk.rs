//! The verbs of which durable files are made.
//!
//! Small and explicit, so that a test can stop after any one of them and drop whatever was not
//! synced: a write is durable once its file is synced, a name once its directory is. Whoever
//! keeps a promise on disk goes through this trait; nobody calls `std::fs` for that.

use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{CWD, OFlags};

use super::file_lock::FileLock;
use super::openat::{self, SystemFile};
use super::random::Random;
use crate::mail::Timestamp;

/// A disk.
pub trait Disk: Send + Sync {
    /// Makes a new file, mode 0600; fails if the name is taken.
    ///
    /// # Errors
    /// As the file system says.
    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>>;

    /// Opens an existing file, to read and write.
    ///
    /// # Errors
    /// As the file system says; [`io::ErrorKind::InvalidInput`] for a symbolic link or anything else
    /// that is not a regular file.
    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>>;

    /// Gives a file another name in the same file system, replacing what had it.
    ///
    /// # Errors
    /// As the file system says.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a file.
    ///
    /// # Errors
    /// As the file system says.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Makes the names in a directory durable.
    ///
    /// # Errors
    /// As the file system says.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;

    /// Makes a directory, mode 0700; fine if it is there already.
    ///
    /// # Errors
    /// As the file system says.
    fn create_dir(&self, dir: &Path) -> io::Result<()>;

    /// The files in a directory, in no order. Directories are left out.
    ///
    /// # Errors
    /// As the file system says.
    fn list(&self, dir: &Path) -> io::Result<Vec<DirEntry>>;

    /// Sets when a file says it was last modified. A hint, never synced by itself.
    ///
    /// # Errors
    /// As the file system says.
    fn set_modified(&self, path: &Path, when: Timestamp) -> io::Result<()>;

    /// Whether `path`, looked up from `/` at this moment, leads to this open file: whether others who
    /// look for the file by its path find it. Not if the file or a directory above it was renamed,
    /// removed or replaced. At most two system calls.
    ///
    /// # Errors
    /// As the file system says; nothing is known then.
    fn is_file_at(&self, path: &Path, file: &dyn DiskFile) -> io::Result<bool>;

    /// Takes the lock on the file `path`, which is made if it is missing.
    ///
    /// # Errors
    /// See [`FileLock::take`].
    fn lock(&self, path: &Path) -> io::Result<FileLock>;
}

/// An open file. Closed when dropped. Shared: positions are the caller's.
pub trait DiskFile: Send + Sync {
    /// Writes all of `octets` at the end.
    ///
    /// # Errors
    /// As the file system says; a part may have been written.
    fn append(&self, octets: &[u8]) -> io::Result<()> {
        self.write_at(octets, self.length()?)
    }

    /// Writes all of `octets` at `offset`, over what is there or behind it.
    ///
    /// # Errors
    /// As the file system says; a part may have been written.
    fn write_at(&self, octets: &[u8], offset: u64) -> io::Result<()>;

    /// Makes everything written so far durable (data, and the length that is needed to read it).
    ///
    /// # Errors
    /// As the file system says. After an error nothing is known about what is durable.
    fn sync(&self) -> io::Result<()>;

    /// Reads some octets from `offset`; 0 at the end.
    ///
    /// # Errors
    /// As the file system says.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;

    /// Reads `octets` octets from `offset`; fewer at the end of the file.
    ///
    /// # Errors
    /// As the file system says.
    fn read_range(&self, offset: u64, octets: usize) -> io::Result<Vec<u8>> {
        let mut all = vec![0; octets];
        let mut filled = 0;
        while let Some(rest) = all.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            match self.read_at(rest, offset + filled as u64) {
                Ok(0) => break,
                Ok(n) => filled += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        all.truncate(filled);
        Ok(all)
    }

    /// Length in octets.
    ///
    /// # Errors
    /// As the file system says.
    fn length(&self) -> io::Result<u64>;

    /// Cuts the file off behind `octets`: to undo a write that failed half-way.
    ///
    /// # Errors
    /// As the file system says.
    fn truncate(&self, octets: u64) -> io::Result<()>;

    /// Which file this is, and how many names it has now.
    ///
    /// # Errors
    /// As the file system says.
    fn identity(&self) -> io::Result<FileIdentity>;
}

/// Which file a file is, whatever its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileIdentity {
    /// The file system.
    pub device: u64,
    /// Its number there.
    pub inode: u64,
    /// Its names; 0 if it was removed.
    pub links: u64,
}

impl FileIdentity {
    pub(super) fn from_metadata(facts: &Metadata) -> Self {
        Self { device: facts.dev(), inode: facts.ino(), links: facts.nlink() }
    }
}

/// Whether `path` leads to this file; a symbolic link in its place does not.
pub(super) fn path_leads_to(path: &Path, file: &dyn DiskFile) -> io::Result<bool> {
    let there = match fs::symlink_metadata(path) {
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(false);
        }
        other => FileIdentity::from_metadata(&other?),
    };
    let ours = file.identity()?;
    Ok((there.device, there.inode) == (ours.device, ours.inode) && ours.links > 0)
}

/// One file of a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirEntry {
    /// Its name.
    pub name: String,
    /// Its length.
    pub octets: u64,
    /// When it says it was last modified.
    pub modified: Timestamp,
}

/// The host's file system.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemDisk;

impl Disk for SystemDisk {
    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        Ok(Arc::new(SystemFile(openat::create(CWD, path)?)))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        Ok(Arc::new(SystemFile(openat::open(CWD, path)?)))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        openat::rename(CWD, from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        openat::remove(CWD, path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        openat::open_dir(CWD, dir)?.sync_all()
    }

    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        openat::create_dir(CWD, dir)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<DirEntry>> {
        openat::list(CWD, dir)
    }

    fn set_modified(&self, path: &Path, when: Timestamp) -> io::Result<()> {
        openat::set_modified(CWD, path, when)
    }

    fn is_file_at(&self, path: &Path, file: &dyn DiskFile) -> io::Result<bool> {
        path_leads_to(path, file)
    }

    fn lock(&self, path: &Path) -> io::Result<FileLock> {
        FileLock::acquire(path)
    }
}

/// Makes a directory and those above it that are missing, each mode 0700 and durable. One that is
/// there already is made durable too: who made it may have crashed before that.
///
/// # Errors
/// As the file system says.
pub fn create_dir_all(disk: &dyn Disk, dir: &Path) -> io::Result<()> {
    let parent = match dir.parent() {
        Some(parent) if parent.as_os_str().is_empty() => Path::new("."),
        Some(parent) => parent,
        None => return disk.create_dir(dir),
    };
    match disk.create_dir(dir) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            create_dir_all(disk, parent)?;
            disk.create_dir(dir)?;
        }
        other => other?,
    }
    match disk.sync_dir(parent) {
        // A directory that we may not open: somebody else's, who made the one below for us.
        Err(e) if e.kind() == io::ErrorKind::PermissionDenied => Ok(()),
        other => other,
    }
}

/// Replaces a small file as a whole, durably: readers see the old text or the new one.
///
/// # Errors
/// As the file system says; the old file is then still there.
pub fn replace_file(disk: &dyn Disk, random: &dyn Random, path: &Path, text: &[u8]) -> io::Result<()> {
    let (Some(dir), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a file name"));
    };
    let draft: PathBuf = dir.join(format!(".{}.{:016x}", name.to_string_lossy(), random.bits()));
    let file = disk.create(&draft)?;
    let written = file.append(text).and_then(|()| file.sync()).and_then(|()| disk.rename(&draft, path));
    if let Err(e) = written {
        // The draft is worthless; its removal is only tidiness.
        let _ = disk.remove(&draft);
        return Err(e);
    }
    disk.sync_dir(dir)
}

/// Reads a whole file, refusing one over `octets_max`: what people write by hand is small.
///
/// # Errors
/// As the file system says, [`io::ErrorKind::FileTooLarge`], or [`io::ErrorKind::InvalidInput`] for a
/// named pipe, which would keep us waiting for its other end.
pub fn read_text(path: &Path, octets_max: u64) -> io::Result<String> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    openat::read_text_bounded(&openat::open_with_flags(CWD, path, flags)?, octets_max)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use nix::sys::stat::Mode;
    use nix::unistd::mkfifo;

    use super::*;

    #[test]
    fn neither_a_link_nor_a_pipe_is_taken_for_a_file_of_ours() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        fs::write(path("elsewhere"), "theirs").unwrap();
        symlink("elsewhere", path("link")).unwrap();
        symlink("nothing", path("dangling")).unwrap();
        mkfifo(&path("pipe"), Mode::S_IRWXU).unwrap();
        let kind = |outcome: io::Result<Arc<dyn DiskFile>>| outcome.map(drop).unwrap_err().kind();
        for name in ["link", "dangling", "pipe"] {
            assert_eq!(kind(SystemDisk.open(&path(name))), io::ErrorKind::InvalidInput, "{name}");
            assert_eq!(kind(SystemDisk.create(&path(name))), io::ErrorKind::AlreadyExists, "{name}");
        }
        assert!(crate::sys::FileLock::acquire(&path("dangling")).is_err());
        assert!(!path("nothing").exists());
        assert_eq!(kind(SystemDisk.open(&path("nothing"))), io::ErrorKind::NotFound);
        // A configuration may be linked, but not wait for the other end of a pipe.
        assert_eq!(read_text(&path("link"), 100).unwrap(), "theirs");
        assert_eq!(read_text(&path("pipe"), 100).unwrap_err().kind(), io::ErrorKind::InvalidInput);
    }

    #[test]
    fn a_file_is_in_place_while_its_path_leads_to_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        let (one, other) =
            (SystemDisk.create(&path("one")).unwrap(), SystemDisk.create(&path("other")).unwrap());
        let is_in_place = |name: &str| SystemDisk.is_file_at(&path(name), &*one).unwrap();
        assert!(is_in_place("one") && !is_in_place("other") && !is_in_place("nothing"));
        assert!(!is_in_place("one/below"), "it is not a directory");
        symlink("one", path("link")).unwrap();
        assert!(!is_in_place("link"));
        SystemDisk.rename(&path("other"), &path("one")).unwrap();
        assert!(!is_in_place("one") && SystemDisk.is_file_at(&path("one"), &*other).unwrap());
        assert_eq!(one.identity().unwrap().links, 0);
    }

    #[test]
    fn the_time_of_a_file_is_set_and_listed_and_links_and_directories_are_not_listed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        SystemDisk.create(&path).unwrap().append(b"12345").unwrap();
        symlink("file", dir.path().join("link")).unwrap();
        SystemDisk.create_dir(&dir.path().join("directory")).unwrap();
        SystemDisk.create_dir(&dir.path().join("directory")).unwrap();
        for millis in [0, 999, 1_767_225_600_123] {
            let modified = Timestamp::from_millis(millis);
            SystemDisk.set_modified(&path, modified).unwrap();
            let expected = DirEntry { name: "file".to_owned(), octets: 5, modified };
            assert_eq!(SystemDisk.list(dir.path()).unwrap(), [expected]);
        }
        let missing = SystemDisk.set_modified(&dir.path().join("nothing"), Timestamp::from_millis(0));
        assert_eq!(missing.unwrap_err().kind(), io::ErrorKind::NotFound);
        assert_eq!(SystemDisk.create_dir(&path).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
    }
}
