//! Remembers the best TLS level seen of each domain, separately for incoming and outgoing connections.
//!
//! A domain that used TLS before and does not now is misconfigured, or an attacker is between the two
//! hosts. So the best level is remembered for each direction, and a lower one is refused: an equal level
//! passes, a higher one passes and is saved. The caller decides what a refusal means: outgoing mail waits,
//! incoming mail is refused with `550 5.7.3`.
//!
//! Only domains that were seen above plain text have a file; for the files see [`crate::domain_store`].
//! For address literals, and for domains too long for a file name, every level passes. A level is on disk
//! before the check that raised it returns. While the disk does not write, memory decides; while it does
//! not read, nothing is known.
//!
//! Called by sessions, couriers and the control socket, from many threads.

#[cfg(test)]
mod tests;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::domain_store::{self, DomainStore};
use crate::mail::Domain;
use crate::observe::{Counter, Metrics};
use crate::sys::{Clock, Disk, Random};
use crate::tls::{IncomingSecurityLevel, SecurityLevel};

/// Version of the files that this program writes.
const FILE_VERSION: u32 = 1;
/// Our files have a few hundred octets.
const FILE_OCTETS_MAX: u64 = 16_384;

/// Where the files are, and how many.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The directory of the files; made if it is missing.
    pub dir: PathBuf,
    /// Domains that have a file, at most. Default: 100000.
    pub domains_max: usize,
}

impl Settings {
    /// A directory, with the default bound.
    #[must_use]
    pub fn new(dir: PathBuf) -> Self {
        Self { dir, domains_max: 100_000 }
    }
}

/// The levels known of one domain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct PeerEntry {
    /// The domain.
    pub domain: Domain,
    /// The best level seen on connections from the domain.
    pub incoming: IncomingSecurityLevel,
    /// The best level seen on our connections to the domain. It is saved when a connection reaches it, even
    /// if the peer then accepts no mail.
    pub outgoing: SecurityLevel,
    /// When `incoming` was first seen, RFC 3339; for people.
    pub incoming_seen: Option<String>,
    /// When `outgoing` was first seen, RFC 3339; for people.
    pub outgoing_seen: Option<String>,
}

/// The level is lower than one that was seen for this domain: an attacker may be between the hosts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the security level is lower than {known}, which was seen before")]
pub struct LowerThanKnown<L> {
    /// The best level seen before.
    pub known: L,
}

/// The levels in a file, version 1.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct StoredLevels {
    incoming: IncomingSecurityLevel,
    outgoing: SecurityLevel,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    incoming_seen: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    outgoing_seen: Option<String>,
}

impl StoredLevels {
    fn into_entry(self, domain: Domain) -> PeerEntry {
        PeerEntry {
            domain,
            incoming: self.incoming,
            outgoing: self.outgoing,
            incoming_seen: self.incoming_seen,
            outgoing_seen: self.outgoing_seen,
        }
    }
}

/// The levels of all domains. Shared by threads.
pub struct DomainInfo {
    store: DomainStore<StoredLevels>,
    clock: Arc<dyn Clock>,
    raised: Counter,
    refused: Counter,
}

impl DomainInfo {
    /// Opens the directory, see [`DomainStore::open`].
    ///
    /// # Errors
    /// As the file system says when the directory cannot be made or listed.
    pub fn open(
        disk: Arc<dyn Disk>,
        random: Arc<dyn Random>,
        clock: Arc<dyn Clock>,
        metrics: &Metrics,
        settings: Settings,
    ) -> io::Result<Self> {
        let interfaces = domain_store::Interfaces { disk, random, clock: Arc::clone(&clock) };
        let settings = domain_store::Settings {
            dir: settings.dir,
            subject: "domaininfo",
            version: FILE_VERSION,
            files_max: settings.domains_max,
            file_octets_max: FILE_OCTETS_MAX,
        };
        let raised = metrics.counter("domaininfo_raised", "Security levels of domains raised");
        let refused = metrics.counter("domaininfo_refused", "Security levels refused as lower than known");
        let counters = domain_store::Counters {
            errors: metrics.counter("domaininfo_errors", "Files on domains that were not read or written"),
            damaged: metrics.counter("domaininfo_damaged", "Damaged files on domains moved aside"),
            not_recorded: metrics
                .counter("domaininfo_not_recorded", "Domains not recorded because there are too many"),
        };
        Ok(Self { store: DomainStore::open(interfaces, settings, counters)?, clock, raised, refused })
    }

    /// Whether mail may go to this domain at this level. An equal level passes; a higher one passes and is
    /// saved first. Plain text never raises the level.
    ///
    /// # Errors
    /// [`LowerThanKnown`] if the level is lower than the best one seen: the mail waits.
    pub fn check_outgoing(
        &self,
        domain: &Domain,
        level: SecurityLevel,
    ) -> Result<(), LowerThanKnown<SecurityLevel>> {
        self.check_and_save(domain, |levels, now| {
            let known = levels.outgoing;
            (levels.outgoing, levels.outgoing_seen) = (level, Some(now));
            (level, known)
        })
    }

    /// Whether mail may come from this domain at this level. An equal level passes; a higher one passes and
    /// is saved first.
    ///
    /// # Errors
    /// [`LowerThanKnown`] if the level is lower than the best one seen: the client gets 5.7.3.
    pub fn check_incoming(
        &self,
        domain: &Domain,
        level: IncomingSecurityLevel,
    ) -> Result<(), LowerThanKnown<IncomingSecurityLevel>> {
        self.check_and_save(domain, |levels, now| {
            let known = levels.incoming;
            (levels.incoming, levels.incoming_seen) = (level, Some(now));
            (level, known)
        })
    }

    /// The levels of one domain; plain text both ways if none is known. Changes nothing.
    #[must_use]
    pub fn get(&self, domain: &Domain) -> PeerEntry {
        self.store.get(domain).unwrap_or_default().into_entry(domain.clone())
    }

    /// The levels of all domains that have a file, sorted by A-labels. Reads every file; one that cannot
    /// be read is logged and left out.
    ///
    /// # Errors
    /// As the file system says of the directory.
    pub fn list(&self) -> io::Result<Vec<PeerEntry>> {
        let list = self.store.list()?;
        Ok(list.into_iter().map(|(domain, levels)| levels.into_entry(domain)).collect())
    }

    /// Forgets a domain, durably. Returns whether anything was known.
    ///
    /// # Errors
    /// As the file system says: the domain is then still known, or a power cut may bring it back.
    pub fn forget(&self, domain: &Domain) -> io::Result<bool> {
        self.store.remove(domain)
    }

    /// `replace` puts the level that was found, and the time, into the levels known, and returns the found
    /// level and the one that was known for this direction. The change is saved if the found one is higher.
    fn check_and_save<L: Ord + Copy>(
        &self,
        domain: &Domain,
        replace: impl FnOnce(&mut StoredLevels, String) -> (L, L),
    ) -> Result<(), LowerThanKnown<L>> {
        if !domain_store::is_storable(domain) {
            return Ok(());
        }
        self.store.update(domain, |levels| {
            let mut levels = levels.cloned().unwrap_or_default();
            let (found, known) = replace(&mut levels, self.clock.wall_time().to_string());
            if found < known {
                self.refused.add_one();
                return Err(LowerThanKnown { known });
            }
            if found == known {
                return Ok(None);
            }
            self.raised.add_one();
            Ok(Some(levels))
        })
    }
}
