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

use crate::sys::{FileFingerprint, ServiceUser, has_just_changed, has_rested, obstacle};

/// Coarsest time stamps of a file system: two writes in that time may leave one fingerprint.
const TICK_MAX: Duration = Duration::from_secs(2);

/// What a reading found, by path.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Files(BTreeMap<PathBuf, Noted>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Noted {
    /// A file, and a digest of what it held; none if it was not read.
    File { fingerprint: Result<Option<FileFingerprint>, io::ErrorKind>, digest: Option<u64> },
    /// What an entry of a directory is. What is in it is noted by those who read it.
    Entry(Entry),
    /// The names in a directory, sorted.
    Names(Result<Vec<OsString>, io::ErrorKind>),
}

/// What an entry of a directory is, links followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Entry {
    Absent,
    Directory,
    /// A file, or something else that is no directory.
    Other,
    /// A symbolic link to nothing.
    LeadsNowhere,
    OutOfReach(io::ErrorKind),
}

impl Entry {
    /// What there is at `path`.
    pub(super) fn at(path: &Path) -> Self {
        match fs::metadata(path) {
            Ok(facts) if facts.is_dir() => Self::Directory,
            Ok(_) => Self::Other,
            Err(e) if e.kind() == io::ErrorKind::NotFound && fs::symlink_metadata(path).is_ok() => {
                Self::LeadsNowhere
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => Self::Absent,
            Err(e) => Self::OutOfReach(e.kind()),
        }
    }
}

impl Noted {
    fn is_current(&self, path: &Path) -> bool {
        match self {
            Self::File { fingerprint, .. } => *fingerprint == fingerprint_of(path),
            Self::Entry(entry) => *entry == Entry::at(path),
            Self::Names(names) => *names == names_in(path).map_err(|e| e.kind()),
        }
    }

    /// There is something that can be taken away.
    fn is_there(&self) -> bool {
        match self {
            Self::File { fingerprint, .. } => matches!(fingerprint, Ok(Some(file)) if file.has_content()),
            Self::Entry(entry) => *entry == Entry::Directory,
            Self::Names(names) => names.is_ok(),
        }
    }

    /// There is nothing, or nothing in it.
    fn is_gone(&self) -> bool {
        match self {
            Self::File { fingerprint: Ok(Some(file)), .. } => !file.has_content() && !file.leads_nowhere(),
            Self::File { fingerprint: Ok(None), .. } => true,
            Self::Entry(entry) => matches!(entry, Entry::Absent | Entry::Other),
            Self::File { fingerprint: Err(kind), .. } | Self::Names(Err(kind)) => {
                *kind == io::ErrorKind::NotFound
            }
            Self::Names(Ok(_)) => false,
        }
    }
}

impl Files {
    /// Every file and directory is as the reading found it, by its fingerprint.
    pub(super) fn are_current(&self) -> bool {
        self.0.iter().all(|(path, noted)| noted.is_current(path))
    }

    /// Something is gone or empty in `later` that was there in this reading.
    pub(super) fn lose_something_in(&self, later: &Self) -> bool {
        let mut there = self.0.iter().filter(|(_, noted)| noted.is_there());
        there.any(|(path, noted)| match later.0.get(path) {
            Some(now) => now.is_gone(),
            None => match noted {
                // A file that nothing names any longer.
                Noted::File { .. } | Noted::Names(_) => false,
                // A name that the directory no longer has.
                Noted::Entry(_) => matches!(Entry::at(path), Entry::Absent | Entry::Other),
            },
        })
    }

    /// The paths at which the two readings differ.
    pub(super) fn differing(&self, other: &Self) -> Vec<PathBuf> {
        let paths = self.0.keys().chain(other.0.keys().filter(|path| !self.0.contains_key(*path)));
        paths.filter(|path| self.0.get(*path) != other.0.get(*path)).cloned().collect()
    }

    /// Something is there and could not be read: the next look may find it readable, and no fingerprint
    /// tells.
    pub(super) fn have_unread(&self) -> bool {
        self.0.values().any(|noted| match noted {
            Noted::File { fingerprint: Ok(Some(_)), digest } => digest.is_none(),
            Noted::File { fingerprint: Ok(None), .. } | Noted::Entry(_) => false,
            Noted::File { fingerprint: Err(_), .. } => true,
            Noted::Names(names) => matches!(names, Err(kind) if *kind != io::ErrorKind::NotFound),
        })
    }

    /// Nothing has changed for so long.
    pub(super) fn have_rested(&self, time: Duration) -> bool {
        self.0.keys().all(|path| has_rested(path, time))
    }

    /// A file changed so short a time ago that a further change may leave the same fingerprint.
    pub(super) fn have_just_changed(&self) -> bool {
        let mut files = self.0.iter().filter(|(_, noted)| matches!(noted, Noted::File { .. }));
        files.any(|(path, _)| has_just_changed(path, TICK_MAX))
    }
}

fn fingerprint_of(path: &Path) -> Result<Option<FileFingerprint>, io::ErrorKind> {
    FileFingerprint::of(path).map_err(|e| e.kind())
}

fn names_in(dir: &Path) -> io::Result<Vec<OsString>> {
    let mut names = fs::read_dir(dir)?.map(|entry| Ok(entry?.file_name())).collect::<io::Result<Vec<_>>>()?;
    names.sort();
    Ok(names)
}

/// One reading.
#[derive(Debug, Default)]
pub(super) struct FileReader {
    files: Files,
}

impl FileReader {
    /// What was found.
    pub(super) fn into_files(self) -> Files {
        self.files
    }

    /// The octets of a file of at most so many; none if there is no file.
    ///
    /// # Errors
    /// As the file system says, and for a link to nothing: that is a mistake, or a change under way.
    pub(super) fn octets(&mut self, path: &Path, octets_max: u64) -> io::Result<Option<Vec<u8>>> {
        let fingerprint = FileFingerprint::of(path);
        let noted = fingerprint.as_ref().map(|found| *found).map_err(io::Error::kind);
        self.note(path, Noted::File { fingerprint: noted, digest: None });
        match fingerprint.map_err(|e| explained(path, &e))? {
            None => return Ok(None),
            Some(file) if file.leads_nowhere() => {
                return Err(io::Error::other("is a symbolic link to nothing"));
            }
            Some(_) => {}
        }
        let octets = read(path, octets_max).map_err(|e| explained(path, &e))?;
        let mut hasher = DefaultHasher::new();
        hasher.write(&octets);
        self.note(path, Noted::File { fingerprint: noted, digest: Some(hasher.finish()) });
        Ok(Some(octets))
    }

    /// The same as text.
    ///
    /// # Errors
    /// The same, and for octets that are not UTF-8.
    pub(super) fn text(&mut self, path: &Path, octets_max: u64) -> io::Result<Option<String>> {
        let octets = self.octets(path, octets_max)?;
        let text = octets.map(String::from_utf8).transpose();
        text.map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "the text in it is not UTF-8"))
    }

    /// The names in a directory, sorted.
    ///
    /// # Errors
    /// As the file system says.
    pub(super) fn names(&mut self, dir: &Path) -> io::Result<Vec<OsString>> {
        let names = names_in(dir);
        let noted = names.as_ref().map(Clone::clone).map_err(io::Error::kind);
        self.note(dir, Noted::Names(noted));
        names.map_err(|e| explained(dir, &e))
    }

    /// What an entry of a directory is.
    pub(super) fn entry(&mut self, path: &Path) -> Entry {
        let entry = Entry::at(path);
        self.note(path, Noted::Entry(entry));
        entry
    }

    fn note(&mut self, path: &Path, noted: Noted) {
        self.files.0.insert(path.to_owned(), noted);
    }
}

fn read(path: &Path, octets_max: u64) -> io::Result<Vec<u8>> {
    let mut octets = Vec::new();
    File::open(path)?.take(octets_max + 1).read_to_end(&mut octets)?;
    if octets.len() as u64 > octets_max {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("larger than {octets_max} octets")));
    }
    Ok(octets)
}

/// The error with what the operator must change, where permissions are in the way.
pub(super) fn explained(path: &Path, error: &io::Error) -> io::Error {
    if error.kind() != io::ErrorKind::PermissionDenied {
        return io::Error::new(error.kind(), error.to_string());
    }
    let user = ServiceUser::own();
    let words = match obstacle(path) {
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
            assert_eq!(reader.text(&path("link"), 9).unwrap().as_deref().map(str::len), Some(1));
            reader.names(dir.path()).unwrap();
            assert_eq!(reader.entry(&path("folder")), Entry::at(&path("folder")));
            reader.into_files()
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
            assert!(files.are_current(), "before {what}");
            step();
            assert!(!files.are_current(), "{what}");
        }
    }

    #[test]
    fn what_is_gone_or_emptied_is_a_loss_and_a_link_to_nothing_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        let reading = || {
            let mut reader = FileReader::default();
            let text = reader.text(&file, 9);
            (text, reader.into_files())
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
        assert!(full.lose_something_in(&emptied) && full.lose_something_in(&absent));
        assert!(!full.lose_something_in(&dangling) && dangling.have_unread());
        assert!(!emptied.lose_something_in(&absent) && !absent.lose_something_in(&full));
        assert_eq!(full.differing(&absent), [file]);
    }
}
