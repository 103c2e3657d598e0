//! The events that the queue manager handles.

use std::collections::HashSet;
use std::sync::Arc;

use super::attempt_job::AttemptResult;
use super::claims::{ClaimRequest, ReturnedClaim};
use crate::mail::{Envelope, MessageId};
use crate::sys::Moment;

/// An event for the queue manager. A hint to look at the disk, never the only copy of anything.
pub(super) enum ManagerEvent {
    /// A message was put.
    Put {
        id: MessageId,
        envelope: Arc<Envelope>,
        /// The moment of the put.
        arrived_at: Moment,
    },
    /// An attempt ended.
    AttemptFinished(AttemptResult),
    /// An operator wants these messages to be tried now.
    Retry(HashSet<MessageId>),
    /// An operator's command wants to change a message.
    Claim(MessageId, ClaimRequest),
    /// A command is done with a message.
    ClaimReturned(ReturnedClaim),
    /// The server stops: hand out no more attempts.
    Stop,
}
