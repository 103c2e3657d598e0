//! The legs of one lane that could leave now, and whose turn it is.
//!
//! Destinations take turns, so that a long queue for one does not stand before the others. Those that
//! have proved to be alive, new ones and suspect ones have a line each: what nobody has answered for
//! yet may use only its share of the threads, so that dead destinations, however many, never hold the
//! whole pool.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use super::destination_state::{
    BatchNumber, ContactResult, DestinationState, Reachability, ReachabilityChange,
};
use super::schedule::{RecipientBatch, Settings, SkipReason};
use crate::mail::MessageId;
use crate::route::{Route, Transport};
use crate::sys::{Moment, Random};

/// A leg that leaves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Dispatch {
    pub(super) route: Arc<Route>,
    pub(super) batch: RecipientBatch,
    /// More mail for this destination is likely to follow soon.
    pub(super) is_more_mail_expected: bool,
    /// Not to be carried, and why.
    pub(super) skip_reason: Option<SkipReason>,
}

/// The legs of one lane.
pub(super) struct ReadyQueue {
    /// Attempts to one destination at most.
    destination_attempts_max: usize,
    /// Attempts under way to new and suspect destinations at most, and to suspect ones.
    unproven_attempts_max: usize,
    suspect_attempts_max: usize,
    backoff_max: Duration,
    destinations: HashMap<Arc<Route>, DestinationState>,
    /// Destinations whose turn comes, by standing: each with a leg that may leave. Once each.
    destination_order: [VecDeque<Arc<Route>>; 3],
    /// Attempts under way, by their destination's standing.
    under_way: [usize; 3],
    /// Suspect destinations that wait for their next probe.
    suspects_waiting: BTreeSet<(Moment, Arc<Route>)>,
    /// Legs that are not to be carried.
    timed_out: BTreeMap<BatchNumber, Dispatch>,
    /// Route and sender of each leg that has not left: where a message's legs are found.
    batch_locations: BTreeMap<(MessageId, BatchNumber), (Arc<Route>, u64)>,
    /// The last that was given.
    last_number: BatchNumber,
    /// Whose turn was last.
    last_turn: usize,
}

/// Destinations that are remembered while nobody waits for them.
const DESTINATIONS_MAX: usize = 10_000;

impl ReadyQueue {
    /// For this many threads.
    pub(super) fn new(settings: &Settings, threads: usize) -> Self {
        Self {
            destination_attempts_max: settings.destination_attempts_max.max(1),
            unproven_attempts_max: threads.div_ceil(2),
            suspect_attempts_max: threads.div_ceil(4),
            backoff_max: settings.backoff_max,
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

    pub(super) fn add(&mut self, route: Route, leg: RecipientBatch, now: Moment) {
        let route = match self.destinations.get_key_value(&route) {
            Some((known, _)) => Arc::clone(known),
            None => Arc::new(route),
        };
        let learnt = || match route.transport {
            Transport::Smtp => DestinationState::unknown(),
            Transport::Local | Transport::Program => DestinationState::local(),
        };
        let destination = self.destinations.entry(Arc::clone(&route)).or_insert_with(learnt);
        if leg.is_retry_requested {
            destination.allow_probe_now();
        }
        self.last_number += 1;
        self.batch_locations.insert((leg.id, self.last_number), (Arc::clone(&route), leg.sender));
        destination.push(self.last_number, leg);
        self.enqueue(&route, now);
    }

    /// One that leaves without being carried.
    pub(super) fn add_overdue(&mut self, route: Route, leg: RecipientBatch) {
        let route = Arc::new(route);
        self.last_number += 1;
        self.batch_locations.insert((leg.id, self.last_number), (Arc::clone(&route), leg.sender));
        let departure = Dispatch {
            route,
            batch: leg,
            is_more_mail_expected: false,
            skip_reason: Some(SkipReason::Overdue),
        };
        self.timed_out.insert(self.last_number, departure);
    }

    pub(super) fn dispatch_next(&mut self, now: Moment) -> Option<Dispatch> {
        for place in 0..=self.destination_order.len() {
            let turn = (self.last_turn + 1 + place) % (self.destination_order.len() + 1);
            let departure = match turn {
                3 => self.timed_out.pop_first(),
                turn => self.dispatch_from(turn, now),
            };
            if let Some((ticket, departure)) = departure {
                self.last_turn = turn;
                self.batch_locations.remove(&(departure.batch.id, ticket));
                return Some(departure);
            }
        }
        None
    }

    fn dispatch_from(&mut self, turn: usize, now: Moment) -> Option<(BatchNumber, Dispatch)> {
        while self.has_free_slot(turn) {
            let route = self.destination_order.get_mut(turn)?.pop_front()?;
            let Some(destination) = self.destinations.get_mut(&route) else { continue };
            destination.is_queued = false;
            // What it stands for may have changed since it came here.
            if index(destination.reachability()) != turn
                || !destination.can_dispatch(attempts_max(&route, self.destination_attempts_max), now)
            {
                self.enqueue(&route, now);
                continue;
            }
            let Some((ticket, leg)) = destination.dispatch_next() else { continue };
            let is_busy = destination.is_more_mail_expected(now);
            if let Some(count) = self.under_way.get_mut(turn) {
                *count += 1;
            }
            self.enqueue(&route, now);
            return Some((
                ticket,
                Dispatch { route, batch: leg, is_more_mail_expected: is_busy, skip_reason: None },
            ));
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

    /// A leg that had left is back.
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
        // Those that are still under way count for what it stands for now.
        let (after, left) = (index(destination.reachability()), destination.under_way());
        if let Some(slot) = self.under_way.get_mut(before) {
            *slot = slot.saturating_sub(count);
        }
        if let Some(slot) = self.under_way.get_mut(after) {
            *slot += left;
        }
        if let ReachabilityChange::BecameSuspect { reason: why, .. } = &change {
            for (ticket, leg) in destination.take_timed_out(now) {
                let (route, put_off) =
                    (Arc::clone(&route), Some(SkipReason::DestinationUnresponsive(Arc::clone(why))));
                self.timed_out.insert(
                    ticket,
                    Dispatch { route, batch: leg, is_more_mail_expected: false, skip_reason: put_off },
                );
            }
        }
        self.enqueue(&route, now);
        self.evict_idle();
        change
    }

    /// Probes whose time has come take their turn.
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

    /// An operator wants these messages to be tried now. All at once, because each line is looked
    /// through from end to end.
    pub(super) fn probe_at_once(&mut self, ids: &HashSet<MessageId>, now: Moment) {
        let is_meant =
            |one: &DestinationState| one.reachability() == Reachability::Suspect && one.has_batch_of(ids);
        let meant: Vec<_> = self
            .destinations
            .iter()
            .filter(|(_, one)| is_meant(one))
            .map(|(route, _)| Arc::clone(route))
            .collect();
        for route in meant {
            if let Some(destination) = self.destinations.get_mut(&route) {
                destination.allow_probe_now();
            }
            self.enqueue(&route, now);
        }
    }

    /// A message's legs that have not left will not; says how many those were.
    pub(super) fn withdraw(&mut self, id: MessageId) -> usize {
        let places = self.batch_locations.range((id, 0)..=(id, BatchNumber::MAX));
        let tickets: Vec<_> = places.map(|((_, ticket), _)| *ticket).collect();
        for ticket in &tickets {
            let Some((route, sender)) = self.batch_locations.remove(&(id, *ticket)) else { continue };
            if self.timed_out.remove(ticket).is_none()
                && let Some(destination) = self.destinations.get_mut(&route)
            {
                destination.withdraw(sender, *ticket);
            }
        }
        tickets.len()
    }

    /// Legs that wait for a destination.
    pub(super) fn waiting_count(&self, route: &Route) -> usize {
        self.destinations.get(route).map_or(0, DestinationState::waiting_count)
    }

    /// Gives a destination its place at the end of its line, if it may have one, or among those that
    /// wait for a probe.
    fn enqueue(&mut self, route: &Arc<Route>, now: Moment) {
        let Some(destination) = self.destinations.get_mut(route) else { return };
        if destination.is_queued {
            return;
        }
        if destination.can_dispatch(attempts_max(route, self.destination_attempts_max), now) {
            destination.is_queued = true;
            if let Some(line) = self.destination_order.get_mut(index(destination.reachability())) {
                line.push_back(Arc::clone(route));
            }
        } else if let Some(due) = destination.probe_due() {
            self.suspects_waiting.insert((due, Arc::clone(route)));
        }
    }

    /// What was learnt is kept as long as there is room; who was not asked for the longest goes first.
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

/// Its line and its count.
const fn index(standing: Reachability) -> usize {
    match standing {
        Reachability::Proven => 0,
        Reachability::New => 1,
        Reachability::Suspect => 2,
    }
}

/// Mailboxes on this host are one destination without a cap.
fn attempts_max(route: &Route, cap: usize) -> usize {
    if route.transport == Transport::Local { usize::MAX } else { cap }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fakes::SeededRandom;
    use crate::mail::{Reason, Timestamp};

    fn platform(threads: usize) -> ReadyQueue {
        ReadyQueue::new(&Settings { destination_attempts_max: 4, ..Settings::default() }, threads)
    }

    fn leg(n: u64) -> RecipientBatch {
        RecipientBatch::for_test(MessageId::new(Timestamp::from_millis(0), n))
    }

    fn to(destination: &str) -> Route {
        Route { transport: Transport::Smtp, destination: destination.to_owned() }
    }

    fn at(seconds: u64) -> Moment {
        Moment::new(Duration::from_secs(seconds))
    }

    fn back(
        platform: &mut ReadyQueue,
        route: &Route,
        contact: &ContactResult,
        now: Moment,
    ) -> ReachabilityChange {
        platform.attempt_finished(route, contact, now, &SeededRandom::new(1))
    }

    fn silent() -> ContactResult {
        ContactResult::Unresponsive(Arc::new(Reason::new(4, 1, "no answer")))
    }

    /// Everyone who may leave, by destination.
    fn departing(platform: &mut ReadyQueue, now: Moment) -> Vec<String> {
        let departures = std::iter::from_fn(|| platform.dispatch_next(now));
        departures.map(|departure| departure.route.destination.clone()).collect()
    }

    #[test]
    fn a_long_queue_for_one_destination_does_not_stand_before_the_others() {
        let mut platform = platform(16);
        for n in 0..1000 {
            platform.add(to("slow.example"), leg(n), at(1));
        }
        platform.add(to("quick.example"), leg(1000), at(1));
        let order = departing(&mut platform, at(1));
        assert_eq!(order, ["slow.example", "quick.example"], "and then its window holds");
        back(&mut platform, &to("slow.example"), &ContactResult::Answered, at(2));
        assert_eq!(platform.dispatch_next(at(2)).unwrap().batch, leg(1), "in the order of arrival");
    }

    #[test]
    fn local_mailboxes_are_one_destination_without_a_cap() {
        let mut platform = platform(4);
        let local = Route { transport: Transport::Local, destination: "local".to_owned() };
        (0..30).for_each(|n| platform.add(local.clone(), leg(n), at(1)));
        assert_eq!(departing(&mut platform, at(1)).len(), 30);
    }

    #[test]
    fn destinations_that_nobody_has_answered_for_never_hold_the_whole_pool() {
        let mut platform = platform(16);
        let good = to("good.example");
        platform.add(good.clone(), leg(0), at(1));
        departing(&mut platform, at(1));
        back(&mut platform, &good, &ContactResult::Answered, at(1));
        for dead in 0..100 {
            (0..10).for_each(|n| platform.add(to(&format!("dead{dead}.example")), leg(n), at(2)));
        }
        assert_eq!(departing(&mut platform, at(2)).len(), 8, "half of the threads");
        (0..10).for_each(|n| platform.add(good.clone(), leg(n), at(3)));
        assert_eq!(departing(&mut platform, at(3)), ["good.example"; 2], "has threads all the same");

        // All of them turn out to be dead, round after round: suspects have half of that half.
        let mut now = 3;
        let mut asked = 8;
        while asked < 100 {
            now += 1;
            let dead: Vec<_> = platform
                .destinations
                .iter()
                .filter(|(_, one)| one.under_way() > 0)
                .map(|(r, _)| r.clone())
                .collect();
            for route in dead.iter().filter(|route| ***route != good) {
                while platform.destinations.get(route).unwrap().under_way() > 0 {
                    back(&mut platform, route, &silent(), at(now));
                }
            }
            asked += departing(&mut platform, at(now)).len();
        }
        now += 1000;
        platform.queue_due_probes(at(now));
        assert!(departing(&mut platform, at(now)).len() <= 8);
        assert!(platform.under_way[2] <= 4, "{:?}", platform.under_way);
    }

    #[test]
    fn who_has_waited_long_enough_for_a_probe_is_put_off() {
        let mut platform = platform(16);
        let dead = to("dead.example");
        for n in 0..5 {
            platform.add(dead.clone(), RecipientBatch { wait_until: at(100 * n), ..leg(n) }, at(1));
        }
        assert_eq!(departing(&mut platform, at(1)).len(), 1);
        assert!(matches!(
            back(&mut platform, &dead, &silent(), at(300)),
            ReachabilityChange::BecameSuspect { .. }
        ));
        let put_off: Vec<_> = std::iter::from_fn(|| platform.dispatch_next(at(300))).collect();
        let ids: Vec<_> = put_off.iter().map(|departure| departure.batch.id).collect();
        assert_eq!(ids, [leg(1).id, leg(2).id, leg(3).id]);
        assert!(put_off.iter().all(|departure| departure.skip_reason.is_some()));
        assert_eq!(platform.waiting_count(&dead), 1);
    }

    #[test]
    fn an_operator_can_have_a_suspect_destination_probed_at_once() {
        let mut platform = platform(16);
        let dead = to("dead.example");
        (0..3).for_each(|n| platform.add(dead.clone(), leg(n), at(1)));
        departing(&mut platform, at(1));
        back(&mut platform, &dead, &silent(), at(2));
        assert!(platform.dispatch_next(at(2)).is_none());
        platform.probe_at_once(&HashSet::from([leg(7).id]), at(2));
        assert!(platform.dispatch_next(at(2)).is_none(), "not for a message that is not there");
        platform.probe_at_once(&HashSet::from([leg(2).id]), at(2));
        assert_eq!(platform.dispatch_next(at(2)).unwrap().batch, leg(1));
    }

    #[test]
    fn a_message_that_is_withdrawn_leaves_no_more_and_holds_nobody_up() {
        let mut platform = platform(16);
        for n in [1, 1, 2] {
            platform.add(to("there.example"), leg(n), at(1));
        }
        assert_eq!(departing(&mut platform, at(1)).len(), 1);
        platform.add(to("elsewhere.example"), leg(2), at(1));
        platform.add(to("third.example"), leg(3), at(1));
        assert_eq!(platform.withdraw(leg(2).id), 2);
        assert_eq!(departing(&mut platform, at(1)), ["third.example"]);
        back(&mut platform, &to("there.example"), &ContactResult::Answered, at(2));
        assert_eq!(departing(&mut platform, at(2)), ["there.example"]);
    }

    #[test]
    fn a_long_line_is_withdrawn_one_by_one_without_being_searched() {
        const COUNT: u64 = 50_000;
        let mut platform = platform(16);
        let dead = to("dead.example");
        for n in 0..COUNT {
            platform.add(dead.clone(), leg(n), at(1));
        }
        assert_eq!(departing(&mut platform, at(1)).len(), 1);
        back(&mut platform, &dead, &silent(), at(2));
        // The middle of what is left, each time: nearest to neither end.
        let middle = COUNT / 2;
        for n in (middle..COUNT).zip((1..middle).rev()).flat_map(|(up, down)| [up, down]) {
            assert_eq!(platform.withdraw(leg(n).id), 1);
        }
        assert_eq!(platform.waiting_count(&dead), 1, "the last, which nobody withdrew");
        assert_eq!(platform.withdraw(leg(0).id), 0, "it had left");
        platform.queue_due_probes(at(1000));
        assert_eq!(platform.dispatch_next(at(1000)).unwrap().batch, leg(COUNT - 1));
        assert!(platform.batch_locations.is_empty());
    }

    #[test]
    fn who_is_to_be_put_off_can_still_be_withdrawn() {
        let mut platform = platform(16);
        let dead = to("dead.example");
        for n in [0, 1, 2, 2, 3] {
            platform.add(dead.clone(), RecipientBatch { wait_until: at(100), ..leg(n) }, at(1));
        }
        departing(&mut platform, at(1));
        back(&mut platform, &dead, &silent(), at(300));
        assert_eq!(platform.withdraw(leg(2).id), 2);
        let put_off: Vec<_> = std::iter::from_fn(|| platform.dispatch_next(at(300))).collect();
        let ids: Vec<_> = put_off.iter().map(|departure| departure.batch.id).collect();
        assert_eq!(ids, [leg(1).id, leg(3).id]);
        assert!(platform.batch_locations.is_empty());
    }

    #[test]
    fn what_is_remembered_of_destinations_is_bounded() {
        let mut platform = platform(16);
        for n in 0..DESTINATIONS_MAX as u64 + 500 {
            let route = to(&format!("d{n}.example"));
            platform.add(route.clone(), leg(n), at(n));
            departing(&mut platform, at(n));
            back(&mut platform, &route, &ContactResult::Answered, at(n));
        }
        assert!(platform.destinations.len() <= DESTINATIONS_MAX);
        assert!(!platform.destinations.contains_key(&to("d0.example")), "the oldest goes first");
    }
}
