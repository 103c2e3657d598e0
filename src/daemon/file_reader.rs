//! Reads the operator's files, and notes what it found where, to know later whether that still holds.
//!
//! One reading makes one value of any number of files and directories. The fingerprint of each is taken
//! before it is read; [`Files::are_current`] takes it again. A reading whose fingerprints are the same
//! afterwards saw one state of the files and no mixture of two.

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

/// Coarsest time stamps of a file system: two writes in that time may leave one fingerprint.
const TIMESTAMP_GRANULARITY_MAX: Duration = Duration::from_secs(2);

/// What a reading found, by path.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct FilesSnapshot(BTreeMap<PathBuf, SnapshotEntry>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum SnapshotEntry {
    /// A file, and a digest of what it held; none if it was not read.
    File { fingerprint: Result<Option<FileFingerprint>, io::ErrorKind>, digest: Option<u64> },
    /// What an entry of a directory is. What is in it is noted by those who read it.
    DirectoryEntry(EntryKind),
    /// The names in a directory, sorted.
    EntryNames(Result<Vec<OsString>, io::ErrorKind>),
}

/// What an entry of a directory is, links followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum EntryKind {
    Absent,
    Directory,
    /// A file, or something else that is no directory.
    NotDirectory,
    /// A symbolic link to nothing.
    DanglingSymlink,
    Inaccessible(io::ErrorKind),
}

impl EntryKind {
    /// What there is at `path`.
    pub(super) fn at(path: &Path) -> Self {
        match fs::metadata(path) {
            Ok(facts) if facts.is_dir() => Self::Directory,
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

    /// There is something that can be taken away.
    fn has_content(&self) -> bool {
        match self {
            Self::File { fingerprint, .. } => matches!(fingerprint, Ok(Some(file)) if file.has_content()),
            Self::DirectoryEntry(entry) => *entry == EntryKind::Directory,
            Self::EntryNames(names) => names.is_ok(),
        }
    }

    /// There is nothing, or nothing in it.
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
    /// Every file and directory is as the reading found it, by its fingerprint.
    pub(super) fn is_current(&self) -> bool {
        self.0.iter().all(|(path, noted)| noted.is_current(path))
    }

    /// Something is gone or empty in `later` that was there in this reading.
    pub(super) fn has_losses_in(&self, later: &Self) -> bool {
        let mut there = self.0.iter().filter(|(_, noted)| noted.has_content());
        there.any(|(path, noted)| match later.0.get(path) {
            Some(now) => now.is_missing_or_empty(),
            None => match noted {
                // A file that nothing names any longer.
                SnapshotEntry::File { .. } | SnapshotEntry::EntryNames(_) => false,
                // A name that the directory no longer has.
                SnapshotEntry::DirectoryEntry(_) => {
                    matches!(EntryKind::at(path), EntryKind::Absent | EntryKind::NotDirectory)
                }
            },
        })
    }

    /// The paths at which the two readings differ.
    pub(super) fn differing_paths(&self, other: &Self) -> Vec<PathBuf> {
        let paths = self.0.keys().chain(other.0.keys().filter(|path| !self.0.contains_key(*path)));
        paths.filter(|path| self.0.get(*path) != other.0.get(*path)).cloned().collect()
    }

    /// Something is there and could not be read: the next look may find it readable, and no fingerprint
    /// tells.
    pub(super) fn has_unreadable_files(&self) -> bool {
        self.0.values().any(|noted| match noted {
            SnapshotEntry::File { fingerprint: Ok(Some(_)), digest } => digest.is_none(),
            SnapshotEntry::File { fingerprint: Ok(None), .. } | SnapshotEntry::DirectoryEntry(_) => false,
            SnapshotEntry::File { fingerprint: Err(_), .. } => true,
            SnapshotEntry::EntryNames(names) => {
                matches!(names, Err(kind) if *kind != io::ErrorKind::NotFound)
            }
        })
    }

    /// Nothing has changed for so long.
    pub(super) fn is_unchanged_for(&self, time: Duration) -> bool {
        self.0.keys().all(|path| is_unchanged_for(path, time))
    }

    /// A file changed so short a time ago that a further change may leave the same fingerprint.
    pub(super) fn is_just_changed(&self) -> bool {
        let mut files = self.0.iter().filter(|(_, noted)| matches!(noted, SnapshotEntry::File { .. }));
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

/// One reading.
#[derive(Debug, Default)]
pub(super) struct FileReader {
    snapshot: FilesSnapshot,
}

impl FileReader {
    /// What was found.
    pub(super) fn into_snapshot(self) -> FilesSnapshot {
        self.snapshot
    }

    /// The octets of a file of at most so many; none if there is no file.
    ///
    /// # Errors
    /// As the file system says, and for a link to nothing: that is a mistake, or a change under way.
    pub(super) fn read_octets(&mut self, path: &Path, octets_max: u64) -> io::Result<Option<Vec<u8>>> {
        let fingerprint = FileFingerprint::of(path);
        let noted = fingerprint.as_ref().map(|found| *found).map_err(io::Error::kind);
        self.record(path, SnapshotEntry::File { fingerprint: noted, digest: None });
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
        self.record(path, SnapshotEntry::File { fingerprint: noted, digest: Some(hasher.finish()) });
        Ok(Some(octets))
    }

    /// The same as text.
    ///
    /// # Errors
    /// The same, and for octets that are not UTF-8.
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
        let noted = names.as_ref().map(Clone::clone).map_err(io::Error::kind);
        self.record(dir, SnapshotEntry::EntryNames(noted));
        names.map_err(|e| with_permission_hint(dir, &e))
    }

    /// What an entry of a directory is.
    pub(super) fn read_entry_kind(&mut self, path: &Path) -> EntryKind {
        let entry = EntryKind::at(path);
        self.record(path, SnapshotEntry::DirectoryEntry(entry));
        entry
    }

    fn record(&mut self, path: &Path, noted: SnapshotEntry) {
        self.snapshot.0.insert(path.to_owned(), noted);
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

/// The error with what the operator must change, where permissions are in the way.
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
    fn a_reading_is_current_until_a_file_a_link_or_a_name_changes() {
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
    fn what_is_gone_or_emptied_is_a_loss_and_a_link_to_nothing_is_an_error() {
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
