//! A directory that holds one directory for each thing: `domains/` and `certs/`.
//!
//! The list of directories and the files in each follow the rule of `watched_value`. A new directory is in
//! force once all of its files could be read. A missing one is treated like a missing file, and the files in
//! it are not polled meanwhile. While the list has a problem, nothing is removed.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use super::file_reader::{EntryKind, FileReader, with_permission_hint};
use super::watched_value::{FileWatch, PollResult, PollSettings, WatchedValue};

/// The directories by name, and the problems of entries that cannot be used.
#[derive(Debug)]
pub(super) struct DirectoryListing<K> {
    pub(super) directories: BTreeMap<K, PathBuf>,
    pub(super) problems: Vec<String>,
}

/// The files of one directory.
pub(super) trait WatchedDirectory {
    /// Polls the files.
    fn poll(&mut self, settings: PollSettings, found: &mut PollResult);
    /// The values that are read from the files.
    fn watches(&self) -> Vec<&dyn FileWatch>;
    /// The values, to change them.
    fn watches_mut(&mut self) -> Vec<&mut dyn FileWatch>;
}

/// All directories with their values.
#[derive(Debug, Clone)]
pub(super) struct WatchedDirectories<K, F> {
    listing: WatchedValue<DirectoryListing<K>>,
    in_force: BTreeMap<K, DirectoryAtPath<F>>,
    /// Directories with a file that could not be read yet.
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
    /// Polls the list and the files. `list` reads the list, `make` makes a directory that is not read yet.
    pub(super) fn poll(
        &mut self,
        settings: PollSettings,
        found: &mut PollResult,
        list: impl FnOnce(&mut FileReader) -> Result<DirectoryListing<K>, Vec<String>>,
        make: impl Fn(&K, &Path) -> F,
    ) {
        self.poll_listing(settings, found, list, make);
        for at_path in self.in_force.values_mut() {
            at_path.poll(settings, found);
        }
        for at_path in self.pending.values_mut() {
            // A file of a directory that is not in force changes nothing.
            let mut part = PollResult::default();
            at_path.poll(settings, &mut part);
            found.problems.extend(part.problems);
        }
        let is_ready =
            |at_path: &DirectoryAtPath<F>| at_path.directory.watches().iter().all(|watch| watch.has_value());
        let ready: Vec<K> = self
            .pending
            .iter()
            .filter(|(_, at_path)| is_ready(at_path))
            .map(|(key, _)| key.clone())
            .collect();
        found.is_changed |= !ready.is_empty();
        for key in ready {
            let at_path = self.pending.remove(&key);
            self.in_force.extend(at_path.map(|at_path| (key, at_path)));
        }
    }

    fn poll_listing(
        &mut self,
        settings: PollSettings,
        found: &mut PollResult,
        list: impl FnOnce(&mut FileReader) -> Result<DirectoryListing<K>, Vec<String>>,
        make: impl Fn(&K, &Path) -> F,
    ) {
        let before = self.listing.value().cloned();
        let mut part = PollResult::default();
        self.listing.poll(settings, &mut part, list);
        found.problems.extend(part.problems);
        let Some(listing) = self.listing.value() else { return };
        let was_said =
            |problem: &String| before.as_ref().is_some_and(|before| before.problems.contains(problem));
        found.problems.extend(listing.problems.iter().filter(|problem| !was_said(problem)).cloned());

        // A directory that has become ambiguous or unreadable is not removed.
        let is_clear = listing.problems.is_empty();
        if is_clear {
            let count = self.in_force.len();
            self.in_force.retain(|key, _| listing.directories.contains_key(key));
            found.is_changed |= self.in_force.len() != count;
        }
        self.pending.retain(|key, at_path| listing.directories.get(key) == Some(&at_path.path));
        for (key, path) in &listing.directories {
            // A directory that has moved is read anew; the old version stays in force meanwhile.
            let is_known = self.in_force.get(key).is_some_and(|at_path| !is_clear || at_path.path == *path);
            if !is_known && !self.pending.contains_key(key) {
                let at_path = DirectoryAtPath { path: path.clone(), directory: make(key, path) };
                self.pending.insert(key.clone(), at_path);
            }
        }
    }

    /// The directories in force, by name.
    pub(super) fn in_force(&self) -> impl Iterator<Item = (&K, &F)> {
        self.in_force.iter().map(|(key, at_path)| (key, &at_path.directory))
    }

    /// The paths that are changing.
    pub(super) fn changing_paths(&self) -> Vec<PathBuf> {
        self.watches().into_iter().flat_map(FileWatch::changing_paths).collect()
    }

    /// Every problem.
    pub(super) fn problems(&self) -> Vec<String> {
        let listed = self.listing.value().map_or(&[][..], |listing| &listing.problems);
        listed.iter().chain(self.watches().into_iter().flat_map(FileWatch::problems)).cloned().collect()
    }

    /// Reads everything at the next poll.
    pub(super) fn invalidate(&mut self) {
        self.listing.invalidate();
        let at_path = self.in_force.values_mut().chain(self.pending.values_mut());
        at_path.flat_map(|at_path| at_path.directory.watches_mut()).for_each(FileWatch::invalidate);
    }

    fn watches(&self) -> Vec<&dyn FileWatch> {
        let at_path = self.in_force.values().chain(self.pending.values());
        let mut watches: Vec<&dyn FileWatch> = vec![&self.listing];
        watches.extend(at_path.flat_map(|at_path| at_path.directory.watches()));
        watches
    }
}

impl<F: WatchedDirectory> DirectoryAtPath<F> {
    /// Polls the files, unless the directory is missing; the list treats that.
    fn poll(&mut self, settings: PollSettings, found: &mut PollResult) {
        if EntryKind::at(&self.path) == EntryKind::Directory {
            self.directory.poll(settings, found);
        } else {
            self.directory.watches_mut().into_iter().for_each(FileWatch::discard_change);
        }
    }
}

/// The directories among the entries of `dir`, sorted, and the problems of unreadable entries. Symbolic
/// links are followed; names that begin with a dot are skipped.
pub(super) fn list_directories(
    dir: &Path,
    reader: &mut FileReader,
) -> io::Result<(Vec<PathBuf>, Vec<String>)> {
    let (mut found, mut problems) = (Vec::new(), Vec::new());
    for name in
        reader.read_directory(dir)?.into_iter().filter(|name| !name.as_encoded_bytes().starts_with(b"."))
    {
        let path = dir.join(name);
        match reader.read_entry_kind(&path) {
            EntryKind::Directory => found.push(path),
            // Files beside the directories do not matter, and a vanished entry is not there.
            EntryKind::Absent | EntryKind::NotDirectory => {}
            EntryKind::DanglingSymlink => {
                problems
                    .push(format!("{}: is a symbolic link to nothing; mend or remove it", path.display()));
            }
            EntryKind::Inaccessible(kind) => {
                let error = with_permission_hint(&path, &kind.into());
                problems.push(format!("{}: {error}; the server must be able to read it", path.display()));
            }
        }
    }
    Ok((found, problems))
}
