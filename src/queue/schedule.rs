//! What is due next, and which batches can be tried now.
//!
//! Two parts, both without clocks, files or threads: a timetable of the messages that wait, and, for each
//! pool of delivery threads, the batches that can be tried now. `ready_queue` decides the order within a
//! pool. Local delivery has a pool of its own and never waits for remote delivery.

use std::collections::{BTreeSet, HashSet};

use super::destination_state::{ContactResult, ReachabilityChange};
use super::ready_queue::{Dispatch, ReadyQueue};
use super::recipient_batch::RecipientBatch;
use super::settings::Settings;
use crate::courier::DeliveryPool;
use crate::mail::MessageId;
use crate::route::Route;
use crate::sys::{Moment, Random};

/// The timetable and the batches that are ready.
pub(super) struct Schedule {
    due: BTreeSet<(Moment, MessageId)>,
    local: ReadyQueue,
    remote: ReadyQueue,
}

impl Schedule {
    pub(super) fn new(settings: &Settings) -> Self {
        Self {
            due: BTreeSet::new(),
            local: ReadyQueue::new(settings, settings.local_threads),
            remote: ReadyQueue::new(settings, settings.remote_threads),
        }
    }

    /// Adds a message that is due at this time.
    pub(super) fn add(&mut self, id: MessageId, due: Moment) {
        self.due.insert((due, id));
    }

    /// Removes a message that was due at this time.
    pub(super) fn forget(&mut self, id: MessageId, due: Moment) {
        self.due.remove(&(due, id));
    }

    /// When the next message, or the next probe of a destination, is due.
    pub(super) fn next_due(&self) -> Option<Moment> {
        let first = self.due.first().map(|(due, _)| *due);
        [first, self.local.next_probe_due(), self.remote.next_probe_due()].into_iter().flatten().min()
    }

    /// The next message whose time has come.
    pub(super) fn take_due(&mut self, now: Moment) -> Option<MessageId> {
        let (due, _) = self.due.first()?;
        if *due > now {
            return None;
        }
        self.due.pop_first().map(|(_, id)| id)
    }

    /// Adds the destinations whose probe is due to the ready queues.
    pub(super) fn queue_due_probes(&mut self, now: Moment) {
        self.local.queue_due_probes(now);
        self.remote.queue_due_probes(now);
    }

    /// Adds a batch that can be tried now.
    pub(super) fn add_batch(&mut self, route: Route, batch: RecipientBatch, now: Moment) {
        self.ready_queue(batch.profile.pool).add(route, batch, now);
    }

    /// Adds a batch that is given up, or reported as delayed, before it is tried.
    pub(super) fn add_overdue(&mut self, route: Route, batch: RecipientBatch) {
        self.ready_queue(batch.profile.pool).add_overdue(route, batch);
    }

    /// Takes the next batch of a pool that can be tried; its destination has one more attempt under way.
    pub(super) fn dispatch_next(&mut self, pool: DeliveryPool, now: Moment) -> Option<Dispatch> {
        self.ready_queue(pool).dispatch_next(now)
    }

    /// An attempt of this pool ended.
    pub(super) fn attempt_finished(
        &mut self,
        pool: DeliveryPool,
        route: &Route,
        contact: &ContactResult,
        now: Moment,
        random: &dyn Random,
    ) -> ReachabilityChange {
        self.ready_queue(pool).attempt_finished(route, contact, now, random)
    }

    /// Makes probes of the suspect destinations of these messages due now.
    pub(super) fn probe_at_once(&mut self, ids: &HashSet<MessageId>, now: Moment) {
        self.local.probe_at_once(ids, now);
        self.remote.probe_at_once(ids, now);
    }

    /// Removes the batches of a message that are ready. Returns their number.
    pub(super) fn withdraw(&mut self, id: MessageId) -> usize {
        self.local.withdraw(id) + self.remote.withdraw(id)
    }

    /// The number of batches that wait for a destination.
    pub(super) fn waiting_count(&mut self, pool: DeliveryPool, route: &Route) -> usize {
        self.ready_queue(pool).waiting_count(route)
    }

    fn ready_queue(&mut self, pool: DeliveryPool) -> &mut ReadyQueue {
        match pool {
            DeliveryPool::Local => &mut self.local,
            DeliveryPool::Remote => &mut self.remote,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::mail::Timestamp;

    #[test]
    fn messages_become_due_in_order_and_not_before_their_time() {
        let mut schedule = Schedule::new(&Settings::default());
        let at = |seconds| Moment::new(Duration::from_secs(seconds));
        let [first, second] = [1, 2].map(|n| MessageId::new(Timestamp::from_millis(0), n));
        schedule.add(first, at(10));
        schedule.add(second, at(5));
        assert_eq!(schedule.next_due(), Some(at(5)));
        assert_eq!(schedule.take_due(at(4)), None);
        assert_eq!(schedule.take_due(at(10)), Some(second));
        assert_eq!(schedule.take_due(at(10)), Some(first));
    }
}
