//! The timetable: what is looked at again and again while the server runs.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;

use super::configuration::read_config_again;
use super::credentials::CredentialsFile;
use super::directory::Directory;
use super::domains::Domains;
use super::expiry::Expiry;
use super::watched::Look;
use super::wiring::unknown_logins;
use crate::alias::Spelling;
use crate::courier::smtp::Logins;
use crate::mail::Domain;
use crate::sys::{Mutex, Stamp, Stop};
use crate::tls::{CertSet, Certs, TlsClient};

/// How often files are looked at. A change is in force when two looks agree.
const LOOK: Duration = Duration::from_secs(1);

/// What can be read anew while the server runs: users, aliases, certificates.
pub(super) struct Chores {
    pub(super) config_dir: PathBuf,
    /// The configuration in force, as `postrider check` prints it.
    pub(super) effective: String,
    pub(super) hostname: Domain,
    pub(super) spelling: Spelling,
    pub(super) domains: Mutex<Domains>,
    pub(super) credentials: Mutex<CredentialsFile>,
    /// The credentials in force.
    pub(super) logins: Arc<ArcSwap<Logins>>,
    pub(super) directory: Arc<Directory>,
    pub(super) certs: Arc<Certs>,
    pub(super) cert_files: Mutex<CertFiles>,
    /// For connections that we open.
    pub(super) tls_client: Arc<TlsClient>,
    pub(super) expiry: Expiry,
}

/// The files in `certs/`, to notice that they have changed.
#[derive(Debug, Clone)]
pub(super) struct CertFiles {
    dir: PathBuf,
    /// As they were when they were last read, whether they loaded or not.
    read: Stamps,
    /// As the last look saw them.
    seen: Stamps,
}

type Stamps = BTreeMap<PathBuf, Option<Stamp>>;

impl CertFiles {
    /// Takes note of what is there. Done before the certificates are read, so that a change in
    /// between is noticed later.
    pub(super) fn of(config_dir: &Path) -> Self {
        let dir = config_dir.join("certs");
        let stamps = stamps(&dir);
        Self { dir, read: stamps.clone(), seen: stamps }
    }

    /// Something else is there than was read, and it was there at the last look already: a chain
    /// and its key are not written at once.
    fn has_settled_anew(&mut self) -> bool {
        let now = stamps(&self.dir);
        let is_settled = now == self.seen;
        self.seen = now;
        is_settled && self.seen != self.read
    }
}

/// What cannot be looked at is not there; who reads the certificates says why.
fn stamps(dir: &Path) -> Stamps {
    let pairs = fs::read_dir(dir).into_iter().flatten().flatten();
    pairs
        .flat_map(|pair| ["fullchain.pem", "privkey.pem"].map(|file| pair.path().join(file)))
        .map(|file| (file.clone(), Stamp::of(&file).ok().flatten()))
        .collect()
}

impl Chores {
    /// Looks for changed files until it is time to stop.
    pub(super) fn run(&self, stop: &Stop) {
        while !stop.wait(LOOK) {
            // One file that trips us must not keep all others from being read for ever. What is in
            // force is replaced whole, so that there is nothing half done to be seen.
            if catch_unwind(AssertUnwindSafe(|| self.look())).is_err() {
                log::error!(
                    "looking for changed users, aliases and certificates ended by a fault of ours; it is \
                     tried again"
                );
            }
        }
    }

    fn look(&self) {
        self.expiry.look(&self.certs.set());
        let mut domains = self.domains.lock();
        let look = domains.look();
        for complaint in look.complaints {
            log::error!("{complaint}; what was read before stays in force");
        }
        if look.is_changed {
            self.directory.replace(&domains);
            log::info!("users and aliases were read anew");
        }
        drop(domains);
        self.look_at_credentials();
        self.look_at_certs();
    }

    fn look_at_credentials(&self) {
        let mut look = Look::default();
        let mut credentials = self.credentials.lock();
        credentials.look(&mut look);
        for complaint in look.complaints {
            log::error!("{complaint}; what was read before stays in force");
        }
        if look.is_changed {
            credentials.put_into(&self.logins);
            log::info!("credentials were read anew");
        }
    }

    fn look_at_certs(&self) {
        let mut files = self.cert_files.lock();
        if !files.has_settled_anew() {
            return;
        }
        files.read = files.seen.clone();
        match CertSet::load(&files.dir, &self.hostname) {
            // Somebody moves folders about. Who means to give up TLS sends SIGHUP.
            Ok(certs) if certs.is_empty() && !self.certs.is_empty() => {
                log::error!("{}: is empty; what was read before stays in force", files.dir.display());
            }
            Ok(certs) => {
                self.serve(certs);
                log::info!("certificates were read anew");
            }
            Err(errors) => {
                errors.iter().for_each(|e| log::error!("{e}; what was read before stays in force"));
            }
        }
    }

    fn serve(&self, certs: CertSet) {
        self.certs.replace(certs);
        self.expiry.look_anew(&self.certs.set());
    }

    /// Reads everything anew, all or nothing. A change of `postrider.toml` takes a restart: it is
    /// read to say so, and to say now what would keep the restart from working.
    ///
    /// # Errors
    /// Everything that is wrong; nothing has changed then.
    pub(super) fn reload(&self) -> Result<(), Vec<String>> {
        let mut wrong = Vec::new();
        let config =
            read_config_again(&self.config_dir, &self.hostname).map_err(|errors| wrong.extend(errors)).ok();
        let domains =
            Domains::load(&self.config_dir, &self.spelling).map_err(|errors| wrong.extend(errors)).ok();
        let credentials = CredentialsFile::load(&self.config_dir).map_err(|errors| wrong.extend(errors)).ok();
        if let (Some(config), Some(domains), Some(credentials)) = (&config, &domains, &credentials) {
            wrong.extend(unknown_logins(config, domains, &credentials.logins()));
        }
        let cert_files = CertFiles::of(&self.config_dir);
        let certs = CertSet::load(&cert_files.dir, &self.hostname)
            .map_err(|errors| wrong.extend(errors.iter().map(ToString::to_string)))
            .ok();
        let (Some(config), Some(domains), Some(credentials), Some(certs), []) =
            (config, domains, credentials, certs, wrong.as_slice())
        else {
            return Err(wrong);
        };
        let effective = config.effective();
        let changed = changed_keys(&self.effective, &effective);
        if !changed.is_empty() {
            let keys = changed.into_iter().collect::<Vec<_>>().join(", ");
            log::warn!("postrider.toml has changed ({keys}): restart postrider to put that in force");
        }
        self.directory.replace(&domains);
        *self.domains.lock() = domains;
        credentials.put_into(&self.logins);
        *self.credentials.lock() = credentials;
        self.serve(certs);
        *self.cert_files.lock() = cert_files;
        Ok(())
    }
}

/// The keys whose lines are not in both.
fn changed_keys<'a>(old: &'a str, new: &'a str) -> BTreeSet<&'a str> {
    let lines = |text: &'a str| text.lines().collect::<BTreeSet<_>>();
    let changed = &lines(old) ^ &lines(new);
    changed.into_iter().filter_map(|line| Some(line.split_once(" = ")?.0)).collect()
}
