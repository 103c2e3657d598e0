//! The legs of one lane that could leave now, and whose turn it is.
//!
//! Destinations take turns, so that a long queue for one does not stand before the others. Those that
//! have proved to be alive, new ones and suspect ones have a line each: what nobody has answered for
//! yet may use only its share of the threads, so that dead destinations, however many, never hold the
//! whole pool.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use super::destination::{Change, Contact, Destination, Standing, Ticket};
use super::schedule::{Leg, PutOff, Settings};
use crate::mail::MessageId;
use crate::route::{Carrier, Route};
use crate::sys::{Moment, Random};

/// A leg that leaves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Departure {
    pub(super) route: Arc<Route>,
    pub(super) leg: Leg,
    /// More mail for this destination is likely to follow soon.
    pub(super) is_busy: bool,
    /// Not to be carried, and why.
    pub(super) put_off: Option<PutOff>,
}

/// The legs of one lane.
pub(super) struct Platform {
    /// Attempts to one destination at most.
    cap: usize,
    /// Attempts under way to new and suspect destinations at most, and to suspect ones.
    strangers_max: usize,
    suspects_max: usize,
    backoff_max: Duration,
    destinations: HashMap<Arc<Route>, Destination>,
    /// Destinations whose turn comes, by standing: each with a leg that may leave. Once each.
    turns: [VecDeque<Arc<Route>>; 3],
    /// Attempts under way, by their destination's standing.
    under_way: [usize; 3],
    /// Suspect destinations that wait for their next probe.
    probes: BTreeSet<(Moment, Arc<Route>)>,
    /// Legs that are not to be carried.
    tired: BTreeMap<Ticket, Departure>,
    /// Route and sender of each leg that has not left: where a message's legs are found.
    places: BTreeMap<(MessageId, Ticket), (Arc<Route>, u64)>,
    /// The last that was given.
    ticket: Ticket,
    /// Whose turn was last.
    last: usize,
}

/// Destinations that are remembered while nobody waits for them.
const REMEMBERED_MAX: usize = 10_000;

impl Platform {
    /// For this many threads.
    pub(super) fn new(settings: &Settings, threads: usize) -> Self {
        Self {
            cap: settings.destination_max.max(1),
            strangers_max: threads.div_ceil(2),
            suspects_max: threads.div_ceil(4),
            backoff_max: settings.backoff_max,
            destinations: HashMap::new(),
            turns: <[_; 3]>::default(),
            under_way: [0; 3],
            probes: BTreeSet::new(),
            tired: BTreeMap::new(),
            places: BTreeMap::new(),
            ticket: 0,
            last: 0,
        }
    }

    pub(super) fn ready(&mut self, route: Route, leg: Leg, now: Moment) {
        let route = match self.destinations.get_key_value(&route) {
            Some((known, _)) => Arc::clone(known),
            None => Arc::new(route),
        };
        let learnt = || match route.carrier {
            Carrier::Smtp => Destination::unknown(),
            Carrier::Local | Carrier::Program => Destination::local(),
        };
        let destination = self.destinations.entry(Arc::clone(&route)).or_insert_with(learnt);
        if leg.is_urgent {
            destination.probe_at_once();
        }
        self.ticket += 1;
        self.places.insert((leg.id, self.ticket), (Arc::clone(&route), leg.sender));
        destination.join(self.ticket, leg);
        self.queue_up(&route, now);
    }

    /// One that leaves without being carried.
    pub(super) fn overdue(&mut self, route: Route, leg: Leg) {
        let route = Arc::new(route);
        self.ticket += 1;
        self.places.insert((leg.id, self.ticket), (Arc::clone(&route), leg.sender));
        let departure = Departure { route, leg, is_busy: false, put_off: Some(PutOff::Overdue) };
        self.tired.insert(self.ticket, departure);
    }

    pub(super) fn depart(&mut self, now: Moment) -> Option<Departure> {
        for place in 0..=self.turns.len() {
            let turn = (self.last + 1 + place) % (self.turns.len() + 1);
            let departure = match turn {
                3 => self.tired.pop_first(),
                turn => self.depart_from(turn, now),
            };
            if let Some((ticket, departure)) = departure {
                self.last = turn;
                self.places.remove(&(departure.leg.id, ticket));
                return Some(departure);
            }
        }
        None
    }

    fn depart_from(&mut self, turn: usize, now: Moment) -> Option<(Ticket, Departure)> {
        while self.has_room(turn) {
            let route = self.turns.get_mut(turn)?.pop_front()?;
            let Some(destination) = self.destinations.get_mut(&route) else { continue };
            destination.has_turn = false;
            // What it stands for may have changed since it came here.
            if index(destination.standing()) != turn || !destination.may_depart(cap(&route, self.cap), now) {
                self.queue_up(&route, now);
                continue;
            }
            let Some((ticket, leg)) = destination.depart() else { continue };
            let is_busy = destination.is_busy(now);
            if let Some(count) = self.under_way.get_mut(turn) {
                *count += 1;
            }
            self.queue_up(&route, now);
            return Some((ticket, Departure { route, leg, is_busy, put_off: None }));
        }
        None
    }

    fn has_room(&self, turn: usize) -> bool {
        let [_, new, suspect] = self.under_way;
        match turn {
            0 => true,
            1 => new + suspect < self.strangers_max,
            _ => new + suspect < self.strangers_max && suspect < self.suspects_max,
        }
    }

    /// A leg that had left is back.
    pub(super) fn back(
        &mut self,
        route: &Route,
        contact: &Contact,
        now: Moment,
        random: &dyn Random,
    ) -> Change {
        let Some((known, _)) = self.destinations.get_key_value(route) else { return Change::Nothing };
        let route = Arc::clone(known);
        let Some(destination) = self.destinations.get_mut(&route) else { return Change::Nothing };
        let (before, count) = (index(destination.standing()), destination.under_way());
        let change = destination.back(contact, now, self.backoff_max, random);
        // Those that are still under way count for what it stands for now.
        let (after, left) = (index(destination.standing()), destination.under_way());
        if let Some(slot) = self.under_way.get_mut(before) {
            *slot = slot.saturating_sub(count);
        }
        if let Some(slot) = self.under_way.get_mut(after) {
            *slot += left;
        }
        if let Change::Lost { why, .. } = &change {
            for (ticket, leg) in destination.tired(now) {
                let (route, put_off) = (Arc::clone(&route), Some(PutOff::Silent(Arc::clone(why))));
                self.tired.insert(ticket, Departure { route, leg, is_busy: false, put_off });
            }
        }
        self.queue_up(&route, now);
        self.forget_some();
        change
    }

    /// Probes whose time has come take their turn.
    pub(super) fn wake(&mut self, now: Moment) {
        while let Some((due, route)) = self.probes.first().cloned()
            && due <= now
        {
            self.probes.pop_first();
            self.queue_up(&route, now);
        }
    }

    pub(super) fn next_probe(&self) -> Option<Moment> {
        self.probes.first().map(|(due, _)| *due)
    }

    /// An operator wants these messages to be tried now. All at once, because each line is looked
    /// through from end to end.
    pub(super) fn hurry(&mut self, ids: &HashSet<MessageId>, now: Moment) {
        let is_meant = |one: &Destination| one.standing() == Standing::Suspect && one.has_any(ids);
        let meant: Vec<_> = self
            .destinations
            .iter()
            .filter(|(_, one)| is_meant(one))
            .map(|(route, _)| Arc::clone(route))
            .collect();
        for route in meant {
            if let Some(destination) = self.destinations.get_mut(&route) {
                destination.probe_at_once();
            }
            self.queue_up(&route, now);
        }
    }

    /// A message's legs that have not left will not; says how many those were.
    pub(super) fn withdraw(&mut self, id: MessageId) -> usize {
        let places = self.places.range((id, 0)..=(id, Ticket::MAX));
        let tickets: Vec<_> = places.map(|((_, ticket), _)| *ticket).collect();
        for ticket in &tickets {
            let Some((route, sender)) = self.places.remove(&(id, *ticket)) else { continue };
            if self.tired.remove(ticket).is_none()
                && let Some(destination) = self.destinations.get_mut(&route)
            {
                destination.withdraw(sender, *ticket);
            }
        }
        tickets.len()
    }

    /// Legs that wait for a destination.
    pub(super) fn waiting(&self, route: &Route) -> usize {
        self.destinations.get(route).map_or(0, Destination::waiting)
    }

    /// Gives a destination its place at the end of its line, if it may have one, or among those that
    /// wait for a probe.
    fn queue_up(&mut self, route: &Arc<Route>, now: Moment) {
        let Some(destination) = self.destinations.get_mut(route) else { return };
        if destination.has_turn {
            return;
        }
        if destination.may_depart(cap(route, self.cap), now) {
            destination.has_turn = true;
            if let Some(line) = self.turns.get_mut(index(destination.standing())) {
                line.push_back(Arc::clone(route));
            }
        } else if let Some(due) = destination.probe_due() {
            self.probes.insert((due, Arc::clone(route)));
        }
    }

    /// What was learnt is kept as long as there is room; who was not asked for the longest goes first.
    fn forget_some(&mut self) {
        if self.destinations.len() <= REMEMBERED_MAX {
            return;
        }
        let idle = self.destinations.iter().filter(|(_, one)| one.is_idle() && !one.has_turn);
        let mut idle: Vec<_> = idle.map(|(route, one)| (one.used(), Arc::clone(route))).collect();
        idle.sort_unstable();
        for (_, route) in idle.into_iter().take(REMEMBERED_MAX / 10) {
            self.destinations.remove(&route);
        }
    }
}

/// Its line and its count.
const fn index(standing: Standing) -> usize {
    match standing {
        Standing::Proven => 0,
        Standing::New => 1,
        Standing::Suspect => 2,
    }
}

/// Mailboxes on this host are one destination without a cap.
fn cap(route: &Route, cap: usize) -> usize {
    if route.carrier == Carrier::Local { usize::MAX } else { cap }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fakes::SeededRandom;
    use crate::mail::{Reason, Timestamp};

    fn platform(threads: usize) -> Platform {
        Platform::new(&Settings { destination_max: 4, ..Settings::default() }, threads)
    }

    fn leg(n: u64) -> Leg {
        Leg::to(MessageId::new(Timestamp::from_millis(0), n))
    }

    fn to(destination: &str) -> Route {
        Route { carrier: Carrier::Smtp, destination: destination.to_owned() }
    }

    fn at(seconds: u64) -> Moment {
        Moment::new(Duration::from_secs(seconds))
    }

    fn back(platform: &mut Platform, route: &Route, contact: &Contact, now: Moment) -> Change {
        platform.back(route, contact, now, &SeededRandom::new(1))
    }

    fn silent() -> Contact {
        Contact::Silent(Arc::new(Reason::new(4, 1, "no answer")))
    }

    /// Everyone who may leave, by destination.
    fn departing(platform: &mut Platform, now: Moment) -> Vec<String> {
        let departures = std::iter::from_fn(|| platform.depart(now));
        departures.map(|departure| departure.route.destination.clone()).collect()
    }

    #[test]
    fn a_long_queue_for_one_destination_does_not_stand_before_the_others() {
        let mut platform = platform(16);
        for n in 0..1000 {
            platform.ready(to("slow.example"), leg(n), at(1));
        }
        platform.ready(to("quick.example"), leg(1000), at(1));
        let order = departing(&mut platform, at(1));
        assert_eq!(order, ["slow.example", "quick.example"], "and then its window holds");
        back(&mut platform, &to("slow.example"), &Contact::Answered, at(2));
        assert_eq!(platform.depart(at(2)).unwrap().leg, leg(1), "in the order of arrival");
    }

    #[test]
    fn local_mailboxes_are_one_destination_without_a_cap() {
        let mut platform = platform(4);
        let local = Route { carrier: Carrier::Local, destination: "local".to_owned() };
        (0..30).for_each(|n| platform.ready(local.clone(), leg(n), at(1)));
        assert_eq!(departing(&mut platform, at(1)).len(), 30);
    }

    #[test]
    fn destinations_that_nobody_has_answered_for_never_hold_the_whole_pool() {
        let mut platform = platform(16);
        let good = to("good.example");
        platform.ready(good.clone(), leg(0), at(1));
        departing(&mut platform, at(1));
        back(&mut platform, &good, &Contact::Answered, at(1));
        for dead in 0..100 {
            (0..10).for_each(|n| platform.ready(to(&format!("dead{dead}.example")), leg(n), at(2)));
        }
        assert_eq!(departing(&mut platform, at(2)).len(), 8, "half of the threads");
        (0..10).for_each(|n| platform.ready(good.clone(), leg(n), at(3)));
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
        platform.wake(at(now));
        assert!(departing(&mut platform, at(now)).len() <= 8);
        assert!(platform.under_way[2] <= 4, "{:?}", platform.under_way);
    }

    #[test]
    fn who_has_waited_long_enough_for_a_probe_is_put_off() {
        let mut platform = platform(16);
        let dead = to("dead.example");
        for n in 0..5 {
            platform.ready(dead.clone(), Leg { until: at(100 * n), ..leg(n) }, at(1));
        }
        assert_eq!(departing(&mut platform, at(1)).len(), 1);
        assert!(matches!(back(&mut platform, &dead, &silent(), at(300)), Change::Lost { .. }));
        let put_off: Vec<_> = std::iter::from_fn(|| platform.depart(at(300))).collect();
        let ids: Vec<_> = put_off.iter().map(|departure| departure.leg.id).collect();
        assert_eq!(ids, [leg(1).id, leg(2).id, leg(3).id]);
        assert!(put_off.iter().all(|departure| departure.put_off.is_some()));
        assert_eq!(platform.waiting(&dead), 1);
    }

    #[test]
    fn an_operator_can_have_a_suspect_destination_probed_at_once() {
        let mut platform = platform(16);
        let dead = to("dead.example");
        (0..3).for_each(|n| platform.ready(dead.clone(), leg(n), at(1)));
        departing(&mut platform, at(1));
        back(&mut platform, &dead, &silent(), at(2));
        assert!(platform.depart(at(2)).is_none());
        platform.hurry(&HashSet::from([leg(7).id]), at(2));
        assert!(platform.depart(at(2)).is_none(), "not for a message that is not there");
        platform.hurry(&HashSet::from([leg(2).id]), at(2));
        assert_eq!(platform.depart(at(2)).unwrap().leg, leg(1));
    }

    #[test]
    fn a_message_that_is_withdrawn_leaves_no_more_and_holds_nobody_up() {
        let mut platform = platform(16);
        for n in [1, 1, 2] {
            platform.ready(to("there.example"), leg(n), at(1));
        }
        assert_eq!(departing(&mut platform, at(1)).len(), 1);
        platform.ready(to("elsewhere.example"), leg(2), at(1));
        platform.ready(to("third.example"), leg(3), at(1));
        assert_eq!(platform.withdraw(leg(2).id), 2);
        assert_eq!(departing(&mut platform, at(1)), ["third.example"]);
        back(&mut platform, &to("there.example"), &Contact::Answered, at(2));
        assert_eq!(departing(&mut platform, at(2)), ["there.example"]);
    }

    #[test]
    fn a_long_line_is_withdrawn_one_by_one_without_being_searched() {
        const COUNT: u64 = 50_000;
        let mut platform = platform(16);
        let dead = to("dead.example");
        for n in 0..COUNT {
            platform.ready(dead.clone(), leg(n), at(1));
        }
        assert_eq!(departing(&mut platform, at(1)).len(), 1);
        back(&mut platform, &dead, &silent(), at(2));
        // The middle of what is left, each time: nearest to neither end.
        let middle = COUNT / 2;
        for n in (middle..COUNT).zip((1..middle).rev()).flat_map(|(up, down)| [up, down]) {
            assert_eq!(platform.withdraw(leg(n).id), 1);
        }
        assert_eq!(platform.waiting(&dead), 1, "the last, which nobody withdrew");
        assert_eq!(platform.withdraw(leg(0).id), 0, "it had left");
        platform.wake(at(1000));
        assert_eq!(platform.depart(at(1000)).unwrap().leg, leg(COUNT - 1));
        assert!(platform.places.is_empty());
    }

    #[test]
    fn who_is_to_be_put_off_can_still_be_withdrawn() {
        let mut platform = platform(16);
        let dead = to("dead.example");
        for n in [0, 1, 2, 2, 3] {
            platform.ready(dead.clone(), Leg { until: at(100), ..leg(n) }, at(1));
        }
        departing(&mut platform, at(1));
        back(&mut platform, &dead, &silent(), at(300));
        assert_eq!(platform.withdraw(leg(2).id), 2);
        let put_off: Vec<_> = std::iter::from_fn(|| platform.depart(at(300))).collect();
        let ids: Vec<_> = put_off.iter().map(|departure| departure.leg.id).collect();
        assert_eq!(ids, [leg(1).id, leg(3).id]);
        assert!(platform.places.is_empty());
    }

    #[test]
    fn what_is_remembered_of_destinations_is_bounded() {
        let mut platform = platform(16);
        for n in 0..REMEMBERED_MAX as u64 + 500 {
            let route = to(&format!("d{n}.example"));
            platform.ready(route.clone(), leg(n), at(n));
            departing(&mut platform, at(n));
            back(&mut platform, &route, &Contact::Answered, at(n));
        }
        assert!(platform.destinations.len() <= REMEMBERED_MAX);
        assert!(!platform.destinations.contains_key(&to("d0.example")), "the oldest goes first");
    }
}
