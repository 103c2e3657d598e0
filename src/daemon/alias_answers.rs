//! The answers to `postrider alias`.

use std::collections::HashMap;
use std::sync::Arc;

use crate::alias::{Alias, DomainAliases, Resolution, ResolutionStep};
use crate::control::{AliasList, AliasStep, AliasStepKind, ListedAlias};
use crate::mail::Domain;

/// One step of a resolution, and all that follow from it.
pub(super) fn alias_step(step: &ResolutionStep) -> AliasStep {
    let (kind, detail) = match &step.resolution {
        Resolution::User(user) => (AliasStepKind::User, Some(user.to_string())),
        Resolution::Remote => (AliasStepKind::Remote, None),
        Resolution::Via => (AliasStepKind::Via, None),
        Resolution::Program => (AliasStepKind::Program, None),
        Resolution::Alias => (AliasStepKind::Alias, None),
        Resolution::CatchAll => (AliasStepKind::CatchAll, None),
        Resolution::Postmaster => (AliasStepKind::Postmaster, None),
        Resolution::Duplicate => (AliasStepKind::Duplicate, None),
        Resolution::Failed(error) => (AliasStepKind::Error, Some(error.to_string())),
    };
    AliasStep {
        name: step.name.clone(),
        kind,
        detail,
        origin: step.origin.as_ref().map(ToString::to_string),
        steps: step.next_steps.iter().map(alias_step).collect(),
    }
}

/// The aliases in the files of all local domains, or of `only`.
pub(super) fn alias_list(
    domains: &HashMap<Domain, Arc<DomainAliases>>,
    only: Option<&Domain>,
) -> Result<AliasList, String> {
    if let Some(domain) = only.filter(|domain| !domains.contains_key(domain)) {
        return Err(format!("{domain} is not a local domain"));
    }
    let mut selected: Vec<_> =
        domains.iter().filter(|(domain, _)| only.is_none_or(|only| only == *domain)).collect();
    selected.sort_by_key(|(domain, _)| *domain);
    let listed = |domain: &Domain, name: &str, alias: &Alias| ListedAlias {
        name: format!("{name}@{domain}"),
        targets: alias.targets.iter().map(ToString::to_string).collect(),
        origin: alias.location.to_string(),
    };
    let aliases = selected
        .iter()
        .flat_map(|(domain, aliases)| {
            aliases.list().into_iter().map(|(name, alias)| listed(domain, name, alias))
        })
        .collect();
    Ok(AliasList { aliases })
}
