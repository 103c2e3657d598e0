//! Everything that the server reads again while it runs: domains, credentials, certificates.

use std::path::{Path, PathBuf};

use super::certificate_files::CertificateFiles;
use super::credentials_file::CredentialsFile;
use super::local_domains::LocalDomains;
use super::watched_value::{PollSettings, wait_until_stable_at_start};
use crate::alias::LocalPartRules;
use crate::mail::Domain;

/// The operator's files beside `postrider.toml`, in the last version that could be read.
#[derive(Debug, Clone)]
pub struct ReloadableFiles {
    /// `domains/`.
    pub domains: LocalDomains,
    /// `credentials.toml`.
    pub credentials: CredentialsFile,
    /// `certs/`.
    pub certificates: CertificateFiles,
}

impl ReloadableFiles {
    /// Reads everything below the configuration directory, once nobody is writing there. What is wrong is
    /// not in force, and is in [`Sources::mistakes`] and [`Sources::unusable_certificates`].
    ///
    /// # Errors
    /// What keeps changing, or that the host has no descriptors left.
    pub fn read(
        config_dir: &Path,
        hostname: &Domain,
        spelling: &LocalPartRules,
        looks: PollSettings,
    ) -> Result<Self, String> {
        let mut sources = Self {
            domains: LocalDomains::new(config_dir, spelling, looks),
            credentials: CredentialsFile::new(config_dir, looks),
            certificates: CertificateFiles::new(config_dir, hostname, looks),
        };
        wait_until_stable_at_start(looks, &mut || sources.poll())?;
        Ok(sources)
    }

    /// Looks at everything; the paths that are changing.
    pub(super) fn poll(&mut self) -> Vec<PathBuf> {
        self.domains.poll();
        self.credentials.poll();
        self.certificates.poll();
        let mut changing = self.domains.changing_paths();
        changing.extend(self.credentials.changing_paths());
        changing.extend(self.certificates.changing_paths());
        changing
    }

    /// Reads everything at the next look, whatever the fingerprints say.
    pub(super) fn invalidate(&mut self) {
        self.domains.invalidate();
        self.credentials.invalidate();
        self.certificates.invalidate();
    }

    /// What is wrong with domains and credentials, a sentence each.
    #[must_use]
    pub fn problems(&self) -> Vec<String> {
        let mut wrong = self.domains.problems();
        wrong.extend_from_slice(self.credentials.problems());
        wrong
    }

    /// What is wrong with entries in `certs/`, a sentence each.
    #[must_use]
    pub fn certificate_problems(&self) -> Vec<String> {
        self.certificates.problems()
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "a test's files need not be durable")]
mod tests {
    use std::fs;
    use std::time::Duration;

    use super::*;
    use crate::daemon::watched_value::wait_until_stable;

    const PAUSE: Duration = Duration::from_hours(1);

    struct TestConfigDir(tempfile::TempDir);

    impl TestConfigDir {
        fn new() -> (Self, ReloadableFiles) {
            let house = Self(tempfile::tempdir().unwrap());
            fs::create_dir_all(house.path("domains/here.example")).unwrap();
            house.write("domains/here.example/users", "ana: receive-only\n");
            house.write("domains/here.example/aliases", "info: ana\n");
            let hostname = Domain::parse("mx.here.example").unwrap();
            let looks = PollSettings { interval: PAUSE };
            let mut sources = ReloadableFiles {
                domains: LocalDomains::new(house.0.path(), &LocalPartRules::default(), looks),
                credentials: CredentialsFile::new(house.0.path(), looks),
                certificates: CertificateFiles::new(house.0.path(), &hostname, looks),
            };
            while !sources.poll().is_empty() {}
            (house, sources)
        }

        fn path(&self, below: &str) -> PathBuf {
            self.0.path().join(below)
        }

        fn write(&self, below: &str, text: &str) {
            fs::write(self.path(below), text).unwrap();
        }
    }

    /// As on SIGHUP: `meanwhile` is told how many pauses there were before this one.
    fn reload(sources: &mut ReloadableFiles, meanwhile: &mut dyn FnMut(usize)) -> Result<(), String> {
        sources.invalidate();
        let mut pauses = 0..;
        wait_until_stable(PollSettings { interval: PAUSE }, &mut || sources.poll(), &mut |pause| {
            assert_eq!(pause, PAUSE);
            pauses.next().into_iter().for_each(&mut *meanwhile);
            false
        })
    }

    fn users(sources: &ReloadableFiles) -> usize {
        sources.domains.users().values().map(|users| users.count()).sum()
    }

    #[test]
    fn a_reload_waits_until_files_that_are_written_stay_the_same() {
        let (house, mut sources) = TestConfigDir::new();
        house.write("domains/here.example/users", "");
        // Whole after some looks, and written no more.
        let text = "ana: receive-only\nbo: receive-only\ncy: receive-only\n";
        let reloaded = reload(&mut sources, &mut |pause| {
            if pause <= 4 {
                house.write("domains/here.example/users", &text[..text.len().min(pause * 14)]);
            }
        });
        assert_eq!((reloaded, users(&sources)), (Ok(()), 3));
    }

    #[test]
    fn a_reload_says_what_keeps_changing() {
        let (house, mut sources) = TestConfigDir::new();
        let mut reloads = reload(&mut sources, &mut |pause| {
            house.write("domains/here.example/aliases", &format!("info{pause}: ana\n"));
        });
        assert_eq!(reloads, Ok(()), "nothing had changed, so nothing was waited for");
        house.write("domains/here.example/aliases", "info: bo\n");
        reloads = reload(&mut sources, &mut |pause| {
            house.write("domains/here.example/aliases", &format!("info{pause}: ana\n"));
        });
        let complaint = reloads.unwrap_err();
        assert!(complaint.contains("aliases: kept changing"), "{complaint}");
    }

    #[test]
    fn a_reload_believes_what_is_missing_only_after_repeated_looks() {
        for thing in ["domains/here.example/users", "domains/here.example"] {
            let (house, mut sources) = TestConfigDir::new();
            fs::rename(house.path(thing), house.path("away")).unwrap();
            let back = |pause| {
                if pause == 2 {
                    fs::rename(house.path("away"), house.path(thing)).unwrap();
                }
            };
            assert_eq!((reload(&mut sources, &mut { back }), users(&sources)), (Ok(()), 1), "{thing}");

            fs::remove_dir_all(house.path("domains/here.example")).unwrap();
            let mut pauses = 0;
            assert_eq!(reload(&mut sources, &mut |_| pauses += 1), Ok(()));
            assert_eq!((users(&sources), pauses), (0, 4), "{thing}: removed for good");
        }
    }

    #[test]
    fn everything_is_read_again_on_a_reload() {
        let (_house, mut sources) = TestConfigDir::new();
        let users = |sources: &ReloadableFiles| sources.domains.users().into_values().next().unwrap();
        let before = users(&sources);
        reload(&mut sources, &mut |_| ()).unwrap();
        assert!(std::sync::Arc::ptr_eq(&before, &users(&sources)), "the content is the same");
    }
}
