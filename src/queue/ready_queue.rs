//! The batches of one pool that can be tried now, and their order.
//!
//! Destinations take turns, so that a long queue for one destination does not delay the others. Proven, new
//! and suspect destinations have a queue each. New and suspect ones may use only a part of the threads, so
//! that destinations that do not answer, however many, never occupy the whole pool.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use super::destination_state::{ContactResult, DestinationState, Reachability, ReachabilityChange};
use super::recipient_batch::{RecipientBatch, SkipReason};
use super::sender_queue::BatchNumber;
use super::settings::Settings;
use crate::mail::MessageId;
use crate::route::Route;
use crate::sys::{Moment, Random};

/// A batch whose turn it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Dispatch {
    pub(super) route: Arc<Route>,
    pub(super) batch: RecipientBatch,
    /// More mail for this destination is likely to follow soon.
    pub(super) is_more_mail_expected: bool,
    /// Why the batch is not tried; `None` if it is.
    pub(super) skip_reason: Option<SkipReason>,
}

/// The batches of one pool.
pub(super) struct ReadyQueue {
    /// The concurrency limit of one destination.
    destination_attempts_max: usize,
    /// Attempts under way to new and suspect destinations together at most.
    unproven_attempts_max: usize,
    /// Attempts under way to suspect destinations at most.
    suspect_attempts_max: usize,
    backoff_max: Duration,
    destinations: HashMap<Arc<Route>, DestinationState>,
    /// The turns of destinations that have a batch that can be tried, by reachability; each destination once.
    destination_order: [VecDeque<Arc<Route>>; 3],
    /// Attempts under way, by the reachability of their destination.
    under_way: [usize; 3],
    /// Suspect destinations that wait for their next probe.
    suspects_waiting: BTreeSet<(Moment, Arc<Route>)>,
    /// Batches that are skipped.
    timed_out: BTreeMap<BatchNumber, Dispatch>,
    /// Route and sender of each batch in this queue, to find the batches of a message.
    batch_locations: BTreeMap<(MessageId, BatchNumber), (Arc<Route>, u64)>,
    /// The number of the batch that came last.
    last_number: BatchNumber,
    /// The index of the queue that had the last turn.
    last_turn: usize,
}

/// Destinations in memory at most, apart from those with batches.
const DESTINATIONS_MAX: usize = 10_000;

impl ReadyQueue {
    /// An empty queue for a pool of this many threads.
    pub(super) fn new(settings: &Settings, threads: usize) -> Self {
        Self {
            destination_attempts_max: settings.attempts_per_destination_max.max(1),
            unproven_attempts_max: threads.div_ceil(2),
            suspect_attempts_max: threads.div_ceil(4),
            backoff_max: settings.probe_interval_max,
            destinations: HashMap::new(),
            destination_order: <[_; 3]>::default(),
            under_way: [0; 3],
            suspects_waiting: BTreeSet::new(),
            timed_out: BTreeMap::new(),
            batch_locations: BTreeMap::new(),
            last_number: 0,
            last_turn: 0,
        }
    }

    pub(super) fn add(&mut self, route: Route, batch: RecipientBatch, now: Moment) {
        let route = match self.destinations.get_key_value(&route) {
            Some((known, _)) => Arc::clone(known),
            None => Arc::new(route),
        };
        let initial_state = || DestinationState::new(batch.profile, self.destination_attempts_max);
        let destination = self.destinations.entry(Arc::clone(&route)).or_insert_with(initial_state);
        if batch.is_retry_requested {
            destination.allow_probe_now();
        }
        self.last_number += 1;
        self.batch_locations.insert((batch.id, self.last_number), (Arc::clone(&route), batch.sender));
        destination.push(self.last_number, batch);
        self.enqueue(&route, now);
    }

    /// Adds a batch that is skipped, because it is overdue.
    pub(super) fn add_overdue(&mut self, route: Route, batch: RecipientBatch) {
        let route = Arc::new(route);
        self.last_number += 1;
        self.batch_locations.insert((batch.id, self.last_number), (Arc::clone(&route), batch.sender));
        let dispatch =
            Dispatch { route, batch, is_more_mail_expected: false, skip_reason: Some(SkipReason::Overdue) };
        self.timed_out.insert(self.last_number, dispatch);
    }

    pub(super) fn dispatch_next(&mut self, now: Moment) -> Option<Dispatch> {
        for offset in 0..=self.destination_order.len() {
            let turn = (self.last_turn + 1 + offset) % (self.destination_order.len() + 1);
            let dispatch = match turn {
                3 => self.timed_out.pop_first(),
                turn => self.dispatch_from(turn, now),
            };
            if let Some((number, dispatch)) = dispatch {
                self.last_turn = turn;
                self.batch_locations.remove(&(dispatch.batch.id, number));
                return Some(dispatch);
            }
        }
        None
    }

    fn dispatch_from(&mut self, turn: usize, now: Moment) -> Option<(BatchNumber, Dispatch)> {
        while self.has_free_slot(turn) {
            let route = self.destination_order.get_mut(turn)?.pop_front()?;
            let Some(destination) = self.destinations.get_mut(&route) else { continue };
            destination.is_queued = false;
            // The reachability may have changed since the destination was added to this queue.
            if index(destination.reachability()) != turn || !destination.can_dispatch(now) {
                self.enqueue(&route, now);
                continue;
            }
            let Some((number, batch)) = destination.dispatch_next() else { continue };
            let is_more_mail_expected = destination.is_more_mail_expected(now);
            if let Some(count) = self.under_way.get_mut(turn) {
                *count += 1;
            }
            self.enqueue(&route, now);
            return Some((number, Dispatch { route, batch, is_more_mail_expected, skip_reason: None }));
        }
        None
    }

    fn has_free_slot(&self, turn: usize) -> bool {
        let [_, new, suspect] = self.under_way;
        match turn {
            0 => true,
            1 => new + suspect < self.unproven_attempts_max,
            _ => new + suspect < self.unproven_attempts_max && suspect < self.suspect_attempts_max,
        }
    }

    /// An attempt ended.
    pub(super) fn attempt_finished(
        &mut self,
        route: &Route,
        contact: &ContactResult,
        now: Moment,
        random: &dyn Random,
    ) -> ReachabilityChange {
        let Some((known, _)) = self.destinations.get_key_value(route) else {
            return ReachabilityChange::Unchanged;
        };
        let route = Arc::clone(known);
        let Some(destination) = self.destinations.get_mut(&route) else {
            return ReachabilityChange::Unchanged;
        };
        let (before, count) = (index(destination.reachability()), destination.under_way());
        let change = destination.attempt_finished(contact, now, self.backoff_max, random);
        // The attempts that are still under way now count for the new reachability.
        let (after, left) = (index(destination.reachability()), destination.under_way());
        if let Some(slot) = self.under_way.get_mut(before) {
            *slot = slot.saturating_sub(count);
        }
        if let Some(slot) = self.under_way.get_mut(after) {
            *slot += left;
        }
        if let ReachabilityChange::BecameSuspect { reason, .. } = &change {
            for (number, batch) in destination.take_timed_out(now) {
                let skip_reason = Some(SkipReason::DestinationUnresponsive(Arc::clone(reason)));
                let route = Arc::clone(&route);
                self.timed_out
                    .insert(number, Dispatch { route, batch, is_more_mail_expected: false, skip_reason });
            }
        }
        self.enqueue(&route, now);
        self.evict_idle();
        change
    }

    /// Adds the destinations whose probe is due to the queue.
    pub(super) fn queue_due_probes(&mut self, now: Moment) {
        while let Some((due, route)) = self.suspects_waiting.first().cloned()
            && due <= now
        {
            self.suspects_waiting.pop_first();
            self.enqueue(&route, now);
        }
    }

    pub(super) fn next_probe_due(&self) -> Option<Moment> {
        self.suspects_waiting.first().map(|(due, _)| *due)
    }

    /// Makes probes of the suspect destinations of these messages due now. For all messages at once, because
    /// each queue is searched from end to end.
    pub(super) fn probe_at_once(&mut self, ids: &HashSet<MessageId>, now: Moment) {
        let is_concerned =
            |one: &DestinationState| one.reachability() == Reachability::Suspect && one.has_batch_of(ids);
        let routes: Vec<_> = self
            .destinations
            .iter()
            .filter(|(_, one)| is_concerned(one))
            .map(|(route, _)| Arc::clone(route))
            .collect();
        for route in routes {
            if let Some(destination) = self.destinations.get_mut(&route) {
                destination.allow_probe_now();
            }
            self.enqueue(&route, now);
        }
    }

    /// Removes the batches of a message. Returns their number.
    pub(super) fn withdraw(&mut self, id: MessageId) -> usize {
        let found = self.batch_locations.range((id, 0)..=(id, BatchNumber::MAX));
        let numbers: Vec<_> = found.map(|((_, number), _)| *number).collect();
        for number in &numbers {
            let Some((route, sender)) = self.batch_locations.remove(&(id, *number)) else { continue };
            if self.timed_out.remove(number).is_none()
                && let Some(destination) = self.destinations.get_mut(&route)
            {
                destination.withdraw(sender, *number);
            }
        }
        numbers.len()
    }

    /// The number of batches that wait for a destination.
    pub(super) fn waiting_count(&self, route: &Route) -> usize {
        self.destinations.get(route).map_or(0, DestinationState::waiting_count)
    }

    /// Adds a destination at the end of its queue if one of its batches can be tried, or to those that wait
    /// for a probe.
    fn enqueue(&mut self, route: &Arc<Route>, now: Moment) {
        let Some(destination) = self.destinations.get_mut(route) else { return };
        if destination.is_queued {
            return;
        }
        if destination.can_dispatch(now) {
            destination.is_queued = true;
            if let Some(queue) = self.destination_order.get_mut(index(destination.reachability())) {
                queue.push_back(Arc::clone(route));
            }
        } else if let Some(due) = destination.probe_due() {
            self.suspects_waiting.insert((due, Arc::clone(route)));
        }
    }

    /// Forgets destinations without batches when there are too many, first those whose last attempt is
    /// longest ago.
    fn evict_idle(&mut self) {
        if self.destinations.len() <= DESTINATIONS_MAX {
            return;
        }
        let idle = self.destinations.iter().filter(|(_, one)| one.is_idle() && !one.is_queued);
        let mut idle: Vec<_> =
            idle.map(|(route, one)| (one.last_attempt_ended(), Arc::clone(route))).collect();
        idle.sort_unstable();
        for (_, route) in idle.into_iter().take(DESTINATIONS_MAX / 10) {
            self.destinations.remove(&route);
        }
    }
}

/// The index of a reachability in `destination_order` and `under_way`.
const fn index(reachability: Reachability) -> usize {
    match reachability {
        Reachability::Proven => 0,
        Reachability::New => 1,
        Reachability::Suspect => 2,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::courier::CourierProfile;
    use crate::fakes::SeededRandom;
    use crate::mail::{Domain, Reason, Timestamp};
    use crate::route::{CourierKind, RouteDestination};

    fn ready_queue(threads: usize) -> ReadyQueue {
        ReadyQueue::new(&Settings { attempts_per_destination_max: 4, ..Settings::default() }, threads)
    }

    fn batch(n: u64) -> RecipientBatch {
        RecipientBatch::for_test(MessageId::new(Timestamp::from_millis(0), n))
    }

    fn to(destination: &str) -> Route {
        let domain = Domain::parse(destination).unwrap();
        Route { courier: CourierKind::Smtp, destination: RouteDestination::Domain(domain) }
    }

    fn at(seconds: u64) -> Moment {
        Moment::new(Duration::from_secs(seconds))
    }

    fn attempt_finished(
        queue: &mut ReadyQueue,
        route: &Route,
        contact: &ContactResult,
        now: Moment,
    ) -> ReachabilityChange {
        queue.attempt_finished(route, contact, now, &SeededRandom::new(1))
    }

    fn unresponsive() -> ContactResult {
        ContactResult::Unresponsive(Arc::new(Reason::new(4, 1, "no answer")))
    }

    /// Dispatches every batch that can be tried now; their destinations.
    fn dispatch_all(queue: &mut ReadyQueue, now: Moment) -> Vec<String> {
        let dispatched = std::iter::from_fn(|| queue.dispatch_next(now));
        dispatched.map(|dispatch| dispatch.route.destination.to_string()).collect()
    }

    #[test]
    fn a_long_queue_for_one_destination_does_not_delay_the_others() {
        let mut queue = ready_queue(16);
        for n in 0..1000 {
            queue.add(to("slow.example"), batch(n), at(1));
        }
        queue.add(to("quick.example"), batch(1000), at(1));
        let order = dispatch_all(&mut queue, at(1));
        assert_eq!(order, ["slow.example", "quick.example"], "the window is one");
        attempt_finished(&mut queue, &to("slow.example"), &ContactResult::Answered, at(2));
        assert_eq!(queue.dispatch_next(at(2)).unwrap().batch, batch(1), "in the order of arrival");
    }

    #[test]
    fn local_mailboxes_are_one_destination_without_a_limit() {
        let mut queue = ready_queue(4);
        let local = Route { courier: CourierKind::Local, destination: RouteDestination::LocalMailboxes };
        let local_batch = |n| RecipientBatch { profile: CourierProfile::MAILBOXES, ..batch(n) };
        (0..30).for_each(|n| queue.add(local.clone(), local_batch(n), at(1)));
        assert_eq!(dispatch_all(&mut queue, at(1)).len(), 30);
    }

    #[test]
    fn destinations_that_have_not_answered_never_occupy_the_whole_pool() {
        let mut queue = ready_queue(16);
        let good = to("good.example");
        queue.add(good.clone(), batch(0), at(1));
        dispatch_all(&mut queue, at(1));
        attempt_finished(&mut queue, &good, &ContactResult::Answered, at(1));
        for dead in 0..100 {
            (0..10).for_each(|n| queue.add(to(&format!("dead{dead}.example")), batch(n), at(2)));
        }
        assert_eq!(dispatch_all(&mut queue, at(2)).len(), 8, "half of the threads");
        (0..10).for_each(|n| queue.add(good.clone(), batch(n), at(3)));
        assert_eq!(
            dispatch_all(&mut queue, at(3)),
            ["good.example"; 2],
            "a proven destination still has threads"
        );

        // None of them answers, round after round: suspects have half of that half.
        let mut now = 3;
        let mut asked = 8;
        while asked < 100 {
            now += 1;
            let dead: Vec<_> = queue
                .destinations
                .iter()
                .filter(|(_, one)| one.under_way() > 0)
                .map(|(r, _)| r.clone())
                .collect();
            for route in dead.iter().filter(|route| ***route != good) {
                while queue.destinations.get(route).unwrap().under_way() > 0 {
                    attempt_finished(&mut queue, route, &unresponsive(), at(now));
                }
            }
            asked += dispatch_all(&mut queue, at(now)).len();
        }
        now += 1000;
        queue.queue_due_probes(at(now));
        assert!(dispatch_all(&mut queue, at(now)).len() <= 8);
        assert!(queue.under_way[2] <= 4, "{:?}", queue.under_way);
    }

    #[test]
    fn a_batch_that_has_waited_long_enough_for_a_probe_is_skipped() {
        let mut queue = ready_queue(16);
        let dead = to("dead.example");
        for n in 0..5 {
            queue.add(dead.clone(), RecipientBatch { wait_until: at(100 * n), ..batch(n) }, at(1));
        }
        assert_eq!(dispatch_all(&mut queue, at(1)).len(), 1);
        assert!(matches!(
            attempt_finished(&mut queue, &dead, &unresponsive(), at(300)),
            ReachabilityChange::BecameSuspect { .. }
        ));
        let skipped: Vec<_> = std::iter::from_fn(|| queue.dispatch_next(at(300))).collect();
        let ids: Vec<_> = skipped.iter().map(|dispatch| dispatch.batch.id).collect();
        assert_eq!(ids, [batch(1).id, batch(2).id, batch(3).id]);
        assert!(skipped.iter().all(|dispatch| dispatch.skip_reason.is_some()));
        assert_eq!(queue.waiting_count(&dead), 1);
    }

    #[test]
    fn an_operator_can_have_a_suspect_destination_probed_at_once() {
        let mut queue = ready_queue(16);
        let dead = to("dead.example");
        (0..3).for_each(|n| queue.add(dead.clone(), batch(n), at(1)));
        dispatch_all(&mut queue, at(1));
        attempt_finished(&mut queue, &dead, &unresponsive(), at(2));
        assert!(queue.dispatch_next(at(2)).is_none());
        queue.probe_at_once(&HashSet::from([batch(7).id]), at(2));
        assert!(queue.dispatch_next(at(2)).is_none(), "the message is not in the queue");
        queue.probe_at_once(&HashSet::from([batch(2).id]), at(2));
        assert_eq!(queue.dispatch_next(at(2)).unwrap().batch, batch(1));
    }

    #[test]
    fn a_message_that_is_withdrawn_is_not_tried_and_delays_no_other() {
        let mut queue = ready_queue(16);
        for n in [1, 1, 2] {
            queue.add(to("there.example"), batch(n), at(1));
        }
        assert_eq!(dispatch_all(&mut queue, at(1)).len(), 1);
        queue.add(to("elsewhere.example"), batch(2), at(1));
        queue.add(to("third.example"), batch(3), at(1));
        assert_eq!(queue.withdraw(batch(2).id), 2);
        assert_eq!(dispatch_all(&mut queue, at(1)), ["third.example"]);
        attempt_finished(&mut queue, &to("there.example"), &ContactResult::Answered, at(2));
        assert_eq!(dispatch_all(&mut queue, at(2)), ["there.example"]);
    }

    #[test]
    fn a_long_queue_is_withdrawn_one_by_one_without_a_search() {
        const COUNT: u64 = 50_000;
        let mut queue = ready_queue(16);
        let dead = to("dead.example");
        for n in 0..COUNT {
            queue.add(dead.clone(), batch(n), at(1));
        }
        assert_eq!(dispatch_all(&mut queue, at(1)).len(), 1);
        attempt_finished(&mut queue, &dead, &unresponsive(), at(2));
        // Each time the middle of the rest, as far as possible from both ends.
        let middle = COUNT / 2;
        for n in (middle..COUNT).zip((1..middle).rev()).flat_map(|(up, down)| [up, down]) {
            assert_eq!(queue.withdraw(batch(n).id), 1);
        }
        assert_eq!(queue.waiting_count(&dead), 1, "the last, which was not withdrawn");
        assert_eq!(queue.withdraw(batch(0).id), 0, "it was dispatched");
        queue.queue_due_probes(at(1000));
        assert_eq!(queue.dispatch_next(at(1000)).unwrap().batch, batch(COUNT - 1));
        assert!(queue.batch_locations.is_empty());
    }

    #[test]
    fn a_batch_that_is_to_be_skipped_can_be_withdrawn() {
        let mut queue = ready_queue(16);
        let dead = to("dead.example");
        for n in [0, 1, 2, 2, 3] {
            queue.add(dead.clone(), RecipientBatch { wait_until: at(100), ..batch(n) }, at(1));
        }
        dispatch_all(&mut queue, at(1));
        attempt_finished(&mut queue, &dead, &unresponsive(), at(300));
        assert_eq!(queue.withdraw(batch(2).id), 2);
        let skipped: Vec<_> = std::iter::from_fn(|| queue.dispatch_next(at(300))).collect();
        let ids: Vec<_> = skipped.iter().map(|dispatch| dispatch.batch.id).collect();
        assert_eq!(ids, [batch(1).id, batch(3).id]);
        assert!(queue.batch_locations.is_empty());
    }

    #[test]
    fn the_number_of_destinations_in_memory_is_bounded() {
        let mut queue = ready_queue(16);
        for n in 0..DESTINATIONS_MAX as u64 + 500 {
            let route = to(&format!("d{n}.example"));
            queue.add(route.clone(), batch(n), at(n));
            dispatch_all(&mut queue, at(n));
            attempt_finished(&mut queue, &route, &ContactResult::Answered, at(n));
        }
        assert!(queue.destinations.len() <= DESTINATIONS_MAX);
        assert!(!queue.destinations.contains_key(&to("d0.example")), "the oldest is forgotten first");
    }
}
