//! From an address to its final recipients.
//!
//! A name is first looked for among the aliases of its domain, as it is written and then without
//! its suffix; the hook may add to what the file says. Then it is looked for among the users, then
//! the catch-all has it. Targets elsewhere are final, programs and named hosts too; other targets
//! here are resolved in turn. An alias that names itself means the user of that name
//! (`ana: ana, bo`). Users come out in one spelling, however they were written.
//!
//! The postmaster of each domain, and whoever hears of abuse, is always somebody (RFC 5321 §4.5.1,
//! RFC 2142): if the domain has neither an alias nor a user of that name, [`Postmaster`] knows who.
//!
//! One walk serves both a session, which wants the recipients, and the operator, who wants to see
//! the way ([`Book::explain`]).

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::Arc;

use super::file::{Alias, Aliases, Place};
use super::spelling::Spelling;
use super::target::{Address, Target};
use crate::mail::{Destination, Domain, LocalPart, Mailbox, Recipient};

/// Aliases that may lead to one another before we give up.
const LEVELS_MAX: usize = 10;

/// Recipients that one address may stand for. A message is written down with all of them.
const RECIPIENTS_MAX: usize = 1000;

/// What resolving must ask about users and domains.
pub trait Directory {
    /// The domain is one of ours.
    fn is_local(&self, domain: &Domain) -> bool;

    /// The mailbox belongs to a user of ours.
    ///
    /// # Errors
    /// Whoever knows the users does not answer now; says why, for the operator.
    fn exists(&self, mailbox: &Mailbox) -> Result<bool, CannotTell>;

    /// What is to be added to the aliases of a mailbox of ours. Asked once for each name.
    ///
    /// # Errors
    /// It is not known now; says why, for the operator.
    fn more_targets(&self, mailbox: &Mailbox) -> Result<Vec<Target>, CannotTell>;
}

/// Why a question has no answer now: a sentence for the operator.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct CannotTell(pub String);

/// The aliases of every domain: a snapshot.
#[derive(Debug, Clone)]
pub struct Book {
    domains: HashMap<Domain, Arc<Aliases>>,
    spelling: Spelling,
    postmaster: Postmaster,
}

/// Who reads what every domain must take.
#[derive(Debug, Clone)]
pub struct Postmaster {
    /// Reads it for each domain that says nothing itself.
    pub mailbox: Option<Mailbox>,
    /// This host's name, which has a postmaster though it may be no local domain.
    pub hostname: Domain,
}

/// Why an address has no recipients.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AliasError {
    /// Neither an alias nor a user, and no catch-all: the sender's mistake.
    #[error("{0} does not exist")]
    Unknown(Mailbox),
    /// The operator's mistake: mail that was lost here would be missed.
    #[error("alias {alias} leads to {target}, which does not exist")]
    Dangling {
        /// The alias.
        alias: Mailbox,
        /// One of its targets.
        target: Mailbox,
    },
    /// The operator's mistake: this address must reach somebody.
    #[error(
        "nobody reads mail for {0}; write `postmaster: ADDRESS` into an aliases file, or set postmaster in postrider.toml"
    )]
    NoPostmaster(Mailbox),
    /// The operator's mistake.
    #[error("aliases go round in circles: {}", chain(.0))]
    Loop(Vec<Mailbox>),
    /// The operator's mistake.
    #[error("aliases lead on over more than {LEVELS_MAX} steps: {}", chain(.0))]
    TooDeep(Vec<Mailbox>),
    /// The operator's mistake.
    #[error("alias {0} stands for more than {RECIPIENTS_MAX} recipients")]
    TooMany(Mailbox),
    /// Nobody's mistake: it may be known later.
    #[error("whether {0} exists cannot be told now: {1}")]
    CannotTell(Mailbox, CannotTell),
}

impl AliasError {
    /// The sender named somebody who is not here; anything else is for the operator to mend, and
    /// the sender may try again.
    #[must_use]
    pub fn is_unknown(&self) -> bool {
        matches!(self, Self::Unknown(_))
    }
}

fn chain(path: &[Mailbox]) -> String {
    path.iter().map(ToString::to_string).collect::<Vec<_>>().join(" -> ")
}

/// One step of the way from an address to its recipients, with all that follow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Branch {
    /// Who is meant here: an address, or a program with its arguments.
    pub name: String,
    /// Who says so; none for the address that was asked about.
    pub origin: Option<Origin>,
    /// What it turned out to be.
    pub what: What,
    /// Whom it stands for.
    pub branches: Vec<Branch>,
}

/// Who named a target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// This line of an alias file.
    Line(Place),
    /// The hook.
    Hook,
    /// What is so for every postmaster.
    Postmaster,
}

/// What a name turned out to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    /// A user, in this spelling.
    User(Mailbox),
    /// A mailbox of another domain.
    Elsewhere,
    /// A mailbox that named hosts take.
    Via,
    /// A program.
    Program,
    /// An alias.
    Alias,
    /// Nobody, so it is the catch-all's.
    CatchAll,
    /// A postmaster whom the domain does not name.
    Postmaster,
    /// Met before: it counts once.
    Again,
    /// Nothing that mail can go to.
    Wrong(AliasError),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Line(place) => place.fmt(f),
            Self::Hook => f.write_str("hooks/alias-resolve"),
            Self::Postmaster => f.write_str("every domain has a postmaster"),
        }
    }
}

impl Book {
    /// The aliases of each domain, all of which are local.
    #[must_use]
    pub fn new(domains: HashMap<Domain, Arc<Aliases>>, spelling: Spelling, postmaster: Postmaster) -> Self {
        Self { domains, spelling, postmaster }
    }

    /// The final recipients behind a mailbox of ours, each once, in the order of the files. Their
    /// `original` is `mailbox`.
    ///
    /// # Errors
    /// See [`AliasError`]. One bad branch fails the whole: a list that silently leaves out one of
    /// its members loses mail.
    pub fn resolve(
        &self,
        mailbox: &Mailbox,
        directory: &dyn Directory,
    ) -> Result<Vec<Recipient>, AliasError> {
        let mut walk = Walk::new(self, directory, mailbox, Pace::ToTheFirstError);
        walk.visit(mailbox, None);
        match walk.error {
            None => Ok(walk.found),
            Some(error) => Err(error),
        }
    }

    /// The way from a mailbox to its recipients, every error in its place.
    #[must_use]
    pub fn explain(&self, mailbox: &Mailbox, directory: &dyn Directory) -> Branch {
        Walk::new(self, directory, mailbox, Pace::ToTheEnd).visit(mailbox, None)
    }

    /// Mail for it is always taken, whatever its domain's aliases say: the postmaster of our own
    /// host name, though that may be no local domain (RFC 5321 §4.5.1).
    #[must_use]
    pub fn is_for_this_host(&self, mailbox: &Mailbox) -> bool {
        mailbox.domain == self.postmaster.hostname && Role::of(&mailbox.local_part).is_some()
    }

    /// Where `<postmaster>` without a domain goes (RFC 5321 §4.1.1.3): our own host name if it is a
    /// local domain, else the first that is.
    #[must_use]
    pub fn postmaster_domain(&self) -> Domain {
        let hostname = &self.postmaster.hostname;
        if self.domains.contains_key(hostname) {
            return hostname.clone();
        }
        let first = self.domains.keys().filter(|domain| domain.is_qualified()).min();
        first.unwrap_or(hostname).clone()
    }

    /// What the files say of a name, as written or without its suffix; and the key under which it
    /// is one name, however it is written.
    fn alias(&self, mailbox: &Mailbox) -> (String, Option<&Alias>) {
        let key = self.spelling.key(&mailbox.local_part);
        let Some(aliases) = self.domains.get(&mailbox.domain) else { return (key, None) };
        if let Some(alias) = aliases.alias(&key) {
            return (key, Some(alias));
        }
        let shorter = self.spelling.key_without_suffix(&mailbox.local_part);
        match shorter.and_then(|key| aliases.alias(&key).map(|alias| (key, alias))) {
            Some((key, alias)) => (key, Some(alias)),
            None => (key, None),
        }
    }

    /// Who reads the mail of a postmaster whom the domain does not name.
    fn stand_in(&self, mailbox: &Mailbox) -> Option<Mailbox> {
        let postmaster_of = |domain: Domain| {
            let local_part = LocalPart::of_content(POSTMASTER).ok()?;
            Some(Mailbox { local_part, domain })
        };
        match Role::of(&mailbox.local_part)? {
            // RFC 2142 §2: whoever answers for the domain.
            Role::Abuse => postmaster_of(mailbox.domain.clone()),
            Role::Postmaster => match &self.postmaster.mailbox {
                Some(reader) => Some(reader.clone()),
                None => postmaster_of(self.postmaster_domain()).filter(|main| main.domain != mailbox.domain),
            },
        }
    }
}

const POSTMASTER: &str = "postmaster";

/// Names that a domain cannot do without.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    Postmaster,
    Abuse,
}

impl Role {
    fn of(local_part: &LocalPart) -> Option<Self> {
        match local_part.key().as_str() {
            POSTMASTER => Some(Self::Postmaster),
            "abuse" => Some(Self::Abuse),
            _ => None,
        }
    }
}

/// How far a walk goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pace {
    ToTheFirstError,
    ToTheEnd,
}

/// A name of ours, by its domain and the key of its alias: the same however it is written.
type Name = (Domain, String);

struct Walk<'a> {
    book: &'a Book,
    directory: &'a dyn Directory,
    /// What the sender named.
    asked: &'a Mailbox,
    pace: Pace,
    /// From there to the alias that is being looked at.
    path: Vec<(Mailbox, Name)>,
    /// Names that have been looked at: each counts once.
    done: HashSet<Name>,
    found: Vec<Recipient>,
    /// Where they go.
    destinations: HashSet<Destination>,
    /// The first.
    error: Option<AliasError>,
}

/// What a name turned out to be, and whom it stands for.
type Found = (What, Vec<Branch>);

impl<'a> Walk<'a> {
    fn new(book: &'a Book, directory: &'a dyn Directory, asked: &'a Mailbox, pace: Pace) -> Self {
        Self {
            book,
            directory,
            asked,
            pace,
            path: Vec::new(),
            done: HashSet::new(),
            found: Vec::new(),
            destinations: HashSet::new(),
            error: None,
        }
    }

    fn visit(&mut self, mailbox: &Mailbox, origin: Option<Origin>) -> Branch {
        let found = self.look_up(mailbox);
        self.branch(mailbox.to_string(), origin, found)
    }

    fn branch(&mut self, name: String, origin: Option<Origin>, found: Result<Found, AliasError>) -> Branch {
        let (what, branches) = found.unwrap_or_else(|error| {
            self.error.get_or_insert_with(|| error.clone());
            (What::Wrong(error), Vec::new())
        });
        Branch { name, origin, what, branches }
    }

    fn look_up(&mut self, mailbox: &Mailbox) -> Result<Found, AliasError> {
        if !self.directory.is_local(&mailbox.domain) && !self.book.is_for_this_host(mailbox) {
            return self.deliver(Destination::Mailbox(mailbox.clone()), What::Elsewhere);
        }
        let book = self.book;
        let (key, alias) = book.alias(mailbox);
        let name = (mailbox.domain.clone(), key);
        if self.path.last().is_some_and(|(_, parent)| *parent == name)
            && let Some(user) = self.user(mailbox)?
        {
            return self.deliver(Destination::Mailbox(user.clone()), What::User(user));
        }
        if self.path.iter().any(|(_, above)| *above == name) {
            return Err(AliasError::Loop(self.way_to(mailbox)));
        }
        if !self.done.insert(name.clone()) {
            return Ok((What::Again, Vec::new()));
        }
        let hook = self.directory.more_targets(mailbox).map_err(|why| cannot_tell(mailbox, why))?;
        if alias.is_some() || !hook.is_empty() {
            return self.follow(What::Alias, mailbox, name, alias, &hook);
        }
        if let Some(user) = self.user(mailbox)? {
            return self.deliver(Destination::Mailbox(user.clone()), What::User(user));
        }
        if let Some(alias) = book.domains.get(&mailbox.domain).and_then(|aliases| aliases.catch_all()) {
            return self.follow(What::CatchAll, mailbox, name, Some(alias), &[]);
        }
        if let Some(reader) = book.stand_in(mailbox) {
            self.enter(mailbox, name)?;
            let branch = self.visit(&reader, Some(Origin::Postmaster));
            self.path.pop();
            return Ok((What::Postmaster, vec![branch]));
        }
        Err(match self.path.last() {
            _ if Role::of(&mailbox.local_part).is_some() => AliasError::NoPostmaster(mailbox.clone()),
            None => AliasError::Unknown(mailbox.clone()),
            Some((alias, _)) => AliasError::Dangling { alias: alias.clone(), target: mailbox.clone() },
        })
    }

    /// The user who is meant, in the one spelling that `ANA` and `ana+lists` have in common.
    fn user(&self, mailbox: &Mailbox) -> Result<Option<Mailbox>, AliasError> {
        for local_part in self.book.spelling.users(&mailbox.local_part) {
            let user = Mailbox { local_part, domain: mailbox.domain.clone() };
            if self.directory.exists(&user).map_err(|why| cannot_tell(mailbox, why))? {
                return Ok(Some(user));
            }
        }
        Ok(None)
    }

    /// Looks at all that a name stands for.
    fn follow(
        &mut self,
        what: What,
        mailbox: &Mailbox,
        name: Name,
        alias: Option<&Alias>,
        hook: &[Target],
    ) -> Result<Found, AliasError> {
        self.enter(mailbox, name)?;
        let file = alias
            .into_iter()
            .flat_map(|alias| alias.targets.iter().map(|target| (target, Origin::Line(alias.place.clone()))));
        let hook = hook.iter().map(|target| (target, Origin::Hook));
        let mut branches = Vec::new();
        for (target, origin) in file.chain(hook) {
            branches.push(self.target(mailbox, target, origin));
            if self.is_over() {
                break;
            }
        }
        self.path.pop();
        Ok((what, branches))
    }

    fn enter(&mut self, mailbox: &Mailbox, name: Name) -> Result<(), AliasError> {
        if self.path.len() == LEVELS_MAX {
            return Err(AliasError::TooDeep(self.way_to(mailbox)));
        }
        self.path.push((mailbox.clone(), name));
        Ok(())
    }

    fn target(&mut self, alias: &Mailbox, target: &Target, origin: Origin) -> Branch {
        let (mailbox, via) = match target {
            Target::Program(command) => {
                // One program's mail is one destination, however its alias is written.
                let program = Destination::Program { command: command.clone(), owner: self.owner(alias) };
                let found = self.deliver(program, What::Program);
                return self.branch(target.to_string(), Some(origin), found);
            }
            Target::Address { address: Address::Mailbox(mailbox), via } => (mailbox.clone(), via),
            Target::Address { address: Address::SameName(domain), via } => {
                let local_part = alias.local_part.clone();
                (Mailbox { local_part, domain: domain.clone() }, via)
            }
        };
        let Some(via) = via else { return self.visit(&mailbox, Some(origin)) };
        let name = format!("{mailbox} via {via}");
        let found = self.deliver(Destination::Via { mailbox, via: via.clone() }, What::Via);
        self.branch(name, Some(origin), found)
    }

    /// The alias that is being followed, as its file has it.
    fn owner(&self, alias: &Mailbox) -> Mailbox {
        let key = self.path.last().map(|(_, (_, key))| key);
        match key.and_then(|key| LocalPart::of_content(key).ok()) {
            Some(local_part) => Mailbox { local_part, domain: alias.domain.clone() },
            None => alias.folded(),
        }
    }

    fn deliver(&mut self, destination: Destination, what: What) -> Result<Found, AliasError> {
        if self.destinations.contains(&destination) {
            return Ok((What::Again, Vec::new()));
        }
        if self.found.len() == RECIPIENTS_MAX {
            return Err(AliasError::TooMany(self.asked.clone()));
        }
        self.destinations.insert(destination.clone());
        self.found.push(Recipient { destination, ..Recipient::mailbox(self.asked.clone()) });
        Ok((what, Vec::new()))
    }

    /// There is no reason to look at more targets.
    fn is_over(&self) -> bool {
        match (&self.error, self.pace) {
            (None, _) => false,
            (Some(AliasError::TooMany(_)), _) | (Some(_), Pace::ToTheFirstError) => true,
            (Some(_), Pace::ToTheEnd) => self.found.len() == RECIPIENTS_MAX,
        }
    }

    fn way_to(&self, mailbox: &Mailbox) -> Vec<Mailbox> {
        self.path.iter().map(|(above, _)| above).chain([mailbox]).cloned().collect()
    }
}

fn cannot_tell(mailbox: &Mailbox, why: CannotTell) -> AliasError {
    AliasError::CannotTell(mailbox.clone(), why)
}

#[cfg(test)]
mod tests;
