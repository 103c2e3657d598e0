//! System calls on files below an open directory, for the disks and [`super::OpenDir`].
//!
//! Each function takes the descriptor of a directory and a path relative to it; the system looks an absolute
//! path up from `/`. A symbolic link in the place of a file is an error, because the server makes no links.
//! Links in the place of a directory in the path are followed: an operator may keep the spool or a Maildir on
//! another disk.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::BorrowedFd;
use std::os::unix::fs::FileTypeExt as _;
use std::path::Path;

use rustix::fs::{
    AtFlags, Dir, FileType, Mode, OFlags, StatxFlags, Timespec, Timestamps, UTIME_OMIT, mkdirat, openat,
    renameat, statx, unlinkat, utimensat,
};
use rustix::io::{Errno, retry_on_intr};

use super::dir_entry::DirEntry;
use crate::mail::Timestamp;

/// For an existing file: does not follow a link, and does not wait for the other end of a pipe.
const EXISTING_FILE_FLAGS: OFlags =
    OFlags::NOFOLLOW.union(OFlags::NONBLOCK).union(OFlags::NOCTTY).union(OFlags::CLOEXEC);

/// Creates a file, mode 0600, for reading and writing; fails if the name is taken, also by a link.
pub(super) fn create(dir: BorrowedFd<'_>, path: &Path) -> io::Result<File> {
    open_with_flags(
        dir,
        path,
        OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC,
    )
}

/// Opens a regular file for reading and writing. A file that may not be written is opened for reading only, so
/// that a later write fails.
pub(super) fn open(dir: BorrowedFd<'_>, path: &Path) -> io::Result<File> {
    match open_with_flags(dir, path, OFlags::RDWR | EXISTING_FILE_FLAGS) {
        Err(e) if matches!(e.kind(), io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::PermissionDenied) => {
            open_to_read(dir, path)
        }
        other => require_regular_file(other?),
    }
}

/// Opens a regular file for reading.
pub(super) fn open_to_read(dir: BorrowedFd<'_>, path: &Path) -> io::Result<File> {
    require_regular_file(open_with_flags(dir, path, OFlags::RDONLY | EXISTING_FILE_FLAGS)?)
}

/// Opens a regular file for appending, and creates it, mode 0600, if it is missing.
pub(super) fn open_or_create(dir: BorrowedFd<'_>, path: &Path) -> io::Result<File> {
    require_regular_file(open_with_flags(
        dir,
        path,
        OFlags::WRONLY | OFlags::APPEND | OFlags::CREATE | EXISTING_FILE_FLAGS,
    )?)
}

/// Opens a directory; a link to one is followed.
pub(super) fn open_dir(dir: BorrowedFd<'_>, path: &Path) -> io::Result<File> {
    open_with_flags(dir, path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC)
}

/// Opens a file with these flags; one that is created gets mode 0600.
pub(super) fn open_with_flags(dir: BorrowedFd<'_>, path: &Path, flags: OFlags) -> io::Result<File> {
    match retry_on_intr(|| openat(dir, path, flags, Mode::RUSR | Mode::WUSR)) {
        Err(Errno::LOOP) => Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "is a symbolic link, which is not followed; put the file itself there",
        )),
        other => Ok(other?.into()),
    }
}

fn require_regular_file(file: File) -> io::Result<File> {
    if file.metadata()?.is_file() {
        return Ok(file);
    }
    Err(io::Error::new(io::ErrorKind::InvalidInput, "is not a regular file; move it away"))
}

/// Renames a file; replaces a file of the new name.
pub(super) fn rename(dir: BorrowedFd<'_>, from: &Path, to: &Path) -> io::Result<()> {
    Ok(renameat(dir, from, dir, to)?)
}

/// Removes a file.
pub(super) fn remove(dir: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    Ok(unlinkat(dir, path, AtFlags::empty())?)
}

/// Creates a directory, mode 0700. An existing directory, or a link to one, stays as it is.
pub(super) fn create_dir(dir: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    let created = mkdirat(dir, path, Mode::RWXU);
    let is_dir = || {
        statx(dir, path, AtFlags::empty(), StatxFlags::TYPE)
            .is_ok_and(|found| FileType::from_raw_mode(found.stx_mode.into()).is_dir())
    };
    match created {
        Err(Errno::EXIST) if is_dir() => Ok(()),
        other => Ok(other?),
    }
}

/// The regular files in a directory, in no order.
pub(super) fn list(dir: BorrowedFd<'_>, path: &Path) -> io::Result<Vec<DirEntry>> {
    let listed = open_dir(dir, path)?;
    let mut entries = Vec::new();
    for entry in Dir::read_from(&listed)? {
        let entry = entry?;
        // The server gives only UTF-8 names.
        let Ok(name) = entry.file_name().to_str() else { continue };
        let facts = StatxFlags::TYPE.union(StatxFlags::SIZE).union(StatxFlags::MTIME);
        let facts = match statx(&listed, name, AtFlags::SYMLINK_NOFOLLOW, facts) {
            Ok(facts) => facts,
            // The file was removed after it was listed.
            Err(Errno::NOENT) => continue,
            Err(e) => return Err(e.into()),
        };
        if FileType::from_raw_mode(facts.stx_mode.into()).is_file() {
            let modified = facts.stx_mtime;
            let millis = modified.tv_sec.saturating_mul(1000) + i64::from(modified.tv_nsec / 1_000_000);
            entries.push(DirEntry {
                name: name.to_owned(),
                octets: facts.stx_size,
                modified: Timestamp::from_millis(millis.max(0)),
            });
        }
    }
    Ok(entries)
}

/// Sets the modification time of a file; the access time stays.
pub(super) fn set_modified(dir: BorrowedFd<'_>, path: &Path, when: Timestamp) -> io::Result<()> {
    let millis = when.as_millis().max(0);
    let nanos = i32::try_from(millis % 1000 * 1_000_000).unwrap_or(0);
    let times = Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
        last_modification: Timespec { tv_sec: millis / 1000, tv_nsec: nanos.into() },
    };
    Ok(utimensat(dir, path, &times, AtFlags::SYMLINK_NOFOLLOW)?)
}

/// Reads a whole text file of at most `octets_max` octets.
pub(super) fn read_text_bounded(file: &File, octets_max: u64) -> io::Result<String> {
    if file.metadata()?.file_type().is_fifo() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "is a named pipe and not a regular file"));
    }
    let mut text = String::new();
    file.take(octets_max + 1).read_to_string(&mut text)?;
    if text.len() as u64 > octets_max {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("larger than {octets_max} octets")));
    }
    Ok(text)
}
