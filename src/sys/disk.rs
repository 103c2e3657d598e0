//! The verbs of which durable files are made.
//!
//! Small and explicit, so that a test can stop after any one of them and drop whatever was not
//! synced: a write is durable once its file is synced, a name once its directory is. Whoever
//! keeps a promise on disk goes through this trait; nobody calls `std::fs` for that.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

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
    /// As the file system says.
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
    fn list(&self, dir: &Path) -> io::Result<Vec<Entry>>;

    /// Sets when a file says it was last modified. A hint, never synced by itself.
    ///
    /// # Errors
    /// As the file system says.
    fn set_modified(&self, path: &Path, when: Timestamp) -> io::Result<()>;
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
}

/// One file of a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
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
        let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(path)?;
        Ok(Arc::new(SystemFile(file)))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let file = match OpenOptions::new().read(true).write(true).open(path) {
            // What may only be read can still be read: the error comes when somebody writes.
            Err(e)
                if matches!(
                    e.kind(),
                    io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::PermissionDenied
                ) =>
            {
                File::open(path)?
            }
            other => other?,
        };
        Ok(Arc::new(SystemFile(file)))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        File::open(dir)?.sync_all()
    }

    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        use std::os::unix::fs::DirBuilderExt as _;
        match fs::DirBuilder::new().mode(0o700).create(dir) {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists && dir.is_dir() => Ok(()),
            other => other,
        }
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<Entry>> {
        let mut entries = Vec::new();
        for entry in fs::read_dir(dir)? {
            let entry = entry?;
            let facts = match entry.metadata() {
                Ok(facts) => facts,
                // Removed between the listing and the look.
                Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
                Err(e) => return Err(e),
            };
            // Every name of ours is UTF-8; others are somebody else's.
            let (true, Ok(name)) = (facts.is_file(), entry.file_name().into_string()) else {
                continue;
            };
            let since_epoch = facts.modified()?.duration_since(UNIX_EPOCH).unwrap_or_default();
            entries.push(Entry {
                name,
                octets: facts.len(),
                modified: Timestamp::from_millis(i64::try_from(since_epoch.as_millis()).unwrap_or(i64::MAX)),
            });
        }
        Ok(entries)
    }

    fn set_modified(&self, path: &Path, when: Timestamp) -> io::Result<()> {
        let since_epoch = Duration::from_millis(u64::try_from(when.as_millis()).unwrap_or(0));
        File::options().append(true).open(path)?.set_modified(UNIX_EPOCH + since_epoch)
    }
}

struct SystemFile(File);

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
pub fn replace(disk: &dyn Disk, random: &dyn Random, path: &Path, text: &[u8]) -> io::Result<()> {
    replace_after(disk, random, path, text, |_| Ok(()))
}

/// Like [`replace`], for a file that other users read: it keeps its owner and mode. A new one gets
/// `mode` and its directory's owner, as far as we may give it away.
///
/// # Errors
/// As the file system says; the old file is then still there.
pub fn replace_like(
    disk: &dyn Disk,
    random: &dyn Random,
    path: &Path,
    text: &[u8],
    mode: u32,
) -> io::Result<()> {
    replace_after(disk, random, path, text, |draft| {
        let (model, mode) = match fs::metadata(path) {
            Ok(old) => (old.clone(), old.mode() & 0o7777),
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                (fs::metadata(path.parent().unwrap_or(Path::new(".")))?, mode)
            }
            Err(e) => return Err(e),
        };
        let ours = fs::metadata(draft)?;
        if (ours.uid(), ours.gid()) != (model.uid(), model.gid()) {
            match chown(draft, Some(model.uid()), Some(model.gid())) {
                // Only root may give files away; what is ours stays ours.
                Err(e) if e.kind() == io::ErrorKind::PermissionDenied => {}
                other => other?,
            }
        }
        fs::set_permissions(draft, fs::Permissions::from_mode(mode))
    })
}

/// Writes a draft beside `path`, lets `prepare` see to it, and gives it the name.
fn replace_after(
    disk: &dyn Disk,
    random: &dyn Random,
    path: &Path,
    text: &[u8],
    prepare: impl FnOnce(&Path) -> io::Result<()>,
) -> io::Result<()> {
    let (Some(dir), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a file name"));
    };
    let draft: PathBuf = dir.join(format!(".{}.{:016x}", name.to_string_lossy(), random.bits()));
    let file = disk.create(&draft)?;
    let written = prepare(&draft)
        .and_then(|()| file.append(text))
        .and_then(|()| file.sync())
        .and_then(|()| disk.rename(&draft, path));
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
/// As the file system says, or [`io::ErrorKind::FileTooLarge`].
pub fn read_text(path: &Path, octets_max: u64) -> io::Result<String> {
    let mut text = String::new();
    File::open(path)?.take(octets_max + 1).read_to_string(&mut text)?;
    if text.len() as u64 > octets_max {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("larger than {octets_max} octets")));
    }
    Ok(text)
}
