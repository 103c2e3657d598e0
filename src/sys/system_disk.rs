//! The file system of the host, by paths from `/` or from the working directory.

use std::fs::{self, File, Metadata};
use std::io;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{CWD, OFlags};

use super::dir_entry::DirEntry;
use super::disk::{Disk, DiskFile, FileIdentity};
use super::file_lock::FileLock;
use super::openat;
use crate::mail::Timestamp;

/// The whole file system of the host.
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

/// An open file of the host's file system.
pub(super) struct SystemFile(pub(super) File);

impl DiskFile for SystemFile {
    fn write_at(&self, octets: &[u8], offset: u64) -> io::Result<()> {
        self.0.write_all_at(octets, offset)
    }

    fn sync(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.0.read_at(buffer, offset)
    }

    fn length(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn truncate(&self, octets: u64) -> io::Result<()> {
        self.0.set_len(octets)
    }

    fn identity(&self) -> io::Result<FileIdentity> {
        Ok(identity(&self.0.metadata()?))
    }
}

fn identity(metadata: &Metadata) -> FileIdentity {
    FileIdentity { device: metadata.dev(), inode: metadata.ino(), links: metadata.nlink() }
}

/// Whether `path` leads to this file; false if `path` is a symbolic link.
pub(super) fn path_leads_to(path: &Path, file: &dyn DiskFile) -> io::Result<bool> {
    let found = match fs::symlink_metadata(path) {
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(false);
        }
        other => identity(&other?),
    };
    let open = file.identity()?;
    Ok((found.device, found.inode) == (open.device, open.inode) && open.links > 0)
}

/// Reads a whole text file of at most `octets_max` octets.
///
/// # Errors
/// As the file system says; [`io::ErrorKind::FileTooLarge`] for a longer file; [`io::ErrorKind::InvalidInput`]
/// for a named pipe, because a read would wait for its other end.
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
    fn a_link_or_a_pipe_is_not_opened_as_a_file() {
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
        // A configuration file may be a link, but a read must not wait for the other end of a pipe.
        assert_eq!(read_text(&path("link"), 100).unwrap(), "theirs");
        assert_eq!(read_text(&path("pipe"), 100).unwrap_err().kind(), io::ErrorKind::InvalidInput);
    }

    #[test]
    fn a_file_is_at_its_path_until_it_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        let (one, other) =
            (SystemDisk.create(&path("one")).unwrap(), SystemDisk.create(&path("other")).unwrap());
        let is_at = |name: &str| SystemDisk.is_file_at(&path(name), &*one).unwrap();
        assert!(is_at("one") && !is_at("other") && !is_at("nothing"));
        assert!(!is_at("one/below"), "it is not a directory");
        symlink("one", path("link")).unwrap();
        assert!(!is_at("link"));
        SystemDisk.rename(&path("other"), &path("one")).unwrap();
        assert!(!is_at("one") && SystemDisk.is_file_at(&path("one"), &*other).unwrap());
        assert_eq!(one.identity().unwrap().links, 0);
    }

    #[test]
    fn only_regular_files_are_listed_with_the_time_that_was_set() {
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
