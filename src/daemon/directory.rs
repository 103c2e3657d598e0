//! Who is ours: domains, accounts and aliases in force, for those who ask.
//!
//! `Domains` reads the folders; what it finds is put in force here, and a session sees one
//! snapshot for each question.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;

use super::domains::Domains;
use crate::alias::{self, AliasError, AliasHook, Book, Branch, CannotTell, Postmaster, Spelling, Target};
use crate::auth::{Accounts, Senders};
use crate::inbound;
use crate::mail::{Domain, LocalPart, Mailbox, Recipient};
use crate::queue;
use crate::route::Router;
use crate::sys::{Clock as _, Moment, SystemClock};

/// Time in which the hook must have answered for every name behind one address.
const HOOK_TIME_MAX: Duration = Duration::from_secs(20);

/// Domains, accounts and aliases in force.
pub(super) struct Directory {
    parts: Parts,
    pub(super) accounts: Arc<Accounts>,
    pub(super) router: Arc<ArcSwap<Router>>,
    book: ArcSwap<Book>,
    senders: ArcSwap<HashMap<Domain, Arc<Senders>>>,
}

/// What stays as long as the server runs.
pub(super) struct Parts {
    pub(super) spelling: Spelling,
    pub(super) postmaster: Postmaster,
    pub(super) hook: AliasHook,
}

impl Directory {
    /// Puts in force what was read.
    pub(super) fn new(parts: Parts, domains: &Domains, accounts: Accounts) -> Arc<Self> {
        let directory = Self {
            book: ArcSwap::from_pointee(parts.book(domains)),
            parts,
            accounts: Arc::new(accounts),
            router: Arc::default(),
            senders: ArcSwap::default(),
        };
        directory.replace(domains);
        Arc::new(directory)
    }

    /// Puts in force what was read now.
    pub(super) fn replace(&self, domains: &Domains) {
        self.accounts.replace(domains.users());
        self.senders.store(Arc::new(domains.senders()));
        self.book.store(Arc::new(self.parts.book(domains)));
        self.router.store(Arc::new(Router::new(domains.names())));
    }

    /// The way from an address to its recipients.
    pub(super) fn explain(&self, mailbox: &Mailbox) -> Branch {
        self.book.load_full().explain(mailbox, &self.question())
    }

    /// The postmasters and abuse addresses whose mail reaches nobody, a warning each. Where that
    /// cannot be told now, there is none.
    pub(super) fn unread_postmasters(&self) -> Vec<String> {
        let router = self.router.load_full();
        let names = ["postmaster", "abuse"].into_iter().filter_map(|name| LocalPart::of_content(name).ok());
        let book = self.book.load_full();
        let mut warnings = Vec::new();
        for local_part in names {
            for domain in router.local_domains().filter(|domain| domain.is_qualified()) {
                let mailbox = Mailbox { local_part: local_part.clone(), domain: domain.clone() };
                match book.resolve(&mailbox, &self.question()) {
                    Ok(_) | Err(AliasError::CannotTell(..)) => {}
                    Err(e) => warnings.push(format!(
                        "mail for {mailbox} must always be taken, and is put off for now: {e}"
                    )),
                }
            }
        }
        warnings
    }

    fn question(&self) -> Question<'_> {
        Question { directory: self, hook_end: SystemClock.now() + HOOK_TIME_MAX }
    }
}

impl Parts {
    fn book(&self, domains: &Domains) -> Book {
        Book::new(domains.aliases(), self.spelling.clone(), self.postmaster.clone())
    }
}

/// Answers for one address, and is back in time.
struct Question<'a> {
    directory: &'a Directory,
    hook_end: Moment,
}

impl alias::Directory for Question<'_> {
    fn is_local(&self, domain: &Domain) -> bool {
        self.directory.router.load().is_local(domain)
    }

    fn exists(&self, mailbox: &Mailbox) -> Result<bool, CannotTell> {
        self.directory.accounts.exists(mailbox).map_err(CannotTell)
    }

    fn more_targets(&self, mailbox: &Mailbox) -> Result<Vec<Target>, CannotTell> {
        self.directory.parts.hook.ask(mailbox, self.hook_end)
    }
}

impl queue::Addressees for Directory {
    fn behind(&self, mailbox: &Mailbox) -> Result<Vec<Recipient>, String> {
        match inbound::Directory::takes(self, mailbox) {
            true => inbound::Directory::expand(self, mailbox),
            false => Ok(vec![Recipient::mailbox(mailbox.clone())]),
        }
    }
}

impl inbound::Permissions for Directory {
    fn may_write_as(&self, user: &Mailbox, address: &Mailbox) -> bool {
        let senders = self.senders.load();
        senders.get(&user.domain).is_some_and(|senders| senders.allow(&user.local_part, address))
    }
}

impl inbound::Directory for Directory {
    fn is_local(&self, domain: &Domain) -> bool {
        self.router.load().is_local(domain)
    }

    fn takes(&self, mailbox: &Mailbox) -> bool {
        self.router.load().is_local(&mailbox.domain) || self.book.load().is_for_this_host(mailbox)
    }

    fn expand(&self, mailbox: &Mailbox) -> Result<Vec<Recipient>, String> {
        // Not a guard: the hook takes its time, and a reload must not wait for it.
        match self.book.load_full().resolve(mailbox, &self.question()) {
            Ok(recipients) => Ok(recipients),
            Err(e) if e.is_unknown() => Ok(Vec::new()),
            Err(e) => Err(e.to_string()),
        }
    }

    fn postmaster_domain(&self) -> Domain {
        self.book.load().postmaster_domain()
    }
}
