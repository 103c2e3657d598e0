//! Who is ours: domains, accounts and aliases in force, for those who ask.
//!
//! `Domains` reads the folders; what it finds is put in force here, and a session sees one
//! snapshot for each question.

use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::ArcSwap;

use super::domains::Domains;
use crate::alias::{self, Book, CannotTell};
use crate::auth::{Accounts, Senders};
use crate::inbound;
use crate::mail::{Domain, Mailbox, Recipient};
use crate::queue;
use crate::route::Router;

/// Domains, accounts and aliases in force.
pub(super) struct Directory {
    hostname: Domain,
    pub(super) accounts: Arc<Accounts>,
    pub(super) router: Arc<ArcSwap<Router>>,
    book: ArcSwap<Book>,
    senders: ArcSwap<HashMap<Domain, Arc<Senders>>>,
}

impl Directory {
    /// Puts in force what was read.
    pub(super) fn new(hostname: Domain, domains: &Domains, accounts: Accounts) -> Arc<Self> {
        let directory = Self {
            hostname,
            accounts: Arc::new(accounts),
            router: Arc::default(),
            book: ArcSwap::default(),
            senders: ArcSwap::default(),
        };
        directory.replace(domains);
        Arc::new(directory)
    }

    /// Puts in force what was read now.
    pub(super) fn replace(&self, domains: &Domains) {
        self.accounts.replace(domains.users());
        self.senders.store(Arc::new(domains.senders()));
        self.book.store(Arc::new(Book::new(domains.aliases())));
        self.router.store(Arc::new(Router::new(domains.names())));
    }
}

impl alias::Directory for Directory {
    fn is_local(&self, domain: &Domain) -> bool {
        self.router.load().is_local(domain)
    }

    fn exists(&self, mailbox: &Mailbox) -> Result<bool, CannotTell> {
        self.accounts.exists(mailbox).map_err(CannotTell)
    }
}

impl queue::Addressees for Directory {
    fn behind(&self, mailbox: &Mailbox) -> Result<Vec<Recipient>, String> {
        match self.router.load().is_local(&mailbox.domain) {
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

    fn expand(&self, mailbox: &Mailbox) -> Result<Vec<Recipient>, String> {
        match self.book.load().resolve(mailbox, self) {
            Ok(recipients) => Ok(recipients),
            Err(e) if e.is_unknown() => Ok(Vec::new()),
            Err(e) => Err(e.to_string()),
        }
    }

    /// Our own host name if it is a local domain, else the first that is.
    fn postmaster_domain(&self) -> Domain {
        let router = self.router.load();
        if router.is_local(&self.hostname) {
            return self.hostname.clone();
        }
        let first = router.local_domains().find(|domain| domain.is_qualified());
        first.cloned().unwrap_or_else(|| self.hostname.clone())
    }
}
