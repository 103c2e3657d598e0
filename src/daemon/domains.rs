//! The directories of the local domains: their users and aliases, read and read again.
//!
//! `domains/DOMAIN/` makes DOMAIN local; `users`, `aliases` and `senders` in it may be missing. At
//! start and on SIGHUP everything is read at once, and one mistake refuses it all
//! ([`Domains::load`]). In between the chores look every second or two ([`Domains::look`]), file by
//! file, as `watched` says. A directory that is gone only counts as removed after some looks, too: an
//! upgrade or a network file system may bring it back, and meanwhile its mail would be refused and
//! bounced.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::Display;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::watched::{Files, Look, Reading, Unread, Watched, is_gone, text_of};
use crate::alias::{Aliases, House, Place, Spelling, Target};
use crate::auth::{Senders, Users};
use crate::mail::Domain;
use crate::sys::{Stamp, read_text};

/// Every local domain, with what its files say.
#[derive(Debug)]
pub struct Domains {
    dir: PathBuf,
    spelling: Spelling,
    folders: BTreeMap<Domain, Folder>,
    /// What was wrong with directories at the last look: said once.
    said: BTreeSet<String>,
}

#[derive(Debug)]
struct Folder {
    path: PathBuf,
    /// Looks in a row that did not find the directory.
    gone: u8,
    users: Watched<Users>,
    aliases: Watched<Aliases>,
    senders: Watched<Senders>,
}

impl Domains {
    /// Reads `domains/` in the configuration directory; names are spelled as `spelling` says.
    ///
    /// # Errors
    /// Everything that is wrong, a sentence each; the operator is at fault.
    pub fn load(config_dir: &Path, spelling: &Spelling) -> Result<Self, Vec<String>> {
        let dir = config_dir.join("domains");
        let (found, mut complaints) = list(&dir).map_err(|e| vec![e])?;
        let mut folders = BTreeMap::new();
        for (domain, path) in found {
            match Folder::read(&domain, path, spelling) {
                Ok(folder) => drop(folders.insert(domain, folder)),
                Err(wrong) => complaints.extend(wrong),
            }
        }
        if complaints.is_empty() {
            Ok(Self { dir, spelling: spelling.clone(), folders, said: BTreeSet::new() })
        } else {
            Err(complaints)
        }
    }

    /// Looks for files and directories that have changed, and reads those.
    ///
    /// A new directory counts once its files parse: until then its mail would only be refused.
    pub fn look(&mut self) -> Look {
        let mut look = Look::default();
        let mut wrong = BTreeSet::new();
        let found = list(&self.dir);
        let is_within_reach = found.is_ok();
        match found {
            Err(complaint) => drop(wrong.insert(complaint)),
            Ok((found, complaints)) => {
                // A directory that has become ambiguous, or cannot be looked at, is no reason to drop
                // its domain.
                let is_clear = complaints.is_empty();
                wrong.extend(complaints);
                let before = self.folders.len();
                if is_clear {
                    self.folders.retain(|domain, folder| folder.is_kept(found.contains_key(domain)));
                }
                look.is_changed |= self.folders.len() != before;
                for (domain, path) in found {
                    // Spelled in another way, it is read again.
                    if self.folders.get(&domain).is_some_and(|folder| !is_clear || folder.path == path) {
                        continue;
                    }
                    match Folder::read(&domain, path, &self.spelling) {
                        Ok(folder) => {
                            self.folders.insert(domain, folder);
                            look.is_changed = true;
                        }
                        Err(complaints) => wrong.extend(complaints),
                    }
                }
            }
        }
        look.complaints.extend(wrong.difference(&self.said).cloned());
        self.said = wrong;

        let reached = self.folders.iter_mut().filter(|(_, folder)| is_within_reach && folder.gone == 0);
        for (domain, folder) in reached {
            let users = folder.path.join("users");
            folder.users.look(&mut look, || read_users(&users));
            let aliases = folder.path.join("aliases");
            let house = House { domain, spelling: &self.spelling };
            folder.aliases.look(&mut look, || read_aliases(&aliases, house));
            let senders = folder.path.join("senders");
            folder.senders.look(&mut look, || read_senders(&senders, domain));
        }
        look
    }

    /// The local domains, without `localhost` unless it has a directory.
    #[must_use]
    pub fn names(&self) -> Vec<Domain> {
        self.folders.keys().cloned().collect()
    }

    /// The users of each domain, as they are in force.
    #[must_use]
    pub fn users(&self) -> HashMap<Domain, Arc<Users>> {
        self.folders
            .iter()
            .map(|(domain, folder)| (domain.clone(), Arc::clone(&folder.users.value)))
            .collect()
    }

    /// In whose name the users of each domain may write, as it is in force.
    #[must_use]
    pub fn senders(&self) -> HashMap<Domain, Arc<Senders>> {
        self.folders
            .iter()
            .map(|(domain, folder)| (domain.clone(), Arc::clone(&folder.senders.value)))
            .collect()
    }

    /// The aliases of each domain, as they are in force.
    #[must_use]
    pub fn aliases(&self) -> HashMap<Domain, Arc<Aliases>> {
        self.folders
            .iter()
            .map(|(domain, folder)| (domain.clone(), Arc::clone(&folder.aliases.value)))
            .collect()
    }
}

/// The logins that alias files name, each with the line that does.
pub(super) fn logins_named(domains: &Domains) -> Vec<(String, Place)> {
    let mut named = Vec::new();
    for aliases in domains.aliases().values() {
        for (_, alias) in aliases.list() {
            let logins = alias.targets.iter().filter_map(Target::login);
            named.extend(logins.map(|login| (login.to_owned(), alias.place.clone())));
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
pub fn directory_of(config_dir: &Path, domain: &Domain) -> Result<Option<PathBuf>, String> {
    let (mut found, _) = list(&config_dir.join("domains"))?;
    Ok(found.remove(domain))
}

/// The directories by domain, and what is wrong with the rest of them.
fn list(dir: &Path) -> Result<(BTreeMap<Domain, PathBuf>, Vec<String>), String> {
    let cannot = |e: io::Error| {
        format!(
            "{}: {e}; it must be a directory with one directory in it for each local domain",
            dir.display()
        )
    };
    let mut found = BTreeMap::new();
    let mut complaints = Vec::new();
    for entry in fs::read_dir(dir).map_err(cannot)? {
        let path = entry.map_err(cannot)?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if name.starts_with('.') {
            continue;
        }
        // Follows symbolic links; what vanished meanwhile is not there.
        match fs::metadata(&path) {
            Ok(facts) if facts.is_dir() => {}
            Ok(_) => continue,
            Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
            Err(e) => {
                complaints.push(format!("{}: {e}; the server must be able to read it", path.display()));
                continue;
            }
        }
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
    Ok((found, complaints))
}

impl Folder {
    fn is_kept(&mut self, is_there: bool) -> bool {
        !is_gone(&mut self.gone, is_there)
    }

    fn read(domain: &Domain, path: PathBuf, spelling: &Spelling) -> Result<Self, Vec<String>> {
        let [users, aliases, senders] = ["users", "aliases", "senders"].map(|name| path.join(name));
        match (
            Watched::read(&users, || read_users(&users)),
            Watched::read(&aliases, || read_aliases(&aliases, House { domain, spelling })),
            Watched::read(&senders, || read_senders(&senders, domain)),
        ) {
            (Ok(users), Ok(aliases), Ok(senders)) => Ok(Self { path, gone: 0, users, aliases, senders }),
            (users, aliases, senders) => {
                let wrong = [users.err(), aliases.err(), senders.err()];
                Err(wrong.into_iter().flatten().flat_map(Unread::into_complaints).collect())
            }
        }
    }
}

fn read_users(path: &Path) -> Reading<Users> {
    let text = text_of(path, Users::OCTETS_MAX);
    let parse = |text: String| Users::parse(&text, path).map_err(|wrong| Unread::Wrong(said(&wrong)));
    Reading { result: text.and_then(parse), others: Files::new() }
}

fn read_senders(path: &Path, domain: &Domain) -> Reading<Senders> {
    let text = text_of(path, Senders::OCTETS_MAX);
    let parse =
        |text: String| Senders::parse(&text, path, domain).map_err(|wrong| Unread::Wrong(said(&wrong)));
    Reading { result: text.and_then(parse), others: Files::new() }
}

/// The aliases, and the files that are included.
fn read_aliases(path: &Path, house: House<'_>) -> Reading<Aliases> {
    let mut others = Files::new();
    let mut included = |file: &Path| {
        // The stamp first, as ever. What cannot be looked at cannot be read either, and that is said.
        others.push((file.to_owned(), Stamp::of(file).ok().flatten()));
        read_text(file, Aliases::OCTETS_MAX).map_err(|e| e.to_string())
    };
    let result = text_of(path, Aliases::OCTETS_MAX).and_then(|text| {
        Aliases::parse(&text, path, house, &mut included).map_err(|wrong| Unread::Wrong(said(&wrong)))
    });
    Reading { result, others }
}

fn said(wrong: &[impl Display]) -> Vec<String> {
    wrong.iter().map(ToString::to_string).collect()
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "a test's files need not be durable")]
mod tests {
    use super::*;
    use crate::mail::Mailbox;

    struct House(tempfile::TempDir);

    impl House {
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

        fn load(&self) -> Domains {
            Domains::load(self.0.path(), &Spelling::default()).unwrap()
        }
    }

    fn has(domains: &Domains, address: &str) -> bool {
        let mailbox = Mailbox::parse(address).unwrap();
        domains.users().get(&mailbox.domain).is_some_and(|users| users.has(&mailbox.local_part))
    }

    fn quiet() -> Look {
        Look::default()
    }

    fn changed() -> Look {
        Look { is_changed: true, complaints: Vec::new() }
    }

    fn looks(domains: &mut Domains, count: usize) -> Vec<Look> {
        (0..count).map(|_| domains.look()).collect()
    }

    #[test]
    fn a_directory_makes_a_domain_local_in_every_spelling() {
        let house = House::new(&["here.example", "XN--bcher-kva.example", ".git"]);
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
        assert_eq!(directory_of(house.0.path(), &bücher).unwrap(), Some(house.path("XN--bcher-kva.example")));
    }

    #[test]
    fn at_start_everything_that_is_wrong_is_said() {
        let house = House::new(&["here.example", "HERE.example", "a b"]);
        house.write("here.example/users", "nonsense\n");
        house.write("HERE.example/users", "nonsense\n");
        let errors = Domains::load(house.0.path(), &Spelling::default()).unwrap_err();
        for says in ["the same domain", "not named like a domain", "users:1: "] {
            assert!(errors.iter().any(|e| e.contains(says)), "{says} in {errors:?}");
        }
        let nowhere = Domains::load(&house.path("here.example"), &Spelling::default()).unwrap_err();
        assert!(nowhere[0].contains("one directory in it for each local domain"), "{nowhere:?}");
    }

    #[test]
    fn a_change_is_in_force_once_two_looks_agree() {
        let house = House::new(&["here.example"]);
        let mut domains = house.load();
        assert_eq!(domains.look(), quiet());
        house.write("here.example/users", "ana: receive-only\n");
        assert_eq!(domains.look(), quiet(), "it may still be written");
        assert_eq!(domains.look(), changed());
        assert!(has(&domains, "ana@here.example"));
        assert_eq!(domains.look(), quiet());
    }

    #[test]
    fn a_broken_file_keeps_the_old_one_in_force_and_says_so_once() {
        let house = House::new(&["here.example"]);
        house.write("here.example/users", "ana: receive-only\n");
        let mut domains = house.load();
        house.write("here.example/users", "ana receive-only\n");
        house.write("here.example/aliases", "x: ana\n");
        domains.look();
        let look = domains.look();
        assert!(look.is_changed, "the other file is fine");
        assert!(look.complaints.len() == 1 && look.complaints[0].contains("users:1: "), "{look:?}");
        assert!(has(&domains, "ana@here.example"));
        assert_eq!(domains.look(), quiet());
        house.write("here.example/users", "bo: receive-only\n# mended\n");
        assert_eq!((domains.look(), domains.look()), (quiet(), changed()));
        assert!(has(&domains, "bo@here.example"));
    }

    #[test]
    fn included_files_are_watched_like_the_one_that_names_them() {
        let house = House::new(&["here.example"]);
        house.write("here.example/aliases", "include teams\n");
        house.write("here.example/teams", "all: ana\n");
        let mut domains = house.load();
        let here = Domain::parse("here.example").unwrap();
        let count = |domains: &Domains| domains.aliases()[&here].count();
        assert_eq!((domains.look(), count(&domains)), (quiet(), 1));

        house.write("here.example/teams", "all: ana\nmore: ana\ninclude deeper\n");
        domains.look();
        let look = domains.look();
        assert!(!look.is_changed && look.complaints.len() == 1, "{look:?}");
        assert!(
            look.complaints[0].contains("teams:3: "),
            "the line that includes what is not there: {look:?}"
        );
        assert_eq!((domains.look(), count(&domains)), (quiet(), 1), "said once, and the old ones stay");

        house.write("here.example/deeper", "deep: ana\n");
        assert_eq!((domains.look(), domains.look()), (quiet(), changed()), "it is there now");
        assert_eq!(count(&domains), 3);

        fs::remove_file(house.path("here.example/deeper")).unwrap();
        domains.look();
        let look = domains.look();
        assert!(!look.is_changed && look.complaints.len() == 1, "{look:?}");
        house.write("here.example/aliases", "all: ana\n");
        assert_eq!((domains.look(), domains.look()), (quiet(), changed()));
        assert_eq!((domains.look(), count(&domains)), (quiet(), 1), "nobody asks for the others any more");
    }

    #[test]
    fn domains_come_and_go_with_their_directories() {
        let house = House::new(&["here.example"]);
        let mut domains = house.load();
        fs::create_dir(house.path("new.example")).unwrap();
        house.write("new.example/users", "nonsense\n");
        let look = domains.look();
        assert!(!look.is_changed && look.complaints.len() == 1, "{look:?}");
        assert_eq!(domains.look(), quiet(), "said once");
        house.write("new.example/users", "ana: receive-only\n");
        assert_eq!(domains.look(), changed());
        assert!(has(&domains, "ana@new.example"));

        // The same domain twice: nothing changes until that is mended.
        fs::create_dir(house.path("NEW.example")).unwrap();
        let look = domains.look();
        assert!(!look.is_changed && look.complaints[0].contains("the same domain"), "{look:?}");
        assert!(has(&domains, "ana@new.example"));
        fs::remove_dir(house.path("NEW.example")).unwrap();
        assert_eq!(domains.look(), quiet());

        fs::rename(house.path("new.example"), house.path("New.example")).unwrap();
        assert_eq!(domains.look(), changed(), "it is still there, in another spelling");
        assert!(has(&domains, "ana@new.example"));

        fs::remove_dir_all(house.path("New.example")).unwrap();
        assert_eq!(looks(&mut domains, 5), [quiet(), quiet(), quiet(), quiet(), changed()]);
        assert_eq!(domains.names().len(), 1);
    }

    #[test]
    fn what_is_gone_for_a_moment_stays_in_force() {
        let house = House::new(&["here.example"]);
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
        assert_eq!(domains.look(), quiet());
    }

    #[test]
    fn what_is_out_of_reach_stays_in_force_and_is_said_once() {
        let house = House::new(&["here.example", "there.example"]);
        house.write("here.example/users", "ana: receive-only\n");
        let mut domains = house.load();

        // All directories at once, for example in the middle of an upgrade.
        let away = house.0.path().join("away");
        fs::rename(house.path(""), &away).unwrap();
        let complaints: usize = looks(&mut domains, 10).iter().map(|look| look.complaints.len()).sum();
        assert_eq!(complaints, 1);
        assert!(domains.names().len() == 2 && has(&domains, "ana@here.example"));
        fs::rename(&away, house.path("")).unwrap();
        domains.look();

        // An error that is not "not found", and that root hears too.
        fs::rename(house.path("here.example"), &away).unwrap();
        std::os::unix::fs::symlink("here.example", house.path("here.example")).unwrap();
        let complaints: usize = looks(&mut domains, 10).iter().map(|look| look.complaints.len()).sum();
        assert_eq!(complaints, 4, "one about the directory, one about each file in it");
        assert!(domains.names().len() == 2 && has(&domains, "ana@here.example"));
    }
}
