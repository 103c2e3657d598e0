//! What the manager knows of one message.
//!
//! Recipients of a leg that are deferred are a **part** of the message from then on, with a due time
//! of their own. A message whose recipients all wait together has no parts, and costs no memory for
//! them: id, due time and counts are all there is. Its envelope is read when a leg leaves, and
//! kept while one is under way; a message just put keeps its own for its first legs, as long as not
//! too many do.

use std::sync::Arc;

use super::READ_RETRY_DELAY;
use crate::queue::job::ActiveMessage;
use crate::sys::Moment;

/// A message in our care.
pub(super) struct MessageEntry {
    /// When the next part, or the whole message, is due; nothing if all of it is ready or under way.
    pub(super) due: Option<Moment>,
    /// Those who wait, if not all of them do so together.
    pub(super) deferred_batches: Vec<DeferredBatch>,
    pub(super) active_message: Option<Arc<ActiveMessage>>,
    /// Legs that are ready or under way.
    pub(super) batches_outstanding: usize,
    /// Attempts that were made for one of its recipients at most, as far as this process knows.
    pub(super) attempts: u32,
    /// A command took back some of its legs: it waits as a whole when the others are back.
    pub(super) is_due_as_whole: bool,
    /// An operator wants it to be tried, whatever is known of its destinations.
    pub(super) is_retry_requested: bool,
    /// A round of it has begun in this process.
    pub(super) has_begun: bool,
}

/// Recipients of one leg that was put off.
pub(super) struct DeferredBatch {
    pub(super) due: Moment,
    /// Positions in the envelope.
    pub(super) recipients: Vec<usize>,
    /// Attempts that were made.
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

    /// A round begins: the parts whose time has come leave the list; nothing if it has none, and all
    /// who wait begin together.
    pub(super) fn take_due_batches(&mut self, now: Moment) -> Option<Vec<DeferredBatch>> {
        self.due = None;
        if self.deferred_batches.is_empty() {
            return None;
        }
        let (due, later) =
            std::mem::take(&mut self.deferred_batches).into_iter().partition(|part| part.due <= now);
        self.deferred_batches = later;
        Some(due)
    }

    /// Nothing of it is ready or under way any more: if all who wait are due together, the parts are
    /// one again, and this is when.
    pub(super) fn merge_deferred(&mut self, now: Moment) -> Option<Moment> {
        let due = match self.deferred_batches.as_slice() {
            _ if std::mem::take(&mut self.is_due_as_whole) => Some(now),
            [] => Some(now + READ_RETRY_DELAY),
            // Everybody who waits does so together, and was tried as often as the disk says.
            [part] if part.attempt_number == self.attempts => Some(part.due),
            _ => None,
        };
        if due.is_some() {
            self.deferred_batches = Vec::new();
        }
        due
    }

    /// When the first of its parts is due.
    pub(super) fn first_deferred_due(&self) -> Option<Moment> {
        self.deferred_batches.iter().map(|part| part.due).min()
    }
}
