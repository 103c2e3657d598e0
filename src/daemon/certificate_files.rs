//! The certificates in `certs/`.
//!
//! `certs/NAME/` holds `fullchain.pem` and `privkey.pem`, as files or as links. Each pair follows the rule
//! of `watched_value`: a chain and a key that do not match, or cannot be read, leave the old pair in force.

use std::path::{Path, PathBuf};

use super::watched_directories::{DirectoryListing, WatchedDirectories, WatchedDirectory, list_directories};
use super::watched_value::{FileWatch, PollResult, PollSettings, WatchedValue};
use crate::mail::Domain;
use crate::tls::{CertificateAndKey, CertificateSet};

/// Longest file that is read, in octets.
const OCTETS_MAX: u64 = 1024 * 1024;

/// Every certificate, in the last version that could be read.
#[derive(Debug, Clone)]
pub struct CertificateFiles {
    dir: PathBuf,
    hostname: Domain,
    poll_settings: PollSettings,
    directories: WatchedDirectories<String, CertificateDirectory>,
}

#[derive(Debug, Clone)]
struct CertificateDirectory {
    path: PathBuf,
    pair: WatchedValue<CertificateAndKey>,
}

impl CertificateFiles {
    /// The certificates in `certs/` of the configuration directory, before the first poll. A client without
    /// SNI gets the one for `hostname`, or else the first one.
    pub(super) fn new(config_dir: &Path, hostname: &Domain, settings: PollSettings) -> Self {
        let dir = config_dir.join("certs");
        Self {
            dir,
            hostname: hostname.clone(),
            poll_settings: settings,
            directories: WatchedDirectories::default(),
        }
    }

    /// Reads the certificates that have changed.
    pub(super) fn poll(&mut self) -> PollResult {
        let mut result = PollResult::default();
        let make = |_: &String, path: &Path| CertificateDirectory {
            path: path.to_owned(),
            pair: WatchedValue::default(),
        };
        let dir = &self.dir;
        let list = |reader: &mut _| match list_directories(dir, reader) {
            Ok((paths, problems)) => {
                Ok(DirectoryListing { directories: paths.into_iter().map(name_and_path).collect(), problems })
            }
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                Ok(DirectoryListing { directories: [].into(), problems: Vec::new() })
            }
            Err(e) => Err(vec![format!("{}: {e}; the server must be able to list it", dir.display())]),
        };
        self.directories.poll(self.poll_settings, &mut result, list, make);
        result
    }

    /// The paths that are changing.
    pub(super) fn changing_paths(&self) -> Vec<PathBuf> {
        self.directories.changing_paths()
    }

    /// The problems of the entries in `certs/` as they are.
    pub(super) fn problems(&self) -> Vec<String> {
        self.directories.problems()
    }

    /// Reads everything at the next poll.
    pub(super) fn invalidate(&mut self) {
        self.directories.invalidate();
    }

    /// The certificates in force.
    #[must_use]
    pub fn certificates(&self) -> CertificateSet {
        let pairs = self.directories.in_force();
        let pairs =
            pairs.filter_map(|(name, directory)| Some((name.as_str(), directory.pair.value()?.as_ref())));
        CertificateSet::new(pairs, &self.hostname)
    }
}

fn name_and_path(path: PathBuf) -> (String, PathBuf) {
    (path.file_name().unwrap_or_default().to_string_lossy().into_owned(), path)
}

impl WatchedDirectory for CertificateDirectory {
    fn poll(&mut self, settings: PollSettings, found: &mut PollResult) {
        let Self { path, pair } = self;
        pair.poll(settings, found, |reader| {
            CertificateAndKey::read(path, &mut |file| reader.read_octets(file, OCTETS_MAX))
                .map_err(|e| vec![e.to_string()])
        });
    }

    fn watches(&self) -> Vec<&dyn FileWatch> {
        vec![&self.pair]
    }

    fn watches_mut(&mut self) -> Vec<&mut dyn FileWatch> {
        vec![&mut self.pair]
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "a test's files need not be durable")]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::time::Duration;

    use super::*;

    struct TestConfigDir(tempfile::TempDir);

    impl TestConfigDir {
        fn new() -> Self {
            let dir = Self(tempfile::tempdir().unwrap());
            fs::create_dir(dir.path("certs")).unwrap();
            dir
        }

        fn path(&self, below: &str) -> PathBuf {
            self.0.path().join(below)
        }

        /// Writes a chain and a key for `name`; `suffix` is part of the names of the files.
        fn write(&self, directory: &str, name: &str, suffix: &str) {
            let made = rcgen::generate_simple_self_signed(vec![name.to_owned()]).unwrap();
            fs::create_dir_all(self.path(directory)).unwrap();
            let file = |what: &str| self.path(&format!("{directory}/{what}{suffix}.pem"));
            fs::write(file("fullchain"), made.cert.pem()).unwrap();
            fs::write(file("privkey"), made.signing_key.serialize_pem()).unwrap();
        }

        fn unread(&self) -> CertificateFiles {
            let settings = PollSettings { interval: Duration::from_hours(1) };
            CertificateFiles::new(self.0.path(), &Domain::parse("mx.here.example").unwrap(), settings)
        }

        /// Read as at a start.
        fn load(&self) -> CertificateFiles {
            let mut certificates = self.unread();
            poll_times(&mut certificates, 3);
            certificates
        }
    }

    fn names(certificates: &CertificateFiles) -> Vec<String> {
        certificates.certificates().dns_names().map(str::to_owned).collect()
    }

    /// Polls several times: whether a certificate has changed, and the problems.
    fn poll_times(certificates: &mut CertificateFiles, count: usize) -> (bool, Vec<String>) {
        let settings: Vec<_> = (0..count).map(|_| certificates.poll()).collect();
        let is_changed = settings.iter().any(|result| result.is_changed);
        (is_changed, settings.into_iter().flat_map(|result| result.problems).collect())
    }

    #[test]
    fn links_that_are_renewed_one_after_another_leave_the_old_pair_in_force() {
        let dir = TestConfigDir::new();
        dir.write("archive", "one.example", "1");
        dir.write("archive", "two.example", "2");
        fs::create_dir_all(dir.path("live/here")).unwrap();
        let lead = |what: &str, number: u8| {
            let new = dir.path("live/here/new");
            symlink(format!("../../archive/{what}{number}.pem"), &new).unwrap();
            fs::rename(new, dir.path(&format!("live/here/{what}.pem"))).unwrap();
        };
        lead("fullchain", 1);
        lead("privkey", 1);
        symlink(dir.path("live/here"), dir.path("certs/here")).unwrap();
        let mut certificates = dir.load();
        assert_eq!(names(&certificates), ["one.example"]);

        lead("privkey", 2);
        let (is_changed, problems) = poll_times(&mut certificates, 4);
        assert!(!is_changed && problems.len() == 1, "{problems:?}");
        assert!(problems[0].contains("does not belong"), "{problems:?}");
        assert_eq!(names(&certificates), ["one.example"]);
        lead("fullchain", 2);
        assert_eq!(certificates.poll(), PollResult::default(), "the next link may follow");
        assert!(certificates.poll().is_changed);
        assert_eq!(names(&certificates), ["two.example"]);

        // The directory itself is a link, too.
        dir.write("live/other", "three.example", "");
        fs::remove_file(dir.path("certs/here")).unwrap();
        symlink(dir.path("live/other"), dir.path("certs/here")).unwrap();
        assert!(poll_times(&mut certificates, 2).0);
        assert_eq!(names(&certificates), ["three.example"]);
    }

    #[test]
    fn one_broken_pair_does_not_keep_another_from_being_renewed() {
        let dir = TestConfigDir::new();
        dir.write("certs/a", "a.example", "");
        dir.write("certs/b", "b.example", "");
        let mut certificates = dir.load();
        fs::write(dir.path("certs/a/privkey.pem"), "broken").unwrap();
        dir.write("certs/b", "new.example", "");
        let (is_changed, problems) = poll_times(&mut certificates, 3);
        assert!(is_changed && problems.len() == 1, "{problems:?}");
        assert_eq!(names(&certificates), ["a.example", "new.example"]);
        assert_eq!(certificates.problems().len(), 1, "a reload hears of it, too");
    }

    #[test]
    fn a_directory_that_is_missing_for_a_moment_stays_in_force() {
        let dir = TestConfigDir::new();
        dir.write("certs/here", "here.example", "");
        let mut certificates = dir.load();
        for thing in ["certs", "certs/here", "certs/here/privkey.pem"] {
            fs::rename(dir.path(thing), dir.path("away")).unwrap();
            assert_eq!(poll_times(&mut certificates, 4), (false, Vec::new()), "{thing}");
            fs::rename(dir.path("away"), dir.path(thing)).unwrap();
            poll_times(&mut certificates, 2);
            assert_eq!(names(&certificates), ["here.example"]);
        }
        fs::remove_file(dir.path("certs/here/privkey.pem")).unwrap();
        let (is_changed, problems) = poll_times(&mut certificates, 6);
        assert!(!is_changed && problems[0].contains("privkey.pem: is missing"), "{problems:?}");
        fs::remove_dir_all(dir.path("certs/here")).unwrap();
        assert_eq!(poll_times(&mut certificates, 4), (false, Vec::new()));
        assert!(certificates.poll().is_changed && certificates.certificates().is_empty(), "removed for good");
    }

    #[test]
    fn an_entry_that_cannot_be_used_is_reported_and_removes_nothing() {
        let dir = TestConfigDir::new();
        dir.write("certs/good", "good.example", "");
        // Errors that root gets too: a link without a target, a link to itself, a directory without files.
        symlink("nowhere", dir.path("certs/nothing")).unwrap();
        symlink("circle", dir.path("certs/circle")).unwrap();
        fs::create_dir(dir.path("certs/empty")).unwrap();
        fs::write(dir.path("certs/README"), "not a directory").unwrap();
        let mut certificates = dir.load();
        assert_eq!(names(&certificates), ["good.example"]);
        let problems = certificates.problems();
        assert_eq!(problems.len(), 3, "{problems:?}");
        for words in ["nothing: is a symbolic link to nothing", "circle: ", "empty/fullchain.pem: is missing"]
        {
            assert!(problems.iter().any(|problem| problem.contains(words)), "{words}: {problems:?}");
        }
        fs::rename(dir.path("certs/good"), dir.path("certs/.good")).unwrap();
        assert!(!poll_times(&mut certificates, 9).0, "while the list is wrong, nothing is removed");
        assert_eq!(names(&certificates), ["good.example"]);
    }

    #[test]
    fn without_a_directory_or_a_certificate_the_set_is_empty() {
        let dir = TestConfigDir::new();
        let certificates = dir.load();
        assert!(certificates.certificates().is_empty() && certificates.problems().is_empty());
        fs::remove_dir(dir.path("certs")).unwrap();
        let certificates = dir.load();
        assert!(certificates.certificates().is_empty() && certificates.problems().is_empty());
    }
}
