//! What the subcommands are told of aliases, as JSON.

use std::collections::HashMap;
use std::sync::Arc;

use serde_json::{Value, json};

use crate::alias::{Alias, DomainAliases, Resolution, ResolutionStep};
use crate::mail::Domain;

/// One step of a way, and all that follow from it.
pub(super) fn branch_json(branch: &ResolutionStep) -> Value {
    let (what, detail) = match &branch.resolution {
        Resolution::User(user) => ("user", Some(user.to_string())),
        Resolution::Remote => ("remote", None),
        Resolution::Via => ("via", None),
        Resolution::Program => ("program", None),
        Resolution::Alias => ("alias", None),
        Resolution::CatchAll => ("catch-all", None),
        Resolution::Postmaster => ("postmaster", None),
        Resolution::Duplicate => ("duplicate", None),
        Resolution::Failed(error) => ("error", Some(error.to_string())),
    };
    json!({
        "name": branch.name,
        "kind": what,
        "detail": detail,
        "origin": branch.origin.as_ref().map(ToString::to_string),
        "steps": branch.next_steps.iter().map(self::branch_json).collect::<Vec<_>>(),
    })
}

/// What the files of the local domains hold, or of one of them.
pub(super) fn aliases_json(
    books: &HashMap<Domain, Arc<DomainAliases>>,
    only: Option<&Domain>,
) -> Result<Value, String> {
    if let Some(domain) = only.filter(|domain| !books.contains_key(domain)) {
        return Err(format!("{domain} is not a local domain"));
    }
    let mut domains: Vec<_> =
        books.iter().filter(|(domain, _)| only.is_none_or(|only| only == *domain)).collect();
    domains.sort_by_key(|(domain, _)| *domain);
    let alias = |domain: &Domain, name: &str, alias: &Alias| {
        json!({
            "name": format!("{name}@{domain}"),
            "targets": alias.targets.iter().map(ToString::to_string).collect::<Vec<_>>(),
            "origin": alias.location.to_string(),
        })
    };
    let list: Vec<_> = domains
        .iter()
        .flat_map(|(domain, aliases)| aliases.list().into_iter().map(|(name, one)| alias(domain, name, one)))
        .collect();
    Ok(json!({ "aliases": list }))
}
