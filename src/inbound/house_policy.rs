//! The policy of the house: each question goes to the file that answers it.

use super::author::{Authors, Authorship};
use super::login::Logins;
use super::policy::{Client, Policy};
use super::recipient::Recipients;
use super::sender::Senders;
use crate::mail::{ForwardPath, Mailbox, ReversePath};
use crate::smtp::{Login, Verdict};

/// Asks senders, authors, recipients and logins.
pub struct HousePolicy {
    /// Answers for reverse-paths.
    pub senders: Senders,
    /// Answers for the names that users write in.
    pub authors: Authors,
    /// Answers for forward-paths.
    pub recipients: Recipients,
    /// Answers for logins.
    pub logins: Logins,
}

impl Policy for HousePolicy {
    fn has_logins(&self) -> bool {
        self.logins.exist()
    }

    fn sender(&self, client: &Client<'_>, reverse_path: &ReversePath) -> Verdict {
        match (client.login, reverse_path) {
            (Some(user), ReversePath::Mailbox(mailbox)) => self.authors.reverse_path(user, mailbox),
            (Some(_), ReversePath::Null) | (None, _) => self.senders.decide(client, reverse_path),
        }
    }

    fn recipient(&self, client: &Client<'_>, forward_path: &ForwardPath) -> Verdict {
        self.recipients.decide(client, forward_path)
    }

    fn author(&self, user: &Mailbox, authorship: &Authorship) -> Verdict {
        self.authors.field(user, authorship)
    }

    fn login(&self, _client: &Client<'_>, login: &Login) -> Verdict {
        self.logins.decide(login)
    }
}
