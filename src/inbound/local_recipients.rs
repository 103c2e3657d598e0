//! The interface to the addresses of local domains: accounts and aliases.

use crate::mail::{Domain, Mailbox, Recipient};

/// Who is behind an address of ours: accounts and aliases, as the wiring puts them together.
pub trait LocalRecipients: Send + Sync {
    /// The domain is one of ours.
    fn is_local(&self, domain: &Domain) -> bool;

    /// Mail for it is for us: its domain is one of ours, or it is this host's postmaster.
    fn is_local_mailbox(&self, mailbox: &Mailbox) -> bool {
        self.is_local(&mailbox.domain)
    }

    /// The recipients behind a mailbox of ours; none if there is nobody.
    ///
    /// # Errors
    /// It cannot be found out now; says why, for the log.
    fn expand(&self, mailbox: &Mailbox) -> Result<Vec<Recipient>, String>;

    /// Where `<postmaster>` without a domain goes (RFC 5321 §4.1.1.3).
    fn postmaster_domain(&self) -> Domain;
}
