//! One destination: who waits for it, and what its results have taught us.
//!
//! **Standing.** A destination is *new* until somebody there has answered, then *proven*; when it stays
//! silent (no connection, a timeout, 421) it is *suspect*, and its mail waits for one probe at a time,
//! each wait twice as long as the one before. One probe finds out for all.
//!
//! **Window.** How many attempts may be under way at once. It begins at one, grows by one whenever as
//! many attempts as it is wide were answered, and is halved by silence: what a peer can bear is found
//! out and not configured.
//!
//! **Line.** Legs wait in one queue for each sender, and senders take turns, so that thousands of
//! messages of one do not stand before a single one of another. Whoever knows a leg's sender and ticket
//! takes it out without a search: an operator may want every message of a long line, one by one.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use super::schedule::Leg;
use crate::mail::{MessageId, Reason};
use crate::sys::{Moment, Random};

/// Number of a leg, in the order in which they came; no two of a lane have the same.
pub(super) type Ticket = u64;

/// What an attempt says of its destination.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Contact {
    /// Somebody there answered: whatever that means for this mail, the destination lives.
    Answered,
    /// Nobody did, or only to say that nobody may come now; and why.
    Silent(Arc<Reason>),
    /// Nothing: it was not asked.
    NotMade,
}

/// How a destination stands with us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    Proven,
    New,
    Suspect,
}

/// What changed, for the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Change {
    Nothing,
    /// It has become, or stays, suspect; the next probe is after this wait.
    Lost {
        wait: Duration,
        why: Arc<Reason>,
    },
    /// It was suspect and answers again.
    Found,
}

/// One destination.
pub(super) struct Destination {
    line: Line,
    under_way: usize,
    standing: Standing,
    window: usize,
    /// Attempts that were answered since the window last changed.
    answered: usize,
    /// Attempts in a row that nobody answered.
    silences: u32,
    /// Of a suspect one.
    probe: Probe,
    /// When an attempt last came back.
    used: Moment,
    /// It stands in the line of destinations.
    pub(super) has_turn: bool,
}

#[derive(Default)]
struct Probe {
    /// Not before this.
    next: Moment,
    /// How often it was in vain.
    failures: u32,
    is_under_way: bool,
}

/// Attempts under way to a destination of which nothing is known.
const WINDOW_NEW: usize = 1;
/// A proven destination is suspect after so many attempts in a row that nobody answered.
const SILENCES_MAX: u32 = 3;
/// Until the first probe; each wait after that is twice as long, up to `Settings::backoff_max`.
const PROBE_FIRST: Duration = Duration::from_secs(60);
/// Who had an attempt so short a time ago is likely to have another.
const BUSY: Duration = Duration::from_secs(2);

impl Destination {
    /// One that nothing is known of.
    pub(super) fn unknown() -> Self {
        Self {
            line: Line::default(),
            under_way: 0,
            standing: Standing::New,
            window: WINDOW_NEW,
            answered: 0,
            silences: 0,
            probe: Probe::default(),
            used: Moment::default(),
            has_turn: false,
        }
    }

    /// One on this host: nothing has to be found out.
    pub(super) fn local() -> Self {
        Self { standing: Standing::Proven, window: usize::MAX, ..Self::unknown() }
    }

    pub(super) fn standing(&self) -> Standing {
        self.standing
    }

    pub(super) fn under_way(&self) -> usize {
        self.under_way
    }

    /// Legs that wait.
    pub(super) fn waiting(&self) -> usize {
        self.line.legs.len()
    }

    pub(super) fn used(&self) -> Moment {
        self.used
    }

    /// Nobody waits and nothing is under way.
    pub(super) fn is_idle(&self) -> bool {
        self.line.legs.is_empty() && self.under_way == 0
    }

    /// More mail is likely to follow the leg that leaves now.
    pub(super) fn is_busy(&self, now: Moment) -> bool {
        !self.line.legs.is_empty() || (self.used > Moment::default() && now.since(self.used) < BUSY)
    }

    pub(super) fn join(&mut self, ticket: Ticket, leg: Leg) {
        self.line.join(ticket, leg);
    }

    /// A leg may leave now; `cap` bounds the window.
    pub(super) fn may_depart(&self, cap: usize, now: Moment) -> bool {
        !self.line.legs.is_empty()
            && match self.standing {
                Standing::Proven | Standing::New => self.under_way < self.window.min(cap),
                // Attempts from better days are as good as a probe.
                Standing::Suspect => self.under_way == 0 && self.probe.next <= now,
            }
    }

    /// When a probe may leave, if legs wait for one.
    pub(super) fn probe_due(&self) -> Option<Moment> {
        (self.standing == Standing::Suspect && !self.line.legs.is_empty() && self.under_way == 0)
            .then_some(self.probe.next)
    }

    /// The next leg leaves.
    pub(super) fn depart(&mut self) -> Option<(Ticket, Leg)> {
        let next = self.line.leave()?;
        self.under_way += 1;
        self.probe.is_under_way |= self.standing == Standing::Suspect;
        Some(next)
    }

    /// A leg is back.
    pub(super) fn back(
        &mut self,
        contact: &Contact,
        now: Moment,
        backoff_max: Duration,
        random: &dyn Random,
    ) -> Change {
        self.under_way = self.under_way.saturating_sub(1);
        self.used = now;
        let was_probe = std::mem::take(&mut self.probe.is_under_way);
        match contact {
            Contact::NotMade => Change::Nothing,
            Contact::Answered => self.answered(),
            Contact::Silent(why) => {
                self.answered = 0;
                self.silences = self.silences.saturating_add(1);
                self.window = (self.window / 2).max(1);
                let is_lost = match self.standing {
                    Standing::Suspect => was_probe,
                    Standing::New => true,
                    Standing::Proven => self.silences >= SILENCES_MAX,
                };
                if !is_lost {
                    return Change::Nothing;
                }
                self.standing = Standing::Suspect;
                let doubled = PROBE_FIRST.saturating_mul(1 << self.probe.failures.min(16));
                let wait = early(doubled.min(backoff_max), random);
                self.probe.failures = self.probe.failures.saturating_add(1);
                self.probe.next = now + wait;
                Change::Lost { wait, why: Arc::clone(why) }
            }
        }
    }

    fn answered(&mut self) -> Change {
        self.silences = 0;
        self.answered += 1;
        if self.answered >= self.window {
            self.window = self.window.saturating_add(1);
            self.answered = 0;
        }
        self.probe.failures = 0;
        match std::mem::replace(&mut self.standing, Standing::Proven) {
            Standing::Suspect => Change::Found,
            Standing::New | Standing::Proven => Change::Nothing,
        }
    }

    /// An operator thinks that it is worth a try.
    pub(super) fn probe_at_once(&mut self) {
        self.probe.next = Moment::default();
    }

    /// A leg that has not left will not.
    pub(super) fn withdraw(&mut self, sender: u64, ticket: Ticket) {
        self.line.withdraw(sender, ticket);
    }

    /// One of these messages has a leg here that has not left.
    pub(super) fn has_any(&self, ids: &HashSet<MessageId>) -> bool {
        self.line.legs.values().any(|leg| ids.contains(&leg.id))
    }

    /// Legs that have waited here for as long as they may.
    pub(super) fn tired(&mut self, now: Moment) -> impl Iterator<Item = (Ticket, Leg)> {
        self.line.take_tired(now).into_iter().map(|((_, ticket), leg)| (ticket, leg))
    }
}

/// Up to 15 % earlier than `wait`, so that what failed together does not come back together.
pub(super) fn early(wait: Duration, random: &dyn Random) -> Duration {
    let jitter = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX).saturating_mul(15) / 100;
    wait.saturating_sub(Duration::from_millis(random.below(jitter + 1)))
}

/// Legs that wait, fair to their senders.
#[derive(Default)]
struct Line {
    /// By sender; each sender's in the order in which they came.
    legs: BTreeMap<(u64, Ticket), Leg>,
    /// Senders, once each: all with a leg that waits, and some whose legs were withdrawn, who lose
    /// their place only when their turn comes.
    turns: VecDeque<u64>,
    /// The same: nobody is in there twice.
    has_turn: HashSet<u64>,
    /// Nobody's time is up before this: spares looking through a long line after each probe.
    patience: Option<Moment>,
}

impl Line {
    fn join(&mut self, ticket: Ticket, leg: Leg) {
        if self.has_turn.insert(leg.sender) {
            self.turns.push_back(leg.sender);
        }
        self.patience = Some(self.patience.map_or(leg.until, |end| end.min(leg.until)));
        self.legs.insert((leg.sender, ticket), leg);
    }

    fn leave(&mut self) -> Option<(Ticket, Leg)> {
        while let Some(sender) = self.turns.pop_front() {
            let mut places = self.legs.range((sender, 0)..=(sender, Ticket::MAX)).map(|(place, _)| *place);
            let (first, second) = (places.next(), places.next());
            if second.is_some() {
                self.turns.push_back(sender);
            } else {
                self.has_turn.remove(&sender);
            }
            if let Some(place) = first {
                return self.legs.remove(&place).map(|leg| (place.1, leg));
            }
        }
        None
    }

    fn withdraw(&mut self, sender: u64, ticket: Ticket) {
        self.legs.remove(&(sender, ticket));
        self.clear_up();
    }

    /// Takes out those who have waited for as long as they may.
    fn take_tired(&mut self, now: Moment) -> BTreeMap<(u64, Ticket), Leg> {
        if self.patience.is_none_or(|end| end > now) {
            return BTreeMap::new();
        }
        let all = std::mem::take(&mut self.legs).into_iter();
        let (tired, stay) = all.partition(|(_, leg)| leg.until <= now);
        self.legs = stay;
        self.patience = self.legs.values().map(|leg| leg.until).min();
        self.clear_up();
        tired
    }

    /// Nobody keeps a place in a line in which nobody waits.
    fn clear_up(&mut self) {
        if self.legs.is_empty() {
            self.turns.clear();
            self.has_turn.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fakes::SeededRandom;
    use crate::mail::Timestamp;

    const CAP: usize = 4;
    const MAX: Duration = Duration::from_secs(900);

    fn leg(n: u64, sender: u64) -> Leg {
        Leg { sender, ..Leg::to(MessageId::new(Timestamp::from_millis(0), n)) }
    }

    fn at(seconds: u64) -> Moment {
        Moment::new(Duration::from_secs(seconds))
    }

    fn silent() -> Contact {
        Contact::Silent(Arc::new(Reason::new(4, 1, "no answer")))
    }

    fn crowded() -> Destination {
        let mut destination = Destination::unknown();
        (0..1000).for_each(|n| destination.join(n, leg(n, 1)));
        destination
    }

    /// How many leave at once.
    fn leave(destination: &mut Destination, now: Moment) -> usize {
        let mut count = 0;
        while destination.may_depart(CAP, now) {
            destination.depart().unwrap();
            count += 1;
        }
        count
    }

    fn back(destination: &mut Destination, contact: &Contact, now: Moment) -> Change {
        destination.back(contact, now, MAX, &SeededRandom::new(1))
    }

    #[test]
    fn the_window_opens_with_success_up_to_the_cap() {
        let mut destination = crowded();
        assert_eq!(leave(&mut destination, at(1)), 1);
        for _ in 0..20 {
            assert_eq!(back(&mut destination, &Contact::Answered, at(2)), Change::Nothing);
            leave(&mut destination, at(2));
        }
        assert_eq!(destination.under_way(), CAP);
    }

    #[test]
    fn silence_halves_the_window_and_the_third_in_a_row_makes_suspect() {
        let mut destination = crowded();
        for _ in 0..20 {
            leave(&mut destination, at(1));
            back(&mut destination, &Contact::Answered, at(1));
        }
        leave(&mut destination, at(1));
        assert_eq!(back(&mut destination, &silent(), at(2)), Change::Nothing);
        back(&mut destination, &Contact::Answered, at(2));
        assert_eq!(back(&mut destination, &silent(), at(2)), Change::Nothing);
        assert_eq!(back(&mut destination, &silent(), at(2)), Change::Nothing);
        assert_eq!(destination.standing(), Standing::Proven);
        leave(&mut destination, at(2));
        assert_eq!(destination.under_way(), 1, "of a window of one");
        assert!(matches!(back(&mut destination, &silent(), at(3)), Change::Lost { .. }));
        assert_eq!(destination.standing(), Standing::Suspect);
    }

    #[test]
    fn one_probe_at_a_time_finds_out_and_waits_grow() {
        let mut destination = crowded();
        assert_eq!(leave(&mut destination, at(0)), 1);
        assert!(matches!(back(&mut destination, &silent(), at(300)), Change::Lost { .. }));
        let mut now = 300;
        let mut waits = Vec::new();
        for _ in 0..6 {
            let due = destination.probe_due().unwrap();
            assert!(!destination.may_depart(CAP, at(now)));
            waits.push(due.since(at(now)).as_secs());
            now += due.since(at(now)).as_secs() + 1;
            assert_eq!(leave(&mut destination, at(now)), 1);
            back(&mut destination, &silent(), at(now));
        }
        let expected = [60, 120, 240, 480, 900, 900];
        for (wait, most) in waits.iter().zip(expected) {
            assert!((most * 84 / 100..=most).contains(wait), "{waits:?}");
        }
        assert_eq!(leave(&mut destination, at(now + 901)), 1);
        assert_eq!(back(&mut destination, &Contact::Answered, at(now + 902)), Change::Found);
        assert_eq!(leave(&mut destination, at(now + 902)), 2, "gradually");
    }

    #[test]
    fn a_single_message_does_not_wait_behind_the_thousands_of_another_sender() {
        let mut destination = crowded();
        destination.join(5000, leg(5000, 2));
        let order: Vec<_> = (0..3).map(|_| destination.depart().unwrap().1.sender).collect();
        assert_eq!(order, [1, 2, 1]);
        assert_eq!(destination.waiting(), 998);
    }

    #[test]
    fn who_is_taken_out_of_the_line_holds_up_nobody() {
        let mut destination = Destination::unknown();
        for (n, sender) in [(1, 1), (2, 1), (3, 2), (4, 3)] {
            destination.join(n, leg(n, sender));
        }
        destination.withdraw(2, 3);
        destination.withdraw(1, 1);
        assert_eq!(destination.waiting(), 2);
        destination.join(5, leg(5, 2));
        destination.join(6, leg(6, 1));
        let order: Vec<_> = std::iter::from_fn(|| destination.depart()).map(|(ticket, _)| ticket).collect();
        assert_eq!(order, [2, 5, 4, 6], "and nobody has two turns");
        assert_eq!(destination.waiting(), 0);
    }

    #[test]
    fn each_is_tired_in_its_own_time() {
        let mut destination = Destination::unknown();
        for (n, sender, until) in [(1, 1, 300), (2, 2, 100), (3, 1, 200)] {
            destination.join(n, Leg { until: at(until), ..leg(n, sender) });
        }
        for (now, expected) in [(99, vec![]), (100, vec![2]), (199, vec![]), (300, vec![1, 3])] {
            let tired: Vec<_> = destination.tired(at(now)).map(|(ticket, _)| ticket).collect();
            assert_eq!(tired, expected, "{now}");
        }
        destination.join(4, Leg { until: at(400), ..leg(4, 2) });
        assert_eq!(destination.depart().unwrap().0, 4, "a sender who comes again has a turn");
        assert!(destination.depart().is_none());
    }
}
