//! A queued message, as an operator sees it.

use std::time::Duration;

use crate::mail::{Envelope, MessageId, Recipient, ReversePath, Timestamp};
use crate::spool::{AgeClock, MessageProgress, RecipientState};

/// A queued message, as lists and pages show it.
#[derive(Debug, Clone, PartialEq)]
pub struct QueuedMessage {
    /// The id of the message.
    pub id: MessageId,
    /// Wall time of arrival.
    pub arrived: Timestamp,
    /// The time since arrival, by the age clock.
    pub age: Duration,
    /// Length of the message in octets, without added fields.
    pub octets: u64,
    /// Where failures are reported.
    pub reverse_path: ReversePath,
    /// Rounds of attempts so far.
    pub attempts: u32,
    /// Wall time of the next attempt, as last written; `retry` may have made it earlier. `None`: the message
    /// is due now, and tried when it is its turn or when its destination is probed.
    pub due: Option<Timestamp>,
    /// The message is not tried before an operator releases it.
    pub is_held: bool,
    /// The recipients, in the order of the envelope.
    pub recipients: Vec<QueuedRecipient>,
}

/// One recipient of a queued message.
#[derive(Debug, Clone, PartialEq)]
pub struct QueuedRecipient {
    /// The recipient in the envelope.
    pub recipient: Recipient,
    /// The state, with the reason of the last outcome.
    pub state: RecipientState,
}

impl QueuedMessage {
    pub(super) fn new(
        envelope: &Envelope,
        progress: MessageProgress,
        octets: u64,
        age_clock: &AgeClock,
    ) -> Self {
        let recipients = envelope.recipients.iter().cloned().zip(progress.states);
        Self {
            id: envelope.id,
            arrived: envelope.arrived_at,
            age: age_clock.age(envelope),
            octets,
            reverse_path: envelope.reverse_path.clone(),
            attempts: progress.attempts,
            due: age_clock.to_wall(progress.due),
            is_held: progress.is_held,
            recipients: recipients.map(|(recipient, state)| QueuedRecipient { recipient, state }).collect(),
        }
    }
}
