//! All files that the server reads again while it runs: local domains, credentials, certificates.

use std::path::{Path, PathBuf};

use super::certificate_files::CertificateFiles;
use super::credentials_file::CredentialsFile;
use super::local_domains::LocalDomains;
use super::watched_value::{PollSettings, wait_until_stable_at_start};
use crate::alias::LocalPartRules;
use crate::mail::Domain;

/// The operator's files beside `postrider.toml`, each in the last version that could be read.
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
    /// Reads everything below the configuration directory, once the files stay the same. A file with a
    /// mistake is not in force; see [`Self::problems`] and [`Self::certificate_problems`].
    ///
    /// # Errors
    /// Files that keep changing, or that the host has no file descriptors left.
    pub fn read(
        config_dir: &Path,
        hostname: &Domain,
        local_part_rules: &LocalPartRules,
        settings: PollSettings,
    ) -> Result<Self, String> {
        let mut files = Self {
            domains: LocalDomains::new(config_dir, local_part_rules, settings),
            credentials: CredentialsFile::new(config_dir, settings),
            certificates: CertificateFiles::new(config_dir, hostname, settings),
        };
        wait_until_stable_at_start(settings, &mut || files.poll())?;
        Ok(files)
    }

    /// Polls everything; returns the paths that are changing.
    pub(super) fn poll(&mut self) -> Vec<PathBuf> {
        self.domains.poll();
        self.credentials.poll();
        self.certificates.poll();
        let mut changing = self.domains.changing_paths();
        changing.extend(self.credentials.changing_paths());
        changing.extend(self.certificates.changing_paths());
        changing
    }

    /// Reads everything at the next poll, whatever the fingerprints say.
    pub(super) fn invalidate(&mut self) {
        self.domains.invalidate();
        self.credentials.invalidate();
        self.certificates.invalidate();
    }

    /// The problems of local domains and credentials, a sentence each.
    #[must_use]
    pub fn problems(&self) -> Vec<String> {
        let mut problems = self.domains.problems();
        problems.extend_from_slice(self.credentials.problems());
        problems
    }

    /// The problems of entries in `certs/`, a sentence each.
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
            let dir = Self(tempfile::tempdir().unwrap());
            fs::create_dir_all(dir.path("domains/here.example")).unwrap();
            dir.write("domains/here.example/users", "ana: receive-only\n");
            dir.write("domains/here.example/aliases", "info: ana\n");
            let hostname = Domain::parse("mx.here.example").unwrap();
            let settings = PollSettings { interval: PAUSE };
            let mut files = ReloadableFiles {
                domains: LocalDomains::new(dir.0.path(), &LocalPartRules::default(), settings),
                credentials: CredentialsFile::new(dir.0.path(), settings),
                certificates: CertificateFiles::new(dir.0.path(), &hostname, settings),
            };
            while !files.poll().is_empty() {}
            (dir, files)
        }

        fn path(&self, below: &str) -> PathBuf {
            self.0.path().join(below)
        }

        fn write(&self, below: &str, text: &str) {
            fs::write(self.path(below), text).unwrap();
        }
    }

    /// As on SIGHUP. `meanwhile` gets the number of pauses before this one.
    fn reload(files: &mut ReloadableFiles, meanwhile: &mut dyn FnMut(usize)) -> Result<(), String> {
        files.invalidate();
        let mut pauses = 0..;
        wait_until_stable(PollSettings { interval: PAUSE }, &mut || files.poll(), &mut |pause| {
            assert_eq!(pause, PAUSE);
            pauses.next().into_iter().for_each(&mut *meanwhile);
            false
        })
    }

    fn users(files: &ReloadableFiles) -> usize {
        files.domains.users().values().map(|users| users.count()).sum()
    }

    #[test]
    fn a_reload_waits_until_files_that_are_written_stay_the_same() {
        let (dir, mut files) = TestConfigDir::new();
        dir.write("domains/here.example/users", "");
        // Complete after some polls, and not written afterwards.
        let text = "ana: receive-only\nbo: receive-only\ncy: receive-only\n";
        let reloaded = reload(&mut files, &mut |pause| {
            if pause <= 4 {
                dir.write("domains/here.example/users", &text[..text.len().min(pause * 14)]);
            }
        });
        assert_eq!((reloaded, users(&files)), (Ok(()), 3));
    }

    #[test]
    fn a_reload_names_a_file_that_keeps_changing() {
        let (dir, mut files) = TestConfigDir::new();
        let mut reloads = reload(&mut files, &mut |pause| {
            dir.write("domains/here.example/aliases", &format!("info{pause}: ana\n"));
        });
        assert_eq!(reloads, Ok(()), "nothing had changed, so nothing was waited for");
        dir.write("domains/here.example/aliases", "info: bo\n");
        reloads = reload(&mut files, &mut |pause| {
            dir.write("domains/here.example/aliases", &format!("info{pause}: ana\n"));
        });
        let problem = reloads.unwrap_err();
        assert!(problem.contains("aliases: kept changing"), "{problem}");
    }

    #[test]
    fn a_missing_file_counts_as_removed_only_after_repeated_polls() {
        for thing in ["domains/here.example/users", "domains/here.example"] {
            let (dir, mut files) = TestConfigDir::new();
            fs::rename(dir.path(thing), dir.path("away")).unwrap();
            let back = |pause| {
                if pause == 2 {
                    fs::rename(dir.path("away"), dir.path(thing)).unwrap();
                }
            };
            assert_eq!((reload(&mut files, &mut { back }), users(&files)), (Ok(()), 1), "{thing}");

            fs::remove_dir_all(dir.path("domains/here.example")).unwrap();
            let mut pauses = 0;
            assert_eq!(reload(&mut files, &mut |_| pauses += 1), Ok(()));
            assert_eq!((users(&files), pauses), (0, 4), "{thing}: removed for good");
        }
    }

    #[test]
    fn everything_is_read_again_on_a_reload() {
        let (_config_dir, mut files) = TestConfigDir::new();
        let users = |files: &ReloadableFiles| files.domains.users().into_values().next().unwrap();
        let before = users(&files);
        reload(&mut files, &mut |_| ()).unwrap();
        assert!(std::sync::Arc::ptr_eq(&before, &users(&files)), "the content is the same");
    }
}
