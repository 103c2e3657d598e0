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

use super::alias_file::{Alias, AliasLocation, DomainAliases};
use super::local_part_rules::LocalPartRules;
use super::target::{AliasTarget, TargetAddress};
use crate::mail::{Destination, Domain, LocalPart, Mailbox, Recipient};

/// Aliases that may lead to one another before we give up.
const LEVELS_MAX: usize = 10;

/// Recipients that one address may stand for. A message is written down with all of them.
const RECIPIENTS_MAX: usize = 1000;

/// What resolving must ask about users and domains.
pub trait AliasLookup {
    /// The domain is one of ours.
    fn is_local(&self, domain: &Domain) -> bool;

    /// The mailbox belongs to a user of ours.
    ///
    /// # Errors
    /// Whoever knows the users does not answer now; says why, for the operator.
    fn exists(&self, mailbox: &Mailbox) -> Result<bool, LookupFailure>;

    /// What is to be added to the aliases of a mailbox of ours. Asked once for each name.
    ///
    /// # Errors
    /// It is not known now; says why, for the operator.
    fn hook_targets(&self, mailbox: &Mailbox) -> Result<Vec<AliasTarget>, LookupFailure>;
}

/// Why a question has no answer now: a sentence for the operator.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct LookupFailure(pub String);

/// The aliases of every domain: a snapshot.
#[derive(Debug, Clone)]
pub struct AliasTable {
    domains: HashMap<Domain, Arc<DomainAliases>>,
    local_part_rules: LocalPartRules,
    postmaster: PostmasterSettings,
}

/// Who reads what every domain must take.
#[derive(Debug, Clone)]
pub struct PostmasterSettings {
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
    #[error("aliases go round in circles: {}", join_path(.0))]
    Loop(Vec<Mailbox>),
    /// The operator's mistake.
    #[error("aliases lead on over more than {LEVELS_MAX} steps: {}", join_path(.0))]
    TooDeep(Vec<Mailbox>),
    /// The operator's mistake.
    #[error("alias {0} stands for more than {RECIPIENTS_MAX} recipients")]
    TooManyRecipients(Mailbox),
    /// Nobody's mistake: it may be known later.
    #[error("whether {0} exists cannot be told now: {1}")]
    LookupFailed(Mailbox, LookupFailure),
}

impl AliasError {
    /// The sender named somebody who is not here; anything else is for the operator to mend, and
    /// the sender may try again.
    #[must_use]
    pub fn is_unknown(&self) -> bool {
        matches!(self, Self::Unknown(_))
    }
}

fn join_path(path: &[Mailbox]) -> String {
    path.iter().map(ToString::to_string).collect::<Vec<_>>().join(" -> ")
}

/// One step of the way from an address to its recipients, with all that follow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResolutionStep {
    /// Who is meant here: an address, or a program with its arguments.
    pub name: String,
    /// Who says so; none for the address that was asked about.
    pub origin: Option<TargetOrigin>,
    /// What it turned out to be.
    pub resolution: Resolution,
    /// Whom it stands for.
    pub next_steps: Vec<ResolutionStep>,
}

/// Who named a target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TargetOrigin {
    /// This line of an alias file.
    AliasFile(AliasLocation),
    /// The hook.
    Hook,
    /// What is so for every postmaster.
    Postmaster,
}

/// What a name turned out to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Resolution {
    /// A user, in this spelling.
    User(Mailbox),
    /// A mailbox of another domain.
    Remote,
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
    Duplicate,
    /// Nothing that mail can go to.
    Failed(AliasError),
}

impl fmt::Display for TargetOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AliasFile(place) => place.fmt(f),
            Self::Hook => f.write_str("hooks/alias-resolve"),
            Self::Postmaster => f.write_str("every domain has a postmaster"),
        }
    }
}

impl AliasTable {
    /// The aliases of each domain, all of which are local.
    #[must_use]
    pub fn new(
        domains: HashMap<Domain, Arc<DomainAliases>>,
        spelling: LocalPartRules,
        postmaster: PostmasterSettings,
    ) -> Self {
        Self { domains, local_part_rules: spelling, postmaster }
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
        directory: &dyn AliasLookup,
    ) -> Result<Vec<Recipient>, AliasError> {
        let mut walk = AliasWalk::new(self, directory, mailbox, WalkMode::StopAtFirstError);
        walk.visit(mailbox, None);
        match walk.error {
            None => Ok(walk.recipients),
            Some(error) => Err(error),
        }
    }

    /// The way from a mailbox to its recipients, every error in its place.
    #[must_use]
    pub fn explain(&self, mailbox: &Mailbox, directory: &dyn AliasLookup) -> ResolutionStep {
        AliasWalk::new(self, directory, mailbox, WalkMode::VisitAll).visit(mailbox, None)
    }

    /// Mail for it is always taken, whatever its domain's aliases say: the postmaster of our own
    /// host name, though that may be no local domain (RFC 5321 §4.5.1).
    #[must_use]
    pub fn is_host_role_mailbox(&self, mailbox: &Mailbox) -> bool {
        mailbox.domain == self.postmaster.hostname
            && RoleMailbox::from_local_part(&mailbox.local_part).is_some()
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
    fn find_alias(&self, mailbox: &Mailbox) -> (String, Option<&Alias>) {
        let key = self.local_part_rules.key(&mailbox.local_part);
        let Some(aliases) = self.domains.get(&mailbox.domain) else { return (key, None) };
        if let Some(alias) = aliases.alias(&key) {
            return (key, Some(alias));
        }
        let shorter = self.local_part_rules.key_without_suffix(&mailbox.local_part);
        match shorter.and_then(|key| aliases.alias(&key).map(|alias| (key, alias))) {
            Some((key, alias)) => (key, Some(alias)),
            None => (key, None),
        }
    }

    /// Who reads the mail of a postmaster whom the domain does not name.
    fn default_reader(&self, mailbox: &Mailbox) -> Option<Mailbox> {
        let postmaster_of = |domain: Domain| {
            let local_part = LocalPart::from_unquoted(POSTMASTER).ok()?;
            Some(Mailbox { local_part, domain })
        };
        match RoleMailbox::from_local_part(&mailbox.local_part)? {
            // RFC 2142 §2: whoever answers for the domain.
            RoleMailbox::Abuse => postmaster_of(mailbox.domain.clone()),
            RoleMailbox::Postmaster => match &self.postmaster.mailbox {
                Some(reader) => Some(reader.clone()),
                None => postmaster_of(self.postmaster_domain()).filter(|main| main.domain != mailbox.domain),
            },
        }
    }
}

const POSTMASTER: &str = "postmaster";

/// Names that a domain cannot do without.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum RoleMailbox {
    Postmaster,
    Abuse,
}

impl RoleMailbox {
    fn from_local_part(local_part: &LocalPart) -> Option<Self> {
        match local_part.comparison_key().as_str() {
            POSTMASTER => Some(Self::Postmaster),
            "abuse" => Some(Self::Abuse),
            _ => None,
        }
    }
}

/// How far a walk goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum WalkMode {
    StopAtFirstError,
    VisitAll,
}

/// A name of ours, by its domain and the key of its alias: the same however it is written.
type AliasKey = (Domain, String);

struct AliasWalk<'a> {
    table: &'a AliasTable,
    lookup: &'a dyn AliasLookup,
    /// What the sender named.
    original: &'a Mailbox,
    mode: WalkMode,
    /// From there to the alias that is being looked at.
    path: Vec<(Mailbox, AliasKey)>,
    /// Names that have been looked at: each counts once.
    visited: HashSet<AliasKey>,
    recipients: Vec<Recipient>,
    /// Where they go.
    destinations: HashSet<Destination>,
    /// The first.
    error: Option<AliasError>,
}

/// What a name turned out to be, and whom it stands for.
type ResolvedName = (Resolution, Vec<ResolutionStep>);

impl<'a> AliasWalk<'a> {
    fn new(book: &'a AliasTable, directory: &'a dyn AliasLookup, asked: &'a Mailbox, pace: WalkMode) -> Self {
        Self {
            table: book,
            lookup: directory,
            original: asked,
            mode: pace,
            path: Vec::new(),
            visited: HashSet::new(),
            recipients: Vec::new(),
            destinations: HashSet::new(),
            error: None,
        }
    }

    fn visit(&mut self, mailbox: &Mailbox, origin: Option<TargetOrigin>) -> ResolutionStep {
        let found = self.resolve_mailbox(mailbox);
        self.finish_step(mailbox.to_string(), origin, found)
    }

    fn finish_step(
        &mut self,
        name: String,
        origin: Option<TargetOrigin>,
        found: Result<ResolvedName, AliasError>,
    ) -> ResolutionStep {
        let (what, branches) = found.unwrap_or_else(|error| {
            self.error.get_or_insert_with(|| error.clone());
            (Resolution::Failed(error), Vec::new())
        });
        ResolutionStep { name, origin, resolution: what, next_steps: branches }
    }

    fn resolve_mailbox(&mut self, mailbox: &Mailbox) -> Result<ResolvedName, AliasError> {
        if !self.lookup.is_local(&mailbox.domain) && !self.table.is_host_role_mailbox(mailbox) {
            return self.add_recipient(Destination::Mailbox(mailbox.clone()), Resolution::Remote);
        }
        let book = self.table;
        let (key, alias) = book.find_alias(mailbox);
        let name = (mailbox.domain.clone(), key);
        if self.path.last().is_some_and(|(_, parent)| *parent == name)
            && let Some(user) = self.find_user(mailbox)?
        {
            return self.add_recipient(Destination::Mailbox(user.clone()), Resolution::User(user));
        }
        if self.path.iter().any(|(_, above)| *above == name) {
            return Err(AliasError::Loop(self.path_to(mailbox)));
        }
        if !self.visited.insert(name.clone()) {
            return Ok((Resolution::Duplicate, Vec::new()));
        }
        let hook = self.lookup.hook_targets(mailbox).map_err(|why| lookup_failed(mailbox, why))?;
        if alias.is_some() || !hook.is_empty() {
            return self.expand_alias(Resolution::Alias, mailbox, name, alias, &hook);
        }
        if let Some(user) = self.find_user(mailbox)? {
            return self.add_recipient(Destination::Mailbox(user.clone()), Resolution::User(user));
        }
        if let Some(alias) = book.domains.get(&mailbox.domain).and_then(|aliases| aliases.catch_all()) {
            return self.expand_alias(Resolution::CatchAll, mailbox, name, Some(alias), &[]);
        }
        if let Some(reader) = book.default_reader(mailbox) {
            self.push_alias(mailbox, name)?;
            let branch = self.visit(&reader, Some(TargetOrigin::Postmaster));
            self.path.pop();
            return Ok((Resolution::Postmaster, vec![branch]));
        }
        Err(match self.path.last() {
            _ if RoleMailbox::from_local_part(&mailbox.local_part).is_some() => {
                AliasError::NoPostmaster(mailbox.clone())
            }
            None => AliasError::Unknown(mailbox.clone()),
            Some((alias, _)) => AliasError::Dangling { alias: alias.clone(), target: mailbox.clone() },
        })
    }

    /// The user who is meant, in the one spelling that `ANA` and `ana+lists` have in common.
    fn find_user(&self, mailbox: &Mailbox) -> Result<Option<Mailbox>, AliasError> {
        for local_part in self.table.local_part_rules.candidate_users(&mailbox.local_part) {
            let user = Mailbox { local_part, domain: mailbox.domain.clone() };
            if self.lookup.exists(&user).map_err(|why| lookup_failed(mailbox, why))? {
                return Ok(Some(user));
            }
        }
        Ok(None)
    }

    /// Looks at all that a name stands for.
    fn expand_alias(
        &mut self,
        what: Resolution,
        mailbox: &Mailbox,
        name: AliasKey,
        alias: Option<&Alias>,
        hook: &[AliasTarget],
    ) -> Result<ResolvedName, AliasError> {
        self.push_alias(mailbox, name)?;
        let file = alias.into_iter().flat_map(|alias| {
            alias.targets.iter().map(|target| (target, TargetOrigin::AliasFile(alias.location.clone())))
        });
        let hook = hook.iter().map(|target| (target, TargetOrigin::Hook));
        let mut branches = Vec::new();
        for (target, origin) in file.chain(hook) {
            branches.push(self.visit_target(mailbox, target, origin));
            if self.is_finished() {
                break;
            }
        }
        self.path.pop();
        Ok((what, branches))
    }

    fn push_alias(&mut self, mailbox: &Mailbox, name: AliasKey) -> Result<(), AliasError> {
        if self.path.len() == LEVELS_MAX {
            return Err(AliasError::TooDeep(self.path_to(mailbox)));
        }
        self.path.push((mailbox.clone(), name));
        Ok(())
    }

    fn visit_target(
        &mut self,
        alias: &Mailbox,
        target: &AliasTarget,
        origin: TargetOrigin,
    ) -> ResolutionStep {
        let (mailbox, via) = match target {
            AliasTarget::Program(command) => {
                // One program's mail is one destination, however its alias is written.
                let program = Destination::Program {
                    command: command.clone(),
                    alias_address: self.program_owner(alias),
                };
                let found = self.add_recipient(program, Resolution::Program);
                return self.finish_step(target.to_string(), Some(origin), found);
            }
            AliasTarget::Address { address: TargetAddress::Mailbox(mailbox), via } => (mailbox.clone(), via),
            AliasTarget::Address { address: TargetAddress::SameName(domain), via } => {
                let local_part = alias.local_part.clone();
                (Mailbox { local_part, domain: domain.clone() }, via)
            }
        };
        let Some(via) = via else { return self.visit(&mailbox, Some(origin)) };
        let name = format!("{mailbox} via {via}");
        let found = self.add_recipient(Destination::Via { mailbox, via: via.clone() }, Resolution::Via);
        self.finish_step(name, Some(origin), found)
    }

    /// The alias that is being followed, as its file has it.
    fn program_owner(&self, alias: &Mailbox) -> Mailbox {
        let key = self.path.last().map(|(_, (_, key))| key);
        match key.and_then(|key| LocalPart::from_unquoted(key).ok()) {
            Some(local_part) => Mailbox { local_part, domain: alias.domain.clone() },
            None => alias.case_mapped(),
        }
    }

    fn add_recipient(
        &mut self,
        destination: Destination,
        what: Resolution,
    ) -> Result<ResolvedName, AliasError> {
        if self.destinations.contains(&destination) {
            return Ok((Resolution::Duplicate, Vec::new()));
        }
        if self.recipients.len() == RECIPIENTS_MAX {
            return Err(AliasError::TooManyRecipients(self.original.clone()));
        }
        self.destinations.insert(destination.clone());
        self.recipients.push(Recipient { destination, ..Recipient::for_mailbox(self.original.clone()) });
        Ok((what, Vec::new()))
    }

    /// There is no reason to look at more targets.
    fn is_finished(&self) -> bool {
        match (&self.error, self.mode) {
            (None, _) => false,
            (Some(AliasError::TooManyRecipients(_)), _) | (Some(_), WalkMode::StopAtFirstError) => true,
            (Some(_), WalkMode::VisitAll) => self.recipients.len() == RECIPIENTS_MAX,
        }
    }

    fn path_to(&self, mailbox: &Mailbox) -> Vec<Mailbox> {
        self.path.iter().map(|(above, _)| above).chain([mailbox]).cloned().collect()
    }
}

fn lookup_failed(mailbox: &Mailbox, why: LookupFailure) -> AliasError {
    AliasError::LookupFailed(mailbox.clone(), why)
}

#[cfg(test)]
mod tests;
