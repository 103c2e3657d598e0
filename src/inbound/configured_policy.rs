//! The policy of the house: each question goes to the file that answers it.

use std::sync::Arc;

use super::login::LoginPolicy;
use super::originator_field::OriginatorField;
use super::policy::{ClientContext, Policy};
use super::rate_limits::RateLimits;
use super::recipient::RecipientPolicy;
use super::sender::ReversePathPolicy;
use super::sender_login::SenderLoginPolicy;
use crate::mail::{Failure, ForwardPath, Mailbox, ReversePath};
use crate::smtp::{Answer, SaslCredentials, Verdict};

/// Asks senders, authors, recipients and logins.
pub struct ConfiguredPolicy {
    /// Who has done too much.
    pub rate_limits: Arc<RateLimits>,
    /// Answers for reverse-paths.
    pub reverse_path_policy: ReversePathPolicy,
    /// Answers for the names that users write in.
    pub sender_login_policy: SenderLoginPolicy,
    /// Answers for forward-paths.
    pub recipient_policy: RecipientPolicy,
    /// Answers for logins.
    pub login_policy: LoginPolicy,
}

impl Policy for ConfiguredPolicy {
    fn has_logins(&self) -> bool {
        self.login_policy.has_logins()
    }

    fn all_have_scram(&self) -> bool {
        self.login_policy.all_have_scram()
    }

    fn check_sender(&self, client: &ClientContext<'_>, reverse_path: &ReversePath) -> Verdict {
        if let Err(refusal) = self.rate_limits.admit_message(client) {
            return refusal;
        }
        match (client.login, reverse_path) {
            (Some(user), ReversePath::Mailbox(mailbox)) => {
                self.sender_login_policy.check_reverse_path(user, mailbox)
            }
            (Some(_), ReversePath::Null) | (None, _) => self.reverse_path_policy.decide(client, reverse_path),
        }
    }

    fn check_recipient(&self, client: &ClientContext<'_>, forward_path: &ForwardPath) -> Verdict {
        if let Err(refusal) = self.rate_limits.admit_recipient(client) {
            return refusal;
        }
        let verdict = self.recipient_policy.decide(client, forward_path);
        if is_unknown_recipient(&verdict.answer) {
            self.rate_limits.record_unknown_recipient(client);
        }
        verdict
    }

    fn check_originator(&self, user: &Mailbox, authorship: &OriginatorField) -> Verdict {
        self.sender_login_policy.check_field(user, authorship)
    }

    fn check_login(&self, client: &ClientContext<'_>, login: &SaslCredentials) -> Verdict {
        self.login_policy.decide(client, login)
    }

    fn scram_start(&self, client: &ClientContext<'_>, user: &str) -> Verdict {
        self.login_policy.scram_start(client, user)
    }
}

/// There is nobody by that name (RFC 3463 X.1.1).
fn is_unknown_recipient(answer: &Answer) -> bool {
    match answer {
        Answer::Recipients(recipients) => recipients.is_empty(),
        Answer::Refused(Failure::Permanent(reason)) => (reason.subject, reason.detail) == (1, 1),
        _ => false,
    }
}
