//! The policy of the running server: each question goes to the file that decides it.

use std::sync::Arc;

use super::circumstances::Circumstances;
use super::decision::Decision;
use super::login::LoginPolicy;
use super::originator_field::OriginatorField;
use super::policy::Policy;
use super::rate_limits::RateLimits;
use super::recipient::RecipientPolicy;
use super::sender::ReversePathPolicy;
use super::sender_login::SenderLoginPolicy;
use crate::mail::{Failure, ForwardPath, Mailbox, ReversePath, SenderFacts};
use crate::smtp::{Answer, SaslCredentials, Verdict};

/// Limits and rules from the configuration.
pub struct ConfiguredPolicy {
    /// What clients and users may do in an hour.
    pub rate_limits: Arc<RateLimits>,
    /// Decides about the reverse-paths of other servers.
    pub reverse_path_policy: ReversePathPolicy,
    /// Decides about the addresses as which users write.
    pub sender_login_policy: SenderLoginPolicy,
    /// Decides about forward-paths.
    pub recipient_policy: RecipientPolicy,
    /// Decides about logins.
    pub login_policy: LoginPolicy,
}

impl Policy for ConfiguredPolicy {
    fn has_logins(&self) -> bool {
        self.login_policy.has_logins()
    }

    fn all_have_scram(&self) -> bool {
        self.login_policy.all_have_scram()
    }

    fn check_sender(&self, circumstances: &Circumstances<'_>, reverse_path: &ReversePath) -> Verdict {
        if let Err(refusal) = self.rate_limits.admit_message(circumstances) {
            return refusal;
        }
        match (circumstances.login, reverse_path) {
            (Some(user), ReversePath::Mailbox(mailbox)) => {
                let decision = self.sender_login_policy.check_reverse_path(user, mailbox);
                decision.into_verdict(Answer::Sender(SenderFacts::default()))
            }
            (Some(_), ReversePath::Null) | (None, _) => {
                self.reverse_path_policy.decide(circumstances, reverse_path)
            }
        }
    }

    fn check_recipient(&self, circumstances: &Circumstances<'_>, forward_path: &ForwardPath) -> Verdict {
        if let Err(refusal) = self.rate_limits.admit_recipient(circumstances) {
            return refusal;
        }
        let verdict = self.recipient_policy.decide(circumstances, forward_path);
        if is_unknown_recipient(&verdict.answer) {
            self.rate_limits.record_unknown_recipient(circumstances);
        }
        verdict
    }

    fn check_originator(&self, user: &Mailbox, field: &OriginatorField) -> Decision {
        self.sender_login_policy.check_field(user, field)
    }

    fn check_login(&self, circumstances: &Circumstances<'_>, login: &SaslCredentials) -> Verdict {
        self.login_policy.decide(circumstances, login)
    }

    fn scram_start(&self, circumstances: &Circumstances<'_>, user: &str) -> Verdict {
        self.login_policy.scram_start(circumstances, user)
    }
}

/// The recipient does not exist (RFC 3463 X.1.1).
fn is_unknown_recipient(answer: &Answer) -> bool {
    match answer {
        Answer::Recipients(recipients) => recipients.is_empty(),
        Answer::Refused(Failure::Permanent(reason)) => (reason.subject, reason.detail) == (1, 1),
        _ => false,
    }
}
