//! Whether a file has changed since it was read.
//!
//! A fingerprint follows symbolic links: it has the metadata of the link and of the file to which the link
//! leads. Time stamps are coarse (some milliseconds on Linux), so that two writes in a short time can leave the
//! same fingerprint: a reader must not trust the fingerprint of a file that [`has_changed_within`] a short
//! time.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The metadata that change when a file is written or replaced, when its owner or mode changes, or when a link to
/// it is replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileFingerprint {
    /// The directory entry, which may be a symbolic link.
    entry: MetadataFingerprint,
    /// The file to which the entry leads; `None` if the entry is a link to a missing file.
    target: Option<MetadataFingerprint>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct MetadataFingerprint {
    mode: u32,
    octets: u64,
    device: u64,
    inode: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl From<&fs::Metadata> for MetadataFingerprint {
    fn from(facts: &fs::Metadata) -> Self {
        Self {
            mode: facts.mode(),
            octets: facts.len(),
            device: facts.dev(),
            inode: facts.ino(),
            modified: (facts.mtime(), facts.mtime_nsec()),
            changed: (facts.ctime(), facts.ctime_nsec()),
        }
    }
}

impl FileFingerprint {
    /// The fingerprint of a file; `None` if there is no entry of that name.
    ///
    /// # Errors
    /// As the file system says; a missing entry is not an error.
    pub fn of(path: &Path) -> io::Result<Option<Self>> {
        let Some(entry) = metadata_if_exists(fs::symlink_metadata(path))? else { return Ok(None) };
        let target =
            if entry.is_symlink() { metadata_if_exists(fs::metadata(path))? } else { Some(entry.clone()) };
        Ok(Some(Self {
            entry: MetadataFingerprint::from(&entry),
            target: target.as_ref().map(MetadataFingerprint::from),
        }))
    }

    /// The entry is a symbolic link to a missing file.
    #[must_use]
    pub fn is_dangling_link(&self) -> bool {
        self.target.is_none()
    }

    /// The file exists and is not empty.
    #[must_use]
    pub fn has_content(&self) -> bool {
        self.target.is_some_and(|target| target.octets > 0)
    }
}

fn metadata_if_exists(facts: io::Result<fs::Metadata>) -> io::Result<Option<fs::Metadata>> {
    match facts {
        Ok(facts) => Ok(Some(facts)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}

/// The entry, its target and its directory have not changed for at least `time`, by the wall clock. A time stamp
/// in the future counts as a change just now.
#[must_use]
pub fn is_unchanged_for(path: &Path, time: Duration) -> bool {
    let now = SystemTime::now();
    let directory = path.parent().and_then(|parent| fs::metadata(parent).ok());
    change_times(path)
        .chain(directory.as_ref().and_then(change_time))
        .all(|change| now.duration_since(change).is_ok_and(|age| age >= time))
}

/// The entry or its target has a time stamp less than `time` before or after now, by the wall clock.
#[must_use]
pub fn has_changed_within(path: &Path, time: Duration) -> bool {
    let now = SystemTime::now();
    change_times(path).any(|change| now.duration_since(change).unwrap_or_else(|e| e.duration()) < time)
}

fn change_times(path: &Path) -> impl Iterator<Item = SystemTime> {
    let facts = [fs::symlink_metadata(path), fs::metadata(path)];
    facts.into_iter().filter_map(|facts| change_time(&facts.ok()?))
}

fn change_time(facts: &fs::Metadata) -> Option<SystemTime> {
    let (seconds, nanoseconds) = (facts.ctime().try_into().ok()?, facts.ctime_nsec().try_into().ok()?);
    UNIX_EPOCH.checked_add(Duration::new(seconds, nanoseconds))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_fingerprint_changes_with_the_link_and_with_its_target() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        let of = |name: &str| FileFingerprint::of(&path(name)).unwrap();
        assert_eq!(of("link"), None);
        symlink("file", path("link")).unwrap();
        assert!(of("link").unwrap().is_dangling_link());
        fs::write(path("file"), "one").unwrap();
        let first = of("link").unwrap();
        assert!(!first.is_dangling_link() && first.has_content());
        fs::write(path("file"), "more").unwrap();
        let second = of("link").unwrap();
        assert_ne!(first, second, "the file changed, and the link did not");
        fs::remove_file(path("link")).unwrap();
        symlink("./file", path("link")).unwrap();
        assert_ne!(of("link").unwrap(), second, "the link changed, and the file did not");
        symlink("circle", path("circle")).unwrap();
        assert!(FileFingerprint::of(&path("circle")).is_err());
    }

    #[test]
    fn a_file_is_unchanged_once_its_time_stamps_are_old_enough() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        let hour = Duration::from_hours(1);
        assert!(!is_unchanged_for(&file, hour), "its directory has just changed");
        fs::write(&file, "x").unwrap();
        assert!(!is_unchanged_for(&file, hour) && has_changed_within(&file, hour));
        assert!(is_unchanged_for(&file, Duration::ZERO) && !has_changed_within(&file, Duration::ZERO));
        assert!(is_unchanged_for(Path::new("/proc/version"), Duration::ZERO));
    }
}
