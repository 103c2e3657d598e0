//! A lock on a file, so that only one process at a time works in a directory.

use std::fs::{File, TryLockError};
use std::io;
use std::path::Path;

use rustix::fs::CWD;

use super::openat;

/// A lock on a file, held until this value is dropped or the process ends in any way.
#[derive(Debug)]
pub struct FileLock(#[expect(dead_code, reason = "the open file is the lock")] File);

impl FileLock {
    /// Takes the lock on `path`, which is created if it is missing, but not through a symbolic link.
    ///
    /// # Errors
    /// [`io::ErrorKind::WouldBlock`] if another process holds the lock; otherwise as the file system says.
    pub fn acquire(path: &Path) -> io::Result<Self> {
        Self::from_file(openat::open_or_create(CWD, path)?)
    }

    /// Takes the lock on an open file.
    pub(super) fn from_file(file: File) -> io::Result<Self> {
        match file.try_lock() {
            Ok(()) => Ok(Self(file)),
            Err(TryLockError::WouldBlock) => Err(io::ErrorKind::WouldBlock.into()),
            Err(TryLockError::Error(e)) => Err(e),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_can_be_taken_again_only_after_it_was_dropped() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let first = FileLock::acquire(&path).unwrap();
        assert_eq!(FileLock::acquire(&path).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        drop(first);
        FileLock::acquire(&path).unwrap();
    }
}
