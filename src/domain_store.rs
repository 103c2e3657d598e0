//! A store of small JSON files, one for each domain: cache, bounds, damage, versions.
//!
//! What the files hold is up to the store's user: any value that serde can write. A person can read a
//! file with `cat` and may remove it while the server is stopped ([`DomainStore::remove`] does so while
//! it runs). The file name of a [`Domain`] has only a-z, 0-9, hyphens and dots, so no name leaves
//! the directory. Address literals, and domains too long for a file name, are not stored.
//!
//! Guarantees that a value is on disk, synced, before the update that changed it returns, so that
//! `kill -9` cannot undo what the caller acts upon. When the disk fails:
//!
//! - not writable: the value is kept in memory for as long as the domain is cached; each later update of
//!   the domain tries to write it again; logged and counted;
//! - not readable, or written by a newer version: no value is known for this call and the file is left
//!   alone; logged and counted;
//! - damaged: moved aside as `NAME.json.MILLISECONDS.damaged`; logged and counted; no value is known.
//!
//! A file is read when its domain is first asked for. The cache is bounded, and so is the number of files:
//! beyond it, new domains are not recorded. Called from many threads. One lock guards the cache and is
//! never held across input or output. Each cached domain has a lock of its own that is held across both:
//! two threads that update one domain write one after the other, and neither goes on before its value is
//! saved. Other domains do not wait for it.

mod file_format;
#[cfg(test)]
mod tests;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use lru::LruCache;
use serde::Serialize;
use serde::de::DeserializeOwned;

use self::file_format::DecodeError;
use crate::mail::Domain;
use crate::observe::Counter;
use crate::sys::{Clock, Disk, Mutex, Random, create_dir_all, replace_file};

/// Domains held in memory, apart from those in use.
const CACHED_DOMAINS_MAX: usize = 4096;

/// Where a store keeps its files, and how many.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The directory of the files; made if it is missing. No other store may use it.
    pub dir: PathBuf,
    /// The subject of the files, for the log.
    pub subject: &'static str,
    /// Version of the files that this program writes; it reads this one and older ones.
    pub version: u32,
    /// Domains that have a file, at most.
    pub files_max: usize,
    /// A larger file is damaged.
    pub file_octets_max: u64,
}

/// What a store counts. The user of the store names the metrics.
pub struct Counters {
    /// Files that were not read or not written.
    pub errors: Counter,
    /// Damaged files that were moved aside.
    pub damaged: Counter,
    /// Domains that were not recorded because there are too many files.
    pub not_recorded: Counter,
}

/// The disk and the other interfaces of the system that a store uses.
pub struct Interfaces {
    /// Keeps the files.
    pub disk: Arc<dyn Disk>,
    /// Names temporary files.
    pub random: Arc<dyn Random>,
    /// Names files that are moved aside.
    pub clock: Arc<dyn Clock>,
}

/// Values of type `T` by domain. Shared by threads.
pub struct DomainStore<T> {
    interfaces: Interfaces,
    settings: Settings,
    counters: Counters,
    slots: Mutex<LruCache<Domain, Arc<Mutex<Slot<T>>>>>,
    /// Files that exist, and those that are just being written.
    file_count: AtomicUsize,
}

/// One cached domain.
struct Slot<T> {
    /// The file was read, or is known to be missing.
    is_loaded: bool,
    value: Option<T>,
    /// The domain has a file.
    has_file: bool,
    /// `value` differs from the file: writing has failed, or there are too many files.
    is_unsaved: bool,
}

impl<T> Default for Slot<T> {
    fn default() -> Self {
        Self { is_loaded: false, value: None, has_file: false, is_unsaved: false }
    }
}

/// Why a file gives no value.
enum ReadFailure {
    /// The file does not exist.
    Missing,
    /// The file cannot be read, or a newer version has written it. It is left alone.
    Unreadable(String),
    /// The file is not one that this program writes.
    Damaged(String),
}

/// Whether a store can keep a value for this domain.
#[must_use]
pub fn is_storable(domain: &Domain) -> bool {
    file_format::file_name(domain).is_some()
}

impl<T: Serialize + DeserializeOwned + Clone> DomainStore<T> {
    /// Opens the directory: counts its files, and removes temporary files that a crash has left.
    ///
    /// # Errors
    /// As the file system says when the directory cannot be made or listed.
    pub fn open(interfaces: Interfaces, settings: Settings, counters: Counters) -> io::Result<Self> {
        let disk = &interfaces.disk;
        create_dir_all(&**disk, &settings.dir)?;
        let mut files = 0;
        for entry in disk.list(&settings.dir)? {
            if entry.name.starts_with('.') {
                // Never renamed, so no update that returned depends on it. If it stays, it only takes space.
                let _ = disk.remove(&settings.dir.join(&entry.name));
            } else if file_format::domain_of_file(&entry.name).is_some() {
                files += 1;
            }
        }
        Ok(Self {
            interfaces,
            settings,
            counters,
            slots: Mutex::new(LruCache::unbounded()),
            file_count: AtomicUsize::new(files),
        })
    }

    /// The domain's value, if one is known. Changes nothing.
    pub fn get(&self, domain: &Domain) -> Option<T> {
        let name = file_format::file_name(domain)?;
        let slot = self.slot(domain);
        let mut slot = slot.lock();
        self.load(&mut slot, domain, &name);
        slot.value.clone()
    }

    /// Calls `change` with the domain's value, and saves the value that it returns; `Ok(None)` leaves the
    /// value as it is. No other thread updates the domain meanwhile. The value of a domain that is not
    /// storable is dropped.
    ///
    /// # Errors
    /// As `change` says; nothing is saved then. A disk that fails is no error: see the head of this file.
    pub fn update<E>(
        &self,
        domain: &Domain,
        change: impl FnOnce(Option<&T>) -> Result<Option<T>, E>,
    ) -> Result<(), E> {
        let Some(name) = file_format::file_name(domain) else { return change(None).map(drop) };
        let slot = self.slot(domain);
        let mut slot = slot.lock();
        self.load(&mut slot, domain, &name);
        let changed = change(slot.value.as_ref())?;
        if !slot.is_loaded {
            // The file may hold more than is known now, so it is not replaced. The next call reads it.
            return Ok(());
        }
        let is_changed = changed.is_some();
        if is_changed {
            (slot.value, slot.is_unsaved) = (changed, true);
        }
        if slot.is_unsaved && !self.save(&mut slot, domain, &name) && is_changed {
            self.counters.not_recorded.add_one();
            log::warn!(
                "{}: the limit of {} files is reached; {domain} is not recorded",
                self.settings.subject,
                self.settings.files_max
            );
        }
        Ok(())
    }

    /// The values of all domains that have a file, sorted by A-labels. Reads every file, past the cache;
    /// a file that cannot be read is logged and left out.
    ///
    /// # Errors
    /// As the file system says of the directory.
    pub fn list(&self) -> io::Result<Vec<(Domain, T)>> {
        let entries = self.interfaces.disk.list(&self.settings.dir)?;
        let mut domains: Vec<_> =
            entries.iter().filter_map(|entry| file_format::domain_of_file(&entry.name)).collect();
        domains.sort();
        let mut list = Vec::with_capacity(domains.len());
        for domain in domains {
            let Some(name) = file_format::file_name(&domain) else { continue };
            match self.read(&domain, &name) {
                Ok(value) => list.push((domain, value)),
                Err(ReadFailure::Missing) => {}
                Err(ReadFailure::Unreadable(problem) | ReadFailure::Damaged(problem)) => {
                    log::warn!("{} of {domain}: {problem}", self.settings.subject);
                }
            }
        }
        Ok(list)
    }

    /// Removes a domain's value and file, durably. Returns whether there was either.
    ///
    /// # Errors
    /// As the file system says: the value is then still known, or a power cut may bring it back.
    pub fn remove(&self, domain: &Domain) -> io::Result<bool> {
        let Some(name) = file_format::file_name(domain) else { return Ok(false) };
        let slot = self.slot(domain);
        let mut slot = slot.lock();
        self.load(&mut slot, domain, &name);
        let was_known = slot.value.is_some();
        let had_file = match self.interfaces.disk.remove(&self.settings.dir.join(name)) {
            Ok(()) => true,
            Err(error) if error.kind() == io::ErrorKind::NotFound => false,
            Err(error) => return Err(error),
        };
        if had_file {
            self.release_file_slot();
        }
        *slot = Slot { is_loaded: true, ..Slot::default() };
        self.interfaces.disk.sync_dir(&self.settings.dir)?;
        Ok(was_known || had_file)
    }

    /// The domain's slot in the cache. A domain has one slot for as long as a thread uses it.
    fn slot(&self, domain: &Domain) -> Arc<Mutex<Slot<T>>> {
        let mut slots = self.slots.lock();
        if let Some(slot) = slots.get(domain) {
            return Arc::clone(slot);
        }
        let mut in_use = Vec::new();
        while slots.len() >= CACHED_DOMAINS_MAX {
            match slots.pop_lru() {
                // A second slot for its domain would let two threads write at once.
                Some((domain, slot)) if Arc::strong_count(&slot) > 1 => in_use.push((domain, slot)),
                Some(_) | None => break,
            }
        }
        for (domain, slot) in in_use {
            slots.put(domain, slot);
        }
        let slot = Arc::new(Mutex::new(Slot::default()));
        slots.put(domain.clone(), Arc::clone(&slot));
        slot
    }

    /// Reads the domain's file into its slot, unless that was done before.
    fn load(&self, slot: &mut Slot<T>, domain: &Domain, name: &str) {
        if slot.is_loaded {
            return;
        }
        match self.read(domain, name) {
            Ok(value) => {
                *slot = Slot { is_loaded: true, value: Some(value), has_file: true, is_unsaved: false }
            }
            Err(ReadFailure::Missing) => slot.is_loaded = true,
            Err(ReadFailure::Unreadable(problem)) => {
                self.counters.errors.add_one();
                log::error!("{} of {domain}: {problem}; taken as unknown for now", self.settings.subject);
            }
            Err(ReadFailure::Damaged(problem)) => slot.is_loaded = self.move_aside(domain, name, &problem),
        }
    }

    fn read(&self, domain: &Domain, name: &str) -> Result<T, ReadFailure> {
        let octets = match self.read_octets(name) {
            Ok(octets) => octets,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(ReadFailure::Missing),
            Err(error) if error.kind() == io::ErrorKind::FileTooLarge => {
                return Err(ReadFailure::Damaged("the file is too large".to_owned()));
            }
            Err(error) => return Err(ReadFailure::Unreadable(error.to_string())),
        };
        file_format::decode(self.settings.version, domain, &octets).map_err(|error| match error {
            DecodeError::NewerVersion(problem) => ReadFailure::Unreadable(problem),
            DecodeError::Damaged(problem) => ReadFailure::Damaged(problem),
        })
    }

    fn read_octets(&self, name: &str) -> io::Result<Vec<u8>> {
        let file = self.interfaces.disk.open(&self.settings.dir.join(name))?;
        let octets = file.length()?;
        if octets > self.settings.file_octets_max {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        file.read_range(0, usize::try_from(octets).unwrap_or(usize::MAX))
    }

    /// Renames a damaged file; returns whether that succeeded.
    fn move_aside(&self, domain: &Domain, name: &str, problem: &str) -> bool {
        let (subject, dir, disk) = (self.settings.subject, &self.settings.dir, &self.interfaces.disk);
        let aside = format!("{name}.{}.damaged", self.interfaces.clock.wall_time().as_millis());
        self.counters.damaged.add_one();
        log::error!("{subject} of {domain}: {problem}; moved aside as {aside}, taken as unknown");
        let moved = disk.rename(&dir.join(name), &dir.join(&aside)).and_then(|()| disk.sync_dir(dir));
        if let Err(error) = &moved {
            self.counters.errors.add_one();
            log::error!("{subject} of {domain}: could not be moved aside: {error}");
        } else {
            self.release_file_slot();
        }
        moved.is_ok()
    }

    /// Writes the slot's value, if there is one. Returns false if there are too many files for another
    /// one; a disk that fails is logged and counted.
    fn save(&self, slot: &mut Slot<T>, domain: &Domain, name: &str) -> bool {
        let Some(value) = &slot.value else { return true };
        if !slot.has_file && !self.reserve_file_slot() {
            return false;
        }
        let (Interfaces { disk, random, .. }, path) = (&self.interfaces, self.settings.dir.join(name));
        let written = file_format::encode(self.settings.version, domain, value)
            .map_err(io::Error::from)
            .and_then(|text| replace_file(&**disk, &**random, &path, text.as_bytes()));
        match written {
            Ok(()) => (slot.has_file, slot.is_unsaved) = (true, false),
            Err(error) => {
                if !slot.has_file {
                    self.release_file_slot();
                }
                self.counters.errors.add_one();
                log::error!("{} of {domain}: not written: {error}; kept in memory", self.settings.subject);
            }
        }
        true
    }

    /// Counts a new file, unless there are too many.
    fn reserve_file_slot(&self) -> bool {
        let max = self.settings.files_max;
        let one_more = |files| (files < max).then_some(files + 1);
        self.file_count.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more).is_ok()
    }

    /// A file was removed, or was not written after all. Never below zero: after an error of the disk the
    /// count may be off by one.
    fn release_file_slot(&self) {
        let one_less = |files: usize| Some(files.saturating_sub(1));
        let _ = self.file_count.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_less);
    }
}
