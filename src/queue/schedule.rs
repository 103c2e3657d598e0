//! What is due next, and who may go now.
//!
//! Two parts, both without clocks, files or threads: a timetable of messages that wait for their
//! time, and, for each lane, the legs (one message's recipients of one route) that could leave
//! now. Destinations take turns, so that a long queue for one does not stand before the others;
//! each has a cap on attempts under way, so that one that is dead or slow never holds the whole
//! pool. Local delivery has a lane, and threads, of its own and is never behind remote delivery.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::time::Duration;

use crate::mail::MessageId;
use crate::route::{Carrier, Route};
use crate::sys::{Moment, Random};

/// What the queue needs to be told. The defaults of what an operator can set are those of
/// `config`; a test in `daemon` compares them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Messages in our care at most; mail of our own is exempt.
    pub messages_max: usize,
    /// How long a message may wait for a recipient before it is returned. Default: 5 days.
    pub lifetime: Duration,
    /// Waits between attempts; the last one repeats. Not empty.
    pub retry: Vec<Duration>,
    /// Age at which who still waits is reported as delayed. Default: 4 hours.
    pub delay_report: Duration,
    /// Delivery threads for local mailboxes and programs. At least 1.
    pub deliver_local: usize,
    /// Delivery threads for other servers. At least 1.
    pub deliver_remote: usize,
    /// Attempts under way to one destination at most; local mailboxes are one destination
    /// without a cap. At least 1.
    pub destination_max: usize,
    /// Deadline of a local attempt.
    pub attempt_local: Duration,
    /// Deadline of a remote attempt.
    pub attempt_remote: Duration,
    /// Larger messages go to a file of their own at once; smaller ones through the journal.
    pub small_octets_max: usize,
    /// A journal segment is closed when it is this long, in octets.
    pub segment_octets: u64,
    /// Journal segments kept; beyond that, what is left in the oldest moves to files.
    pub segments_max: usize,
}

impl Default for Settings {
    fn default() -> Self {
        let minutes = |n: u64| Duration::from_secs(60 * n);
        Self {
            messages_max: 20_000,
            lifetime: minutes(5 * 24 * 60),
            retry: [1, 5, 15, 30, 60, 120, 240].map(minutes).to_vec(),
            delay_report: minutes(4 * 60),
            deliver_local: 4,
            deliver_remote: 16,
            destination_max: 4,
            attempt_local: minutes(10),
            attempt_remote: minutes(30),
            small_octets_max: 64 * 1024,
            segment_octets: 16 * 1024 * 1024,
            segments_max: 8,
        }
    }
}

impl Settings {
    /// The wait after the `attempts`th round (from 1), with jitter of up to 15 %, so that what
    /// failed together does not come back together.
    #[must_use]
    pub fn delay(&self, attempts: u32, random: &dyn Random) -> Duration {
        let place = usize::try_from(attempts.saturating_sub(1)).unwrap_or(usize::MAX);
        let wait = self.retry.get(place).or(self.retry.last()).copied().unwrap_or(Duration::from_secs(600));
        let jitter = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX).saturating_mul(15) / 100;
        wait + Duration::from_millis(random.below(jitter + 1))
    }

    /// No wait is longer than this: what a clock that jumped back may cost at a restart.
    #[must_use]
    pub fn delay_max(&self) -> Duration {
        let longest = self.retry.iter().max().copied().unwrap_or(Duration::from_secs(600));
        longest + longest * 15 / 100
    }
}

/// Which threads carry it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Lane {
    /// Mailboxes and programs on this host.
    Local,
    /// Other servers.
    Remote,
}

impl Lane {
    /// The lane of a route.
    #[must_use]
    pub fn of(route: &Route) -> Self {
        match route.carrier {
            Carrier::Local | Carrier::Program => Self::Local,
            Carrier::Smtp => Self::Remote,
        }
    }
}

/// One message's recipients of one route, ready to leave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Leg {
    pub(super) id: MessageId,
    /// Positions in the envelope.
    pub(super) recipients: Vec<usize>,
}

/// The timetable and the legs that are ready.
pub(super) struct Schedule {
    due: BTreeSet<(Moment, MessageId)>,
    local: Platform,
    remote: Platform,
}

impl Schedule {
    pub(super) fn new(destination_max: usize) -> Self {
        let platform = || Platform { cap: destination_max.max(1), ..Platform::default() };
        Self { due: BTreeSet::new(), local: platform(), remote: platform() }
    }

    /// A message waits for its time.
    pub(super) fn wait(&mut self, id: MessageId, due: Moment) {
        self.due.insert((due, id));
    }

    /// It no longer waits for this time.
    pub(super) fn forget(&mut self, id: MessageId, due: Moment) {
        self.due.remove(&(due, id));
    }

    /// When the next message is due.
    pub(super) fn next_due(&self) -> Option<Moment> {
        self.due.first().map(|(due, _)| *due)
    }

    /// The next message whose time has come.
    pub(super) fn take_due(&mut self, now: Moment) -> Option<MessageId> {
        if self.next_due()? > now {
            return None;
        }
        self.due.pop_first().map(|(_, id)| id)
    }

    /// A leg could leave now.
    pub(super) fn ready(&mut self, route: Route, leg: Leg) {
        self.platform(Lane::of(&route)).ready(route, leg);
    }

    /// The next leg of a lane that may leave; its destination has one more under way.
    pub(super) fn depart(&mut self, lane: Lane) -> Option<(Route, Leg)> {
        self.platform(lane).depart()
    }

    /// A leg that had left is back.
    pub(super) fn back(&mut self, route: &Route) {
        self.platform(Lane::of(route)).back(route);
    }

    /// A message's legs that have not left will not; says how many those were.
    pub(super) fn withdraw(&mut self, id: MessageId) -> usize {
        self.local.withdraw(id) + self.remote.withdraw(id)
    }

    fn platform(&mut self, lane: Lane) -> &mut Platform {
        match lane {
            Lane::Local => &mut self.local,
            Lane::Remote => &mut self.remote,
        }
    }
}

/// The legs of one lane.
#[derive(Default)]
struct Platform {
    cap: usize,
    /// Destinations with legs that wait or are under way.
    tracks: HashMap<Route, Track>,
    /// Destinations whose turn comes: each with a leg that waits, and under its cap. Once each.
    turns: VecDeque<Route>,
}

#[derive(Default)]
struct Track {
    legs: VecDeque<Leg>,
    under_way: usize,
    has_turn: bool,
}

impl Platform {
    fn ready(&mut self, route: Route, leg: Leg) {
        self.tracks.entry(route.clone()).or_default().legs.push_back(leg);
        self.queue_up(route);
    }

    fn depart(&mut self) -> Option<(Route, Leg)> {
        let route = self.turns.pop_front()?;
        let track = self.tracks.get_mut(&route)?;
        track.has_turn = false;
        let leg = track.legs.pop_front()?;
        track.under_way += 1;
        self.queue_up(route.clone());
        Some((route, leg))
    }

    fn back(&mut self, route: &Route) {
        let Some(track) = self.tracks.get_mut(route) else { return };
        track.under_way = track.under_way.saturating_sub(1);
        if track.under_way == 0 && track.legs.is_empty() {
            self.tracks.remove(route);
        } else {
            self.queue_up(route.clone());
        }
    }

    fn withdraw(&mut self, id: MessageId) -> usize {
        let mut withdrawn = 0;
        let turns = &mut self.turns;
        self.tracks.retain(|route, track| {
            let before = track.legs.len();
            track.legs.retain(|leg| leg.id != id);
            withdrawn += before - track.legs.len();
            if track.legs.is_empty() && track.has_turn {
                track.has_turn = false;
                turns.retain(|turn| turn != route);
            }
            track.under_way > 0 || !track.legs.is_empty()
        });
        withdrawn
    }

    /// Gives a destination its place at the end of the line, if it may have one.
    fn queue_up(&mut self, route: Route) {
        let cap = if route.carrier == Carrier::Local { usize::MAX } else { self.cap };
        let Some(track) = self.tracks.get_mut(&route) else { return };
        if !track.has_turn && !track.legs.is_empty() && track.under_way < cap {
            track.has_turn = true;
            self.turns.push_back(route);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fakes::SeededRandom;
    use crate::mail::Timestamp;

    fn leg(n: u64) -> Leg {
        Leg { id: MessageId::new(Timestamp::from_millis(0), n), recipients: vec![0] }
    }

    fn to(destination: &str) -> Route {
        Route { carrier: Carrier::Smtp, destination: destination.to_owned() }
    }

    fn local() -> Route {
        Route { carrier: Carrier::Local, destination: "local".to_owned() }
    }

    #[test]
    fn a_long_queue_for_one_destination_does_not_stand_before_the_others() {
        let mut schedule = Schedule::new(2);
        for n in 0..1000 {
            schedule.ready(to("slow.example"), leg(n));
        }
        schedule.ready(to("quick.example"), leg(1000));
        let order: Vec<_> = std::iter::from_fn(|| schedule.depart(Lane::Remote))
            .map(|(route, _)| route.destination)
            .collect();
        assert_eq!(order, ["slow.example", "quick.example", "slow.example"], "and then the cap holds");
        schedule.back(&to("slow.example"));
        assert_eq!(schedule.depart(Lane::Remote).unwrap().1, leg(2), "in the order of arrival");
        assert!(schedule.depart(Lane::Remote).is_none());
    }

    #[test]
    fn local_delivery_has_a_lane_of_its_own_without_a_cap() {
        let mut schedule = Schedule::new(1);
        schedule.ready(to("slow.example"), leg(0));
        for n in 1..4 {
            schedule.ready(local(), leg(n));
        }
        assert_eq!(std::iter::from_fn(|| schedule.depart(Lane::Local)).count(), 3);
    }

    #[test]
    fn nothing_remains_of_a_destination_that_is_done() {
        let mut schedule = Schedule::new(1);
        schedule.ready(to("there.example"), leg(0));
        assert!(schedule.depart(Lane::Remote).is_some());
        schedule.back(&to("there.example"));
        assert!(schedule.remote.tracks.is_empty() && schedule.remote.turns.is_empty());
    }

    #[test]
    fn a_message_that_is_withdrawn_leaves_no_more_and_holds_nobody_up() {
        let mut schedule = Schedule::new(1);
        schedule.ready(to("there.example"), leg(1));
        schedule.ready(to("there.example"), leg(2));
        assert!(schedule.depart(Lane::Remote).is_some());
        schedule.ready(to("elsewhere.example"), leg(2));
        schedule.ready(to("third.example"), leg(3));
        assert_eq!(schedule.withdraw(leg(2).id), 2);
        assert_eq!(schedule.depart(Lane::Remote), Some((to("third.example"), leg(3))));
        assert!(schedule.depart(Lane::Remote).is_none());
        schedule.back(&to("there.example"));
        schedule.back(&to("third.example"));
        assert!(schedule.remote.tracks.is_empty() && schedule.remote.turns.is_empty());
    }

    #[test]
    fn messages_become_due_in_order_and_not_before_their_time() {
        let mut schedule = Schedule::new(1);
        let at = |seconds| Moment::new(Duration::from_secs(seconds));
        schedule.wait(leg(1).id, at(10));
        schedule.wait(leg(2).id, at(5));
        assert_eq!(schedule.next_due(), Some(at(5)));
        assert_eq!(schedule.take_due(at(4)), None);
        assert_eq!(schedule.take_due(at(10)), Some(leg(2).id));
        assert_eq!(schedule.take_due(at(10)), Some(leg(1).id));
    }

    #[test]
    fn waits_grow_by_the_list_with_a_little_jitter() {
        let settings = Settings::default();
        let random = SeededRandom::new(1);
        for (attempts, minutes) in [(1, 1), (2, 5), (5, 60), (7, 240), (100, 240)] {
            let wait = settings.delay(attempts, &random).as_secs();
            assert!((minutes * 60..=minutes * 69).contains(&wait), "{attempts}: {wait}");
        }
    }
}
