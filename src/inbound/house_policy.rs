//! The policy of the house: each question goes to the file that answers it.

use std::sync::Arc;

use super::author::{Authors, Authorship};
use super::login::Logins;
use super::policy::{Client, Policy};
use super::rates::Rates;
use super::recipient::Recipients;
use super::sender::Senders;
use crate::mail::{Failure, ForwardPath, Mailbox, ReversePath};
use crate::smtp::{Answer, Login, Verdict};

/// Asks senders, authors, recipients and logins.
pub struct HousePolicy {
    /// Who has done too much.
    pub rates: Arc<Rates>,
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

    fn all_have_scram(&self) -> bool {
        self.logins.all_have_scram()
    }

    fn sender(&self, client: &Client<'_>, reverse_path: &ReversePath) -> Verdict {
        if let Err(refusal) = self.rates.message(client) {
            return refusal;
        }
        match (client.login, reverse_path) {
            (Some(user), ReversePath::Mailbox(mailbox)) => self.authors.reverse_path(user, mailbox),
            (Some(_), ReversePath::Null) | (None, _) => self.senders.decide(client, reverse_path),
        }
    }

    fn recipient(&self, client: &Client<'_>, forward_path: &ForwardPath) -> Verdict {
        if let Err(refusal) = self.rates.recipient(client) {
            return refusal;
        }
        let verdict = self.recipients.decide(client, forward_path);
        if is_unknown(&verdict.answer) {
            self.rates.unknown_recipient(client);
        }
        verdict
    }

    fn author(&self, user: &Mailbox, authorship: &Authorship) -> Verdict {
        self.authors.field(user, authorship)
    }

    fn login(&self, client: &Client<'_>, login: &Login) -> Verdict {
        self.logins.decide(client, login)
    }

    fn scram_start(&self, client: &Client<'_>, user: &str) -> Verdict {
        self.logins.scram_start(client, user)
    }
}

/// There is nobody by that name (RFC 3463 X.1.1).
fn is_unknown(answer: &Answer) -> bool {
    match answer {
        Answer::Recipients(recipients) => recipients.is_empty(),
        Answer::Refused(Failure::Permanent(reason)) => (reason.subject, reason.detail) == (1, 1),
        _ => false,
    }
}
