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
//!
//! - `alias_walk`: the walk
//! - `resolution_step`: the steps, for the operator
//! - `alias_error`: why an address has no recipients

mod alias_error;
mod alias_walk;
mod resolution_step;

use std::collections::HashMap;
use std::sync::Arc;

pub use self::alias_error::{AliasError, LookupFailure};
use self::alias_walk::{AliasWalk, WalkMode};
pub use self::resolution_step::{Resolution, ResolutionStep, TargetOrigin};
use super::alias_file::{Alias, DomainAliases};
use super::local_part_rules::LocalPartRules;
use super::target::AliasTarget;
use crate::mail::{Domain, LocalPart, Mailbox, Recipient};

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

#[cfg(test)]
mod tests;
