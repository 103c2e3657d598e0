//! The policy of the house: each question goes to the file that answers it.

use super::login::Logins;
use super::policy::{Client, Policy};
use super::recipient::Recipients;
use super::sender::Senders;
use crate::mail::{ForwardPath, ReversePath};
use crate::smtp::{Login, Verdict};

/// Asks senders, recipients and logins.
pub struct HousePolicy {
    /// Answers for reverse-paths.
    pub senders: Senders,
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
        self.senders.decide(client, reverse_path)
    }

    fn recipient(&self, client: &Client<'_>, forward_path: &ForwardPath) -> Verdict {
        self.recipients.decide(client, forward_path)
    }

    fn login(&self, _client: &Client<'_>, login: &Login) -> Verdict {
        self.logins.decide(login)
    }
}
