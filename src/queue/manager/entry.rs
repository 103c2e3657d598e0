//! What the manager has in memory of one message.
//!
//! Recipients that an attempt deferred, or whose message could not be read, are a deferred batch from then
//! on, with a due time of their own. If all waiting recipients of a message are due together, there are no
//! deferred batches, and the entry has only a due time and counts. The message is read when a batch is
//! dispatched, and stays in memory while an attempt is under way. A message that was just put stays in memory
//! until its first attempts, if there are not too many such messages.

use std::sync::Arc;

use super::READ_RETRY_DELAY;
use crate::queue::active_message::ActiveMessage;
use crate::sys::Moment;

/// A message in the queue.
pub(super) struct MessageEntry {
    /// When the next deferred batch, or the whole message, is due; `None` if all of it is ready or under way.
    pub(super) due: Option<Moment>,
    /// The recipients that wait, if they are not all due together.
    pub(super) deferred_batches: Vec<DeferredBatch>,
    pub(super) active_message: Option<Arc<ActiveMessage>>,
    /// Batches that are ready or under way.
    pub(super) batches_outstanding: usize,
    /// The highest number of attempts for one recipient in this process.
    pub(super) attempts: u32,
    /// A command withdrew some of its batches: the whole message is due when the other batches have ended.
    pub(super) is_due_as_whole: bool,
    /// An operator wants the message to be tried, even if its destinations do not answer.
    pub(super) is_retry_requested: bool,
    /// A round of attempts has begun in this process.
    pub(super) has_begun: bool,
}

/// Recipients that wait together.
pub(super) struct DeferredBatch {
    pub(super) due: Moment,
    /// Positions in the envelope.
    pub(super) recipients: Vec<usize>,
    /// Attempts made so far.
    pub(super) attempt_number: u32,
}

impl MessageEntry {
    pub(super) fn new() -> Self {
        Self {
            due: None,
            deferred_batches: Vec::new(),
            active_message: None,
            batches_outstanding: 0,
            attempts: 0,
            is_due_as_whole: false,
            is_retry_requested: false,
            has_begun: false,
        }
    }

    /// Takes the deferred batches that are due, for a round of attempts; `None` if there are no deferred
    /// batches, and all recipients that wait are due together.
    pub(super) fn take_due_batches(&mut self, now: Moment) -> Option<Vec<DeferredBatch>> {
        self.due = None;
        if self.deferred_batches.is_empty() {
            return None;
        }
        let (due, later) =
            std::mem::take(&mut self.deferred_batches).into_iter().partition(|batch| batch.due <= now);
        self.deferred_batches = later;
        Some(due)
    }

    /// No batch is ready or under way any more. If all recipients that wait are due together, drops the
    /// deferred batches and returns when.
    pub(super) fn merge_deferred(&mut self, now: Moment) -> Option<Moment> {
        let due = match self.deferred_batches.as_slice() {
            _ if std::mem::take(&mut self.is_due_as_whole) => Some(now),
            [] => Some(now + READ_RETRY_DELAY),
            // All recipients that wait are in this batch, and have as many attempts as recorded on disk.
            [batch] if batch.attempt_number == self.attempts => Some(batch.due),
            _ => None,
        };
        if due.is_some() {
            self.deferred_batches = Vec::new();
        }
        due
    }

    /// When the first of the deferred batches is due.
    pub(super) fn first_deferred_due(&self) -> Option<Moment> {
        self.deferred_batches.iter().map(|batch| batch.due).min()
    }
}
