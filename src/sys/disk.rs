//! The operations of which durable files are made.
//!
//! Small and explicit, so that a test can stop after each of them and lose what was not synced: a write is
//! durable once its file is synced, a name once its directory is. Everything that must be durable is written
//! through this trait, apart from the files that [`super::OpenDir`] replaces for the operator.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::dir_entry::DirEntry;
use super::file_lock::FileLock;
use super::random::Random;
use crate::mail::Timestamp;

/// A file system, or the part of it below one directory.
pub trait Disk: Send + Sync {
    /// Creates a file, mode 0600; fails if the name is taken.
    ///
    /// # Errors
    /// As the file system says.
    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>>;

    /// Opens an existing file for reading and writing.
    ///
    /// # Errors
    /// As the file system says; [`io::ErrorKind::InvalidInput`] for a symbolic link or anything else
    /// that is not a regular file.
    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>>;

    /// Renames a file within the file system; replaces a file of the new name.
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

    /// Creates a directory, mode 0700; does nothing if it exists.
    ///
    /// # Errors
    /// As the file system says.
    fn create_dir(&self, dir: &Path) -> io::Result<()>;

    /// The regular files in a directory, in no order. Directories, links, and files whose names are not UTF-8
    /// are left out.
    ///
    /// # Errors
    /// As the file system says.
    fn list(&self, dir: &Path) -> io::Result<Vec<DirEntry>>;

    /// Sets the modification time of a file. Only a hint: it is not synced.
    ///
    /// # Errors
    /// As the file system says.
    fn set_modified(&self, path: &Path, when: Timestamp) -> io::Result<()>;

    /// Whether `path`, looked up from `/` now, leads to this open file, so that another process finds it by
    /// its path. False if the file or a directory above it was renamed, removed or replaced. At most two
    /// system calls.
    ///
    /// # Errors
    /// As the file system says; it is then not known where `path` leads.
    fn is_file_at(&self, path: &Path, file: &dyn DiskFile) -> io::Result<bool>;

    /// Takes the lock on the file `path`, which is created if it is missing.
    ///
    /// # Errors
    /// See [`FileLock::acquire`].
    fn lock(&self, path: &Path) -> io::Result<FileLock>;
}

/// An open file, closed when dropped. It has no position of its own, so that threads can share it.
pub trait DiskFile: Send + Sync {
    /// Writes all of `octets` at the end.
    ///
    /// # Errors
    /// As the file system says; a part may have been written.
    fn append(&self, octets: &[u8]) -> io::Result<()> {
        self.write_at(octets, self.length()?)
    }

    /// Writes all of `octets` at `offset`: over existing octets, or after them.
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

    /// Truncates the file to `octets`, to undo a write that failed half-way.
    ///
    /// # Errors
    /// As the file system says.
    fn truncate(&self, octets: u64) -> io::Result<()>;

    /// The identity of this file, and how many names it has now.
    ///
    /// # Errors
    /// As the file system says.
    fn identity(&self) -> io::Result<FileIdentity>;
}

/// The identity of a file, which does not depend on its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileIdentity {
    /// The file system.
    pub device: u64,
    /// The number of the file there.
    pub inode: u64,
    /// How many names the file has; 0 if it was removed.
    pub links: u64,
}

/// Creates a directory and the missing ones above it, each mode 0700 and durable. An existing directory is
/// made durable as well: the process that created it may have crashed before it did so.
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
        // A directory that this process may not open: another user made the one below for it.
        Err(e) if e.kind() == io::ErrorKind::PermissionDenied => Ok(()),
        other => other,
    }
}

/// Replaces a small file as a whole, durably: readers see either the old text or the new text.
///
/// # Errors
/// As the file system says; the old file is unchanged then.
pub fn replace_file(disk: &dyn Disk, random: &dyn Random, path: &Path, text: &[u8]) -> io::Result<()> {
    let (Some(dir), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a file name"));
    };
    let temporary: PathBuf = dir.join(format!(".{}.{:016x}", name.to_string_lossy(), random.bits()));
    let file = disk.create(&temporary)?;
    let written = file.append(text).and_then(|()| file.sync()).and_then(|()| disk.rename(&temporary, path));
    if let Err(e) = written {
        // Only tidiness: no reader opens the temporary file.
        let _ = disk.remove(&temporary);
        return Err(e);
    }
    disk.sync_dir(dir)
}
