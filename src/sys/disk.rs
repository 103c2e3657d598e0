//! The verbs of which durable files are made.
//!
//! Small and explicit, so that a test can stop after any one of them and drop whatever was not
//! synced: a write is durable once its file is synced, a name once its directory is. Whoever
//! keeps a promise on disk goes through this trait; nobody calls `std::fs` for that.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::dir_entry::DirEntry;
use super::file_lock::FileLock;
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
