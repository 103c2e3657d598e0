//! Reads the operator's files, and records a fingerprint of each.
//!
//! A value may be made from any number of files and directories. The fingerprint of each is taken before it
//! is read; [`FilesSnapshot::is_current`] takes it again. If no fingerprint has changed, the value comes
//! from one state of the files and not from a mixture of two.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, File};
use std::hash::{DefaultHasher, Hasher as _};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::sys::{
    FileFingerprint, ServiceUser, first_inaccessible_dir, has_changed_within, is_unchanged_for,
};

/// Coarsest time stamps of a file system: two writes within this time may leave one fingerprint.
const TIMESTAMP_GRANULARITY_MAX: Duration = Duration::from_secs(2);

/// The files that a value was made from, by path.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct FilesSnapshot(BTreeMap<PathBuf, SnapshotEntry>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum SnapshotEntry {
    /// A file, and a digest of its content; no digest if it was not read.
    File { fingerprint: Result<Option<FileFingerprint>, io::ErrorKind>, digest: Option<u64> },
    /// The kind of a directory entry. Its content is recorded by the code that reads it.
    DirectoryEntry(EntryKind),
    /// The names in a directory, sorted.
    EntryNames(Result<Vec<OsString>, io::ErrorKind>),
}

/// The kind of a directory entry, links followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum EntryKind {
    Absent,
    Directory,
    /// A file, or another thing that is no directory.
    NotDirectory,
    /// A symbolic link whose target is missing.
    DanglingSymlink,
    Inaccessible(io::ErrorKind),
}

impl EntryKind {
    /// The kind of the entry at `path`.
    pub(super) fn at(path: &Path) -> Self {
        match fs::metadata(path) {
            Ok(metadata) if metadata.is_dir() => Self::Directory,
            Ok(_) => Self::NotDirectory,
            Err(e) if e.kind() == io::ErrorKind::NotFound && fs::symlink_metadata(path).is_ok() => {
                Self::DanglingSymlink
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => Self::Absent,
            Err(e) => Self::Inaccessible(e.kind()),
        }
    }
}

impl SnapshotEntry {
    fn is_current(&self, path: &Path) -> bool {
        match self {
            Self::File { fingerprint, .. } => *fingerprint == take_fingerprint(path),
            Self::DirectoryEntry(entry) => *entry == EntryKind::at(path),
            Self::EntryNames(names) => *names == read_names(path).map_err(|e| e.kind()),
        }
    }

    /// A file with content, or a directory.
    fn has_content(&self) -> bool {
        match self {
            Self::File { fingerprint, .. } => matches!(fingerprint, Ok(Some(file)) if file.has_content()),
            Self::DirectoryEntry(entry) => *entry == EntryKind::Directory,
            Self::EntryNames(names) => names.is_ok(),
        }
    }

    /// A missing file or directory, or an empty file.
    fn is_missing_or_empty(&self) -> bool {
        match self {
            Self::File { fingerprint: Ok(Some(file)), .. } => !file.has_content() && !file.is_dangling_link(),
            Self::File { fingerprint: Ok(None), .. } => true,
            Self::DirectoryEntry(entry) => matches!(entry, EntryKind::Absent | EntryKind::NotDirectory),
            Self::File { fingerprint: Err(kind), .. } | Self::EntryNames(Err(kind)) => {
                *kind == io::ErrorKind::NotFound
            }
            Self::EntryNames(Ok(_)) => false,
        }
    }
}

impl FilesSnapshot {
    /// Whether every file and directory has the recorded fingerprint.
    pub(super) fn is_current(&self) -> bool {
        self.0.iter().all(|(path, entry)| entry.is_current(path))
    }

    /// Whether a file or directory of this snapshot is missing or empty in `later`.
    pub(super) fn has_losses_in(&self, later: &Self) -> bool {
        let mut there = self.0.iter().filter(|(_, entry)| entry.has_content());
        there.any(|(path, entry)| match later.0.get(path) {
            Some(now) => now.is_missing_or_empty(),
            None => match entry {
                // No other file names this one any more.
                SnapshotEntry::File { .. } | SnapshotEntry::EntryNames(_) => false,
                // The directory does not have this name any more.
                SnapshotEntry::DirectoryEntry(_) => {
                    matches!(EntryKind::at(path), EntryKind::Absent | EntryKind::NotDirectory)
                }
            },
        })
    }

    /// The paths at which the two snapshots differ.
    pub(super) fn differing_paths(&self, other: &Self) -> Vec<PathBuf> {
        let paths = self.0.keys().chain(other.0.keys().filter(|path| !self.0.contains_key(*path)));
        paths.filter(|path| self.0.get(*path) != other.0.get(*path)).cloned().collect()
    }

    /// Whether a file exists that could not be read. It may be readable at the next poll without a change of
    /// its fingerprint.
    pub(super) fn has_unreadable_files(&self) -> bool {
        self.0.values().any(|entry| match entry {
            SnapshotEntry::File { fingerprint: Ok(Some(_)), digest } => digest.is_none(),
            SnapshotEntry::File { fingerprint: Ok(None), .. } | SnapshotEntry::DirectoryEntry(_) => false,
            SnapshotEntry::File { fingerprint: Err(_), .. } => true,
            SnapshotEntry::EntryNames(names) => {
                matches!(names, Err(kind) if *kind != io::ErrorKind::NotFound)
            }
        })
    }

    /// Whether nothing has changed for this time.
    pub(super) fn is_unchanged_for(&self, time: Duration) -> bool {
        self.0.keys().all(|path| is_unchanged_for(path, time))
    }

    /// Whether a file has changed so recently that another change may leave the same fingerprint.
    pub(super) fn is_just_changed(&self) -> bool {
        let mut files = self.0.iter().filter(|(_, entry)| matches!(entry, SnapshotEntry::File { .. }));
        files.any(|(path, _)| has_changed_within(path, TIMESTAMP_GRANULARITY_MAX))
    }
}

fn take_fingerprint(path: &Path) -> Result<Option<FileFingerprint>, io::ErrorKind> {
    FileFingerprint::of(path).map_err(|e| e.kind())
}

fn read_names(dir: &Path) -> io::Result<Vec<OsString>> {
    let mut names = fs::read_dir(dir)?.map(|entry| Ok(entry?.file_name())).collect::<io::Result<Vec<_>>>()?;
    names.sort();
    Ok(names)
}

/// Reads files for one value.
#[derive(Debug, Default)]
pub(super) struct FileReader {
    snapshot: FilesSnapshot,
}

impl FileReader {
    /// The fingerprints of all that was read.
    pub(super) fn into_snapshot(self) -> FilesSnapshot {
        self.snapshot
    }

    /// The content of a file of at most `octets_max` octets; `None` if there is no file.
    ///
    /// # Errors
    /// As the file system says. A link whose target is missing is an error too: it is a mistake, or a change
    /// under way.
    pub(super) fn read_octets(&mut self, path: &Path, octets_max: u64) -> io::Result<Option<Vec<u8>>> {
        let fingerprint = FileFingerprint::of(path);
        let entry = fingerprint.as_ref().map(|found| *found).map_err(io::Error::kind);
        self.record(path, SnapshotEntry::File { fingerprint: entry, digest: None });
        match fingerprint.map_err(|e| with_permission_hint(path, &e))? {
            None => return Ok(None),
            Some(file) if file.is_dangling_link() => {
                return Err(io::Error::other("is a symbolic link to nothing"));
            }
            Some(_) => {}
        }
        let octets = read_file(path, octets_max).map_err(|e| with_permission_hint(path, &e))?;
        let mut hasher = DefaultHasher::new();
        hasher.write(&octets);
        self.record(path, SnapshotEntry::File { fingerprint: entry, digest: Some(hasher.finish()) });
        Ok(Some(octets))
    }

    /// The content of a file as text; `None` if there is no file.
    ///
    /// # Errors
    /// As [`Self::read_octets`], and for octets that are not UTF-8.
    pub(super) fn read_text(&mut self, path: &Path, octets_max: u64) -> io::Result<Option<String>> {
        let octets = self.read_octets(path, octets_max)?;
        let text = octets.map(String::from_utf8).transpose();
        text.map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "the text in it is not UTF-8"))
    }

    /// The names in a directory, sorted.
    ///
    /// # Errors
    /// As the file system says.
    pub(super) fn read_directory(&mut self, dir: &Path) -> io::Result<Vec<OsString>> {
        let names = read_names(dir);
        let entry = names.as_ref().map(Clone::clone).map_err(io::Error::kind);
        self.record(dir, SnapshotEntry::EntryNames(entry));
        names.map_err(|e| with_permission_hint(dir, &e))
    }

    /// The kind of a directory entry.
    pub(super) fn read_entry_kind(&mut self, path: &Path) -> EntryKind {
        let entry = EntryKind::at(path);
        self.record(path, SnapshotEntry::DirectoryEntry(entry));
        entry
    }

    fn record(&mut self, path: &Path, entry: SnapshotEntry) {
        self.snapshot.0.insert(path.to_owned(), entry);
    }
}

fn read_file(path: &Path, octets_max: u64) -> io::Result<Vec<u8>> {
    let mut octets = Vec::new();
    File::open(path)?.take(octets_max + 1).read_to_end(&mut octets)?;
    if octets.len() as u64 > octets_max {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("larger than {octets_max} octets")));
    }
    Ok(octets)
}

/// The error with its remedy, if permissions are the cause.
pub(super) fn with_permission_hint(path: &Path, error: &io::Error) -> io::Error {
    if error.kind() != io::ErrorKind::PermissionDenied {
        return io::Error::new(error.kind(), error.to_string());
    }
    let user = ServiceUser::of_process();
    let words = match first_inaccessible_dir(path) {
        Some(dir) => format!(
            "{error}: the user {user} may not enter the directory {}; give it that right (chgrp, chmod g+x), \
             or put copies of the files elsewhere",
            dir.display()
        ),
        None => format!("{error}: the user {user} may not read it; give it that right (chgrp, chmod g+r)"),
    };
    io::Error::new(error.kind(), words)
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "a test's files need not be durable")]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_snapshot_is_current_until_a_file_a_link_or_a_name_changes() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        fs::write(path("one"), "1").unwrap();
        symlink("one", path("link")).unwrap();
        let reading = || {
            let mut reader = FileReader::default();
            assert_eq!(reader.read_text(&path("link"), 9).unwrap().as_deref().map(str::len), Some(1));
            reader.read_directory(dir.path()).unwrap();
            assert_eq!(reader.read_entry_kind(&path("folder")), EntryKind::at(&path("folder")));
            reader.into_snapshot()
        };
        type Step<'a> = (&'static str, &'a dyn Fn());
        let steps: [Step<'_>; 4] = [
            ("the file behind the link", &|| fs::write(path("one"), "2").unwrap()),
            ("a new name", &|| fs::write(path("two"), "2").unwrap()),
            ("another target", &|| {
                symlink("two", path("new")).unwrap();
                fs::rename(path("new"), path("link")).unwrap();
            }),
            ("a directory", &|| fs::create_dir(path("folder")).unwrap()),
        ];
        for (what, step) in steps {
            let files = reading();
            assert!(files.is_current(), "before {what}");
            step();
            assert!(!files.is_current(), "{what}");
        }
    }

    #[test]
    fn a_missing_or_emptied_file_is_a_loss_and_a_dangling_link_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        let reading = || {
            let mut reader = FileReader::default();
            let text = reader.read_text(&file, 9);
            (text, reader.into_snapshot())
        };
        fs::write(&file, "x").unwrap();
        let (_, full) = reading();
        fs::write(&file, "").unwrap();
        let (text, emptied) = reading();
        assert_eq!(text.unwrap().unwrap(), "");
        fs::remove_file(&file).unwrap();
        let (text, absent) = reading();
        assert_eq!(text.unwrap(), None);
        symlink("nothing", &file).unwrap();
        let (text, dangling) = reading();
        assert!(text.unwrap_err().to_string().contains("link to nothing"));
        assert!(full.has_losses_in(&emptied) && full.has_losses_in(&absent));
        assert!(!full.has_losses_in(&dangling) && dangling.has_unreadable_files());
        assert!(!emptied.has_losses_in(&absent) && !absent.has_losses_in(&full));
        assert_eq!(full.differing_paths(&absent), [file]);
    }
}
