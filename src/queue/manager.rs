//! The queue manager: when and whither.
//!
//! Hears news (a message was put, an attempt is over, an operator asks), watches the timetable,
//! and hands out jobs. It has no thread, no channel and no wait of its own: [`Manager::hear`],
//! [`Manager::tick`], [`Manager::next_job`] and [`Manager::clear_up`] are called by the thread
//! `queue` in `worker`, or by a test that turns the clock. A panic in here aborts the process (see
//! `worker`): the disk is the truth, and the next process reads it.
//!
//! - `entry`: what is known of one message
//! - `survivors`: when those come in that an earlier process promised
//! - `rounds`: a message is read, and its recipients made ready to leave
//! - `legs`: who leaves together
//! - `commands`: what an operator's command asks for
//! - `sweep`: when the spool is cleared up
//!
//! Here is the way of every message: put, handed out as jobs, back, due again, forgotten. After an
//! outage nothing stampedes: of ours, see `survivors`; of a destination, see `destination`.

mod commands;
mod entry;
mod recipient_batches;
mod recovered_messages;
mod rounds;
mod sweep_timer;

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;

use self::entry::{DeferredBatch, MessageEntry};
use self::sweep_timer::SweepTimer;
use super::claims::Claims;
use super::delivery_threads::AttemptResult;
use super::destination_state::{ContactResult, ReachabilityChange};
use super::handle::ManagerEvent;
use super::job::{ActiveMessage, AttemptJob};
use super::ready_queue::Dispatch;
use super::schedule::{DeliveryPool, Schedule, Settings};
use crate::mail::{Envelope, MessageId};
use crate::route::{Route, Router};
use crate::spool::{Leases, MessageProgress, RecoveredMessage, Spool};
use crate::sys::{Clock, Moment, Random};

/// The manager's state.
pub struct Manager {
    spool: Arc<Spool>,
    leases: Leases,
    clock: Arc<dyn Clock>,
    random: Arc<dyn Random>,
    router: Arc<ArcSwap<Router>>,
    settings: Settings,
    schedule: Schedule,
    entries: HashMap<MessageId, MessageEntry>,
    claims: Claims,
    /// Entries that keep an envelope.
    active_count: usize,
    under_way: usize,
    is_stopping: bool,
    sweep: SweepTimer,
    /// When the age clock was last written down; nothing if this process has not done so yet.
    age_clock_saved_at: Option<Moment>,
    /// The message that is being looked at.
    current_message: Option<MessageId>,
}

/// Envelopes kept for messages whose first legs wait.
const ACTIVE_MESSAGES_MAX: usize = 500;
/// Messages whose rounds begin at once; then jobs are handed out before more begin.
const ROUNDS_PER_TICK: usize = 100;
/// While there is anything to do, the age clock is written down so often.
const AGE_CLOCK_SAVE_INTERVAL: Duration = Duration::from_secs(600);
/// After the disk failed to show a message.
const READ_RETRY_DELAY: Duration = Duration::from_secs(60);

impl Manager {
    pub(super) fn new(
        spool: Arc<Spool>,
        clock: Arc<dyn Clock>,
        random: Arc<dyn Random>,
        router: Arc<ArcSwap<Router>>,
        settings: Settings,
        (leases, survivors): (Leases, Vec<RecoveredMessage>),
    ) -> Self {
        let now = clock.now();
        let schedule = Schedule::new(&settings);
        let entries = HashMap::with_capacity(survivors.len());
        let sweep = SweepTimer::new(Arc::clone(&spool), Arc::clone(&clock), settings.segments_max);
        let survivors = recovered_messages::due_times(survivors, &settings, spool.age_clock.now(), now);
        let mut manager = Self {
            spool,
            leases,
            clock,
            random,
            router,
            settings,
            schedule,
            entries,
            claims: Claims::default(),
            active_count: 0,
            under_way: 0,
            is_stopping: false,
            sweep,
            age_clock_saved_at: None,
            current_message: None,
        };
        for (id, due) in survivors {
            manager.entries.insert(id, MessageEntry::new());
            manager.schedule_at(id, due);
        }
        manager
    }

    /// Takes in one piece of news.
    pub(super) fn handle_event(&mut self, news: ManagerEvent) {
        self.current_message = match &news {
            ManagerEvent::Put { id, .. }
            | ManagerEvent::Claim { id, .. }
            | ManagerEvent::ClaimReturned { id, .. } => Some(*id),
            ManagerEvent::AttemptFinished(report) => Some(report.message.envelope.id),
            ManagerEvent::Retry(_) | ManagerEvent::Stop => None,
        };
        match news {
            ManagerEvent::Put { id, envelope, arrived_at: since } => self.message_put(id, envelope, since),
            ManagerEvent::AttemptFinished(report) => self.attempt_finished(report),
            ManagerEvent::Retry(ids) => {
                self.schedule.probe_at_once(&ids, self.clock.now());
                for id in ids {
                    self.current_message = Some(id);
                    self.retry(id);
                }
            }
            ManagerEvent::Claim { id, reply_to: to, events: news } => self.claim(id, to, news),
            ManagerEvent::ClaimReturned { id, due, next_step: then } => self.claim_returned(id, due, then),
            ManagerEvent::Stop => {
                self.is_stopping = true;
                self.claims.stop();
                self.withdraw_ready_batches();
                self.spool.age_clock.write();
            }
        }
    }

    /// Does what is due: begins rounds.
    pub fn tick(&mut self) {
        let now = self.clock.now();
        if !self.is_stopping {
            self.schedule.queue_due_probes(now);
            for _ in 0..ROUNDS_PER_TICK {
                let Some(id) = self.schedule.take_due(now) else { break };
                self.current_message = Some(id);
                self.begin_round(id, now);
            }
        }
    }

    /// Clears away what is settled, for a short while. To be called after the jobs were handed
    /// out, which should not wait for it.
    pub fn run_maintenance(&mut self) {
        self.current_message = None;
        self.sweep.run(&mut self.leases);
        let now = self.clock.now();
        if self.age_clock_saved_at.is_none() {
            // Nobody who waits for the greeting need wait for it.
            self.spool.ensure_reserve();
        }
        if self.age_clock_saved_at.is_none_or(|noted| now.since(noted) >= AGE_CLOCK_SAVE_INTERVAL) {
            self.age_clock_saved_at = Some(now);
            self.spool.age_clock.write();
        }
    }

    /// What is ready to leave does not leave any more: the legs that are left are under way.
    fn withdraw_ready_batches(&mut self) {
        for (id, entry) in self.entries.iter_mut().filter(|(_, entry)| entry.batches_outstanding > 0) {
            entry.batches_outstanding = entry.batches_outstanding.saturating_sub(self.schedule.withdraw(*id));
        }
    }

    /// Writes and syncs what the disk has refused, apart from messages with something under way. To be
    /// called before the process ends.
    ///
    /// # Errors
    /// The disk refuses still.
    pub(super) fn write_unsaved(&mut self) -> io::Result<()> {
        self.current_message = None;
        // Delivery threads hold the leases of what is under way, and write it down with their next outcome.
        // Commands hold those of what they have.
        let claims = &self.claims;
        let is_at_rest = |(id, entry): &(&MessageId, &MessageEntry)| {
            entry.batches_outstanding == 0 && !claims.granted.contains(*id)
        };
        let at_rest = self.entries.iter().filter(is_at_rest);
        let unsaved = at_rest.filter_map(|(_, entry)| entry.active_message.as_ref());
        let written = unsaved.map(|active| active.write_unsaved(&self.spool)).fold(Ok(()), io::Result::and);
        written.and(self.spool.write_unsaved())?;
        let is_unsaved = |id: &MessageId| {
            let entry = self.entries.get(id);
            entry.and_then(|entry| entry.active_message.as_ref()).is_some_and(|active| active.is_unsaved())
        };
        match self.claims.granted.iter().any(is_unsaved) {
            true => Err(io::Error::other("a command has a message of which something is not written yet")),
            false => Ok(()),
        }
    }

    /// How long until `tick` or `clear_up` has something to do; nothing if only news can bring work.
    #[must_use]
    pub fn time_until_work(&self) -> Option<Duration> {
        let now = self.clock.now();
        let due = self.schedule.next_due().filter(|_| !self.is_stopping);
        due.into_iter().chain(self.sweep.due()).min().map(|moment| moment.since(now))
    }

    /// The message that is being looked at, or was last: who is to blame for a panic.
    pub(super) fn current_message(&self) -> Option<MessageId> {
        self.current_message
    }

    /// Attempts that are not back.
    #[must_use]
    pub fn under_way(&self) -> usize {
        self.under_way
    }

    /// We are stopping: no job will be handed out any more.
    #[must_use]
    pub fn is_stopping(&self) -> bool {
        self.is_stopping
    }

    /// The next job for a lane's free thread.
    pub fn next_job(&mut self, lane: DeliveryPool) -> Option<AttemptJob> {
        while !self.is_stopping {
            let now = self.clock.now();
            let departure = self.schedule.dispatch_next(lane, now)?;
            let (route, id, is_put_off) =
                (Arc::clone(&departure.route), departure.batch.id, departure.skip_reason.is_some());
            self.current_message = Some(id);
            if let Some(job) = self.job(departure, now) {
                self.under_way += 1;
                return Some(job);
            }
            if !is_put_off {
                self.schedule.attempt_finished(&route, &ContactResult::NotContacted, now, &*self.random);
            }
            self.batch_finished(id);
        }
        None
    }

    fn job(&mut self, departure: Dispatch, now: Moment) -> Option<AttemptJob> {
        let Dispatch { route, batch: leg, is_more_mail_expected: is_busy, skip_reason: put_off } = departure;
        let entry = self.entries.get_mut(&leg.id)?;
        let active = match &entry.active_message {
            Some(active) => Arc::clone(active),
            None => {
                let lease = self.leases.take(&leg.id).ok_or_else(|| "another thread changes it".to_owned());
                let read = lease.and_then(|lease| match self.spool.load(&leg.id) {
                    Ok(loaded) => Ok(ActiveMessage::new(lease, loaded.envelope, loaded.progress)),
                    Err(e) => Err(e.to_string()),
                });
                let active = match read {
                    Ok(active) => active,
                    Err(e) => {
                        // The next round looks again, and decides.
                        log::error!(target: "queue", "{} cannot be read: {e}", leg.id);
                        let round = leg.attempt_number.saturating_sub(1);
                        entry.deferred_batches.push(DeferredBatch {
                            due: now + READ_RETRY_DELAY,
                            recipients: leg.recipients,
                            attempt_number: round,
                        });
                        return None;
                    }
                };
                entry.active_message = Some(Arc::clone(&active));
                self.active_count += 1;
                active
            }
        };
        let (recipients, round) = (leg.recipients, leg.attempt_number);
        Some(AttemptJob {
            message: active,
            route,
            recipients,
            attempt_number: round,
            is_more_mail_expected: is_busy,
            skip_reason: put_off,
        })
    }

    fn message_put(&mut self, id: MessageId, envelope: Arc<Envelope>, since: Moment) {
        let mut entry = MessageEntry::new();
        let progress = MessageProgress::new(&envelope);
        if self.active_count < ACTIVE_MESSAGES_MAX
            && let Some(lease) = self.leases.take(&id)
        {
            entry.active_message = Some(ActiveMessage::new(lease, Arc::clone(&envelope), progress.clone()));
            self.active_count += 1;
        }
        self.entries.insert(id, entry);
        match self.claims.waiting.remove(&id) {
            None => self.queue_batches(id, &envelope, &progress, None),
            Some(claim) => {
                self.schedule_at(id, since);
                self.grant(id, claim);
            }
        }
    }

    fn attempt_finished(&mut self, report: AttemptResult) {
        self.under_way = self.under_way.saturating_sub(1);
        self.sweep.request();
        if let Some(contact) = &report.contact_result {
            let change =
                self.schedule.attempt_finished(&report.route, contact, self.clock.now(), &*self.random);
            self.log_reachability_change(&report.route, change);
        }
        let AttemptResult { message: active, recipients, attempt_number: round, due, .. } = report;
        let id = active.envelope.id;
        drop(active);
        if let Some(entry) = self.entries.get_mut(&id) {
            entry.attempts = entry.attempts.max(round);
            entry.deferred_batches.extend(due.map(|due| DeferredBatch {
                due,
                recipients,
                attempt_number: round,
            }));
        }
        self.batch_finished(id);
    }

    fn log_reachability_change(&mut self, route: &Route, change: ReachabilityChange) {
        let waiting = self.schedule.waiting_count(route);
        let destination = &route.destination;
        match change {
            ReachabilityChange::Unchanged => {}
            ReachabilityChange::BecameSuspect { probe_delay: wait, reason: why } => log::warn!(
                target: "queue",
                "{destination} does not answer ({why}); {waiting} wait for it, and the next try is in {} s",
                wait.as_secs()
            ),
            ReachabilityChange::Recovered => {
                log::info!(target: "queue", "{destination} answers again; {waiting} wait for it");
            }
        }
    }

    /// One leg less.
    fn batch_finished(&mut self, id: MessageId) {
        let Some(entry) = self.entries.get_mut(&id) else { return };
        entry.batches_outstanding = entry.batches_outstanding.saturating_sub(1);
        if entry.batches_outstanding > 0 {
            return self.schedule_deferred(id);
        }
        self.all_batches_finished(id);
        if let Some(claim) = self.claims.waiting.remove(&id) {
            self.grant(id, claim);
        }
    }

    /// Nothing of it is ready or under way.
    fn all_batches_finished(&mut self, id: MessageId) {
        if !self.spool.has(&id) {
            return self.forget(id);
        }
        self.drop_active(&id);
        let now = self.clock.now();
        let Some(entry) = self.entries.get_mut(&id) else { return };
        match entry.merge_deferred(now) {
            Some(due) => self.schedule_at(id, due),
            None => self.schedule_deferred(id),
        }
    }

    /// What is kept of it in memory is read again when it is wanted.
    fn drop_active(&mut self, id: &MessageId) {
        let Some(entry) = self.entries.get_mut(id) else { return };
        // What the disk refused lives on in memory, so that nobody is delivered to again for it.
        let is_saved = entry.active_message.as_ref().is_none_or(|active| !active.is_unsaved());
        if is_saved && entry.active_message.take().is_some() {
            self.active_count = self.active_count.saturating_sub(1);
        }
    }

    /// The message is due then, and not when it was to be before.
    fn schedule_at(&mut self, id: MessageId, due: Moment) {
        self.unschedule(id);
        if let Some(entry) = self.entries.get_mut(&id) {
            entry.due = Some(due);
            self.schedule.add(id, due);
        }
    }

    /// The message is not due any more; says when it would have been.
    fn unschedule(&mut self, id: MessageId) -> Option<Moment> {
        let due = self.entries.get_mut(&id)?.due.take()?;
        self.schedule.forget(id, due);
        Some(due)
    }

    /// The message is due when the first of its parts is.
    fn schedule_deferred(&mut self, id: MessageId) {
        if self.claims.is_claimed(&id) {
            return;
        }
        if let Some(due) = self.entries.get(&id).and_then(MessageEntry::first_deferred_due) {
            self.schedule_at(id, due);
        }
    }

    fn forget(&mut self, id: MessageId) {
        self.claims.forget(&id);
        self.unschedule(id);
        if self.entries.remove(&id).is_some_and(|entry| entry.active_message.is_some()) {
            self.active_count = self.active_count.saturating_sub(1);
        }
    }
}

#[cfg(test)]
mod tests;
