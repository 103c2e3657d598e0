//! Alias files and what they include: a line that cannot be read is named, and whatever they say,
//! resolving ends and nobody gets two copies.
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

struct Everybody;

impl AliasLookup for Everybody {
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

// A form feed separates the file from those that it may include, whatever it calls them.
fuzz_target!(|text: &str| {
    let Ok(domain) = Domain::parse("here.example") else { return };
    let spelling = LocalPartRules::default();
    let mut parts = text.split('\u{c}');
    let first = parts.next().unwrap_or_default();
    let mut others = parts.clone().cycle();
    let mut included = |_: &Path| others.next().map(str::to_owned).ok_or_else(|| "there is none".to_owned());
    let house = AliasFileContext { domain: &domain, local_part_rules: &spelling };
    let aliases = match DomainAliases::parse(first, Path::new("aliases"), house, &mut included) {
        Ok(aliases) => aliases,
        Err(errors) => {
            assert!(!errors.is_empty());
            let lines = text.split('\u{c}').map(|part| part.lines().count()).max().unwrap_or(0);
            assert!(errors.iter().all(|error| (1..=lines).contains(&error.location.line)));
            return;
        }
    };
    let names: Vec<_> = aliases.list().into_iter().map(|(name, _)| name.to_owned()).collect();
    let book = AliasTable::new(
        HashMap::from([(domain.clone(), Arc::new(aliases))]),
        spelling,
        PostmasterSettings { mailbox: None, hostname: domain.clone() },
    );
    for local_part in names.iter().take(20).filter_map(|name| LocalPart::from_unquoted(name).ok()) {
        let asked = Mailbox { local_part, domain: domain.clone() };
        if let Ok(found) = book.resolve(&asked, &Everybody) {
            let distinct: HashSet<_> = found.iter().map(|recipient| &recipient.destination).collect();
            assert_eq!(distinct.len(), found.len());
        }
    }
});
