//! What is due next, and who may go now.
//!
//! Two parts, both without clocks, files or threads: a timetable of messages that wait for their
//! time, and, for each lane, the legs (some of one message's recipients of one route) that could leave
//! now. Whose turn it is on a lane is `platform`'s business, what is known of a destination is
//! `destination`'s. Local delivery has a lane, and threads, of its own and is never behind remote
//! delivery.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;
use std::time::Duration;

use super::destination_state::{ContactResult, ReachabilityChange, shorten_with_jitter};
use super::ready_queue::{Dispatch, ReadyQueue};
use crate::mail::{MessageId, Reason};
use crate::route::{Route, Transport};
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
    pub retry_delays: Vec<Duration>,
    /// Age at which who still waits is reported as delayed. Default: 4 hours.
    pub delay_notice_after: Duration,
    /// Delivery threads for local mailboxes and programs. At least 1.
    pub local_threads: usize,
    /// Delivery threads for other servers. At least 1.
    pub remote_threads: usize,
    /// Attempts under way to one destination at most; local mailboxes are one destination
    /// without a cap. At least 1.
    pub destination_attempts_max: usize,
    /// Longest wait between two probes of a destination that does not answer. Default: 15 minutes.
    pub backoff_max: Duration,
    /// Deadline of a local attempt.
    pub local_attempt_timeout: Duration,
    /// Deadline of a remote attempt.
    pub remote_attempt_timeout: Duration,
    /// Larger messages go to a file of their own at once; smaller ones through the journal.
    pub journal_message_octets_max: usize,
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
            retry_delays: [1, 5, 15, 30, 60, 120, 240].map(minutes).to_vec(),
            delay_notice_after: minutes(4 * 60),
            local_threads: 16,
            remote_threads: 16,
            destination_attempts_max: 4,
            backoff_max: minutes(15),
            local_attempt_timeout: minutes(10),
            remote_attempt_timeout: minutes(30),
            journal_message_octets_max: 64 * 1024,
            segment_octets: 4 * 1024 * 1024,
            segments_max: 32,
        }
    }
}

impl Settings {
    /// The wait after the `attempts`th attempt (from 1), up to 15 % shorter than the list says, so that
    /// what failed together does not come back together.
    #[must_use]
    pub fn retry_delay(&self, attempts: u32, random: &dyn Random) -> Duration {
        let place = usize::try_from(attempts.saturating_sub(1)).unwrap_or(usize::MAX);
        let wait = self
            .retry_delays
            .get(place)
            .or(self.retry_delays.last())
            .copied()
            .unwrap_or(RETRY_DELAY_FALLBACK);
        shorten_with_jitter(wait, random)
    }

    /// No wait is longer than this: what a lost clock for ages may cost at a restart.
    #[must_use]
    pub fn retry_delay_max(&self) -> Duration {
        self.retry_delays.iter().max().copied().unwrap_or(RETRY_DELAY_FALLBACK)
    }
}

/// Where the list of waits is empty.
const RETRY_DELAY_FALLBACK: Duration = Duration::from_secs(600);

/// Which threads carry it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DeliveryPool {
    /// Mailboxes and programs on this host.
    Local,
    /// Other servers.
    Remote,
}

impl DeliveryPool {
    /// The lane of a route.
    #[must_use]
    pub fn of(route: &Route) -> Self {
        match route.transport {
            Transport::Local | Transport::Program => Self::Local,
            Transport::Smtp => Self::Remote,
        }
    }
}

/// Some of one message's recipients of one route, ready to leave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RecipientBatch {
    pub(super) id: MessageId,
    /// Positions in the envelope.
    pub(super) recipients: Vec<usize>,
    /// Number of the attempt to come, from 1.
    pub(super) attempt_number: u32,
    /// Whose mail it is: senders take turns.
    pub(super) sender: u64,
    /// It may wait until then for its destination to be probed.
    pub(super) wait_until: Moment,
    /// An operator wants it to be tried, whatever is known of its destination.
    pub(super) is_retry_requested: bool,
}

/// Why recipients are not tried when their turn comes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum SkipReason {
    /// They have waited too long for a probe of their destination, which does not answer for this reason.
    DestinationUnresponsive(Arc<Reason>),
    /// They were to be given up, or reported as delayed, before this process began. Nothing is learnt by
    /// waiting for an attempt that an earlier process did not live to see the end of.
    Overdue,
}

/// The timetable and the legs that are ready.
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

    /// A message waits for its time.
    pub(super) fn add(&mut self, id: MessageId, due: Moment) {
        self.due.insert((due, id));
    }

    /// It no longer waits for this time.
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

    /// Destinations whose time for a probe has come take their turn.
    pub(super) fn queue_due_probes(&mut self, now: Moment) {
        self.local.queue_due_probes(now);
        self.remote.queue_due_probes(now);
    }

    /// A leg could leave now.
    pub(super) fn add_batch(&mut self, route: Route, leg: RecipientBatch, now: Moment) {
        self.ready_queue(DeliveryPool::of(&route)).add(route, leg, now);
    }

    /// What an earlier process left undone about a leg is done without an attempt.
    pub(super) fn add_overdue(&mut self, route: Route, leg: RecipientBatch) {
        self.ready_queue(DeliveryPool::of(&route)).add_overdue(route, leg);
    }

    /// The next leg of a lane that may leave; its destination has one more under way.
    pub(super) fn dispatch_next(&mut self, lane: DeliveryPool, now: Moment) -> Option<Dispatch> {
        self.ready_queue(lane).dispatch_next(now)
    }

    /// A leg that had left is back.
    pub(super) fn attempt_finished(
        &mut self,
        route: &Route,
        contact: &ContactResult,
        now: Moment,
        random: &dyn Random,
    ) -> ReachabilityChange {
        self.ready_queue(DeliveryPool::of(route)).attempt_finished(route, contact, now, random)
    }

    /// Suspect destinations of these messages are probed at once.
    pub(super) fn probe_at_once(&mut self, ids: &HashSet<MessageId>, now: Moment) {
        self.local.probe_at_once(ids, now);
        self.remote.probe_at_once(ids, now);
    }

    /// A message's legs that have not left will not; says how many those were.
    pub(super) fn withdraw(&mut self, id: MessageId) -> usize {
        self.local.withdraw(id) + self.remote.withdraw(id)
    }

    /// Legs that wait for a destination.
    pub(super) fn waiting_count(&mut self, route: &Route) -> usize {
        self.ready_queue(DeliveryPool::of(route)).waiting_count(route)
    }

    fn ready_queue(&mut self, lane: DeliveryPool) -> &mut ReadyQueue {
        match lane {
            DeliveryPool::Local => &mut self.local,
            DeliveryPool::Remote => &mut self.remote,
        }
    }
}

#[cfg(test)]
impl RecipientBatch {
    /// To the first recipient of a message, for as long as it takes.
    pub(super) fn for_test(id: MessageId) -> Self {
        let until = Moment::new(Duration::MAX);
        Self {
            id,
            recipients: vec![0],
            attempt_number: 1,
            sender: 0,
            wait_until: until,
            is_retry_requested: false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fakes::SeededRandom;
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

    #[test]
    fn waits_grow_by_the_list_and_the_first_is_within_a_minute() {
        let settings = Settings::default();
        let random = SeededRandom::new(1);
        for (attempts, minutes) in [(1, 1), (2, 5), (5, 60), (7, 240), (100, 240)] {
            let wait = settings.retry_delay(attempts, &random).as_secs();
            assert!((minutes * 51 - 1..=minutes * 60).contains(&wait), "{attempts}: {wait}");
        }
    }
}
