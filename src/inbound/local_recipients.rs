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

/// For tests: the users ana, bo and postmaster of `here.example`, and info, an alias of bo and ana. A look-up of
/// broken fails.
#[cfg(test)]
pub(super) struct FixedRecipients;

#[cfg(test)]
impl LocalRecipients for FixedRecipients {
    fn is_local(&self, domain: &Domain) -> bool {
        domain.as_ascii() == "here.example"
    }

    fn expand(&self, mailbox: &Mailbox) -> Result<Vec<Recipient>, String> {
        let to = |local_part: &str| {
            Recipient::for_mailbox(Mailbox::parse(&format!("{local_part}@here.example")).unwrap())
        };
        match mailbox.local_part.comparison_key().as_str() {
            "info" => Ok(vec![to("bo"), to("ana")]),
            "ana" | "ana+lists" => Ok(vec![to("ana")]),
            user @ ("bo" | "postmaster") => Ok(vec![to(user)]),
            "broken" => Err("the alias file is gone".to_owned()),
            _ => Ok(Vec::new()),
        }
    }

    fn postmaster_domain(&self) -> Domain {
        Domain::parse("here.example").unwrap()
    }
}
