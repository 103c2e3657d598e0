//! One thing that the operator writes in files, in the last version that could be read.
//!
//! A file that is just being written is left alone until two looks in a row find it the same; one
//! that is gone only counts as removed after [`GONE_LOOKS`]. What does not parse keeps the old
//! version in force and is said once; what cannot be looked at at all (any error but "not found")
//! is never removed.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::sys::{Stamp, read_text};

/// Looks in a row that must find nothing where something was.
const GONE_LOOKS: u8 = 5;

/// What a look found.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Look {
    /// There is something new: take the users, the aliases and the list of domains again.
    pub is_changed: bool,
    /// What is wrong and was not said before; the old state of it stays in force.
    pub complaints: Vec<String>,
}

/// What a file and those that it names hold, in the last version that parsed. No file is an empty
/// one.
#[derive(Debug)]
pub(super) struct Watched<T> {
    pub(super) value: Arc<T>,
    /// The version that was last read, whether it parsed or not: first the file itself.
    read: Files,
    /// What the last look saw of the same files.
    seen: Vec<Option<Stamp>>,
    /// Looks in a row that did not find the file.
    gone: u8,
    /// Why the last look could not read it.
    said: Option<String>,
}

/// Files, as they were when they were read; none if there was none.
pub(super) type Files = Vec<(PathBuf, Option<Stamp>)>;

/// What reading came to.
pub(super) struct Reading<T> {
    pub(super) result: Result<T, Unread>,
    /// Files that the file named, with stamps from before they were read.
    pub(super) others: Files,
}

/// Why a file is not in force.
pub(super) enum Unread {
    /// It may be readable at the next look.
    Io(String),
    /// It stays wrong until it changes.
    Wrong(Vec<String>),
}

impl Unread {
    fn io(path: &Path, error: &io::Error) -> Self {
        Self::Io(format!("{}: {error}; the server must be able to read it", path.display()))
    }

    pub(super) fn into_complaints(self) -> Vec<String> {
        match self {
            Self::Io(complaint) => vec![complaint],
            Self::Wrong(complaints) => complaints,
        }
    }
}

/// The text of a file of at most so many octets.
pub(super) fn text_of(path: &Path, octets_max: u64) -> Result<String, Unread> {
    read_text(path, octets_max).map_err(|e| Unread::io(path, &e))
}

/// Counts the looks in a row that did not find something; true once it is gone for good.
pub(super) fn is_gone(gone: &mut u8, is_there: bool) -> bool {
    *gone = if is_there { 0 } else { gone.saturating_add(1) };
    *gone >= GONE_LOOKS
}

impl<T: Default> Watched<T> {
    pub(super) fn read(path: &Path, read: impl FnOnce() -> Reading<T>) -> Result<Self, Unread> {
        // The stamp first: a change while we read makes the next look read again.
        let stamp = Stamp::of(path).map_err(|e| Unread::io(path, &e))?;
        let mut files = vec![(path.to_owned(), stamp)];
        let mut value = T::default();
        if stamp.is_some() {
            let Reading { result, others } = read();
            value = result?;
            files.extend(others);
        }
        let seen = files.iter().map(|(_, stamp)| *stamp).collect();
        Ok(Self { value: Arc::new(value), read: files, seen, gone: 0, said: None })
    }

    pub(super) fn look(&mut self, look: &mut Look, read: impl FnOnce() -> Reading<T>) {
        match self.look_again(read) {
            Ok(None) => self.said = None,
            Ok(Some(value)) => {
                self.value = Arc::new(value);
                self.said = None;
                look.is_changed = true;
            }
            Err(Unread::Wrong(complaints)) => look.complaints.extend(complaints),
            Err(Unread::Io(complaint)) => {
                if self.said.as_ref() != Some(&complaint) {
                    look.complaints.push(complaint.clone());
                }
                self.said = Some(complaint);
            }
        }
    }

    /// A new version, if there is one.
    fn look_again(&mut self, read: impl FnOnce() -> Reading<T>) -> Result<Option<T>, Unread> {
        let stamp = |(path, _): &(PathBuf, _)| Stamp::of(path).map_err(|e| Unread::io(path, &e));
        let stamps = self.read.iter().map(stamp).collect::<Result<Vec<_>, _>>()?;
        let is_settled = stamps == self.seen;
        self.seen.clone_from(&stamps);
        let is_there = matches!(stamps.first(), Some(Some(_)));
        let is_gone = is_gone(&mut self.gone, is_there);
        let is_as_read = self.read.iter().map(|(_, stamp)| stamp).eq(&stamps);
        if is_as_read || !is_settled || (!is_there && !is_gone) {
            return Ok(None);
        }
        let Reading { result, others } =
            if is_there { read() } else { Reading { result: Ok(T::default()), others: Files::new() } };
        if !matches!(result, Err(Unread::Io(_))) {
            self.read.truncate(1);
            self.read.iter_mut().zip(stamps).for_each(|((_, read), stamp)| *read = stamp);
            self.read.extend(others);
            self.seen = self.read.iter().map(|(_, stamp)| *stamp).collect();
        }
        result.map(Some)
    }
}
