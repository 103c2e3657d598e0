//! The certificates in `certs/`, read and read again.
//!
//! `certs/NAME/` holds `fullchain.pem` and `privkey.pem`, as files or as links. Each pair is looked at by
//! the rule of `watched`: a chain and a key that do not belong together, or cannot be read, leave the pair
//! in force that was there before.

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
    /// Those in `certs/` in the configuration directory, before the first look. Without SNI the one for
    /// `hostname` is served, or else the first one.
    pub(super) fn new(config_dir: &Path, hostname: &Domain, looks: PollSettings) -> Self {
        let dir = config_dir.join("certs");
        Self {
            dir,
            hostname: hostname.clone(),
            poll_settings: looks,
            directories: WatchedDirectories::default(),
        }
    }

    /// Looks for certificates that have changed, and reads those.
    pub(super) fn poll(&mut self) -> PollResult {
        let mut look = PollResult::default();
        let make = |_: &String, path: &Path| CertificateDirectory {
            path: path.to_owned(),
            pair: WatchedValue::default(),
        };
        let dir = &self.dir;
        let list = |reader: &mut _| match list_directories(dir, reader) {
            Ok((paths, complaints)) => Ok(DirectoryListing {
                directories: paths.into_iter().map(name_and_path).collect(),
                problems: complaints,
            }),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                Ok(DirectoryListing { directories: [].into(), problems: Vec::new() })
            }
            Err(e) => Err(vec![format!("{}: {e}; the server must be able to list it", dir.display())]),
        };
        self.directories.poll(self.poll_settings, &mut look, list, make);
        look
    }

    /// What is changing and not believed yet.
    pub(super) fn changing_paths(&self) -> Vec<PathBuf> {
        self.directories.changing_paths()
    }

    /// Everything that is wrong with the entries of `certs/` as they are.
    pub(super) fn problems(&self) -> Vec<String> {
        self.directories.problems()
    }

    /// Reads everything at the next look.
    pub(super) fn invalidate(&mut self) {
        self.directories.invalidate();
    }

    /// All that can be used.
    #[must_use]
    pub fn certificates(&self) -> CertificateSet {
        let pairs = self.directories.in_force();
        let pairs = pairs.filter_map(|(name, folder)| Some((name.as_str(), folder.pair.value()?.as_ref())));
        CertificateSet::new(pairs, &self.hostname)
    }
}

fn name_and_path(path: PathBuf) -> (String, PathBuf) {
    (path.file_name().unwrap_or_default().to_string_lossy().into_owned(), path)
}

impl WatchedDirectory for CertificateDirectory {
    fn poll(&mut self, looks: PollSettings, found: &mut PollResult) {
        let Self { path, pair } = self;
        pair.poll(looks, found, |reader| {
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
            let house = Self(tempfile::tempdir().unwrap());
            fs::create_dir(house.path("certs")).unwrap();
            house
        }

        fn path(&self, below: &str) -> PathBuf {
            self.0.path().join(below)
        }

        /// Writes a chain and a key for `name`, with a suffix for the files' names.
        fn write(&self, folder: &str, name: &str, suffix: &str) {
            let made = rcgen::generate_simple_self_signed(vec![name.to_owned()]).unwrap();
            fs::create_dir_all(self.path(folder)).unwrap();
            let file = |what: &str| self.path(&format!("{folder}/{what}{suffix}.pem"));
            fs::write(file("fullchain"), made.cert.pem()).unwrap();
            fs::write(file("privkey"), made.signing_key.serialize_pem()).unwrap();
        }

        fn unread(&self) -> CertificateFiles {
            let looks = PollSettings { interval: Duration::from_hours(1) };
            CertificateFiles::new(self.0.path(), &Domain::parse("mx.here.example").unwrap(), looks)
        }

        /// Read as at a start.
        fn load(&self) -> CertificateFiles {
            let mut certificates = self.unread();
            looks(&mut certificates, 3);
            certificates
        }
    }

    fn names(certificates: &CertificateFiles) -> Vec<String> {
        certificates.certificates().dns_names().map(str::to_owned).collect()
    }

    /// Some looks: whether there is something new, and the complaints.
    fn looks(certificates: &mut CertificateFiles, count: usize) -> (bool, Vec<String>) {
        let looks: Vec<_> = (0..count).map(|_| certificates.poll()).collect();
        let is_changed = looks.iter().any(|look| look.is_changed);
        (is_changed, looks.into_iter().flat_map(|look| look.problems).collect())
    }

    #[test]
    fn links_that_are_renewed_one_after_another_leave_the_old_pair_in_force() {
        let house = TestConfigDir::new();
        house.write("archive", "one.example", "1");
        house.write("archive", "two.example", "2");
        fs::create_dir_all(house.path("live/here")).unwrap();
        let lead = |what: &str, number: u8| {
            let new = house.path("live/here/new");
            symlink(format!("../../archive/{what}{number}.pem"), &new).unwrap();
            fs::rename(new, house.path(&format!("live/here/{what}.pem"))).unwrap();
        };
        lead("fullchain", 1);
        lead("privkey", 1);
        symlink(house.path("live/here"), house.path("certs/here")).unwrap();
        let mut certificates = house.load();
        assert_eq!(names(&certificates), ["one.example"]);

        lead("privkey", 2);
        let (is_changed, complaints) = looks(&mut certificates, 4);
        assert!(!is_changed && complaints.len() == 1, "{complaints:?}");
        assert!(complaints[0].contains("does not belong"), "{complaints:?}");
        assert_eq!(names(&certificates), ["one.example"]);
        lead("fullchain", 2);
        assert_eq!(certificates.poll(), PollResult::default(), "the next link may follow");
        assert!(certificates.poll().is_changed);
        assert_eq!(names(&certificates), ["two.example"]);

        // The folder itself is a link, too.
        house.write("live/other", "three.example", "");
        fs::remove_file(house.path("certs/here")).unwrap();
        symlink(house.path("live/other"), house.path("certs/here")).unwrap();
        assert!(looks(&mut certificates, 2).0);
        assert_eq!(names(&certificates), ["three.example"]);
    }

    #[test]
    fn one_broken_pair_does_not_keep_another_from_being_renewed() {
        let house = TestConfigDir::new();
        house.write("certs/a", "a.example", "");
        house.write("certs/b", "b.example", "");
        let mut certificates = house.load();
        fs::write(house.path("certs/a/privkey.pem"), "broken").unwrap();
        house.write("certs/b", "new.example", "");
        let (is_changed, complaints) = looks(&mut certificates, 3);
        assert!(is_changed && complaints.len() == 1, "{complaints:?}");
        assert_eq!(names(&certificates), ["a.example", "new.example"]);
        assert_eq!(certificates.problems().len(), 1, "a reload hears of it, too");
    }

    #[test]
    fn a_folder_that_is_away_for_a_moment_stays_in_force() {
        let house = TestConfigDir::new();
        house.write("certs/here", "here.example", "");
        let mut certificates = house.load();
        for thing in ["certs", "certs/here", "certs/here/privkey.pem"] {
            fs::rename(house.path(thing), house.path("away")).unwrap();
            assert_eq!(looks(&mut certificates, 4), (false, Vec::new()), "{thing}");
            fs::rename(house.path("away"), house.path(thing)).unwrap();
            looks(&mut certificates, 2);
            assert_eq!(names(&certificates), ["here.example"]);
        }
        fs::remove_file(house.path("certs/here/privkey.pem")).unwrap();
        let (is_changed, complaints) = looks(&mut certificates, 6);
        assert!(!is_changed && complaints[0].contains("privkey.pem: is missing"), "{complaints:?}");
        fs::remove_dir_all(house.path("certs/here")).unwrap();
        assert_eq!(looks(&mut certificates, 4), (false, Vec::new()));
        assert!(certificates.poll().is_changed && certificates.certificates().is_empty(), "removed for good");
    }

    #[test]
    fn an_entry_that_cannot_be_used_is_named_and_takes_nothing_away() {
        let house = TestConfigDir::new();
        house.write("certs/good", "good.example", "");
        // Root hears of these, too: a link to nothing, a link to itself, a folder without files.
        symlink("nowhere", house.path("certs/nothing")).unwrap();
        symlink("circle", house.path("certs/circle")).unwrap();
        fs::create_dir(house.path("certs/empty")).unwrap();
        fs::write(house.path("certs/README"), "not a folder").unwrap();
        let mut certificates = house.load();
        assert_eq!(names(&certificates), ["good.example"]);
        let complaints = certificates.problems();
        assert_eq!(complaints.len(), 3, "{complaints:?}");
        for words in ["nothing: is a symbolic link to nothing", "circle: ", "empty/fullchain.pem: is missing"]
        {
            assert!(complaints.iter().any(|complaint| complaint.contains(words)), "{words}: {complaints:?}");
        }
        fs::rename(house.path("certs/good"), house.path("certs/.good")).unwrap();
        assert!(!looks(&mut certificates, 9).0, "while the list is wrong, nothing is removed");
        assert_eq!(names(&certificates), ["good.example"]);
    }

    #[test]
    fn no_folder_and_no_certificates_are_an_empty_set() {
        let house = TestConfigDir::new();
        let certificates = house.load();
        assert!(certificates.certificates().is_empty() && certificates.problems().is_empty());
        fs::remove_dir(house.path("certs")).unwrap();
        let certificates = house.load();
        assert!(certificates.certificates().is_empty() && certificates.problems().is_empty());
    }
}
