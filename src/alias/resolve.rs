//! From an address to its final recipients.
//!
//! A name is looked up in the aliases of its domain, first as it is written, then without its suffix; the hook
//! may add targets. A name without alias is looked up in the users, and then matches the catch-all. Remote
//! targets, programs, and targets with named hosts are final; other local targets are resolved in turn. An alias
//! that names itself stands for the user of that name (`ana: ana, bo`). Users are returned in their canonical
//! spelling.
//!
//! Every domain has a postmaster and an abuse mailbox (RFC 5321 §4.5.1, RFC 2142): if the domain has neither an
//! alias nor a user of that name, [`PostmasterSettings`] names the reader.
//!
//! The same walk finds the recipients for a session and the steps for the operator ([`AliasTable::explain`]).

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::Arc;

use super::alias_file::{Alias, AliasLocation, DomainAliases};
use super::local_part_rules::LocalPartRules;
use super::target::{AliasTarget, TargetAddress};
use crate::mail::{Destination, Domain, LocalPart, Mailbox, Recipient};

/// Most aliases in a row that lead to one another.
const LEVELS_MAX: usize = 10;

/// Most recipients that one address may stand for: the envelope of a message has all of them.
const RECIPIENTS_MAX: usize = 1000;

/// What resolving an alias needs to know about users and domains.
pub trait AliasLookup {
    /// Whether the domain is local.
    fn is_local(&self, domain: &Domain) -> bool;

    /// Whether the mailbox belongs to a user.
    ///
    /// # Errors
    /// The users cannot be looked up now: why, for the operator.
    fn exists(&self, mailbox: &Mailbox) -> Result<bool, LookupFailure>;

    /// The targets that the hook adds to a local mailbox. Called once for each name.
    ///
    /// # Errors
    /// The hook has failed: why, for the operator.
    fn hook_targets(&self, mailbox: &Mailbox) -> Result<Vec<AliasTarget>, LookupFailure>;
}

/// Why a lookup failed: a sentence for the operator.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct LookupFailure(pub String);

/// The aliases of all domains: a snapshot.
#[derive(Debug, Clone)]
pub struct AliasTable {
    domains: HashMap<Domain, Arc<DomainAliases>>,
    local_part_rules: LocalPartRules,
    postmaster: PostmasterSettings,
}

/// Who reads the mail that every domain must accept.
#[derive(Debug, Clone)]
pub struct PostmasterSettings {
    /// The reader for each domain without an alias or user for it.
    pub mailbox: Option<Mailbox>,
    /// The name of this host, which has a postmaster although it may not be a local domain.
    pub hostname: Domain,
}

/// Why an address has no recipients.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AliasError {
    /// The name is neither an alias nor a user, and there is no catch-all: the sender is at fault.
    #[error("{0} does not exist")]
    Unknown(Mailbox),
    /// A target does not exist: the operator is at fault, and the sender may try again.
    #[error("alias {alias} leads to {target}, which does not exist")]
    Dangling {
        /// The alias.
        alias: Mailbox,
        /// The target that does not exist.
        target: Mailbox,
    },
    /// No reader is set for an address that must be read: the operator is at fault.
    #[error(
        "nobody reads mail for {0}; write `postmaster: ADDRESS` into an aliases file, or set postmaster in postrider.toml"
    )]
    NoPostmaster(Mailbox),
    /// Aliases lead to one another in a circle: the operator is at fault.
    #[error("aliases go round in circles: {}", join_path(.0))]
    Loop(Vec<Mailbox>),
    /// Too many aliases in a row: the operator is at fault.
    #[error("aliases lead on over more than {LEVELS_MAX} steps: {}", join_path(.0))]
    TooDeep(Vec<Mailbox>),
    /// Too many recipients: the operator is at fault.
    #[error("alias {0} stands for more than {RECIPIENTS_MAX} recipients")]
    TooManyRecipients(Mailbox),
    /// A lookup failed, and may succeed later.
    #[error("whether {0} exists cannot be told now: {1}")]
    LookupFailed(Mailbox, LookupFailure),
}

impl AliasError {
    /// The sender named a mailbox that does not exist. After any other error the sender may try again, because the
    /// operator may correct it.
    #[must_use]
    pub fn is_unknown(&self) -> bool {
        matches!(self, Self::Unknown(_))
    }
}

fn join_path(path: &[Mailbox]) -> String {
    path.iter().map(ToString::to_string).collect::<Vec<_>>().join(" -> ")
}

/// One step from an address to its recipients, with all steps that follow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResolutionStep {
    /// An address, or a program with its arguments.
    pub name: String,
    /// Where the name comes from; `None` for the address that is resolved.
    pub origin: Option<TargetOrigin>,
    /// What the name is.
    pub resolution: Resolution,
    /// What the name stands for.
    pub next_steps: Vec<ResolutionStep>,
}

/// Where a target comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TargetOrigin {
    /// A line of an aliases file.
    AliasFile(AliasLocation),
    /// The hook.
    Hook,
    /// The rule that every domain has a postmaster.
    Postmaster,
}

/// What a name is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Resolution {
    /// A user, in the canonical spelling.
    User(Mailbox),
    /// A mailbox of another domain.
    Remote,
    /// A mailbox with named hosts.
    Via,
    /// A program.
    Program,
    /// An alias.
    Alias,
    /// Neither an alias nor a user: the catch-all stands for it.
    CatchAll,
    /// A postmaster or abuse mailbox without an alias or user.
    Postmaster,
    /// Seen before: it counts once.
    Duplicate,
    /// Not deliverable.
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
    /// A table of the aliases of each local domain.
    #[must_use]
    pub fn new(
        domains: HashMap<Domain, Arc<DomainAliases>>,
        local_part_rules: LocalPartRules,
        postmaster: PostmasterSettings,
    ) -> Self {
        Self { domains, local_part_rules, postmaster }
    }

    /// The final recipients of a local mailbox, each once, in the order of the files. Their forward-path is
    /// `mailbox`.
    ///
    /// # Errors
    /// See [`AliasError`]. One bad target fails the whole: a list that silently leaves out a member loses mail.
    pub fn resolve(&self, mailbox: &Mailbox, lookup: &dyn AliasLookup) -> Result<Vec<Recipient>, AliasError> {
        let mut walk = AliasWalk::new(self, lookup, mailbox, WalkMode::StopAtFirstError);
        walk.visit(mailbox, None);
        match walk.error {
            None => Ok(walk.recipients),
            Some(error) => Err(error),
        }
    }

    /// All steps from a mailbox to its recipients, each error at its step.
    #[must_use]
    pub fn explain(&self, mailbox: &Mailbox, lookup: &dyn AliasLookup) -> ResolutionStep {
        AliasWalk::new(self, lookup, mailbox, WalkMode::VisitAll).visit(mailbox, None)
    }

    /// Whether this is the postmaster or abuse mailbox of the name of this host, for which mail is always accepted,
    /// although that name may not be a local domain (RFC 5321 §4.5.1).
    #[must_use]
    pub fn is_host_role_mailbox(&self, mailbox: &Mailbox) -> bool {
        mailbox.domain == self.postmaster.hostname
            && RoleMailbox::from_local_part(&mailbox.local_part).is_some()
    }

    /// The domain of `<postmaster>` without a domain (RFC 5321 §4.1.1.3): the name of this host if it is a local
    /// domain, otherwise the first local domain.
    #[must_use]
    pub fn postmaster_domain(&self) -> Domain {
        let hostname = &self.postmaster.hostname;
        if self.domains.contains_key(hostname) {
            return hostname.clone();
        }
        let first = self.domains.keys().filter(|domain| domain.is_qualified()).min();
        first.unwrap_or(hostname).clone()
    }

    /// The alias of a name, as it is written or without its suffix, and the key of the name.
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

    /// The reader of a postmaster or abuse mailbox for which the domain has no alias or user.
    fn default_reader(&self, mailbox: &Mailbox) -> Option<Mailbox> {
        let postmaster_of = |domain: Domain| {
            let local_part = LocalPart::from_unquoted(POSTMASTER).ok()?;
            Some(Mailbox { local_part, domain })
        };
        match RoleMailbox::from_local_part(&mailbox.local_part)? {
            // RFC 2142 §2: the postmaster is responsible for the domain.
            RoleMailbox::Abuse => postmaster_of(mailbox.domain.clone()),
            RoleMailbox::Postmaster => match &self.postmaster.mailbox {
                Some(reader) => Some(reader.clone()),
                None => postmaster_of(self.postmaster_domain()).filter(|main| main.domain != mailbox.domain),
            },
        }
    }
}

const POSTMASTER: &str = "postmaster";

/// Mailboxes that every domain must have.
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

/// Whether a walk goes on after an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum WalkMode {
    StopAtFirstError,
    VisitAll,
}

/// Identifies a local name: its domain and the key of its alias.
type AliasKey = (Domain, String);

struct AliasWalk<'a> {
    table: &'a AliasTable,
    lookup: &'a dyn AliasLookup,
    /// The mailbox that is resolved.
    original: &'a Mailbox,
    mode: WalkMode,
    /// The aliases from there to the current one.
    path: Vec<(Mailbox, AliasKey)>,
    /// Names that were visited: each counts once.
    visited: HashSet<AliasKey>,
    recipients: Vec<Recipient>,
    /// The destinations of `recipients`.
    destinations: HashSet<Destination>,
    /// The first error.
    error: Option<AliasError>,
}

/// What a name is, and what it stands for.
type ResolvedName = (Resolution, Vec<ResolutionStep>);

impl<'a> AliasWalk<'a> {
    fn new(
        table: &'a AliasTable,
        lookup: &'a dyn AliasLookup,
        original: &'a Mailbox,
        mode: WalkMode,
    ) -> Self {
        Self {
            table,
            lookup,
            original,
            mode,
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
        let (resolution, next_steps) = found.unwrap_or_else(|error| {
            self.error.get_or_insert_with(|| error.clone());
            (Resolution::Failed(error), Vec::new())
        });
        ResolutionStep { name, origin, resolution, next_steps }
    }

    fn resolve_mailbox(&mut self, mailbox: &Mailbox) -> Result<ResolvedName, AliasError> {
        if !self.lookup.is_local(&mailbox.domain) && !self.table.is_host_role_mailbox(mailbox) {
            return self.add_recipient(Destination::Mailbox(mailbox.clone()), Resolution::Remote);
        }
        let table = self.table;
        let (key, alias) = table.find_alias(mailbox);
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
        if let Some(alias) = table.domains.get(&mailbox.domain).and_then(|aliases| aliases.catch_all()) {
            return self.expand_alias(Resolution::CatchAll, mailbox, name, Some(alias), &[]);
        }
        if let Some(reader) = table.default_reader(mailbox) {
            self.push_alias(mailbox, name)?;
            let step = self.visit(&reader, Some(TargetOrigin::Postmaster));
            self.path.pop();
            return Ok((Resolution::Postmaster, vec![step]));
        }
        Err(match self.path.last() {
            _ if RoleMailbox::from_local_part(&mailbox.local_part).is_some() => {
                AliasError::NoPostmaster(mailbox.clone())
            }
            None => AliasError::Unknown(mailbox.clone()),
            Some((alias, _)) => AliasError::Dangling { alias: alias.clone(), target: mailbox.clone() },
        })
    }

    /// The user of a name, in the canonical spelling: `ana` for `ANA` and `ana+lists`.
    fn find_user(&self, mailbox: &Mailbox) -> Result<Option<Mailbox>, AliasError> {
        for local_part in self.table.local_part_rules.candidate_users(&mailbox.local_part) {
            let user = Mailbox { local_part, domain: mailbox.domain.clone() };
            if self.lookup.exists(&user).map_err(|why| lookup_failed(mailbox, why))? {
                return Ok(Some(user));
            }
        }
        Ok(None)
    }

    /// Visits all targets of an alias.
    fn expand_alias(
        &mut self,
        resolution: Resolution,
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
        let mut next_steps = Vec::new();
        for (target, origin) in file.chain(hook) {
            next_steps.push(self.visit_target(mailbox, target, origin));
            if self.is_finished() {
                break;
            }
        }
        self.path.pop();
        Ok((resolution, next_steps))
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
                // The same destination for all spellings of the alias.
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

    /// The current alias, in the spelling of its file.
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
        resolution: Resolution,
    ) -> Result<ResolvedName, AliasError> {
        if self.destinations.contains(&destination) {
            return Ok((Resolution::Duplicate, Vec::new()));
        }
        if self.recipients.len() == RECIPIENTS_MAX {
            return Err(AliasError::TooManyRecipients(self.original.clone()));
        }
        self.destinations.insert(destination.clone());
        self.recipients.push(Recipient { destination, ..Recipient::for_mailbox(self.original.clone()) });
        Ok((resolution, Vec::new()))
    }

    /// Whether no more targets need to be visited.
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
