//! The replies for refusals of the policy and of SASL: which code goes with which status.
//!
//! RFC 5321 §4.2.3 for the codes, RFC 3463 and RFC 5248 for the statuses.

use crate::mail::Failure;

use super::reply::{EnhancedStatus, Reply};
use super::reply_table as table;
use super::sasl::SaslError;

/// What a refused question was about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum QuestionKind {
    Sender,
    Recipient,
    /// Also what comes before a SCRAM exchange.
    Login,
    Content,
}

/// The reply to a message of the client that does not fit the authentication exchange.
pub(super) fn sasl_error(error: SaslError) -> Reply {
    match error {
        // A third party changed the offered mechanisms: a failed login, not a mistake of the client.
        SaslError::Downgrade => Reply::new(535, 7, 8, error.to_string()),
        SaslError::ChannelBinding => Reply::new(501, 5, 4, error.to_string()),
        SaslError::Base64 | SaslError::Plain | SaslError::Login | SaslError::Scram | SaslError::NotEmpty => {
            Reply::new(501, 5, 2, error.to_string())
        }
    }
}

/// The reply for a failure: the code that is customary for its status, where there is one.
pub(super) fn failure_reply(failure: &Failure, kind: QuestionKind) -> Reply {
    let reason = failure.reason();
    let code = match (failure, kind, (reason.subject, reason.detail)) {
        // RFC 4954 §6.
        (Failure::Transient(_), QuestionKind::Login, _) => 454,
        (Failure::Permanent(_), QuestionKind::Login, _) => 535,
        // RFC 5321 §4.2.3: 452 for storage, 450 for the mailbox, 451 for the server.
        (Failure::Transient(_), _, (3, 1 | 4) | (5, 3)) => 452,
        (Failure::Transient(_), _, (2, _)) => 450,
        (Failure::Transient(_), _, _) => 451,
        // RFC 7504 §4, RFC 7505 §4.2: the domain takes no mail at all.
        (Failure::Permanent(_), QuestionKind::Recipient, (1, 10)) => 556,
        // RFC 5321 §4.5.3.1.10: clients take 552 to RCPT for 452, and would try again.
        (Failure::Permanent(_), QuestionKind::Recipient, _) => 550,
        // RFC 1870 §6.
        (Failure::Permanent(_), QuestionKind::Sender | QuestionKind::Content, (3, 4)) => 552,
        (Failure::Permanent(_), QuestionKind::Sender, _) => 550,
        // A message that is refused by policy gets the same code as a recipient that is.
        (Failure::Permanent(_), QuestionKind::Content, (7, 1)) => 550,
        (Failure::Permanent(_), QuestionKind::Content, _) => 554,
    };
    Reply::new(code, reason.subject, reason.detail, reason.text.clone())
}

/// Makes a refusal a 4yz or 5yz with a status of the same class (RFC 2034 §4).
pub(super) fn with_valid_status(reply: Reply) -> Reply {
    if !(400..600).contains(&reply.code) || reply.lines.is_empty() {
        return table::LOCAL_ERROR.into();
    }
    let class = reply.code / 100;
    let status = reply
        .status
        .map_or(EnhancedStatus { class, subject: 0, detail: 0 }, |status| EnhancedStatus { class, ..status });
    Reply { status: Some(status), ..reply }
}
