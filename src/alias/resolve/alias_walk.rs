//! The walk from an address to its recipients.

use std::collections::HashSet;

use super::alias_error::{AliasError, LEVELS_MAX, LookupFailure, RECIPIENTS_MAX};
use super::resolution_step::{Resolution, ResolutionStep, TargetOrigin};
use super::{AliasLookup, AliasTable, RoleMailbox};
use crate::alias::alias_file::Alias;
use crate::alias::target::{AliasTarget, TargetAddress};
use crate::mail::{Destination, Domain, LocalPart, Mailbox, Recipient};

/// Whether a walk goes on after an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum WalkMode {
    StopAtFirstError,
    VisitAll,
}

/// Identifies a local name: its domain and the key of its alias.
type AliasKey = (Domain, String);

/// Resolves one mailbox and everything that it leads to.
pub(super) struct AliasWalk<'a> {
    table: &'a AliasTable,
    lookup: &'a dyn AliasLookup,
    /// The mailbox that is resolved.
    original: &'a Mailbox,
    mode: WalkMode,
    /// The aliases from there to the current one.
    path: Vec<(Mailbox, AliasKey)>,
    /// Names that were visited: each counts once.
    visited: HashSet<AliasKey>,
    pub(super) recipients: Vec<Recipient>,
    /// The destinations of `recipients`.
    destinations: HashSet<Destination>,
    /// The first error.
    pub(super) error: Option<AliasError>,
}

/// What a name is, and what it stands for.
type ResolvedName = (Resolution, Vec<ResolutionStep>);

impl<'a> AliasWalk<'a> {
    pub(super) fn new(
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

    pub(super) fn visit(&mut self, mailbox: &Mailbox, origin: Option<TargetOrigin>) -> ResolutionStep {
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

    /// The current alias, as its file spells it.
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
