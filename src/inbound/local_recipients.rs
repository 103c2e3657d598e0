//! The interface to the addresses of local domains: accounts and aliases.

use crate::mail::{Domain, Mailbox, Recipient};

/// The accounts and aliases of the local domains.
pub trait LocalRecipients: Send + Sync {
    /// The domain is local.
    fn is_local(&self, domain: &Domain) -> bool;

    /// Mail for the mailbox is delivered here: its domain is local, or it is the postmaster of this host.
    fn is_local_mailbox(&self, mailbox: &Mailbox) -> bool {
        self.is_local(&mailbox.domain)
    }

    /// The recipients of a local mailbox after aliases; none if it does not exist.
    ///
    /// # Errors
    /// The look-up has failed; the reason is for the log.
    fn expand(&self, mailbox: &Mailbox) -> Result<Vec<Recipient>, String>;

    /// The domain of `<postmaster>` without a domain (RFC 5321 §4.1.1.3).
    fn postmaster_domain(&self) -> Domain;
}
