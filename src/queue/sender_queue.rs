//! The batches that wait for one destination, by sender.
//!
//! There is one queue for each sender, and senders take turns, so that thousands of messages of one sender do
//! not delay a single message of another. A batch is found by its sender and its number, without a search: an
//! operator may withdraw each message of a long queue.

use std::collections::{BTreeMap, HashSet, VecDeque};

use super::recipient_batch::RecipientBatch;
use crate::mail::MessageId;
use crate::sys::Moment;

/// Numbers the batches in the order in which they came; no two batches of a pool have the same number.
pub(super) type BatchNumber = u64;

/// The batches that wait for one destination.
#[derive(Default)]
pub(super) struct SenderQueue {
    /// By sender; the batches of a sender in the order in which they came.
    batches: BTreeMap<(u64, BatchNumber), RecipientBatch>,
    /// The turns of the senders, each sender once: all that have a batch, and some whose batches were
    /// withdrawn, which are removed when it is their turn.
    sender_order: VecDeque<u64>,
    /// The senders in `sender_order`.
    senders_in_order: HashSet<u64>,
    /// No batch times out earlier. Avoids a search through a long queue after each probe.
    earliest_timeout: Option<Moment>,
}

impl SenderQueue {
    pub(super) fn len(&self) -> usize {
        self.batches.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.batches.is_empty()
    }

    pub(super) fn push(&mut self, number: BatchNumber, batch: RecipientBatch) {
        if self.senders_in_order.insert(batch.sender) {
            self.sender_order.push_back(batch.sender);
        }
        let timeout =
            self.earliest_timeout.map_or(batch.wait_until, |earliest| earliest.min(batch.wait_until));
        self.earliest_timeout = Some(timeout);
        self.batches.insert((batch.sender, number), batch);
    }

    /// Takes out the next batch.
    pub(super) fn pop(&mut self) -> Option<(BatchNumber, RecipientBatch)> {
        while let Some(sender) = self.sender_order.pop_front() {
            let mut keys = self.batches.range((sender, 0)..=(sender, BatchNumber::MAX)).map(|(key, _)| *key);
            let (first, second) = (keys.next(), keys.next());
            if second.is_some() {
                self.sender_order.push_back(sender);
            } else {
                self.senders_in_order.remove(&sender);
            }
            if let Some(key) = first {
                return self.batches.remove(&key).map(|batch| (key.1, batch));
            }
        }
        None
    }

    /// Removes a batch.
    pub(super) fn withdraw(&mut self, sender: u64, number: BatchNumber) {
        self.batches.remove(&(sender, number));
        self.clear_if_empty();
    }

    /// Whether one of these messages has a batch here.
    pub(super) fn has_batch_of(&self, ids: &HashSet<MessageId>) -> bool {
        self.batches.values().any(|batch| ids.contains(&batch.id))
    }

    /// Takes out the batches that have waited for as long as they may.
    pub(super) fn take_timed_out(&mut self, now: Moment) -> BTreeMap<(u64, BatchNumber), RecipientBatch> {
        if self.earliest_timeout.is_none_or(|earliest| earliest > now) {
            return BTreeMap::new();
        }
        let all = std::mem::take(&mut self.batches).into_iter();
        let (timed_out, waiting) = all.partition(|(_, batch)| batch.wait_until <= now);
        self.batches = waiting;
        self.earliest_timeout = self.batches.values().map(|batch| batch.wait_until).min();
        self.clear_if_empty();
        timed_out
    }

    fn clear_if_empty(&mut self) {
        if self.batches.is_empty() {
            self.sender_order.clear();
            self.senders_in_order.clear();
        }
    }
}
