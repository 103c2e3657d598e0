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

use super::schedule::RecipientBatch;
use crate::mail::{MessageId, Reason};
use crate::sys::{Moment, Random};

/// Number of a leg, in the order in which they came; no two of a lane have the same.
pub(super) type BatchNumber = u64;

/// What an attempt says of its destination.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum ContactResult {
    /// Somebody there answered: whatever that means for this mail, the destination lives.
    Answered,
    /// Nobody did, or only to say that nobody may come now; and why.
    Unresponsive(Arc<Reason>),
    /// Nothing: it was not asked.
    NotContacted,
}

/// How a destination stands with us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reachability {
    Proven,
    New,
    Suspect,
}

/// What changed, for the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum ReachabilityChange {
    Unchanged,
    /// It has become, or stays, suspect; the next probe is after this wait.
    BecameSuspect {
        probe_delay: Duration,
        reason: Arc<Reason>,
    },
    /// It was suspect and answers again.
    Recovered,
}

/// One destination.
pub(super) struct DestinationState {
    waiting_batches: SenderQueue,
    under_way: usize,
    reachability: Reachability,
    window: usize,
    /// Attempts that were answered since the window last changed.
    answered_since_growth: usize,
    /// Attempts in a row that nobody answered.
    unanswered_in_a_row: u32,
    /// Of a suspect one.
    probe: Probe,
    /// When an attempt last came back.
    last_attempt_ended: Moment,
    /// It stands in the line of destinations.
    pub(super) is_queued: bool,
}

#[derive(Default)]
struct Probe {
    /// Not before this.
    not_before: Moment,
    /// How often it was in vain.
    failures: u32,
    is_under_way: bool,
}

/// Attempts under way to a destination of which nothing is known.
const WINDOW_INITIAL: usize = 1;
/// A proven destination is suspect after so many attempts in a row that nobody answered.
const UNANSWERED_IN_A_ROW_MAX: u32 = 3;
/// Until the first probe; each wait after that is twice as long, up to `Settings::backoff_max`.
const PROBE_DELAY_INITIAL: Duration = Duration::from_secs(60);
/// Who had an attempt so short a time ago is likely to have another.
const RECENT_ATTEMPT_PERIOD: Duration = Duration::from_secs(2);

impl DestinationState {
    /// One that nothing is known of.
    pub(super) fn unknown() -> Self {
        Self {
            waiting_batches: SenderQueue::default(),
            under_way: 0,
            reachability: Reachability::New,
            window: WINDOW_INITIAL,
            answered_since_growth: 0,
            unanswered_in_a_row: 0,
            probe: Probe::default(),
            last_attempt_ended: Moment::default(),
            is_queued: false,
        }
    }

    /// One on this host: nothing has to be found out.
    pub(super) fn local() -> Self {
        Self { reachability: Reachability::Proven, window: usize::MAX, ..Self::unknown() }
    }

    pub(super) fn reachability(&self) -> Reachability {
        self.reachability
    }

    pub(super) fn under_way(&self) -> usize {
        self.under_way
    }

    /// Legs that wait.
    pub(super) fn waiting_count(&self) -> usize {
        self.waiting_batches.batches.len()
    }

    pub(super) fn last_attempt_ended(&self) -> Moment {
        self.last_attempt_ended
    }

    /// Nobody waits and nothing is under way.
    pub(super) fn is_idle(&self) -> bool {
        self.waiting_batches.batches.is_empty() && self.under_way == 0
    }

    /// More mail is likely to follow the leg that leaves now.
    pub(super) fn is_more_mail_expected(&self, now: Moment) -> bool {
        !self.waiting_batches.batches.is_empty()
            || (self.last_attempt_ended > Moment::default()
                && now.since(self.last_attempt_ended) < RECENT_ATTEMPT_PERIOD)
    }

    pub(super) fn push(&mut self, ticket: BatchNumber, leg: RecipientBatch) {
        self.waiting_batches.push(ticket, leg);
    }

    /// A leg may leave now; `cap` bounds the window.
    pub(super) fn can_dispatch(&self, cap: usize, now: Moment) -> bool {
        !self.waiting_batches.batches.is_empty()
            && match self.reachability {
                Reachability::Proven | Reachability::New => self.under_way < self.window.min(cap),
                // Attempts from better days are as good as a probe.
                Reachability::Suspect => self.under_way == 0 && self.probe.not_before <= now,
            }
    }

    /// When a probe may leave, if legs wait for one.
    pub(super) fn probe_due(&self) -> Option<Moment> {
        (self.reachability == Reachability::Suspect
            && !self.waiting_batches.batches.is_empty()
            && self.under_way == 0)
            .then_some(self.probe.not_before)
    }

    /// The next leg leaves.
    pub(super) fn dispatch_next(&mut self) -> Option<(BatchNumber, RecipientBatch)> {
        let next = self.waiting_batches.pop()?;
        self.under_way += 1;
        self.probe.is_under_way |= self.reachability == Reachability::Suspect;
        Some(next)
    }

    /// A leg is back.
    pub(super) fn attempt_finished(
        &mut self,
        contact: &ContactResult,
        now: Moment,
        backoff_max: Duration,
        random: &dyn Random,
    ) -> ReachabilityChange {
        self.under_way = self.under_way.saturating_sub(1);
        self.last_attempt_ended = now;
        let was_probe = std::mem::take(&mut self.probe.is_under_way);
        match contact {
            ContactResult::NotContacted => ReachabilityChange::Unchanged,
            ContactResult::Answered => self.record_answer(),
            ContactResult::Unresponsive(why) => {
                self.answered_since_growth = 0;
                self.unanswered_in_a_row = self.unanswered_in_a_row.saturating_add(1);
                self.window = (self.window / 2).max(1);
                let is_lost = match self.reachability {
                    Reachability::Suspect => was_probe,
                    Reachability::New => true,
                    Reachability::Proven => self.unanswered_in_a_row >= UNANSWERED_IN_A_ROW_MAX,
                };
                if !is_lost {
                    return ReachabilityChange::Unchanged;
                }
                self.reachability = Reachability::Suspect;
                let doubled = PROBE_DELAY_INITIAL.saturating_mul(1 << self.probe.failures.min(16));
                let wait = shorten_with_jitter(doubled.min(backoff_max), random);
                self.probe.failures = self.probe.failures.saturating_add(1);
                self.probe.not_before = now + wait;
                ReachabilityChange::BecameSuspect { probe_delay: wait, reason: Arc::clone(why) }
            }
        }
    }

    fn record_answer(&mut self) -> ReachabilityChange {
        self.unanswered_in_a_row = 0;
        self.answered_since_growth += 1;
        if self.answered_since_growth >= self.window {
            self.window = self.window.saturating_add(1);
            self.answered_since_growth = 0;
        }
        self.probe.failures = 0;
        match std::mem::replace(&mut self.reachability, Reachability::Proven) {
            Reachability::Suspect => ReachabilityChange::Recovered,
            Reachability::New | Reachability::Proven => ReachabilityChange::Unchanged,
        }
    }

    /// An operator thinks that it is worth a try.
    pub(super) fn allow_probe_now(&mut self) {
        self.probe.not_before = Moment::default();
    }

    /// A leg that has not left will not.
    pub(super) fn withdraw(&mut self, sender: u64, ticket: BatchNumber) {
        self.waiting_batches.withdraw(sender, ticket);
    }

    /// One of these messages has a leg here that has not left.
    pub(super) fn has_batch_of(&self, ids: &HashSet<MessageId>) -> bool {
        self.waiting_batches.batches.values().any(|leg| ids.contains(&leg.id))
    }

    /// Legs that have waited here for as long as they may.
    pub(super) fn take_timed_out(
        &mut self,
        now: Moment,
    ) -> impl Iterator<Item = (BatchNumber, RecipientBatch)> {
        self.waiting_batches.take_timed_out(now).into_iter().map(|((_, ticket), leg)| (ticket, leg))
    }
}

/// Up to 15 % earlier than `wait`, so that what failed together does not come back together.
pub(super) fn shorten_with_jitter(wait: Duration, random: &dyn Random) -> Duration {
    let jitter = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX).saturating_mul(15) / 100;
    wait.saturating_sub(Duration::from_millis(random.below(jitter + 1)))
}

/// Legs that wait, fair to their senders.
#[derive(Default)]
struct SenderQueue {
    /// By sender; each sender's in the order in which they came.
    batches: BTreeMap<(u64, BatchNumber), RecipientBatch>,
    /// Senders, once each: all with a leg that waits, and some whose legs were withdrawn, who lose
    /// their place only when their turn comes.
    sender_order: VecDeque<u64>,
    /// The same: nobody is in there twice.
    senders_in_order: HashSet<u64>,
    /// Nobody's time is up before this: spares looking through a long line after each probe.
    earliest_timeout: Option<Moment>,
}

impl SenderQueue {
    fn push(&mut self, ticket: BatchNumber, leg: RecipientBatch) {
        if self.senders_in_order.insert(leg.sender) {
            self.sender_order.push_back(leg.sender);
        }
        self.earliest_timeout =
            Some(self.earliest_timeout.map_or(leg.wait_until, |end| end.min(leg.wait_until)));
        self.batches.insert((leg.sender, ticket), leg);
    }

    fn pop(&mut self) -> Option<(BatchNumber, RecipientBatch)> {
        while let Some(sender) = self.sender_order.pop_front() {
            let mut places =
                self.batches.range((sender, 0)..=(sender, BatchNumber::MAX)).map(|(place, _)| *place);
            let (first, second) = (places.next(), places.next());
            if second.is_some() {
                self.sender_order.push_back(sender);
            } else {
                self.senders_in_order.remove(&sender);
            }
            if let Some(place) = first {
                return self.batches.remove(&place).map(|leg| (place.1, leg));
            }
        }
        None
    }

    fn withdraw(&mut self, sender: u64, ticket: BatchNumber) {
        self.batches.remove(&(sender, ticket));
        self.clear_if_empty();
    }

    /// Takes out those who have waited for as long as they may.
    fn take_timed_out(&mut self, now: Moment) -> BTreeMap<(u64, BatchNumber), RecipientBatch> {
        if self.earliest_timeout.is_none_or(|end| end > now) {
            return BTreeMap::new();
        }
        let all = std::mem::take(&mut self.batches).into_iter();
        let (tired, stay) = all.partition(|(_, leg)| leg.wait_until <= now);
        self.batches = stay;
        self.earliest_timeout = self.batches.values().map(|leg| leg.wait_until).min();
        self.clear_if_empty();
        tired
    }

    /// Nobody keeps a place in a line in which nobody waits.
    fn clear_if_empty(&mut self) {
        if self.batches.is_empty() {
            self.sender_order.clear();
            self.senders_in_order.clear();
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

    fn leg(n: u64, sender: u64) -> RecipientBatch {
        RecipientBatch { sender, ..RecipientBatch::for_test(MessageId::new(Timestamp::from_millis(0), n)) }
    }

    fn at(seconds: u64) -> Moment {
        Moment::new(Duration::from_secs(seconds))
    }

    fn silent() -> ContactResult {
        ContactResult::Unresponsive(Arc::new(Reason::new(4, 1, "no answer")))
    }

    fn crowded() -> DestinationState {
        let mut destination = DestinationState::unknown();
        (0..1000).for_each(|n| destination.push(n, leg(n, 1)));
        destination
    }

    /// How many leave at once.
    fn dispatch_all(destination: &mut DestinationState, now: Moment) -> usize {
        let mut count = 0;
        while destination.can_dispatch(CAP, now) {
            destination.dispatch_next().unwrap();
            count += 1;
        }
        count
    }

    fn back(destination: &mut DestinationState, contact: &ContactResult, now: Moment) -> ReachabilityChange {
        destination.attempt_finished(contact, now, MAX, &SeededRandom::new(1))
    }

    #[test]
    fn the_window_opens_with_success_up_to_the_cap() {
        let mut destination = crowded();
        assert_eq!(dispatch_all(&mut destination, at(1)), 1);
        for _ in 0..20 {
            assert_eq!(
                back(&mut destination, &ContactResult::Answered, at(2)),
                ReachabilityChange::Unchanged
            );
            dispatch_all(&mut destination, at(2));
        }
        assert_eq!(destination.under_way(), CAP);
    }

    #[test]
    fn silence_halves_the_window_and_the_third_in_a_row_makes_suspect() {
        let mut destination = crowded();
        for _ in 0..20 {
            dispatch_all(&mut destination, at(1));
            back(&mut destination, &ContactResult::Answered, at(1));
        }
        dispatch_all(&mut destination, at(1));
        assert_eq!(back(&mut destination, &silent(), at(2)), ReachabilityChange::Unchanged);
        back(&mut destination, &ContactResult::Answered, at(2));
        assert_eq!(back(&mut destination, &silent(), at(2)), ReachabilityChange::Unchanged);
        assert_eq!(back(&mut destination, &silent(), at(2)), ReachabilityChange::Unchanged);
        assert_eq!(destination.reachability(), Reachability::Proven);
        dispatch_all(&mut destination, at(2));
        assert_eq!(destination.under_way(), 1, "of a window of one");
        assert!(matches!(back(&mut destination, &silent(), at(3)), ReachabilityChange::BecameSuspect { .. }));
        assert_eq!(destination.reachability(), Reachability::Suspect);
    }

    #[test]
    fn one_probe_at_a_time_finds_out_and_waits_grow() {
        let mut destination = crowded();
        assert_eq!(dispatch_all(&mut destination, at(0)), 1);
        assert!(matches!(
            back(&mut destination, &silent(), at(300)),
            ReachabilityChange::BecameSuspect { .. }
        ));
        let mut now = 300;
        let mut waits = Vec::new();
        for _ in 0..6 {
            let due = destination.probe_due().unwrap();
            assert!(!destination.can_dispatch(CAP, at(now)));
            waits.push(due.since(at(now)).as_secs());
            now += due.since(at(now)).as_secs() + 1;
            assert_eq!(dispatch_all(&mut destination, at(now)), 1);
            back(&mut destination, &silent(), at(now));
        }
        let expected = [60, 120, 240, 480, 900, 900];
        for (wait, most) in waits.iter().zip(expected) {
            assert!((most * 84 / 100..=most).contains(wait), "{waits:?}");
        }
        assert_eq!(dispatch_all(&mut destination, at(now + 901)), 1);
        assert_eq!(
            back(&mut destination, &ContactResult::Answered, at(now + 902)),
            ReachabilityChange::Recovered
        );
        assert_eq!(dispatch_all(&mut destination, at(now + 902)), 2, "gradually");
    }

    #[test]
    fn a_single_message_does_not_wait_behind_the_thousands_of_another_sender() {
        let mut destination = crowded();
        destination.push(5000, leg(5000, 2));
        let order: Vec<_> = (0..3).map(|_| destination.dispatch_next().unwrap().1.sender).collect();
        assert_eq!(order, [1, 2, 1]);
        assert_eq!(destination.waiting_count(), 998);
    }

    #[test]
    fn who_is_taken_out_of_the_line_holds_up_nobody() {
        let mut destination = DestinationState::unknown();
        for (n, sender) in [(1, 1), (2, 1), (3, 2), (4, 3)] {
            destination.push(n, leg(n, sender));
        }
        destination.withdraw(2, 3);
        destination.withdraw(1, 1);
        assert_eq!(destination.waiting_count(), 2);
        destination.push(5, leg(5, 2));
        destination.push(6, leg(6, 1));
        let order: Vec<_> =
            std::iter::from_fn(|| destination.dispatch_next()).map(|(ticket, _)| ticket).collect();
        assert_eq!(order, [2, 5, 4, 6], "and nobody has two turns");
        assert_eq!(destination.waiting_count(), 0);
    }

    #[test]
    fn each_is_tired_in_its_own_time() {
        let mut destination = DestinationState::unknown();
        for (n, sender, until) in [(1, 1, 300), (2, 2, 100), (3, 1, 200)] {
            destination.push(n, RecipientBatch { wait_until: at(until), ..leg(n, sender) });
        }
        for (now, expected) in [(99, vec![]), (100, vec![2]), (199, vec![]), (300, vec![1, 3])] {
            let tired: Vec<_> = destination.take_timed_out(at(now)).map(|(ticket, _)| ticket).collect();
            assert_eq!(tired, expected, "{now}");
        }
        destination.push(4, RecipientBatch { wait_until: at(400), ..leg(4, 2) });
        assert_eq!(destination.dispatch_next().unwrap().0, 4, "a sender who comes again has a turn");
        assert!(destination.dispatch_next().is_none());
    }
}
