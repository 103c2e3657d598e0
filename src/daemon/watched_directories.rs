//! A directory with one directory in it for each thing: `domains/` and `certs/`.
//!
//! The list of directories and the files in each are looked at by the one rule of `watched`. A new
//! directory counts once all of its files could be read; one that is gone is believed as late as a missing
//! file, and nothing in it is looked at meanwhile. While the list itself is wrong, nothing is removed.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use super::file_reader::{EntryKind, FileReader, with_permission_hint};
use super::watched_value::{FileWatch, PollResult, PollSettings, WatchedValue};

/// The directories by name, and those that cannot be used.
#[derive(Debug)]
pub(super) struct DirectoryListing<K> {
    pub(super) directories: BTreeMap<K, PathBuf>,
    pub(super) problems: Vec<String>,
}

/// What is read from one directory.
pub(super) trait WatchedDirectory {
    /// Looks at the files in it.
    fn poll(&mut self, looks: PollSettings, found: &mut PollResult);
    /// What is read from it, each by itself.
    fn watches(&self) -> Vec<&dyn FileWatch>;
    /// The same, to change it.
    fn watches_mut(&mut self) -> Vec<&mut dyn FileWatch>;
}

/// All directories, with what was read from them.
#[derive(Debug, Clone)]
pub(super) struct WatchedDirectories<K, F> {
    listing: WatchedValue<DirectoryListing<K>>,
    in_force: BTreeMap<K, DirectoryAtPath<F>>,
    /// Directories that were found and could not all be read yet.
    pending: BTreeMap<K, DirectoryAtPath<F>>,
}

#[derive(Debug, Clone)]
struct DirectoryAtPath<F> {
    path: PathBuf,
    directory: F,
}

impl<K, F> Default for WatchedDirectories<K, F> {
    fn default() -> Self {
        Self { listing: WatchedValue::default(), in_force: BTreeMap::new(), pending: BTreeMap::new() }
    }
}

impl<K: Ord + Clone, F: WatchedDirectory> WatchedDirectories<K, F> {
    /// Looks at the list and at the files. `list` reads the list, `make` begins to read a new directory.
    pub(super) fn poll(
        &mut self,
        looks: PollSettings,
        found: &mut PollResult,
        list: impl FnOnce(&mut FileReader) -> Result<DirectoryListing<K>, Vec<String>>,
        make: impl Fn(&K, &Path) -> F,
    ) {
        self.poll_listing(looks, found, list, make);
        for placed in self.in_force.values_mut() {
            placed.poll(looks, found);
        }
        for placed in self.pending.values_mut() {
            // A part of a new directory changes nothing.
            let mut theirs = PollResult::default();
            placed.poll(looks, &mut theirs);
            found.problems.extend(theirs.problems);
        }
        let is_ready =
            |placed: &DirectoryAtPath<F>| placed.directory.watches().iter().all(|unit| unit.has_value());
        let ready: Vec<K> =
            self.pending.iter().filter(|(_, placed)| is_ready(placed)).map(|(key, _)| key.clone()).collect();
        found.is_changed |= !ready.is_empty();
        for key in ready {
            let placed = self.pending.remove(&key);
            self.in_force.extend(placed.map(|placed| (key, placed)));
        }
    }

    fn poll_listing(
        &mut self,
        looks: PollSettings,
        found: &mut PollResult,
        list: impl FnOnce(&mut FileReader) -> Result<DirectoryListing<K>, Vec<String>>,
        make: impl Fn(&K, &Path) -> F,
    ) {
        let before = self.listing.value().cloned();
        let mut theirs = PollResult::default();
        self.listing.poll(looks, &mut theirs, list);
        found.problems.extend(theirs.problems);
        let Some(listing) = self.listing.value() else { return };
        let was_said =
            |complaint: &String| before.as_ref().is_some_and(|before| before.problems.contains(complaint));
        found.problems.extend(listing.problems.iter().filter(|complaint| !was_said(complaint)).cloned());

        // A directory that has become ambiguous, or cannot be looked at, is no reason to drop it.
        let is_clear = listing.problems.is_empty();
        if is_clear {
            let count = self.in_force.len();
            self.in_force.retain(|key, _| listing.directories.contains_key(key));
            found.is_changed |= self.in_force.len() != count;
        }
        self.pending.retain(|key, placed| listing.directories.get(key) == Some(&placed.path));
        for (key, path) in &listing.directories {
            // Found in another place, it is read anew, and the old version stays until then.
            let is_known = self.in_force.get(key).is_some_and(|placed| !is_clear || placed.path == *path);
            if !is_known && !self.pending.contains_key(key) {
                let placed = DirectoryAtPath { path: path.clone(), directory: make(key, path) };
                self.pending.insert(key.clone(), placed);
            }
        }
    }

    /// What is in force, by name.
    pub(super) fn in_force(&self) -> impl Iterator<Item = (&K, &F)> {
        self.in_force.iter().map(|(key, placed)| (key, &placed.directory))
    }

    /// What is changing and not believed yet.
    pub(super) fn changing_paths(&self) -> Vec<PathBuf> {
        self.watches().into_iter().flat_map(FileWatch::changing_paths).collect()
    }

    /// Everything that is wrong.
    pub(super) fn problems(&self) -> Vec<String> {
        let listed = self.listing.value().map_or(&[][..], |listing| &listing.problems);
        listed.iter().chain(self.watches().into_iter().flat_map(FileWatch::problems)).cloned().collect()
    }

    /// Reads everything at the next look.
    pub(super) fn invalidate(&mut self) {
        self.listing.invalidate();
        let placed = self.in_force.values_mut().chain(self.pending.values_mut());
        placed.flat_map(|placed| placed.directory.watches_mut()).for_each(FileWatch::invalidate);
    }

    fn watches(&self) -> Vec<&dyn FileWatch> {
        let placed = self.in_force.values().chain(self.pending.values());
        let mut units: Vec<&dyn FileWatch> = vec![&self.listing];
        units.extend(placed.flat_map(|placed| placed.directory.watches()));
        units
    }
}

impl<F: WatchedDirectory> DirectoryAtPath<F> {
    /// Looks at the files unless the directory is away: the list says what becomes of that.
    fn poll(&mut self, looks: PollSettings, found: &mut PollResult) {
        if EntryKind::at(&self.path) == EntryKind::Directory {
            self.directory.poll(looks, found);
        } else {
            self.directory.watches_mut().into_iter().for_each(FileWatch::discard_change);
        }
    }
}

/// The directories among the entries of `dir`, sorted, and what is wrong with entries that cannot be
/// looked at. Symbolic links are followed; names that begin with a dot are left alone.
pub(super) fn list_directories(
    dir: &Path,
    reader: &mut FileReader,
) -> io::Result<(Vec<PathBuf>, Vec<String>)> {
    let (mut found, mut complaints) = (Vec::new(), Vec::new());
    for name in
        reader.read_directory(dir)?.into_iter().filter(|name| !name.as_encoded_bytes().starts_with(b"."))
    {
        let path = dir.join(name);
        match reader.read_entry_kind(&path) {
            EntryKind::Directory => found.push(path),
            // Files beside the directories are nobody's business, and what vanished meanwhile is not there.
            EntryKind::Absent | EntryKind::NotDirectory => {}
            EntryKind::DanglingSymlink => {
                complaints
                    .push(format!("{}: is a symbolic link to nothing; mend or remove it", path.display()));
            }
            EntryKind::Inaccessible(kind) => {
                let error = with_permission_hint(&path, &kind.into());
                complaints.push(format!("{}: {error}; the server must be able to read it", path.display()));
            }
        }
    }
    Ok((found, complaints))
}
