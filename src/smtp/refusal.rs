//! The refusals of the server machine: which code goes with which status.
//!
//! RFC 5321 §4.2.3 for the codes, RFC 3463 and RFC 5248 for the statuses.

use crate::mail::Failure;

use super::reply::{EnhancedStatus, Reply};
use super::sasl::SaslError;
use super::server::PendingQuestion;

pub(super) fn out_of_order(text: &str) -> Reply {
    Reply::new(503, 5, 1, text)
}

pub(super) fn not_ascii() -> Reply {
    Reply::new(553, 6, 7, "An address beyond ASCII takes SMTPUTF8")
}

pub(super) fn too_big() -> Reply {
    Reply::new(552, 3, 4, "The message is too big")
}

pub(super) fn bare_line_end() -> Reply {
    Reply::new(521, 5, 2, "A line ends with CR and LF, and neither comes alone")
}

pub(super) fn wrong_login() -> Reply {
    Reply::new(535, 7, 8, "User name or password is wrong")
}

/// What the client said in an authentication exchange is not what was due.
pub(super) fn sasl_error(error: SaslError) -> Reply {
    match error {
        // Somebody is in between: an attempt to log in that failed, and no mistake of the client's.
        SaslError::Downgrade => Reply::new(535, 7, 8, error.to_string()),
        SaslError::ChannelBinding => Reply::new(501, 5, 4, error.to_string()),
        SaslError::Base64 | SaslError::Plain | SaslError::Login | SaslError::Scram | SaslError::NotEmpty => {
            Reply::new(501, 5, 2, error.to_string())
        }
    }
}

pub(super) fn bare_line_end_in_chunk() -> Reply {
    Reply::new(554, 6, 0, "A line of the message ends with CR and LF, and neither comes alone")
}

pub(super) fn local_error() -> Reply {
    Reply::new(451, 3, 0, "Something is wrong here, try again later")
}

/// The reply for a failure: the code that is customary for its status, where there is one.
pub(super) fn failure_reply(failure: &Failure, asked: &PendingQuestion) -> Reply {
    let reason = failure.reason();
    let code = match (failure, asked, (reason.subject, reason.detail)) {
        // RFC 4954 §6.
        (Failure::Transient(_), PendingQuestion::Login(_) | PendingQuestion::ScramStart(_), _) => 454,
        (Failure::Permanent(_), PendingQuestion::Login(_) | PendingQuestion::ScramStart(_), _) => 535,
        // RFC 5321 §4.2.3: 452 for storage, 450 for the mailbox, 451 for us.
        (Failure::Transient(_), _, (3, 1 | 4) | (5, 3)) => 452,
        (Failure::Transient(_), _, (2, _)) => 450,
        (Failure::Transient(_), _, _) => 451,
        // RFC 7504 §4, RFC 7505 §4.2: the domain takes no mail at all.
        (Failure::Permanent(_), PendingQuestion::Recipient(_), (1, 10)) => 556,
        // RFC 5321 §4.5.3.1.10: clients take 552 to RCPT for 452, and would come again.
        (Failure::Permanent(_), PendingQuestion::Recipient(_), _) => 550,
        // RFC 1870 §6.
        (Failure::Permanent(_), PendingQuestion::Sender(..) | PendingQuestion::Content, (3, 4)) => 552,
        (Failure::Permanent(_), PendingQuestion::Sender(..), _) => 550,
        // Rejected for reasons of policy, like a recipient.
        (Failure::Permanent(_), PendingQuestion::Content, (7, 1)) => 550,
        (Failure::Permanent(_), PendingQuestion::Content, _) => 554,
    };
    Reply::new(code, reason.subject, reason.detail, reason.text.clone())
}

/// A refusal is a 4yz or 5yz, and its status agrees (RFC 2034 §4), whoever made it.
pub(super) fn with_valid_status(reply: Reply) -> Reply {
    if !(400..600).contains(&reply.code) || reply.lines.is_empty() {
        return local_error();
    }
    let class = reply.code / 100;
    let status = reply
        .status
        .map_or(EnhancedStatus { class, subject: 0, detail: 0 }, |status| EnhancedStatus { class, ..status });
    Reply { status: Some(status), ..reply }
}
