//! One destination: the batches that wait for it, and what earlier attempts showed of it.
//!
//! **Reachability.** A destination is *new* until it answers, then *proven*. When it does not answer (no
//! connection, a timeout, 421) it becomes *suspect*: its batches wait, and one at a time is tried as a probe,
//! each wait twice as long as the one before.
//!
//! **Window.** The number of attempts that may be under way at once. It begins at one, grows by one whenever
//! as many attempts as it is wide were answered, and is halved by an attempt without an answer. So the server
//! finds out how many connections a peer accepts, up to the configured concurrency limit.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use super::jitter::shorten_with_jitter;
use super::recipient_batch::RecipientBatch;
use super::sender_queue::{BatchNumber, SenderQueue};
use crate::courier::{CourierProfile, DeliveryPool};
use crate::mail::{MessageId, Reason};
use crate::sys::{Moment, Random};

/// What an attempt showed of its destination.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum ContactResult {
    /// A host of the destination answered, whatever became of the message.
    Answered,
    /// No host answered, or the answer was that it accepts no connection now; and why.
    Unresponsive(Arc<Reason>),
    /// The attempt showed nothing: it contacted no host, it failed on this host, or it panicked.
    NotContacted,
}

/// Whether a destination answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reachability {
    /// The last attempts were answered.
    Proven,
    /// Nothing is known.
    New,
    /// The last attempts were not answered.
    Suspect,
}

/// A change of reachability, for the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum ReachabilityChange {
    Unchanged,
    /// The destination has become, or is still, suspect; the next probe is after this wait.
    BecameSuspect {
        probe_delay: Duration,
        reason: Arc<Reason>,
    },
    /// The destination was suspect and answers again.
    Recovered,
}

/// One destination.
pub(super) struct DestinationState {
    waiting_batches: SenderQueue,
    under_way: usize,
    reachability: Reachability,
    /// The concurrency limit.
    attempts_max: usize,
    window: usize,
    /// Attempts that were answered since the window last grew.
    answered_since_growth: usize,
    /// The last attempts that were not answered, in a row.
    unanswered_in_a_row: u32,
    /// The next probe, if the destination is suspect.
    probe: Probe,
    /// When an attempt last ended.
    last_attempt_ended: Moment,
    /// The destination is in the ready queue.
    pub(super) is_queued: bool,
}

#[derive(Default)]
struct Probe {
    /// The next probe is not earlier.
    not_before: Moment,
    /// Probes in a row that were not answered.
    failures: u32,
    is_under_way: bool,
}

/// The window of a destination of which nothing is known.
const WINDOW_INITIAL: usize = 1;
/// After so many attempts in a row without an answer, a proven destination is suspect.
const UNANSWERED_IN_A_ROW_MAX: u32 = 3;
/// The wait before the first probe; each later wait is twice as long, up to `Settings::backoff_max`.
const PROBE_DELAY_INITIAL: Duration = Duration::from_secs(60);
/// After an attempt that ended so short a time ago, another is likely.
const RECENT_ATTEMPT_PERIOD: Duration = Duration::from_secs(2);

impl DestinationState {
    /// A destination of which nothing is known; `attempts_max` is the concurrency limit, if the courier has
    /// one.
    pub(super) fn new(profile: CourierProfile, attempts_max: usize) -> Self {
        let (reachability, window) = match profile.pool {
            // A destination on this host always answers.
            DeliveryPool::Local => (Reachability::Proven, usize::MAX),
            DeliveryPool::Remote => (Reachability::New, WINDOW_INITIAL),
        };
        Self {
            waiting_batches: SenderQueue::default(),
            under_way: 0,
            reachability,
            attempts_max: if profile.has_concurrency_limit { attempts_max } else { usize::MAX },
            window,
            answered_since_growth: 0,
            unanswered_in_a_row: 0,
            probe: Probe::default(),
            last_attempt_ended: Moment::default(),
            is_queued: false,
        }
    }

    pub(super) fn reachability(&self) -> Reachability {
        self.reachability
    }

    pub(super) fn under_way(&self) -> usize {
        self.under_way
    }

    /// The number of batches that wait.
    pub(super) fn waiting_count(&self) -> usize {
        self.waiting_batches.len()
    }

    pub(super) fn last_attempt_ended(&self) -> Moment {
        self.last_attempt_ended
    }

    /// No batch waits and no attempt is under way.
    pub(super) fn is_idle(&self) -> bool {
        self.waiting_batches.is_empty() && self.under_way == 0
    }

    /// More mail is likely to follow the batch that is tried now.
    pub(super) fn is_more_mail_expected(&self, now: Moment) -> bool {
        !self.waiting_batches.is_empty()
            || (self.last_attempt_ended > Moment::default()
                && now.since(self.last_attempt_ended) < RECENT_ATTEMPT_PERIOD)
    }

    pub(super) fn push(&mut self, number: BatchNumber, batch: RecipientBatch) {
        self.waiting_batches.push(number, batch);
    }

    /// Whether a batch can be tried now.
    pub(super) fn can_dispatch(&self, now: Moment) -> bool {
        !self.waiting_batches.is_empty()
            && match self.reachability {
                Reachability::Proven | Reachability::New => {
                    self.under_way < self.window.min(self.attempts_max)
                }
                // An attempt that began earlier is as good as a probe.
                Reachability::Suspect => self.under_way == 0 && self.probe.not_before <= now,
            }
    }

    /// When the next probe is due, if a batch waits for one.
    pub(super) fn probe_due(&self) -> Option<Moment> {
        (self.reachability == Reachability::Suspect
            && !self.waiting_batches.is_empty()
            && self.under_way == 0)
            .then_some(self.probe.not_before)
    }

    /// Takes the next batch, and counts it as under way.
    pub(super) fn dispatch_next(&mut self) -> Option<(BatchNumber, RecipientBatch)> {
        let next = self.waiting_batches.pop()?;
        self.under_way += 1;
        self.probe.is_under_way |= self.reachability == Reachability::Suspect;
        Some(next)
    }

    /// An attempt ended.
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
            ContactResult::Unresponsive(reason) => {
                self.answered_since_growth = 0;
                self.unanswered_in_a_row = self.unanswered_in_a_row.saturating_add(1);
                self.window = (self.window / 2).max(1);
                let is_suspect = match self.reachability {
                    Reachability::Suspect => was_probe,
                    Reachability::New => true,
                    Reachability::Proven => self.unanswered_in_a_row >= UNANSWERED_IN_A_ROW_MAX,
                };
                if !is_suspect {
                    return ReachabilityChange::Unchanged;
                }
                self.reachability = Reachability::Suspect;
                let doubled = PROBE_DELAY_INITIAL.saturating_mul(1 << self.probe.failures.min(16));
                let wait = shorten_with_jitter(doubled.min(backoff_max), random);
                self.probe.failures = self.probe.failures.saturating_add(1);
                self.probe.not_before = now + wait;
                ReachabilityChange::BecameSuspect { probe_delay: wait, reason: Arc::clone(reason) }
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

    /// An operator wants a probe now.
    pub(super) fn allow_probe_now(&mut self) {
        self.probe.not_before = Moment::default();
    }

    /// Removes a batch that waits.
    pub(super) fn withdraw(&mut self, sender: u64, number: BatchNumber) {
        self.waiting_batches.withdraw(sender, number);
    }

    /// Whether one of these messages has a batch that waits here.
    pub(super) fn has_batch_of(&self, ids: &HashSet<MessageId>) -> bool {
        self.waiting_batches.has_batch_of(ids)
    }

    /// Takes out the batches that have waited for as long as they may.
    pub(super) fn take_timed_out(
        &mut self,
        now: Moment,
    ) -> impl Iterator<Item = (BatchNumber, RecipientBatch)> {
        self.waiting_batches.take_timed_out(now).into_iter().map(|((_, number), batch)| (number, batch))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fakes::SeededRandom;
    use crate::mail::Timestamp;

    const ATTEMPTS_MAX: usize = 4;
    const MAX: Duration = Duration::from_secs(900);

    fn batch(n: u64, sender: u64) -> RecipientBatch {
        RecipientBatch { sender, ..RecipientBatch::for_test(MessageId::new(Timestamp::from_millis(0), n)) }
    }

    fn at(seconds: u64) -> Moment {
        Moment::new(Duration::from_secs(seconds))
    }

    fn unresponsive() -> ContactResult {
        ContactResult::Unresponsive(Arc::new(Reason::new(4, 1, "no answer")))
    }

    fn with_waiting_batches() -> DestinationState {
        let mut destination = DestinationState::new(CourierProfile::REMOTE, ATTEMPTS_MAX);
        (0..1000).for_each(|n| destination.push(n, batch(n, 1)));
        destination
    }

    /// Dispatches every batch that can be tried now, and counts them.
    fn dispatch_all(destination: &mut DestinationState, now: Moment) -> usize {
        let mut count = 0;
        while destination.can_dispatch(now) {
            destination.dispatch_next().unwrap();
            count += 1;
        }
        count
    }

    fn attempt_finished(
        destination: &mut DestinationState,
        contact: &ContactResult,
        now: Moment,
    ) -> ReachabilityChange {
        destination.attempt_finished(contact, now, MAX, &SeededRandom::new(1))
    }

    #[test]
    fn the_window_grows_with_answers_up_to_the_concurrency_limit() {
        let mut destination = with_waiting_batches();
        assert_eq!(dispatch_all(&mut destination, at(1)), 1);
        for _ in 0..20 {
            assert_eq!(
                attempt_finished(&mut destination, &ContactResult::Answered, at(2)),
                ReachabilityChange::Unchanged
            );
            dispatch_all(&mut destination, at(2));
        }
        assert_eq!(destination.under_way(), ATTEMPTS_MAX);
    }

    #[test]
    fn a_missing_answer_halves_the_window_and_the_third_in_a_row_makes_the_destination_suspect() {
        let mut destination = with_waiting_batches();
        for _ in 0..20 {
            dispatch_all(&mut destination, at(1));
            attempt_finished(&mut destination, &ContactResult::Answered, at(1));
        }
        dispatch_all(&mut destination, at(1));
        assert_eq!(attempt_finished(&mut destination, &unresponsive(), at(2)), ReachabilityChange::Unchanged);
        attempt_finished(&mut destination, &ContactResult::Answered, at(2));
        assert_eq!(attempt_finished(&mut destination, &unresponsive(), at(2)), ReachabilityChange::Unchanged);
        assert_eq!(attempt_finished(&mut destination, &unresponsive(), at(2)), ReachabilityChange::Unchanged);
        assert_eq!(destination.reachability(), Reachability::Proven);
        dispatch_all(&mut destination, at(2));
        assert_eq!(destination.under_way(), 1, "the window is one");
        assert!(matches!(
            attempt_finished(&mut destination, &unresponsive(), at(3)),
            ReachabilityChange::BecameSuspect { .. }
        ));
        assert_eq!(destination.reachability(), Reachability::Suspect);
    }

    #[test]
    fn one_probe_at_a_time_is_made_and_the_waits_grow() {
        let mut destination = with_waiting_batches();
        assert_eq!(dispatch_all(&mut destination, at(0)), 1);
        assert!(matches!(
            attempt_finished(&mut destination, &unresponsive(), at(300)),
            ReachabilityChange::BecameSuspect { .. }
        ));
        let mut now = 300;
        let mut waits = Vec::new();
        for _ in 0..6 {
            let due = destination.probe_due().unwrap();
            assert!(!destination.can_dispatch(at(now)));
            waits.push(due.since(at(now)).as_secs());
            now += due.since(at(now)).as_secs() + 1;
            assert_eq!(dispatch_all(&mut destination, at(now)), 1);
            attempt_finished(&mut destination, &unresponsive(), at(now));
        }
        let expected = [60, 120, 240, 480, 900, 900];
        for (wait, most) in waits.iter().zip(expected) {
            assert!((most * 84 / 100..=most).contains(wait), "{waits:?}");
        }
        assert_eq!(dispatch_all(&mut destination, at(now + 901)), 1);
        assert_eq!(
            attempt_finished(&mut destination, &ContactResult::Answered, at(now + 902)),
            ReachabilityChange::Recovered
        );
        assert_eq!(dispatch_all(&mut destination, at(now + 902)), 2, "the window grows by one");
    }

    #[test]
    fn a_single_message_does_not_wait_for_the_thousands_of_another_sender() {
        let mut destination = with_waiting_batches();
        destination.push(5000, batch(5000, 2));
        let order: Vec<_> = (0..3).map(|_| destination.dispatch_next().unwrap().1.sender).collect();
        assert_eq!(order, [1, 2, 1]);
        assert_eq!(destination.waiting_count(), 998);
    }

    #[test]
    fn a_batch_that_is_withdrawn_delays_no_other() {
        let mut destination = DestinationState::new(CourierProfile::REMOTE, ATTEMPTS_MAX);
        for (n, sender) in [(1, 1), (2, 1), (3, 2), (4, 3)] {
            destination.push(n, batch(n, sender));
        }
        destination.withdraw(2, 3);
        destination.withdraw(1, 1);
        assert_eq!(destination.waiting_count(), 2);
        destination.push(5, batch(5, 2));
        destination.push(6, batch(6, 1));
        let order: Vec<_> =
            std::iter::from_fn(|| destination.dispatch_next()).map(|(number, _)| number).collect();
        assert_eq!(order, [2, 5, 4, 6], "no sender has two turns");
        assert_eq!(destination.waiting_count(), 0);
    }

    #[test]
    fn each_batch_times_out_at_its_own_time() {
        let mut destination = DestinationState::new(CourierProfile::REMOTE, ATTEMPTS_MAX);
        for (n, sender, until) in [(1, 1, 300), (2, 2, 100), (3, 1, 200)] {
            destination.push(n, RecipientBatch { wait_until: at(until), ..batch(n, sender) });
        }
        for (now, expected) in [(99, vec![]), (100, vec![2]), (199, vec![]), (300, vec![1, 3])] {
            let timed_out: Vec<_> = destination.take_timed_out(at(now)).map(|(number, _)| number).collect();
            assert_eq!(timed_out, expected, "{now}");
        }
        destination.push(4, RecipientBatch { wait_until: at(400), ..batch(4, 2) });
        assert_eq!(destination.dispatch_next().unwrap().0, 4, "a sender that comes again has a turn");
        assert!(destination.dispatch_next().is_none());
    }
}
