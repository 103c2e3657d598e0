//! The local domains, accounts and aliases in force, for sessions and couriers.
//!
//! `LocalDomains` reads the files; the reloader puts their content in force here. Each question is answered
//! from one snapshot.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;

use super::local_domains::LocalDomains;
use crate::alias::{
    self, AliasError, AliasHook, AliasTable, AliasTarget, LocalPartRules, LookupFailure, PostmasterSettings,
    ResolutionStep,
};
use crate::auth::{Accounts, AllowedSenders};
use crate::inbound;
use crate::mail::{Domain, LocalPart, Mailbox, Recipient};
use crate::queue;
use crate::route::Router;
use crate::sys::{Clock as _, Moment, SystemClock};

/// Time for the alias hook to answer for all names of one address.
const HOOK_TIME_MAX: Duration = Duration::from_secs(20);

/// Local domains, accounts and aliases in force.
pub(super) struct LookupTables {
    parts: LookupParts,
    pub(super) accounts: Arc<Accounts>,
    pub(super) router: Arc<ArcSwap<Router>>,
    alias_tables: ArcSwap<AliasTable>,
    senders: ArcSwap<HashMap<Domain, Arc<AllowedSenders>>>,
}

/// Settings that do not change while the server runs.
pub(super) struct LookupParts {
    pub(super) local_part_rules: LocalPartRules,
    pub(super) postmaster: PostmasterSettings,
    pub(super) alias_hook: AliasHook,
}

impl LookupTables {
    /// Puts the domains in force.
    pub(super) fn new(parts: LookupParts, domains: &LocalDomains, accounts: Accounts) -> Arc<Self> {
        let directory = Self {
            alias_tables: ArcSwap::from_pointee(parts.alias_tables(domains)),
            parts,
            accounts: Arc::new(accounts),
            router: Arc::default(),
            senders: ArcSwap::default(),
        };
        directory.replace(domains);
        Arc::new(directory)
    }

    /// Replaces the domains in force.
    pub(super) fn replace(&self, domains: &LocalDomains) {
        self.accounts.replace(domains.users());
        self.senders.store(Arc::new(domains.senders()));
        self.alias_tables.store(Arc::new(self.parts.alias_tables(domains)));
        self.router.store(Arc::new(Router::new(domains.names())));
    }

    /// Resolves an address step by step.
    pub(super) fn trace_aliases(&self, mailbox: &Mailbox) -> ResolutionStep {
        self.alias_tables.load_full().explain(mailbox, &self.begin_lookup())
    }

    /// A warning for each postmaster and abuse address whose mail reaches no mailbox. An address that cannot
    /// be checked now gets none.
    pub(super) fn undeliverable_postmasters(&self) -> Vec<String> {
        let router = self.router.load_full();
        let names =
            ["postmaster", "abuse"].into_iter().filter_map(|name| LocalPart::from_unquoted(name).ok());
        let book = self.alias_tables.load_full();
        let mut warnings = Vec::new();
        for local_part in names {
            for domain in router.local_domains().filter(|domain| domain.is_qualified()) {
                let mailbox = Mailbox { local_part: local_part.clone(), domain: domain.clone() };
                match book.resolve(&mailbox, &self.begin_lookup()) {
                    Ok(_) | Err(AliasError::LookupFailed(..)) => {}
                    Err(e) => warnings.push(format!(
                        "mail for {mailbox} must always be taken, and is put off for now: {e}"
                    )),
                }
            }
        }
        warnings
    }

    fn begin_lookup(&self) -> AddressLookup<'_> {
        AddressLookup { tables: self, hook_deadline: SystemClock.now() + HOOK_TIME_MAX }
    }
}

impl LookupParts {
    fn alias_tables(&self, domains: &LocalDomains) -> AliasTable {
        AliasTable::new(domains.aliases(), self.local_part_rules.clone(), self.postmaster.clone())
    }
}

/// Answers the questions of one resolution within its deadline.
struct AddressLookup<'a> {
    tables: &'a LookupTables,
    hook_deadline: Moment,
}

impl alias::AliasLookup for AddressLookup<'_> {
    fn is_local(&self, domain: &Domain) -> bool {
        self.tables.router.load().is_local(domain)
    }

    fn exists(&self, mailbox: &Mailbox) -> Result<bool, LookupFailure> {
        self.tables.accounts.exists(mailbox).map_err(LookupFailure)
    }

    fn hook_targets(&self, mailbox: &Mailbox) -> Result<Vec<AliasTarget>, LookupFailure> {
        self.tables.parts.alias_hook.look_up(mailbox, self.hook_deadline)
    }
}

impl queue::RecipientResolver for LookupTables {
    fn resolve(&self, mailbox: &Mailbox) -> Result<Vec<Recipient>, String> {
        match inbound::LocalRecipients::is_local_mailbox(self, mailbox) {
            true => inbound::LocalRecipients::expand(self, mailbox),
            false => Ok(vec![Recipient::for_mailbox(mailbox.clone())]),
        }
    }
}

impl inbound::SenderPermissions for LookupTables {
    fn may_send_as(&self, user: &Mailbox, address: &Mailbox) -> bool {
        let senders = self.senders.load();
        senders.get(&user.domain).is_some_and(|senders| senders.allows(&user.local_part, address))
    }
}

impl inbound::LocalRecipients for LookupTables {
    fn is_local(&self, domain: &Domain) -> bool {
        self.router.load().is_local(domain)
    }

    fn is_local_mailbox(&self, mailbox: &Mailbox) -> bool {
        self.router.load().is_local(&mailbox.domain) || self.alias_tables.load().is_host_role_mailbox(mailbox)
    }

    fn expand(&self, mailbox: &Mailbox) -> Result<Vec<Recipient>, String> {
        // Loaded whole, not as a guard: the hook takes time, and a reload must not wait for it.
        match self.alias_tables.load_full().resolve(mailbox, &self.begin_lookup()) {
            Ok(recipients) => Ok(recipients),
            Err(e) if e.is_unknown() => Ok(Vec::new()),
            Err(e) => Err(e.to_string()),
        }
    }

    fn postmaster_domain(&self) -> Domain {
        self.alias_tables.load().postmaster_domain()
    }
}
