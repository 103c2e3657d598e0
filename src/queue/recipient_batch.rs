//! The recipients of one message that are tried in one attempt.

use std::sync::Arc;

use crate::courier::CourierProfile;
use crate::mail::{MessageId, Reason};
use crate::sys::Moment;

/// Some recipients of one message that have the same route, ready for an attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RecipientBatch {
    pub(super) id: MessageId,
    /// Positions in the envelope.
    pub(super) recipients: Vec<usize>,
    /// The profile of the route's courier.
    pub(super) profile: CourierProfile,
    /// Number of the next attempt, from 1.
    pub(super) attempt_number: u32,
    /// Hash of the sender; senders take turns.
    pub(super) sender: u64,
    /// Until then the batch may wait for its destination to be probed.
    pub(super) wait_until: Moment,
    /// An operator wants it to be tried, even if its destination does not answer.
    pub(super) is_retry_requested: bool,
}

/// Why recipients are not tried when it is their turn.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum SkipReason {
    /// They have waited too long for a probe of their destination, which does not answer for this reason.
    DestinationUnresponsive(Arc<Reason>),
    /// They were to be given up, or reported as delayed, before this process began. That is done first: also
    /// in this process an attempt might not end.
    Overdue,
}

#[cfg(test)]
impl RecipientBatch {
    /// For the first recipient of a message, at another server, without an end of the wait.
    pub(super) fn for_test(id: MessageId) -> Self {
        Self {
            id,
            recipients: vec![0],
            profile: CourierProfile::REMOTE,
            attempt_number: 1,
            sender: 0,
            wait_until: Moment::new(std::time::Duration::MAX),
            is_retry_requested: false,
        }
    }
}
