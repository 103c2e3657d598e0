//! The directories of the local domains: their users and aliases, read and read again.
//!
//! `domains/DOMAIN/` makes DOMAIN local; `users`, `aliases` and `senders` in it may be missing. Every file
//! is looked at by the rule of `watched`, at the start, on SIGHUP and regularly. A directory or file that
//! is gone only counts as removed after some looks: an upgrade or a network file system may bring it back,
//! and meanwhile its mail would be refused and bounced.

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

/// Every local domain, with what its files say.
#[derive(Debug, Clone)]
pub struct LocalDomains {
    dir: PathBuf,
    spelling: LocalPartRules,
    poll_settings: PollSettings,
    directories: WatchedDirectories<Domain, LocalDomainDirectory>,
}

/// The files of one domain.
#[derive(Debug, Clone)]
struct LocalDomainDirectory {
    domain: Domain,
    path: PathBuf,
    spelling: LocalPartRules,
    users: WatchedValue<Users>,
    aliases: WatchedValue<DomainAliases>,
    senders: WatchedValue<AllowedSenders>,
}

impl LocalDomains {
    /// Those below `domains/` in the configuration directory, before the first look; names are spelled as
    /// `spelling` says.
    pub(super) fn new(config_dir: &Path, spelling: &LocalPartRules, looks: PollSettings) -> Self {
        let dir = config_dir.join("domains");
        Self {
            dir,
            spelling: spelling.clone(),
            poll_settings: looks,
            directories: WatchedDirectories::default(),
        }
    }

    /// Reads `domains/` in the configuration directory as it is at this moment.
    ///
    /// # Errors
    /// Everything that is wrong, a sentence each; the operator is at fault.
    pub fn load(config_dir: &Path, spelling: &LocalPartRules) -> Result<Self, Vec<String>> {
        let mut domains = Self::new(config_dir, spelling, PollSettings::IMMEDIATE);
        let mut look = || {
            domains.poll();
            domains.changing_paths()
        };
        wait_until_stable(PollSettings::IMMEDIATE, &mut look, &mut |_| false).map_err(|e| vec![e])?;
        let complaints = domains.problems();
        if complaints.is_empty() { Ok(domains) } else { Err(complaints) }
    }

    /// Looks for files and directories that have changed, and reads those.
    ///
    /// A new directory counts once its files parse: until then its mail would only be refused.
    pub fn poll(&mut self) -> PollResult {
        let mut look = PollResult::default();
        let Self { dir, spelling, poll_settings: looks, directories: folders } = self;
        let make = |domain: &Domain, path: &Path| LocalDomainDirectory {
            domain: domain.clone(),
            path: path.to_owned(),
            spelling: spelling.clone(),
            users: WatchedValue::default(),
            aliases: WatchedValue::default(),
            senders: WatchedValue::default(),
        };
        folders.poll(
            *looks,
            &mut look,
            |reader| list_domain_directories(dir, reader).map_err(|e| vec![e]),
            make,
        );
        look
    }

    /// What is changing and not believed yet.
    pub(super) fn changing_paths(&self) -> Vec<PathBuf> {
        self.directories.changing_paths()
    }

    /// Everything that is wrong with the files as they are.
    #[must_use]
    pub fn problems(&self) -> Vec<String> {
        self.directories.problems()
    }

    /// Reads everything at the next look.
    pub(super) fn invalidate(&mut self) {
        self.directories.invalidate();
    }

    /// The local domains, without `localhost` unless it has a directory.
    #[must_use]
    pub fn names(&self) -> Vec<Domain> {
        self.directories.in_force().map(|(domain, _)| domain.clone()).collect()
    }

    /// The users of each domain, as they are in force.
    #[must_use]
    pub fn users(&self) -> HashMap<Domain, Arc<Users>> {
        self.by_domain(|folder| &folder.users)
    }

    /// In whose name the users of each domain may write, as it is in force.
    #[must_use]
    pub fn senders(&self) -> HashMap<Domain, Arc<AllowedSenders>> {
        self.by_domain(|folder| &folder.senders)
    }

    /// The aliases of each domain, as they are in force.
    #[must_use]
    pub fn aliases(&self) -> HashMap<Domain, Arc<DomainAliases>> {
        self.by_domain(|folder| &folder.aliases)
    }

    fn by_domain<T>(
        &self,
        of: impl Fn(&LocalDomainDirectory) -> &WatchedValue<T>,
    ) -> HashMap<Domain, Arc<T>> {
        let in_force = self.directories.in_force();
        in_force
            .filter_map(|(domain, folder)| Some((domain.clone(), Arc::clone(of(folder).value()?))))
            .collect()
    }
}

impl WatchedDirectory for LocalDomainDirectory {
    fn poll(&mut self, looks: PollSettings, found: &mut PollResult) {
        let Self { domain, path, spelling, users, aliases, senders } = self;
        users.poll(looks, found, |reader| read_users(&path.join("users"), reader));
        let house = AliasFileContext { domain, local_part_rules: spelling };
        aliases.poll(looks, found, |reader| read_aliases(&path.join("aliases"), house, reader));
        senders.poll(looks, found, |reader| read_senders(&path.join("senders"), domain, reader));
    }

    fn watches(&self) -> Vec<&dyn FileWatch> {
        vec![&self.users, &self.aliases, &self.senders]
    }

    fn watches_mut(&mut self) -> Vec<&mut dyn FileWatch> {
        vec![&mut self.users, &mut self.aliases, &mut self.senders]
    }
}

/// The logins that alias files name, each with the line that does.
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

/// The directory of a domain, if there is one below `config_dir`; it may be spelled in A-labels or
/// U-labels, in any case.
///
/// # Errors
/// What is wrong with the directories.
pub fn local_domain_directory(config_dir: &Path, domain: &Domain) -> Result<Option<PathBuf>, String> {
    let mut listing = list_domain_directories(&config_dir.join("domains"), &mut FileReader::default())?;
    Ok(listing.directories.remove(domain))
}

/// The directories by domain, and what is wrong with the rest of them.
fn list_domain_directories(dir: &Path, reader: &mut FileReader) -> Result<DirectoryListing<Domain>, String> {
    let (paths, mut complaints) = list_directories(dir, reader).map_err(|e| {
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
                    complaints.push(format!("{other}: is the same domain as {one}; remove one of them"));
                }
            }
            _ => complaints
                .push(format!("{}: is not named like a domain; rename or remove it", path.display())),
        }
    }
    complaints.sort();
    Ok(DirectoryListing { directories: found, problems: complaints })
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

/// The aliases, and the files that are included.
fn read_aliases(
    path: &Path,
    house: AliasFileContext<'_>,
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
    DomainAliases::parse(&text, path, house, &mut included).map_err(|wrong| to_messages(&wrong))
}

/// The text of a file; none if there is no file.
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
            let house = Self(tempfile::tempdir().unwrap());
            fs::create_dir(house.path("")).unwrap();
            for domain in domains {
                fs::create_dir(house.path(domain)).unwrap();
            }
            house
        }

        fn path(&self, below: &str) -> PathBuf {
            self.0.path().join("domains").join(below)
        }

        fn write(&self, below: &str, text: &str) {
            fs::write(self.path(below), text).unwrap();
        }

        /// Read as at a start; from now on no file has rested long enough to be believed at one look.
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

    fn looks(domains: &mut LocalDomains, count: usize) -> Vec<PollResult> {
        (0..count).map(|_| domains.poll()).collect()
    }

    #[test]
    fn a_directory_makes_a_domain_local_in_every_spelling() {
        let house = TestConfigDir::new(&["here.example", "XN--bcher-kva.example", ".git"]);
        house.write("notes.txt", "not a directory");
        house.write("here.example/users", "ana: receive-only\n");
        house.write("here.example/aliases", "postmaster: ana\n");
        let domains = house.load();
        let names: Vec<_> = domains.names().iter().map(ToString::to_string).collect();
        assert_eq!(names, ["here.example", "bücher.example"]);
        assert!(has(&domains, "ana@here.example"));
        let here = Domain::parse("here.example").unwrap();
        assert!(domains.aliases()[&here].alias("postmaster").is_some());
        let bücher = Domain::parse("bücher.example").unwrap();
        assert_eq!(
            local_domain_directory(house.0.path(), &bücher).unwrap(),
            Some(house.path("XN--bcher-kva.example"))
        );
    }

    #[test]
    fn at_start_everything_that_is_wrong_is_said() {
        let house = TestConfigDir::new(&["here.example", "HERE.example", "a b"]);
        house.write("here.example/users", "nonsense\n");
        house.write("HERE.example/users", "nonsense\n");
        let errors = LocalDomains::load(house.0.path(), &LocalPartRules::default()).unwrap_err();
        for says in ["the same domain", "not named like a domain", "users:1: "] {
            assert!(errors.iter().any(|e| e.contains(says)), "{says} in {errors:?}");
        }
        let nowhere =
            LocalDomains::load(&house.path("here.example"), &LocalPartRules::default()).unwrap_err();
        assert!(nowhere[0].contains("one directory in it for each local domain"), "{nowhere:?}");
    }

    #[test]
    fn a_change_is_in_force_once_two_looks_agree() {
        let house = TestConfigDir::new(&["here.example"]);
        let mut domains = house.load();
        assert_eq!(domains.poll(), quiet());
        house.write("here.example/users", "ana: receive-only\n");
        assert_eq!(domains.poll(), quiet(), "it may still be written");
        assert_eq!(domains.poll(), changed());
        assert!(has(&domains, "ana@here.example"));
        assert_eq!(domains.poll(), quiet());
    }

    #[test]
    fn a_broken_file_keeps_the_old_one_in_force_and_says_so_once() {
        let house = TestConfigDir::new(&["here.example"]);
        house.write("here.example/users", "ana: receive-only\n");
        let mut domains = house.load();
        house.write("here.example/users", "ana receive-only\n");
        house.write("here.example/aliases", "x: ana\n");
        domains.poll();
        let look = domains.poll();
        assert!(look.is_changed, "the other file is fine");
        assert!(look.problems.len() == 1 && look.problems[0].contains("users:1: "), "{look:?}");
        assert!(has(&domains, "ana@here.example"));
        assert_eq!(domains.poll(), quiet());
        house.write("here.example/users", "bo: receive-only\n# mended\n");
        assert_eq!((domains.poll(), domains.poll()), (quiet(), changed()));
        assert!(has(&domains, "bo@here.example"));
    }

    #[test]
    fn included_files_are_watched_like_the_one_that_names_them() {
        let house = TestConfigDir::new(&["here.example"]);
        house.write("here.example/aliases", "include teams\n");
        house.write("here.example/teams", "all: ana\n");
        let mut domains = house.load();
        let here = Domain::parse("here.example").unwrap();
        let count = |domains: &LocalDomains| domains.aliases()[&here].count();
        assert_eq!((domains.poll(), count(&domains)), (quiet(), 1));

        house.write("here.example/teams", "all: ana\nmore: ana\ninclude deeper\n");
        domains.poll();
        let look = domains.poll();
        assert!(!look.is_changed && look.problems.len() == 1, "{look:?}");
        assert!(look.problems[0].contains("teams:3: "), "the line that includes what is not there: {look:?}");
        assert_eq!((domains.poll(), count(&domains)), (quiet(), 1), "said once, and the old ones stay");

        house.write("here.example/deeper", "deep: ana\n");
        assert_eq!((domains.poll(), domains.poll()), (quiet(), changed()), "it is there now");
        assert_eq!(count(&domains), 3);

        fs::remove_file(house.path("here.example/deeper")).unwrap();
        assert_eq!(looks(&mut domains, 4), [quiet(), quiet(), quiet(), quiet()], "it may come back");
        let look = domains.poll();
        assert!(!look.is_changed && look.problems.len() == 1, "{look:?}");
        house.write("here.example/aliases", "all: ana\n");
        assert_eq!((domains.poll(), domains.poll()), (quiet(), changed()));
        assert_eq!((domains.poll(), count(&domains)), (quiet(), 1), "nobody asks for the others any more");
    }

    #[test]
    fn domains_come_and_go_with_their_directories() {
        let house = TestConfigDir::new(&["here.example"]);
        let mut domains = house.load();
        fs::create_dir(house.path("new.example")).unwrap();
        house.write("new.example/users", "nonsense\n");
        let complaints: usize = looks(&mut domains, 5).iter().map(|look| look.problems.len()).sum();
        assert_eq!(complaints, 1, "said once");
        assert_eq!(domains.names().len(), 1);
        house.write("new.example/users", "ana: receive-only\n");
        assert_eq!(looks(&mut domains, 2), [quiet(), changed()]);
        assert!(has(&domains, "ana@new.example"));

        // The same domain twice: nothing changes until that is mended.
        fs::create_dir(house.path("NEW.example")).unwrap();
        assert_eq!(domains.poll(), quiet());
        let look = domains.poll();
        assert!(!look.is_changed && look.problems[0].contains("the same domain"), "{look:?}");
        assert!(has(&domains, "ana@new.example"));
        fs::remove_dir(house.path("NEW.example")).unwrap();
        assert!(looks(&mut domains, 5).iter().all(|look| *look == quiet()));
        assert_eq!(domains.problems(), Vec::<String>::new());

        fs::rename(house.path("new.example"), house.path("New.example")).unwrap();
        while !domains.poll().is_changed {
            assert!(has(&domains, "ana@new.example"));
        }
        assert!(has(&domains, "ana@new.example"), "it is still there, in another spelling");
        looks(&mut domains, 6);

        fs::remove_dir_all(house.path("New.example")).unwrap();
        assert_eq!(looks(&mut domains, 5), [quiet(), quiet(), quiet(), quiet(), changed()]);
        assert_eq!(domains.names().len(), 1);
    }

    #[test]
    fn a_file_that_is_written_slowly_counts_once_it_stays_the_same() {
        let house = TestConfigDir::new(&["here.example"]);
        let whole: String = (0..20).map(|number| format!("user{number}: receive-only\n")).collect();
        house.write("here.example/users", &format!("{whole}ana: receive-only\n"));
        let mut domains = house.load();
        // Emptied first, as an editor does, and left so for some looks.
        house.write("here.example/users", "");
        assert_eq!(looks(&mut domains, 4), [quiet(), quiet(), quiet(), quiet()]);
        for octets in (10..=whole.len()).step_by(10) {
            house.write("here.example/users", &whole[..octets]);
            assert_eq!(domains.poll(), quiet());
            assert!(has(&domains, "ana@here.example"), "after {octets} octets");
        }
        house.write("here.example/users", &whole);
        while !domains.poll().is_changed {}
        assert!(has(&domains, "user19@here.example") && !has(&domains, "ana@here.example"));

        house.write("here.example/users", "");
        assert_eq!(looks(&mut domains, 5), [quiet(), quiet(), quiet(), quiet(), changed()]);
        assert!(!has(&domains, "user19@here.example"), "emptied for good");
    }

    #[test]
    fn two_writes_within_one_tick_of_the_clock_are_told_apart() {
        let house = TestConfigDir::new(&["here.example"]);
        let mut domains = house.load();
        for round in 0..50 {
            house.write("here.example/users", "ana: receive-only\n");
            looks(&mut domains, 2);
            house.write("here.example/users", "bob: receive-only\n");
            looks(&mut domains, 2);
            assert!(has(&domains, "bob@here.example"), "round {round}");
        }
    }

    #[test]
    fn directories_that_come_back_one_after_another_stay_in_force_meanwhile() {
        let house = TestConfigDir::new(&["a.example", "b.example"]);
        let mut domains = house.load();
        let away = house.0.path().join("away");
        fs::rename(house.path(""), &away).unwrap();
        looks(&mut domains, 10);
        fs::create_dir(house.path("")).unwrap();
        for name in ["a.example", "b.example"] {
            assert_eq!(looks(&mut domains, 4).iter().filter(|look| look.is_changed).count(), 0);
            assert_eq!(domains.names().len(), 2);
            fs::rename(away.join(name), house.path(name)).unwrap();
        }
        looks(&mut domains, 6);
        assert_eq!(domains.names().len(), 2);
        assert_eq!(domains.problems(), Vec::<String>::new());
    }

    #[test]
    fn what_is_gone_for_a_moment_stays_in_force() {
        let house = TestConfigDir::new(&["here.example"]);
        house.write("here.example/users", "ana: receive-only\n");
        let mut domains = house.load();
        let away = house.0.path().join("away");
        for thing in ["here.example", "here.example/users"] {
            for _ in 0..3 {
                fs::rename(house.path(thing), &away).unwrap();
                assert_eq!(looks(&mut domains, 4), [quiet(), quiet(), quiet(), quiet()], "{thing}");
                assert!(has(&domains, "ana@here.example"), "{thing}");
                fs::rename(&away, house.path(thing)).unwrap();
                // A file that was moved has another stamp, and is read again.
                looks(&mut domains, 2);
            }
        }
        fs::remove_file(house.path("here.example/users")).unwrap();
        assert_eq!(looks(&mut domains, 5), [quiet(), quiet(), quiet(), quiet(), changed()]);
        assert!(!has(&domains, "ana@here.example"));
        assert_eq!(domains.poll(), quiet());
    }

    #[test]
    fn what_is_out_of_reach_stays_in_force_and_is_said_once() {
        let house = TestConfigDir::new(&["here.example", "there.example"]);
        house.write("here.example/users", "ana: receive-only\n");
        let mut domains = house.load();

        // All directories at once, for example in the middle of an upgrade.
        let away = house.0.path().join("away");
        fs::rename(house.path(""), &away).unwrap();
        let complaints: usize = looks(&mut domains, 10).iter().map(|look| look.problems.len()).sum();
        assert_eq!(complaints, 1);
        assert!(domains.names().len() == 2 && has(&domains, "ana@here.example"));
        fs::rename(&away, house.path("")).unwrap();
        domains.poll();

        // An error that is not "not found", and that root hears too: for one look it is not even said.
        fs::rename(house.path("here.example/users"), &away).unwrap();
        std::os::unix::fs::symlink("users", house.path("here.example/users")).unwrap();
        assert_eq!(domains.poll(), quiet());
        fs::rename(&away, house.path("here.example/users")).unwrap();
        assert!(looks(&mut domains, 2).iter().all(|look| look.problems.is_empty()));
        fs::rename(house.path("here.example"), &away).unwrap();
        std::os::unix::fs::symlink("here.example", house.path("here.example")).unwrap();
        let complaints: usize = looks(&mut domains, 10).iter().map(|look| look.problems.len()).sum();
        assert_eq!(complaints, 1, "the files in it are not looked at meanwhile");
        assert!(domains.names().len() == 2 && has(&domains, "ana@here.example"));
    }
}
