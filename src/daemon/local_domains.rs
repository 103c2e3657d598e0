//! The directories of the local domains, with their users, aliases and senders.
//!
//! `domains/DOMAIN/` makes DOMAIN local; `users`, `aliases` and `senders` in it may be missing. Every file
//! follows the rule of `watched_value`. A missing directory or file counts as removed only after several
//! polls: an upgrade or a network file system may restore it, and its mail would be refused and bounced
//! meanwhile.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Display;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::file_reader::FileReader;
use super::watched_directories::{DirectoryListing, WatchedDirectories, WatchedDirectory, list_directories};
use super::watched_value::{FileWatch, PollResult, PollSettings, WatchedValue, wait_until_stable};
use crate::alias::{AliasFileContext, AliasLocation, AliasTarget, DomainAliases, LocalPartRules};
use crate::auth::{AllowedSenders, Users};
use crate::mail::Domain;

/// Every local domain with the content of its files.
#[derive(Debug, Clone)]
pub struct LocalDomains {
    dir: PathBuf,
    local_part_rules: LocalPartRules,
    poll_settings: PollSettings,
    directories: WatchedDirectories<Domain, LocalDomainDirectory>,
}

/// The files of one domain.
#[derive(Debug, Clone)]
struct LocalDomainDirectory {
    domain: Domain,
    path: PathBuf,
    local_part_rules: LocalPartRules,
    users: WatchedValue<Users>,
    aliases: WatchedValue<DomainAliases>,
    senders: WatchedValue<AllowedSenders>,
}

impl LocalDomains {
    /// The directories in `domains/` of the configuration directory, before the first poll.
    pub(super) fn new(config_dir: &Path, local_part_rules: &LocalPartRules, settings: PollSettings) -> Self {
        let dir = config_dir.join("domains");
        Self {
            dir,
            local_part_rules: local_part_rules.clone(),
            poll_settings: settings,
            directories: WatchedDirectories::default(),
        }
    }

    /// Reads `domains/` in the configuration directory as it is now.
    ///
    /// # Errors
    /// Every problem, a sentence each. The fault is the operator's.
    pub fn load(config_dir: &Path, local_part_rules: &LocalPartRules) -> Result<Self, Vec<String>> {
        let mut domains = Self::new(config_dir, local_part_rules, PollSettings::IMMEDIATE);
        let mut poll = || {
            domains.poll();
            domains.changing_paths()
        };
        wait_until_stable(PollSettings::IMMEDIATE, &mut poll, &mut |_| false).map_err(|e| vec![e])?;
        let problems = domains.problems();
        if problems.is_empty() { Ok(domains) } else { Err(problems) }
    }

    /// Reads the files and directories that have changed.
    ///
    /// A new directory is in force once its files parse: until then its mail would only be refused.
    pub fn poll(&mut self) -> PollResult {
        let mut result = PollResult::default();
        let Self { dir, local_part_rules, poll_settings: settings, directories } = self;
        let make = |domain: &Domain, path: &Path| LocalDomainDirectory {
            domain: domain.clone(),
            path: path.to_owned(),
            local_part_rules: local_part_rules.clone(),
            users: WatchedValue::default(),
            aliases: WatchedValue::default(),
            senders: WatchedValue::default(),
        };
        directories.poll(
            *settings,
            &mut result,
            |reader| list_domain_directories(dir, reader).map_err(|e| vec![e]),
            make,
        );
        result
    }

    /// The paths that are changing.
    pub(super) fn changing_paths(&self) -> Vec<PathBuf> {
        self.directories.changing_paths()
    }

    /// The problems of the files as they are.
    #[must_use]
    pub fn problems(&self) -> Vec<String> {
        self.directories.problems()
    }

    /// Reads everything at the next poll.
    pub(super) fn invalidate(&mut self) {
        self.directories.invalidate();
    }

    /// The local domains, without `localhost` unless it has a directory.
    #[must_use]
    pub fn names(&self) -> Vec<Domain> {
        self.directories.in_force().map(|(domain, _)| domain.clone()).collect()
    }

    /// The users of each domain, in force.
    #[must_use]
    pub fn users(&self) -> HashMap<Domain, Arc<Users>> {
        self.by_domain(|directory| &directory.users)
    }

    /// The addresses that the users of each domain may send from, in force.
    #[must_use]
    pub fn senders(&self) -> HashMap<Domain, Arc<AllowedSenders>> {
        self.by_domain(|directory| &directory.senders)
    }

    /// The aliases of each domain, in force.
    #[must_use]
    pub fn aliases(&self) -> HashMap<Domain, Arc<DomainAliases>> {
        self.by_domain(|directory| &directory.aliases)
    }

    fn by_domain<T>(
        &self,
        of: impl Fn(&LocalDomainDirectory) -> &WatchedValue<T>,
    ) -> HashMap<Domain, Arc<T>> {
        let in_force = self.directories.in_force();
        in_force
            .filter_map(|(domain, directory)| Some((domain.clone(), Arc::clone(of(directory).value()?))))
            .collect()
    }
}

impl WatchedDirectory for LocalDomainDirectory {
    fn poll(&mut self, settings: PollSettings, found: &mut PollResult) {
        let Self { domain, path, local_part_rules, users, aliases, senders } = self;
        users.poll(settings, found, |reader| read_users(&path.join("users"), reader));
        let dir = AliasFileContext { domain, local_part_rules };
        aliases.poll(settings, found, |reader| read_aliases(&path.join("aliases"), dir, reader));
        senders.poll(settings, found, |reader| read_senders(&path.join("senders"), domain, reader));
    }

    fn watches(&self) -> Vec<&dyn FileWatch> {
        vec![&self.users, &self.aliases, &self.senders]
    }

    fn watches_mut(&mut self) -> Vec<&mut dyn FileWatch> {
        vec![&mut self.users, &mut self.aliases, &mut self.senders]
    }
}

/// The logins that alias files name, with the line of each.
pub(super) fn referenced_logins(domains: &LocalDomains) -> Vec<(String, AliasLocation)> {
    let mut named = Vec::new();
    for aliases in domains.aliases().values() {
        for (_, alias) in aliases.list() {
            let logins = alias.targets.iter().filter_map(AliasTarget::credential_name);
            named.extend(logins.map(|login| (login.to_owned(), alias.location.clone())));
        }
    }
    named.sort_by(|one, other| (&one.1.file, one.1.line).cmp(&(&other.1.file, other.1.line)));
    named
}

/// The directory of a domain, if there is one below `config_dir`. Its name may be in A-labels or U-labels,
/// in upper or lower case.
///
/// # Errors
/// The problem of the list of directories.
pub fn local_domain_directory(config_dir: &Path, domain: &Domain) -> Result<Option<PathBuf>, String> {
    let mut listing = list_domain_directories(&config_dir.join("domains"), &mut FileReader::default())?;
    Ok(listing.directories.remove(domain))
}

/// The directories by domain, and the problems of the other entries.
fn list_domain_directories(dir: &Path, reader: &mut FileReader) -> Result<DirectoryListing<Domain>, String> {
    let (paths, mut problems) = list_directories(dir, reader).map_err(|e| {
        format!(
            "{}: {e}; it must be a directory with one directory in it for each local domain",
            dir.display()
        )
    })?;
    let mut found = BTreeMap::new();
    for path in paths {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        match Domain::parse(&name) {
            Ok(domain) if domain.as_address().is_none() => {
                if let Some(other) = found.insert(domain, path.clone()) {
                    let (one, other) = (other.display(), path.display());
                    problems.push(format!("{other}: is the same domain as {one}; remove one of them"));
                }
            }
            _ => {
                problems.push(format!("{}: is not named like a domain; rename or remove it", path.display()))
            }
        }
    }
    problems.sort();
    Ok(DirectoryListing { directories: found, problems })
}

fn read_users(path: &Path, reader: &mut FileReader) -> Result<Users, Vec<String>> {
    let Some(text) = read_text_file(path, Users::OCTETS_MAX, reader)? else { return Ok(Users::default()) };
    Users::parse(&text, path).map_err(|wrong| to_messages(&wrong))
}

fn read_senders(
    path: &Path,
    domain: &Domain,
    reader: &mut FileReader,
) -> Result<AllowedSenders, Vec<String>> {
    let Some(text) = read_text_file(path, AllowedSenders::OCTETS_MAX, reader)? else {
        return Ok(AllowedSenders::default());
    };
    AllowedSenders::parse(&text, path, domain).map_err(|wrong| to_messages(&wrong))
}

/// Reads an alias file and the files that it includes.
fn read_aliases(
    path: &Path,
    dir: AliasFileContext<'_>,
    reader: &mut FileReader,
) -> Result<DomainAliases, Vec<String>> {
    let Some(text) = read_text_file(path, DomainAliases::OCTETS_MAX, reader)? else {
        return Ok(DomainAliases::default());
    };
    let mut included = |file: &Path| match reader.read_text(file, DomainAliases::OCTETS_MAX) {
        Ok(Some(text)) => Ok(text),
        Ok(None) => Err(io::Error::from(io::ErrorKind::NotFound).to_string()),
        Err(e) => Err(e.to_string()),
    };
    DomainAliases::parse(&text, path, dir, &mut included).map_err(|wrong| to_messages(&wrong))
}

/// The text of a file; `None` if there is no file.
pub(super) fn read_text_file(
    path: &Path,
    octets_max: u64,
    reader: &mut FileReader,
) -> Result<Option<String>, Vec<String>> {
    let text = reader.read_text(path, octets_max);
    text.map_err(|e| vec![format!("{}: {e}; the server must be able to read it", path.display())])
}

fn to_messages(wrong: &[impl Display]) -> Vec<String> {
    wrong.iter().map(ToString::to_string).collect()
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "a test's files need not be durable")]
mod tests {
    use std::fs;
    use std::time::Duration;

    use super::*;
    use crate::mail::Mailbox;

    struct TestConfigDir(tempfile::TempDir);

    impl TestConfigDir {
        fn new(domains: &[&str]) -> Self {
            let dir = Self(tempfile::tempdir().unwrap());
            fs::create_dir(dir.path("")).unwrap();
            for domain in domains {
                fs::create_dir(dir.path(domain)).unwrap();
            }
            dir
        }

        fn path(&self, below: &str) -> PathBuf {
            self.0.path().join("domains").join(below)
        }

        fn write(&self, below: &str, text: &str) {
            fs::write(self.path(below), text).unwrap();
        }

        /// Read as at a start. Afterwards no file has been unchanged for long enough to count after one
        /// poll.
        fn load(&self) -> LocalDomains {
            let mut domains = LocalDomains::load(self.0.path(), &LocalPartRules::default()).unwrap();
            domains.poll_settings = PollSettings { interval: Duration::from_hours(1) };
            domains
        }
    }

    fn has(domains: &LocalDomains, address: &str) -> bool {
        let mailbox = Mailbox::parse(address).unwrap();
        domains.users().get(&mailbox.domain).is_some_and(|users| users.contains(&mailbox.local_part))
    }

    fn quiet() -> PollResult {
        PollResult::default()
    }

    fn changed() -> PollResult {
        PollResult { is_changed: true, problems: Vec::new() }
    }

    fn poll_times(domains: &mut LocalDomains, count: usize) -> Vec<PollResult> {
        (0..count).map(|_| domains.poll()).collect()
    }

    #[test]
    fn a_directory_makes_a_domain_local_in_every_spelling() {
        let dir = TestConfigDir::new(&["here.example", "XN--bcher-kva.example", ".git"]);
        dir.write("notes.txt", "not a directory");
        dir.write("here.example/users", "ana: receive-only\n");
        dir.write("here.example/aliases", "postmaster: ana\n");
        let domains = dir.load();
        let names: Vec<_> = domains.names().iter().map(ToString::to_string).collect();
        assert_eq!(names, ["here.example", "bücher.example"]);
        assert!(has(&domains, "ana@here.example"));
        let here = Domain::parse("here.example").unwrap();
        assert!(domains.aliases()[&here].alias("postmaster").is_some());
        let bücher = Domain::parse("bücher.example").unwrap();
        assert_eq!(
            local_domain_directory(dir.0.path(), &bücher).unwrap(),
            Some(dir.path("XN--bcher-kva.example"))
        );
    }

    #[test]
    fn a_start_reports_every_problem() {
        let dir = TestConfigDir::new(&["here.example", "HERE.example", "a b"]);
        dir.write("here.example/users", "nonsense\n");
        dir.write("HERE.example/users", "nonsense\n");
        let errors = LocalDomains::load(dir.0.path(), &LocalPartRules::default()).unwrap_err();
        for says in ["the same domain", "not named like a domain", "users:1: "] {
            assert!(errors.iter().any(|e| e.contains(says)), "{says} in {errors:?}");
        }
        let nowhere = LocalDomains::load(&dir.path("here.example"), &LocalPartRules::default()).unwrap_err();
        assert!(nowhere[0].contains("one directory in it for each local domain"), "{nowhere:?}");
    }

    #[test]
    fn a_change_is_in_force_once_two_polls_agree() {
        let dir = TestConfigDir::new(&["here.example"]);
        let mut domains = dir.load();
        assert_eq!(domains.poll(), quiet());
        dir.write("here.example/users", "ana: receive-only\n");
        assert_eq!(domains.poll(), quiet(), "it may still be written");
        assert_eq!(domains.poll(), changed());
        assert!(has(&domains, "ana@here.example"));
        assert_eq!(domains.poll(), quiet());
    }

    #[test]
    fn a_broken_file_keeps_the_old_one_in_force_and_is_reported_once() {
        let dir = TestConfigDir::new(&["here.example"]);
        dir.write("here.example/users", "ana: receive-only\n");
        let mut domains = dir.load();
        dir.write("here.example/users", "ana receive-only\n");
        dir.write("here.example/aliases", "x: ana\n");
        domains.poll();
        let result = domains.poll();
        assert!(result.is_changed, "the other file is fine");
        assert!(result.problems.len() == 1 && result.problems[0].contains("users:1: "), "{result:?}");
        assert!(has(&domains, "ana@here.example"));
        assert_eq!(domains.poll(), quiet());
        dir.write("here.example/users", "bo: receive-only\n# mended\n");
        assert_eq!((domains.poll(), domains.poll()), (quiet(), changed()));
        assert!(has(&domains, "bo@here.example"));
    }

    #[test]
    fn included_files_are_watched_like_the_one_that_names_them() {
        let dir = TestConfigDir::new(&["here.example"]);
        dir.write("here.example/aliases", "include teams\n");
        dir.write("here.example/teams", "all: ana\n");
        let mut domains = dir.load();
        let here = Domain::parse("here.example").unwrap();
        let count = |domains: &LocalDomains| domains.aliases()[&here].count();
        assert_eq!((domains.poll(), count(&domains)), (quiet(), 1));

        dir.write("here.example/teams", "all: ana\nmore: ana\ninclude deeper\n");
        domains.poll();
        let result = domains.poll();
        assert!(!result.is_changed && result.problems.len() == 1, "{result:?}");
        assert!(
            result.problems[0].contains("teams:3: "),
            "the line that includes what is not there: {result:?}"
        );
        assert_eq!((domains.poll(), count(&domains)), (quiet(), 1), "said once, and the old ones stay");

        dir.write("here.example/deeper", "deep: ana\n");
        assert_eq!((domains.poll(), domains.poll()), (quiet(), changed()), "it is there now");
        assert_eq!(count(&domains), 3);

        fs::remove_file(dir.path("here.example/deeper")).unwrap();
        assert_eq!(poll_times(&mut domains, 4), [quiet(), quiet(), quiet(), quiet()], "it may come back");
        let result = domains.poll();
        assert!(!result.is_changed && result.problems.len() == 1, "{result:?}");
        dir.write("here.example/aliases", "all: ana\n");
        assert_eq!((domains.poll(), domains.poll()), (quiet(), changed()));
        assert_eq!((domains.poll(), count(&domains)), (quiet(), 1), "nobody asks for the others any more");
    }

    #[test]
    fn domains_come_and_go_with_their_directories() {
        let dir = TestConfigDir::new(&["here.example"]);
        let mut domains = dir.load();
        fs::create_dir(dir.path("new.example")).unwrap();
        dir.write("new.example/users", "nonsense\n");
        let problems: usize = poll_times(&mut domains, 5).iter().map(|result| result.problems.len()).sum();
        assert_eq!(problems, 1, "said once");
        assert_eq!(domains.names().len(), 1);
        dir.write("new.example/users", "ana: receive-only\n");
        assert_eq!(poll_times(&mut domains, 2), [quiet(), changed()]);
        assert!(has(&domains, "ana@new.example"));

        // The same domain twice: nothing changes until one is removed.
        fs::create_dir(dir.path("NEW.example")).unwrap();
        assert_eq!(domains.poll(), quiet());
        let result = domains.poll();
        assert!(!result.is_changed && result.problems[0].contains("the same domain"), "{result:?}");
        assert!(has(&domains, "ana@new.example"));
        fs::remove_dir(dir.path("NEW.example")).unwrap();
        assert!(poll_times(&mut domains, 5).iter().all(|result| *result == quiet()));
        assert_eq!(domains.problems(), Vec::<String>::new());

        fs::rename(dir.path("new.example"), dir.path("New.example")).unwrap();
        while !domains.poll().is_changed {
            assert!(has(&domains, "ana@new.example"));
        }
        assert!(has(&domains, "ana@new.example"), "it is still there, in another spelling");
        poll_times(&mut domains, 6);

        fs::remove_dir_all(dir.path("New.example")).unwrap();
        assert_eq!(poll_times(&mut domains, 5), [quiet(), quiet(), quiet(), quiet(), changed()]);
        assert_eq!(domains.names().len(), 1);
    }

    #[test]
    fn a_file_that_is_written_slowly_counts_once_it_stays_the_same() {
        let dir = TestConfigDir::new(&["here.example"]);
        let whole: String = (0..20).map(|number| format!("user{number}: receive-only\n")).collect();
        dir.write("here.example/users", &format!("{whole}ana: receive-only\n"));
        let mut domains = dir.load();
        // Emptied first, as an editor does, and left empty for some polls.
        dir.write("here.example/users", "");
        assert_eq!(poll_times(&mut domains, 4), [quiet(), quiet(), quiet(), quiet()]);
        for octets in (10..=whole.len()).step_by(10) {
            dir.write("here.example/users", &whole[..octets]);
            assert_eq!(domains.poll(), quiet());
            assert!(has(&domains, "ana@here.example"), "after {octets} octets");
        }
        dir.write("here.example/users", &whole);
        while !domains.poll().is_changed {}
        assert!(has(&domains, "user19@here.example") && !has(&domains, "ana@here.example"));

        dir.write("here.example/users", "");
        assert_eq!(poll_times(&mut domains, 5), [quiet(), quiet(), quiet(), quiet(), changed()]);
        assert!(!has(&domains, "user19@here.example"), "emptied for good");
    }

    #[test]
    fn two_writes_within_one_tick_of_the_clock_are_both_noticed() {
        let dir = TestConfigDir::new(&["here.example"]);
        let mut domains = dir.load();
        for round in 0..50 {
            dir.write("here.example/users", "ana: receive-only\n");
            poll_times(&mut domains, 2);
            dir.write("here.example/users", "bob: receive-only\n");
            poll_times(&mut domains, 2);
            assert!(has(&domains, "bob@here.example"), "round {round}");
        }
    }

    #[test]
    fn directories_that_come_back_one_after_another_stay_in_force_meanwhile() {
        let dir = TestConfigDir::new(&["a.example", "b.example"]);
        let mut domains = dir.load();
        let away = dir.0.path().join("away");
        fs::rename(dir.path(""), &away).unwrap();
        poll_times(&mut domains, 10);
        fs::create_dir(dir.path("")).unwrap();
        for name in ["a.example", "b.example"] {
            assert_eq!(poll_times(&mut domains, 4).iter().filter(|result| result.is_changed).count(), 0);
            assert_eq!(domains.names().len(), 2);
            fs::rename(away.join(name), dir.path(name)).unwrap();
        }
        poll_times(&mut domains, 6);
        assert_eq!(domains.names().len(), 2);
        assert_eq!(domains.problems(), Vec::<String>::new());
    }

    #[test]
    fn a_file_or_directory_that_is_missing_for_a_moment_stays_in_force() {
        let dir = TestConfigDir::new(&["here.example"]);
        dir.write("here.example/users", "ana: receive-only\n");
        let mut domains = dir.load();
        let away = dir.0.path().join("away");
        for thing in ["here.example", "here.example/users"] {
            for _ in 0..3 {
                fs::rename(dir.path(thing), &away).unwrap();
                assert_eq!(poll_times(&mut domains, 4), [quiet(), quiet(), quiet(), quiet()], "{thing}");
                assert!(has(&domains, "ana@here.example"), "{thing}");
                fs::rename(&away, dir.path(thing)).unwrap();
                // A file that was moved has another time stamp, and is read again.
                poll_times(&mut domains, 2);
            }
        }
        fs::remove_file(dir.path("here.example/users")).unwrap();
        assert_eq!(poll_times(&mut domains, 5), [quiet(), quiet(), quiet(), quiet(), changed()]);
        assert!(!has(&domains, "ana@here.example"));
        assert_eq!(domains.poll(), quiet());
    }

    #[test]
    fn an_unreadable_file_or_directory_stays_in_force_and_is_reported_once() {
        let dir = TestConfigDir::new(&["here.example", "there.example"]);
        dir.write("here.example/users", "ana: receive-only\n");
        let mut domains = dir.load();

        // All directories at once, for example in the middle of an upgrade.
        let away = dir.0.path().join("away");
        fs::rename(dir.path(""), &away).unwrap();
        let problems: usize = poll_times(&mut domains, 10).iter().map(|result| result.problems.len()).sum();
        assert_eq!(problems, 1);
        assert!(domains.names().len() == 2 && has(&domains, "ana@here.example"));
        fs::rename(&away, dir.path("")).unwrap();
        domains.poll();

        // An error other than "not found", which root gets too. After one poll it is not reported yet.
        fs::rename(dir.path("here.example/users"), &away).unwrap();
        std::os::unix::fs::symlink("users", dir.path("here.example/users")).unwrap();
        assert_eq!(domains.poll(), quiet());
        fs::rename(&away, dir.path("here.example/users")).unwrap();
        assert!(poll_times(&mut domains, 2).iter().all(|result| result.problems.is_empty()));
        fs::rename(dir.path("here.example"), &away).unwrap();
        std::os::unix::fs::symlink("here.example", dir.path("here.example")).unwrap();
        let problems: usize = poll_times(&mut domains, 10).iter().map(|result| result.problems.len()).sum();
        assert_eq!(problems, 1, "the files in it are not looked at meanwhile");
        assert!(domains.names().len() == 2 && has(&domains, "ana@here.example"));
    }
}
