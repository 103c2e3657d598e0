//! What the hosts have answered about one recipient, and which failure counts if none has.

use crate::mail::{Failure, Outcome};

/// The state of a recipient during an attempt.
pub(super) enum RecipientAnswer {
    /// No host has answered yet; with the failure that says most, once a host was tried.
    Pending(Option<Failure>),
    /// A host has answered.
    Answered(Outcome),
}

impl RecipientAnswer {
    /// The outcome at the end of the attempt.
    pub(super) fn into_outcome(self) -> Outcome {
        match self {
            Self::Answered(outcome) => outcome,
            Self::Pending(Some(failure)) => failure.into(),
            Self::Pending(None) => Failure::transient(4, 0, "no host was asked").into(),
        }
    }

    /// Records that one more host has given no answer.
    pub(super) fn record_failure(&mut self, failure: Failure) {
        if let Self::Pending(why) = self {
            *why = Some(match why.take() {
                None => failure,
                Some(before) => combine_failures(before, failure),
            });
        }
    }
}

/// The failure that counts after two hosts: a transient one, because one host that may work later is
/// enough; otherwise the later one. A failed connection says less than any reply.
fn combine_failures(before: Failure, now: Failure) -> Failure {
    match (&before, &now) {
        (Failure::Transient(_), Failure::Permanent(_)) => before,
        (Failure::Permanent(_), Failure::Transient(_)) => now,
        _ if is_connection_failure(&now) && !is_connection_failure(&before) => before,
        _ => now,
    }
}

/// The failure that counts after two addresses of one host. What the host lacks at one address it lacks
/// at the other, so a permanent failure stands even if another address (an IPv6 address, say) could not
/// be reached.
pub(super) fn combine_failures_of_host(before: Failure, now: Failure) -> Failure {
    match &now {
        Failure::Permanent(_) if is_connection_failure(&before) => now,
        Failure::Permanent(_) | Failure::Transient(_) => combine_failures(before, now),
    }
}

fn is_connection_failure(failure: &Failure) -> bool {
    (failure.reason().subject, failure.reason().detail) == (4, 1)
}
