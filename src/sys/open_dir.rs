//! An open directory, for a program that changes files where other users may write.
//!
//! Root changes `domains/DOMAIN/users`, and that directory may belong to the user of the daemon, who can replace
//! any name in it by a link at any time. So the directory is opened once, every operation in it starts at its
//! descriptor, no link is followed, and owner and mode are set on the descriptor of a file that was created
//! here. `postrider user` and `postrider torture` use it.
//!
//! In the path of the directory itself, links are followed if only root and the user of this process can have
//! made them.

mod path_walk;

use std::ffi::OsStr;
use std::fs::{File, Permissions, TryLockError};
use std::io::{self, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, fchown};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{Dir, Mode, OFlags, mkdirat};
use rustix::io::Errno;
use rustix::process::geteuid;

pub use self::path_walk::Exposure;
use self::path_walk::{PathWalk, is_writable_by_others};
use super::openat;
use super::random::Random;

/// Delay between two tries to take a lock that another process holds.
const LOCK_RETRY_INTERVAL: Duration = Duration::from_millis(20);

/// An open directory.
#[derive(Debug)]
pub struct OpenDir {
    file: File,
    path: PathBuf,
    exposure: Option<Exposure>,
}

/// The text of a file that was read, with the owner and mode that its replacement gets.
#[derive(Debug)]
pub struct ExistingFile {
    /// The contents of the file.
    pub text: String,
    owner_and_mode: OwnerAndMode,
}

/// Owner, group and mode of a file.
#[derive(Debug, Clone, Copy)]
struct OwnerAndMode {
    owner: u32,
    group: u32,
    mode: u32,
}

impl OpenDir {
    /// Opens a directory.
    ///
    /// # Errors
    /// As the file system says; [`io::ErrorKind::InvalidInput`] if `path` has a symbolic link that other users may
    /// have made.
    pub fn open(path: &Path) -> io::Result<Self> {
        let mut walk = PathWalk::new(path)?;
        while let Some(name) = walk.remaining_names.pop() {
            walk.enter(&name)?;
        }
        let file = openat::open_dir(walk.dir.as_fd(), Path::new("."))?;
        let exposure = walk.exposure.or_else(|| {
            let facts = file.metadata().ok()?;
            is_writable_by_others(&facts, None).then(|| Exposure::of(&walk.resolved_path, &facts))
        });
        Ok(Self { file, path: walk.resolved_path, exposure })
    }

    /// The absolute path of the directory, without symbolic links when it was opened.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Why users other than root and the user of this process may change the directory, or replace it through
    /// a directory above it; `None` if they may not. A directory above with the sticky bit, such as /tmp, does
    /// not count.
    #[must_use]
    pub fn exposure(&self) -> Option<&Exposure> {
        self.exposure.as_ref()
    }

    /// Takes the lock of the directory, which is held until the value is dropped.
    ///
    /// # Errors
    /// [`io::ErrorKind::TimedOut`] if another process still holds the lock after `timeout`.
    pub fn lock(&self, timeout: Duration) -> io::Result<()> {
        let began = Instant::now();
        loop {
            match self.file.try_lock() {
                Ok(()) => return Ok(()),
                Err(TryLockError::WouldBlock) if began.elapsed() < timeout => {
                    std::thread::sleep(LOCK_RETRY_INTERVAL)
                }
                Err(TryLockError::WouldBlock) => {
                    let text = format!(
                        "another process has kept the lock on {} for {} s; try again when it has ended",
                        self.path.display(),
                        timeout.as_secs()
                    );
                    return Err(io::Error::new(io::ErrorKind::TimedOut, text));
                }
                Err(TryLockError::Error(e)) => return Err(e),
            }
        }
    }

    /// Reads a file in the directory; `None` if there is no such name.
    ///
    /// # Errors
    /// As the file system says; [`io::ErrorKind::FileTooLarge`] for more than `octets_max`;
    /// [`io::ErrorKind::InvalidInput`] for a link, a pipe, a device or a directory.
    pub fn read(&self, name: &str, octets_max: u64) -> io::Result<Option<ExistingFile>> {
        let file = match openat::open_to_read(self.file.as_fd(), Path::new(name)) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other?,
        };
        // Text, owner and mode of the same file, even if its name is replaced meanwhile.
        let facts = file.metadata()?;
        let like = OwnerAndMode { owner: facts.uid(), group: facts.gid(), mode: facts.mode() & 0o777 };
        Ok(Some(ExistingFile { text: openat::read_text_bounded(&file, octets_max)?, owner_and_mode: like }))
    }

    /// Replaces a file in the directory as a whole, durably: readers see either the old text or the new text.
    /// The new file has owner, group and mode of `old`; without an old file it gets owner and group of the
    /// directory, and `mode`. Only root can change the owner: a file that another user writes stays that
    /// user's.
    ///
    /// # Errors
    /// As the file system says; the old file is unchanged then.
    pub fn replace(
        &self,
        random: &dyn Random,
        name: &str,
        text: &str,
        old: Option<&ExistingFile>,
        mode: u32,
    ) -> io::Result<()> {
        let like = match old {
            Some(old) => old.owner_and_mode,
            None => {
                let dir = self.file.metadata()?;
                OwnerAndMode { owner: dir.uid(), group: dir.gid(), mode }
            }
        };
        let temporary = self.create_temporary_file(random, name)?;
        let published = temporary.write(text, like).and_then(|()| temporary.rename_into_place(name));
        if published.is_err() {
            // Only tidiness: no reader opens the temporary file.
            let _ = openat::remove(self.file.as_fd(), &temporary.name);
        }
        published?;
        self.file.sync_all()
    }

    fn create_temporary_file(&self, random: &dyn Random, name: &str) -> io::Result<TemporaryFile<'_>> {
        let name = PathBuf::from(format!(".{name}.{:016x}", random.bits()));
        Ok(TemporaryFile { dir: self, file: openat::create(self.file.as_fd(), &name)?, name })
    }

    /// Creates a directory in this directory, with this mode, and with owner and group of this directory if the
    /// process may set them. False if the name is taken.
    ///
    /// # Errors
    /// As the file system says; also if another user replaced the new directory.
    pub fn create_dir(&self, name: &OsStr, mode: u32) -> io::Result<bool> {
        match mkdirat(&self.file, name, Mode::RWXU) {
            Err(Errno::EXIST) => Ok(false),
            other => {
                other?;
                self.set_dir_owner_and_mode(name, mode)?;
                Ok(true)
            }
        }
    }

    /// Sets owner and mode of a directory that was just created.
    fn set_dir_owner_and_mode(&self, name: &OsStr, mode: u32) -> io::Result<()> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let made = openat::open_with_flags(self.file.as_fd(), Path::new(name), flags)?;
        let facts = made.metadata()?;
        // A user who may write here could have moved another directory of this process to this name.
        if facts.uid() != geteuid().as_raw() || !is_empty(&made)? {
            return Err(io::Error::other(
                "others put another directory in the place of the one that was made",
            ));
        }
        // A directory inherits the set-group-ID bit from the one above it, so that later files in it get its
        // group.
        let mode = mode | (facts.mode() & 0o2000);
        let above = self.file.metadata()?;
        set_owner_and_mode(&made, OwnerAndMode { owner: above.uid(), group: above.gid(), mode })?;
        self.file.sync_all()
    }

    /// Creates a directory in this directory that only the user of this process may enter.
    ///
    /// # Errors
    /// As the file system says, also if the name is taken.
    pub fn create_private_dir(&self, name: &str) -> io::Result<()> {
        Ok(mkdirat(&self.file, name, Mode::RWXU)?)
    }
}

/// A new file that does not have its final name yet.
struct TemporaryFile<'a> {
    dir: &'a OpenDir,
    file: File,
    name: PathBuf,
}

impl TemporaryFile<'_> {
    /// Works on the open file only, because another user may have replaced its name.
    fn write(&self, text: &str, like: OwnerAndMode) -> io::Result<()> {
        (&self.file).write_all(text.as_bytes())?;
        set_owner_and_mode(&self.file, like)?;
        self.file.sync_all()
    }

    fn rename_into_place(&self, name: &str) -> io::Result<()> {
        openat::rename(self.dir.file.as_fd(), &self.name, Path::new(name))
    }
}

fn set_owner_and_mode(file: &File, like: OwnerAndMode) -> io::Result<()> {
    let facts = file.metadata()?;
    if (facts.uid(), facts.gid()) != (like.owner, like.group) {
        match fchown(file, Some(like.owner), Some(like.group)) {
            // Only root may change the owner: the file keeps its owner.
            Err(e) if e.kind() == io::ErrorKind::PermissionDenied => {}
            other => other?,
        }
    }
    file.set_permissions(Permissions::from_mode(like.mode))
}

fn is_empty(dir: &File) -> io::Result<bool> {
    for entry in Dir::read_from(dir)? {
        if !matches!(entry?.file_name().to_bytes(), b"." | b"..") {
            return Ok(false);
        }
    }
    Ok(true)
}

#[cfg(test)]
mod tests;
