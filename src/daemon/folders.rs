//! A directory with one directory in it for each thing: `domains/` and `certs/`.
//!
//! The list of directories and the files in each are looked at by the one rule of `watched`. A new
//! directory counts once all of its files could be read; one that is gone is believed as late as a missing
//! file, and nothing in it is looked at meanwhile. While the list itself is wrong, nothing is removed.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use super::reader::{Entry, FileReader, explained};
use super::watched::{Look, Looks, Unit, Watched};

/// The directories by name, and those that cannot be used.
#[derive(Debug)]
pub(super) struct Listing<K> {
    pub(super) found: BTreeMap<K, PathBuf>,
    pub(super) complaints: Vec<String>,
}

/// What is read from one directory.
pub(super) trait Folder {
    /// Looks at the files in it.
    fn look(&mut self, looks: Looks, found: &mut Look);
    /// What is read from it, each by itself.
    fn units(&self) -> Vec<&dyn Unit>;
    /// The same, to change it.
    fn units_mut(&mut self) -> Vec<&mut dyn Unit>;
}

/// All directories, with what was read from them.
#[derive(Debug, Clone)]
pub(super) struct Folders<K, F> {
    listing: Watched<Listing<K>>,
    in_force: BTreeMap<K, Placed<F>>,
    /// Directories that were found and could not all be read yet.
    coming: BTreeMap<K, Placed<F>>,
}

#[derive(Debug, Clone)]
struct Placed<F> {
    path: PathBuf,
    folder: F,
}

impl<K, F> Default for Folders<K, F> {
    fn default() -> Self {
        Self { listing: Watched::default(), in_force: BTreeMap::new(), coming: BTreeMap::new() }
    }
}

impl<K: Ord + Clone, F: Folder> Folders<K, F> {
    /// Looks at the list and at the files. `list` reads the list, `make` begins to read a new directory.
    pub(super) fn look(
        &mut self,
        looks: Looks,
        found: &mut Look,
        list: impl FnOnce(&mut FileReader) -> Result<Listing<K>, Vec<String>>,
        make: impl Fn(&K, &Path) -> F,
    ) {
        self.look_at_list(looks, found, list, make);
        for placed in self.in_force.values_mut() {
            placed.look(looks, found);
        }
        for placed in self.coming.values_mut() {
            // A part of a new directory changes nothing.
            let mut theirs = Look::default();
            placed.look(looks, &mut theirs);
            found.complaints.extend(theirs.complaints);
        }
        let is_ready = |placed: &Placed<F>| placed.folder.units().iter().all(|unit| unit.is_read());
        let ready: Vec<K> =
            self.coming.iter().filter(|(_, placed)| is_ready(placed)).map(|(key, _)| key.clone()).collect();
        found.is_changed |= !ready.is_empty();
        for key in ready {
            let placed = self.coming.remove(&key);
            self.in_force.extend(placed.map(|placed| (key, placed)));
        }
    }

    fn look_at_list(
        &mut self,
        looks: Looks,
        found: &mut Look,
        list: impl FnOnce(&mut FileReader) -> Result<Listing<K>, Vec<String>>,
        make: impl Fn(&K, &Path) -> F,
    ) {
        let before = self.listing.value().cloned();
        let mut theirs = Look::default();
        self.listing.look(looks, &mut theirs, list);
        found.complaints.extend(theirs.complaints);
        let Some(listing) = self.listing.value() else { return };
        let was_said =
            |complaint: &String| before.as_ref().is_some_and(|before| before.complaints.contains(complaint));
        found.complaints.extend(listing.complaints.iter().filter(|complaint| !was_said(complaint)).cloned());

        // A directory that has become ambiguous, or cannot be looked at, is no reason to drop it.
        let is_clear = listing.complaints.is_empty();
        if is_clear {
            let count = self.in_force.len();
            self.in_force.retain(|key, _| listing.found.contains_key(key));
            found.is_changed |= self.in_force.len() != count;
        }
        self.coming.retain(|key, placed| listing.found.get(key) == Some(&placed.path));
        for (key, path) in &listing.found {
            // Found in another place, it is read anew, and the old version stays until then.
            let is_known = self.in_force.get(key).is_some_and(|placed| !is_clear || placed.path == *path);
            if !is_known && !self.coming.contains_key(key) {
                let placed = Placed { path: path.clone(), folder: make(key, path) };
                self.coming.insert(key.clone(), placed);
            }
        }
    }

    /// What is in force, by name.
    pub(super) fn in_force(&self) -> impl Iterator<Item = (&K, &F)> {
        self.in_force.iter().map(|(key, placed)| (key, &placed.folder))
    }

    /// What is changing and not believed yet.
    pub(super) fn changing(&self) -> Vec<PathBuf> {
        self.units().into_iter().flat_map(Unit::changing).collect()
    }

    /// Everything that is wrong.
    pub(super) fn complaints(&self) -> Vec<String> {
        let listed = self.listing.value().map_or(&[][..], |listing| &listing.complaints);
        listed.iter().chain(self.units().into_iter().flat_map(Unit::complaints)).cloned().collect()
    }

    /// Reads everything at the next look.
    pub(super) fn distrust(&mut self) {
        self.listing.distrust();
        let placed = self.in_force.values_mut().chain(self.coming.values_mut());
        placed.flat_map(|placed| placed.folder.units_mut()).for_each(Unit::distrust);
    }

    fn units(&self) -> Vec<&dyn Unit> {
        let placed = self.in_force.values().chain(self.coming.values());
        let mut units: Vec<&dyn Unit> = vec![&self.listing];
        units.extend(placed.flat_map(|placed| placed.folder.units()));
        units
    }
}

impl<F: Folder> Placed<F> {
    /// Looks at the files unless the directory is away: the list says what becomes of that.
    fn look(&mut self, looks: Looks, found: &mut Look) {
        if Entry::at(&self.path) == Entry::Directory {
            self.folder.look(looks, found);
        } else {
            self.folder.units_mut().into_iter().for_each(Unit::forget_change);
        }
    }
}

/// The directories among the entries of `dir`, sorted, and what is wrong with entries that cannot be
/// looked at. Symbolic links are followed; names that begin with a dot are left alone.
pub(super) fn directories_in(dir: &Path, reader: &mut FileReader) -> io::Result<(Vec<PathBuf>, Vec<String>)> {
    let (mut found, mut complaints) = (Vec::new(), Vec::new());
    for name in reader.names(dir)?.into_iter().filter(|name| !name.as_encoded_bytes().starts_with(b".")) {
        let path = dir.join(name);
        match reader.entry(&path) {
            Entry::Directory => found.push(path),
            // Files beside the directories are nobody's business, and what vanished meanwhile is not there.
            Entry::Absent | Entry::Other => {}
            Entry::LeadsNowhere => {
                complaints
                    .push(format!("{}: is a symbolic link to nothing; mend or remove it", path.display()));
            }
            Entry::OutOfReach(kind) => {
                let error = explained(&path, &kind.into());
                complaints.push(format!("{}: {error}; the server must be able to read it", path.display()));
            }
        }
    }
    Ok((found, complaints))
}
