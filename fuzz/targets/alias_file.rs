//! Aliases files and files that they include: a line that cannot be read is reported with its number, resolving
//! ends, and no recipient gets two copies.
#![no_main]

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;

use libfuzzer_sys::fuzz_target;
use postrider::alias::{
    AliasFileContext, AliasLookup, AliasTable, AliasTarget, DomainAliases, LocalPartRules, LookupFailure,
    PostmasterSettings,
};
use postrider::mail::{Domain, LocalPart, Mailbox};

/// One local domain with one user.
struct OneUser;

impl AliasLookup for OneUser {
    fn is_local(&self, domain: &Domain) -> bool {
        domain.as_ascii() == "here.example"
    }

    fn exists(&self, mailbox: &Mailbox) -> Result<bool, LookupFailure> {
        Ok(mailbox.local_part.as_str() == "ana")
    }

    fn hook_targets(&self, _mailbox: &Mailbox) -> Result<Vec<AliasTarget>, LookupFailure> {
        Ok(Vec::new())
    }
}

// A form feed separates the first file from the files that are included, whatever their names are.
fuzz_target!(|text: &str| {
    let Ok(domain) = Domain::parse("here.example") else { return };
    let rules = LocalPartRules::default();
    let mut parts = text.split('\u{c}');
    let first = parts.next().unwrap_or_default();
    let mut others = parts.clone().cycle();
    let mut included = |_: &Path| others.next().map(str::to_owned).ok_or_else(|| "there is none".to_owned());
    let context = AliasFileContext { domain: &domain, local_part_rules: &rules };
    let aliases = match DomainAliases::parse(first, Path::new("aliases"), context, &mut included) {
        Ok(aliases) => aliases,
        Err(errors) => {
            assert!(!errors.is_empty());
            let lines = text.split('\u{c}').map(|part| part.lines().count()).max().unwrap_or(0);
            assert!(errors.iter().all(|error| (1..=lines).contains(&error.location.line)));
            return;
        }
    };
    let names: Vec<_> = aliases.list().into_iter().map(|(name, _)| name.to_owned()).collect();
    let table = AliasTable::new(
        HashMap::from([(domain.clone(), Arc::new(aliases))]),
        rules,
        PostmasterSettings { mailbox: None, hostname: domain.clone() },
    );
    for local_part in names.iter().take(20).filter_map(|name| LocalPart::from_unquoted(name).ok()) {
        let asked = Mailbox { local_part, domain: domain.clone() };
        if let Ok(found) = table.resolve(&asked, &OneUser) {
            let distinct: HashSet<_> = found.iter().map(|recipient| &recipient.destination).collect();
            assert_eq!(distinct.len(), found.len());
        }
    }
});
