//! A disk whose operations a test observes: to count, delay, record them, or let them fail.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::mail::Timestamp;
use crate::sys::{DirEntry, Disk, DiskFile, FileIdentity, FileLock};

/// Called before each operation with its name and its file or directory; an error is returned by the operation.
type WatchFunction = Arc<dyn Fn(&'static str, &Path) -> io::Result<()> + Send + Sync>;

/// Passes every operation on to another disk. Operations are `create`, `open`, `rename` (with the new name),
/// `remove`, `sync-dir`, `create-dir` and `is-file-at`, and those of a file `write`, `sync` and `read`.
pub struct WatchedDisk {
    inner: Arc<dyn Disk>,
    watch: WatchFunction,
}

impl WatchedDisk {
    /// Calls `watch` before each operation of `inner`.
    pub fn new(
        inner: impl Disk + 'static,
        watch: impl Fn(&'static str, &Path) -> io::Result<()> + Send + Sync + 'static,
    ) -> Self {
        Self { inner: Arc::new(inner), watch: Arc::new(watch) }
    }

    fn watched_file(&self, inner: Arc<dyn DiskFile>, path: &Path) -> Arc<dyn DiskFile> {
        Arc::new(WatchedFile { inner, path: path.to_owned(), watch: Arc::clone(&self.watch) })
    }
}

impl Disk for WatchedDisk {
    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        (self.watch)("create", path)?;
        Ok(self.watched_file(self.inner.create(path)?, path))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        (self.watch)("open", path)?;
        Ok(self.watched_file(self.inner.open(path)?, path))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        (self.watch)("rename", to)?;
        self.inner.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        (self.watch)("remove", path)?;
        self.inner.remove(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        (self.watch)("sync-dir", dir)?;
        self.inner.sync_dir(dir)
    }

    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        (self.watch)("create-dir", dir)?;
        self.inner.create_dir(dir)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<DirEntry>> {
        self.inner.list(dir)
    }

    fn set_modified(&self, path: &Path, when: Timestamp) -> io::Result<()> {
        self.inner.set_modified(path, when)
    }

    fn is_file_at(&self, path: &Path, file: &dyn DiskFile) -> io::Result<bool> {
        (self.watch)("is-file-at", path)?;
        self.inner.is_file_at(path, file)
    }

    fn lock(&self, path: &Path) -> io::Result<FileLock> {
        self.inner.lock(path)
    }
}

struct WatchedFile {
    inner: Arc<dyn DiskFile>,
    path: PathBuf,
    watch: WatchFunction,
}

impl DiskFile for WatchedFile {
    fn write_at(&self, octets: &[u8], offset: u64) -> io::Result<()> {
        (self.watch)("write", &self.path)?;
        self.inner.write_at(octets, offset)
    }

    fn sync(&self) -> io::Result<()> {
        (self.watch)("sync", &self.path)?;
        self.inner.sync()
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        (self.watch)("read", &self.path)?;
        self.inner.read_at(buffer, offset)
    }

    fn length(&self) -> io::Result<u64> {
        self.inner.length()
    }

    fn truncate(&self, octets: u64) -> io::Result<()> {
        self.inner.truncate(octets)
    }

    fn identity(&self) -> io::Result<FileIdentity> {
        self.inner.identity()
    }
}
