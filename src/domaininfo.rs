//! Per domain: the best security level seen, in and out, in JSON files.
//!
//! A domain that once used TLS and now does not is either broken or not who we are speaking to.
//! So the best level is remembered, apart for each direction, and a lower one is refused: equal
//! passes, higher passes and is saved. What the refusal means is the caller's business: outgoing
//! mail waits, incoming mail is told `550 5.7.3`.
//!
//! One file a domain, `NAME.json` with the name in A-labels, only for domains that were seen above
//! plain; a person reads it with `cat`, and may remove it while the server is stopped (or use
//! [`DomainInfo::forget`] while it runs). A [`Domain`] is canonical and holds letters, digits,
//! hyphens and dots, so no name leaves the folder. Address literals, and names too long to be
//! file names, are not kept: every level passes.
//!
//! Promises that a level is on disk, synced, before the check that raised it returns, so that
//! `kill -9` cannot take back what a caller acted upon. When the disk fails:
//!
//! - not writable: the check decides as if it had been, from memory, for as long as the domain is
//!   cached; each later check that passes tries to write again; logged and counted;
//! - not readable, or written by a newer version: nothing is known for this time and the file is
//!   left alone; logged and counted;
//! - damaged: moved aside as `NAME.json.MILLISECONDS.damaged`; logged and counted; nothing is known.
//!
//! Files are read when their domain is first asked for; the cache is bounded, and so is the number
//! of files: beyond it new domains are not recorded. Called by sessions, couriers and the control
//! socket, from many threads. One lock guards the cache and is never held across input or output;
//! each domain has a lock of its own that is, because two threads that raise one domain must write
//! in turn and neither may go on before its level is saved. It holds up nobody but that domain.

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde::{Deserialize, Serialize};

use crate::mail::Domain;
use crate::observe::{Counter, Metrics};
use crate::sys::{Clock, Disk, Mutex, Random, create_dir_all, replace_file};
use crate::tls::{IncomingSecurityLevel, SecurityLevel};

/// Version of the files that this program writes.
const FILE_VERSION: u32 = 1;
/// Domains held in memory.
const CACHED_DOMAINS_MAX: usize = 4096;
/// Our files have a few hundred octets.
const FILE_OCTETS_MAX: u64 = 16_384;
/// A file name has 255 octets, of which suffixes and the draft's name need some.
const DOMAIN_OCTETS_MAX: usize = 220;
const FILE_SUFFIX: &str = ".json";

/// What this module is told.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where the files are; made if it is missing.
    pub dir: PathBuf,
    /// Domains that have a file, at most. Default: 100000.
    pub domains_max: usize,
}

impl Settings {
    /// A folder, with the default bound.
    #[must_use]
    pub fn new(dir: PathBuf) -> Self {
        Self { dir, domains_max: 100_000 }
    }
}

/// What is known of a domain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerEntry {
    /// Which.
    pub domain: Domain,
    /// The best level at which it sent to us.
    pub incoming: IncomingSecurityLevel,
    /// The best level at which we sent to it.
    pub outgoing: SecurityLevel,
    /// When `incoming` was first seen, RFC 3339; for people.
    pub incoming_seen: Option<String>,
    /// When `outgoing` was first seen, RFC 3339; for people.
    pub outgoing_seen: Option<String>,
}

impl PeerEntry {
    fn unknown(domain: &Domain) -> Self {
        Self {
            domain: domain.clone(),
            incoming: IncomingSecurityLevel::Plain,
            outgoing: SecurityLevel::Plain,
            incoming_seen: None,
            outgoing_seen: None,
        }
    }

    fn is_unknown(&self) -> bool {
        self.incoming == IncomingSecurityLevel::Plain && self.outgoing == SecurityLevel::Plain
    }
}

/// The level is lower than one that was seen for this domain: perhaps somebody is in between.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the security level is lower than {known}, which was seen before")]
pub struct LowerThanKnown<L> {
    /// The best level seen before.
    pub known: L,
}

/// The file, version 1.
#[derive(Debug, Serialize, Deserialize)]
struct StoredPeer {
    version: u32,
    domain: Domain,
    #[serde(rename = "in")]
    incoming: IncomingSecurityLevel,
    #[serde(rename = "out")]
    outgoing: SecurityLevel,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    in_seen: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    out_seen: Option<String>,
}

/// Only the version, which is read first: a newer file may have other fields.
#[derive(Debug, Deserialize)]
struct StoredVersion {
    version: u32,
}

/// What is known of all domains. Shared by threads.
pub struct DomainInfo {
    disk: Arc<dyn Disk>,
    random: Arc<dyn Random>,
    clock: Arc<dyn Clock>,
    settings: Settings,
    cache: Mutex<PeerCache>,
    /// Files there are, and places taken for those that are just being written.
    file_count: AtomicUsize,
    raised: Counter,
    refused: Counter,
    errors: Counter,
    damaged: Counter,
    not_recorded: Counter,
}

#[derive(Default)]
struct PeerCache {
    peers: HashMap<Domain, (Arc<Mutex<CachedPeer>>, u64)>,
    /// Counts questions, to tell what was not asked for lately.
    lookups: u64,
}

/// One domain, as far as it has been read.
#[derive(Default)]
struct CachedPeer {
    /// `None` before the file was read.
    entry: Option<PeerEntry>,
    /// The file is there.
    has_file: bool,
    /// `known` is more than what the file says: writing it failed, or there was no place for it.
    is_unsaved: bool,
}

/// Why a file says nothing.
enum ReadFailure {
    /// There is none.
    Missing,
    /// It could not be read, or is from the future: left alone.
    Unreadable(String),
    /// It is not what we write.
    Damaged(String),
}

impl DomainInfo {
    /// Opens the folder: counts its files, and removes drafts that a crash has left.
    ///
    /// # Errors
    /// As the file system says when the folder cannot be made or listed.
    pub fn open(
        disk: Arc<dyn Disk>,
        random: Arc<dyn Random>,
        clock: Arc<dyn Clock>,
        metrics: &Metrics,
        settings: Settings,
    ) -> io::Result<Self> {
        create_dir_all(&*disk, &settings.dir)?;
        let mut files = 0;
        for entry in disk.list(&settings.dir)? {
            if entry.name.starts_with('.') {
                // Never renamed, so never anybody's truth. If it stays, it only takes space.
                let _ = disk.remove(&settings.dir.join(&entry.name));
            } else if domain_of_file(&entry.name).is_some() {
                files += 1;
            }
        }
        Ok(Self {
            disk,
            random,
            clock,
            settings,
            cache: Mutex::default(),
            file_count: AtomicUsize::new(files),
            raised: metrics.counter("domaininfo_raised", "Security levels of domains raised"),
            refused: metrics.counter("domaininfo_refused", "Security levels refused as lower than known"),
            errors: metrics.counter("domaininfo_error", "Files on domains that were not read or written"),
            damaged: metrics.counter("domaininfo_damaged", "Damaged files on domains moved aside"),
            not_recorded: metrics
                .counter("domaininfo_full", "Domains not recorded because there are too many"),
        })
    }

    /// May mail go to this domain at this level? Equal passes; higher passes and is saved first.
    /// To ask before trying a lower level changes nothing: plain never raises.
    ///
    /// # Errors
    /// [`Lower`] than what is known: the mail waits.
    pub fn check_outgoing(
        &self,
        domain: &Domain,
        level: SecurityLevel,
    ) -> Result<(), LowerThanKnown<SecurityLevel>> {
        let now = || Some(self.clock.wall_time().to_string());
        self.check_and_save(domain, |known| {
            if level > known.outgoing {
                (known.outgoing, known.outgoing_seen) = (level, now());
                return Ok(true);
            }
            if level < known.outgoing { Err(LowerThanKnown { known: known.outgoing }) } else { Ok(false) }
        })
    }

    /// May mail come from this domain at this level? Equal passes; higher passes and is saved first.
    ///
    /// # Errors
    /// [`Lower`] than what is known: the client is told 5.7.3.
    pub fn check_incoming(
        &self,
        domain: &Domain,
        level: IncomingSecurityLevel,
    ) -> Result<(), LowerThanKnown<IncomingSecurityLevel>> {
        let now = || Some(self.clock.wall_time().to_string());
        self.check_and_save(domain, |known| {
            if level > known.incoming {
                (known.incoming, known.incoming_seen) = (level, now());
                return Ok(true);
            }
            if level < known.incoming { Err(LowerThanKnown { known: known.incoming }) } else { Ok(false) }
        })
    }

    /// What is known of one domain; plain both ways if nothing is. Changes nothing.
    #[must_use]
    pub fn get(&self, domain: &Domain) -> PeerEntry {
        if file_name(domain).is_none() {
            return PeerEntry::unknown(domain);
        }
        let slot = self.cached_peer(domain);
        let mut slot = slot.lock();
        self.load(&mut slot, domain)
    }

    /// What is known of all domains that have a file, sorted by A-labels. Reads every file, past
    /// the cache; those that cannot be read are logged and left out.
    ///
    /// # Errors
    /// As the file system says of the folder.
    pub fn list(&self) -> io::Result<Vec<PeerEntry>> {
        let entries = self.disk.list(&self.settings.dir)?;
        let mut domains: Vec<_> = entries.iter().filter_map(|entry| domain_of_file(&entry.name)).collect();
        domains.sort();
        let mut list = Vec::with_capacity(domains.len());
        for domain in domains {
            match self.read(&domain) {
                Ok(known) => list.push(known),
                Err(ReadFailure::Missing) => {}
                Err(ReadFailure::Unreadable(problem) | ReadFailure::Damaged(problem)) => {
                    log::warn!("domaininfo of {domain}: {problem}");
                }
            }
        }
        Ok(list)
    }

    /// Forgets a domain, durably; says whether anything was known.
    ///
    /// # Errors
    /// As the file system says: the domain is then still known, or a power cut may bring it back.
    pub fn forget(&self, domain: &Domain) -> io::Result<bool> {
        let Some(name) = file_name(domain) else { return Ok(false) };
        let slot = self.cached_peer(domain);
        let mut slot = slot.lock();
        let was_known = !self.load(&mut slot, domain).is_unknown();
        let had_file = match self.disk.remove(&self.settings.dir.join(name)) {
            Ok(()) => true,
            Err(error) if error.kind() == io::ErrorKind::NotFound => false,
            Err(error) => return Err(error),
        };
        if had_file {
            self.release_file_slot();
        }
        *slot = CachedPeer { entry: Some(PeerEntry::unknown(domain)), has_file: false, is_unsaved: false };
        self.disk.sync_dir(&self.settings.dir)?;
        Ok(was_known || had_file)
    }

    /// Lets `judge` look at what is known, and saves what it changes: it says `true` if it did.
    fn check_and_save<L>(
        &self,
        domain: &Domain,
        judge: impl FnOnce(&mut PeerEntry) -> Result<bool, LowerThanKnown<L>>,
    ) -> Result<(), LowerThanKnown<L>> {
        if file_name(domain).is_none() {
            return Ok(());
        }
        let slot = self.cached_peer(domain);
        let mut slot = slot.lock();
        let mut known = self.load(&mut slot, domain);
        let is_raised = judge(&mut known).inspect_err(|_| self.refused.add_one())?;
        if is_raised {
            self.raised.add_one();
            slot.is_unsaved = true;
        }
        if slot.is_unsaved {
            self.save(&mut slot, &known, is_raised);
        }
        // What could not be read is asked for again: this is not the whole truth about it.
        if slot.entry.is_some() {
            slot.entry = Some(known);
        }
        Ok(())
    }

    /// The domain's place in memory. While somebody holds it, nobody else makes a second one.
    fn cached_peer(&self, domain: &Domain) -> Arc<Mutex<CachedPeer>> {
        let mut cache = self.cache.lock();
        cache.lookups += 1;
        let tick = cache.lookups;
        if let Some((slot, used)) = cache.peers.get_mut(domain) {
            *used = tick;
            return Arc::clone(slot);
        }
        if cache.peers.len() >= CACHED_DOMAINS_MAX {
            // At most half of them were asked for in the last so many questions.
            let recent = tick.saturating_sub(CACHED_DOMAINS_MAX as u64 / 2);
            cache.peers.retain(|_, (slot, used)| *used > recent || Arc::strong_count(slot) > 1);
        }
        let slot = Arc::<Mutex<CachedPeer>>::default();
        cache.peers.insert(domain.clone(), (Arc::clone(&slot), tick));
        slot
    }

    /// What is known, from memory or from the file.
    fn load(&self, slot: &mut CachedPeer, domain: &Domain) -> PeerEntry {
        if let Some(known) = &slot.entry {
            return known.clone();
        }
        let (known, has_file) = match self.read(domain) {
            Ok(known) => (known, true),
            Err(ReadFailure::Missing) => (PeerEntry::unknown(domain), false),
            Err(ReadFailure::Unreadable(problem)) => {
                self.errors.add_one();
                log::error!("domaininfo of {domain}: {problem}; taken as unknown for now");
                return PeerEntry::unknown(domain);
            }
            Err(ReadFailure::Damaged(problem)) if self.move_aside(domain, &problem) => {
                (PeerEntry::unknown(domain), false)
            }
            Err(ReadFailure::Damaged(_)) => return PeerEntry::unknown(domain),
        };
        slot.has_file = has_file;
        slot.entry = Some(known.clone());
        known
    }

    fn read(&self, domain: &Domain) -> Result<PeerEntry, ReadFailure> {
        let name = file_name(domain).ok_or(ReadFailure::Missing)?;
        let octets = match self.read_octets(&name) {
            Ok(octets) => octets,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(ReadFailure::Missing),
            Err(error) if error.kind() == io::ErrorKind::FileTooLarge => {
                return Err(ReadFailure::Damaged("the file is too large".to_owned()));
            }
            Err(error) => return Err(ReadFailure::Unreadable(error.to_string())),
        };
        let damaged = |error: serde_json::Error| ReadFailure::Damaged(error.to_string());
        let StoredVersion { version } = serde_json::from_slice(&octets).map_err(damaged)?;
        if version > FILE_VERSION {
            return Err(ReadFailure::Unreadable(format!(
                "the file has version {version}, we know {FILE_VERSION}"
            )));
        }
        let stored: StoredPeer = serde_json::from_slice(&octets).map_err(damaged)?;
        if stored.domain != *domain {
            return Err(ReadFailure::Damaged(format!("the file is about {}", stored.domain)));
        }
        Ok(PeerEntry {
            domain: stored.domain,
            incoming: stored.incoming,
            outgoing: stored.outgoing,
            incoming_seen: stored.in_seen,
            outgoing_seen: stored.out_seen,
        })
    }

    fn read_octets(&self, name: &str) -> io::Result<Vec<u8>> {
        let file = self.disk.open(&self.settings.dir.join(name))?;
        if file.length()? > FILE_OCTETS_MAX {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        let mut octets = Vec::new();
        let mut buffer = [0; 1024];
        loop {
            let read = file.read_at(&mut buffer, octets.len() as u64)?;
            match buffer.get(..read) {
                None | Some([]) => return Ok(octets),
                Some(part) => octets.extend_from_slice(part),
            }
        }
    }

    /// Says whether it is out of the way.
    fn move_aside(&self, domain: &Domain, problem: &str) -> bool {
        let Some(name) = file_name(domain) else { return false };
        let aside = format!("{name}.{}.damaged", self.clock.wall_time().as_millis());
        self.damaged.add_one();
        log::error!("domaininfo of {domain}: {problem}; moved aside as {aside}, taken as unknown");
        let dir = &self.settings.dir;
        let moved =
            self.disk.rename(&dir.join(&name), &dir.join(&aside)).and_then(|()| self.disk.sync_dir(dir));
        if let Err(error) = &moved {
            self.errors.add_one();
            log::error!("domaininfo of {domain}: could not be moved aside: {error}");
        } else {
            self.release_file_slot();
        }
        moved.is_ok()
    }

    /// Writes what is known, if there is a place for it. `is_news`: said and counted once only.
    fn save(&self, slot: &mut CachedPeer, known: &PeerEntry, is_news: bool) {
        // Not read: the file may say more than we know, and is not to be replaced by less.
        if slot.entry.is_none() {
            slot.is_unsaved = false;
            return;
        }
        let Some(name) = file_name(&known.domain) else { return };
        if !slot.has_file && !self.reserve_file_slot() {
            if is_news {
                self.not_recorded.add_one();
                log::warn!(
                    "domaininfo: {} domains are enough; {} is not recorded",
                    self.settings.domains_max,
                    known.domain
                );
            }
            return;
        }
        let stored = StoredPeer {
            version: FILE_VERSION,
            domain: known.domain.clone(),
            incoming: known.incoming,
            outgoing: known.outgoing,
            in_seen: known.incoming_seen.clone(),
            out_seen: known.outgoing_seen.clone(),
        };
        let path = self.settings.dir.join(name);
        let written = serde_json::to_string_pretty(&stored)
            .map_err(io::Error::from)
            .and_then(|text| replace_file(&*self.disk, &*self.random, &path, format!("{text}\n").as_bytes()));
        match written {
            Ok(()) => (slot.has_file, slot.is_unsaved) = (true, false),
            Err(error) => {
                if !slot.has_file {
                    self.release_file_slot();
                }
                self.errors.add_one();
                log::error!("domaininfo of {}: not written: {error}; kept in memory", known.domain);
            }
        }
    }

    /// Takes a place for a new file, if there is one.
    fn reserve_file_slot(&self) -> bool {
        let max = self.settings.domains_max;
        let one_more = |files| (files < max).then_some(files + 1);
        self.file_count.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more).is_ok()
    }

    /// A file is gone, or did not come to be. Never below zero: after an error of the disk the
    /// count may be off by one.
    fn release_file_slot(&self) {
        let one_less = |files: usize| Some(files.saturating_sub(1));
        let _ = self.file_count.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_less);
    }
}

/// The domain's file, if it is kept at all.
fn file_name(domain: &Domain) -> Option<String> {
    let name = domain.as_ascii();
    let is_plain = name.bytes().all(|octet| matches!(octet, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.'));
    let is_kept = is_plain && !name.starts_with('.') && name.len() <= DOMAIN_OCTETS_MAX;
    is_kept.then(|| format!("{name}{FILE_SUFFIX}"))
}

/// The domain whose file has this name; `None` for what is not ours.
fn domain_of_file(file: &str) -> Option<Domain> {
    let domain = Domain::parse(file.strip_suffix(FILE_SUFFIX)?).ok()?;
    (file_name(&domain).as_deref() == Some(file)).then_some(domain)
}
