//! The queue manager: decides when each message is attempted and by which route.
//!
//! Handles events (a message was put, an attempt ended, an operator gave a command), watches the timetable,
//! and hands out jobs. The manager has no thread, no channel and no wait of its own: its thread
//! (`delivery_threads`), or a test that turns the clock (`stepped_queue`), calls its functions. A panic in
//! the manager aborts the process, and the next process continues with what is on disk.
//!
//! - `entry`: what the manager has in memory of one message
//! - `recovered_messages`: when messages of an earlier process are due
//! - `rounds`: reads a message and makes its recipients ready for attempts
//! - `recipient_batches`: which recipients are tried in one attempt
//! - `commands`: requests of operators' commands
//! - `sweep_timer`: when the spool is swept
//!
//! This file has the life of a message: put, handed out as jobs, attempted, due again, forgotten. After an
//! outage attempts are spread over time: see `recovered_messages` for one of this server, `destination_state`
//! for one of a destination.

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
use super::active_message::ActiveMessage;
use super::attempt_job::{AttemptJob, AttemptResult};
use super::claims::Claims;
use super::delivery_parts::Couriers;
use super::destination_state::{ContactResult, ReachabilityChange};
use super::manager_event::ManagerEvent;
use super::ready_queue::Dispatch;
use super::recipient_batch::RecipientBatch;
use super::schedule::Schedule;
use super::settings::Settings;
use crate::courier::DeliveryPool;
use crate::mail::{Envelope, MessageId};
use crate::route::{Route, Router};
use crate::spool::{Leases, MessageProgress, RecoveredMessage, Spool};
use crate::sys::{Clock, Moment, Random};

/// The queue manager.
pub struct Manager {
    spool: Arc<Spool>,
    leases: Leases,
    clock: Arc<dyn Clock>,
    random: Arc<dyn Random>,
    router: Arc<ArcSwap<Router>>,
    couriers: Couriers,
    settings: Settings,
    schedule: Schedule,
    entries: HashMap<MessageId, MessageEntry>,
    claims: Claims,
    /// Entries with an active message.
    active_count: usize,
    under_way: usize,
    is_stopping: bool,
    sweep: SweepTimer,
    /// When the age clock was last saved; `None` if this process has not done so yet.
    age_clock_saved_at: Option<Moment>,
    /// The message that is being handled.
    current_message: Option<MessageId>,
}

/// Messages that were just put and stay in memory until their first attempt, at most.
const ACTIVE_MESSAGES_MAX: usize = 500;
/// Messages whose rounds begin in one tick; then jobs are handed out before more begin.
const ROUNDS_PER_TICK: usize = 100;
/// While there is anything to do, the age clock is saved so often.
const AGE_CLOCK_SAVE_INTERVAL: Duration = Duration::from_secs(600);
/// The wait after a message could not be read.
const READ_RETRY_DELAY: Duration = Duration::from_secs(60);

impl Manager {
    pub(super) fn new(
        spool: Arc<Spool>,
        clock: Arc<dyn Clock>,
        random: Arc<dyn Random>,
        (router, couriers): (Arc<ArcSwap<Router>>, Couriers),
        settings: Settings,
        (leases, recovered): (Leases, Vec<RecoveredMessage>),
    ) -> Self {
        let now = clock.now();
        let schedule = Schedule::new(&settings);
        let entries = HashMap::with_capacity(recovered.len());
        let sweep = SweepTimer::new(Arc::clone(&spool), Arc::clone(&clock), settings.segments_max);
        let due_times = recovered_messages::due_times(recovered, &settings, spool.age_clock.now(), now);
        let mut manager = Self {
            spool,
            leases,
            clock,
            random,
            router,
            couriers,
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
        for (id, due) in due_times {
            manager.entries.insert(id, MessageEntry::new());
            manager.schedule_at(id, due);
        }
        manager
    }

    /// Handles one event.
    pub(super) fn handle_event(&mut self, event: ManagerEvent) {
        self.current_message = match &event {
            ManagerEvent::Put { id, .. } | ManagerEvent::Claim(id, _) => Some(*id),
            ManagerEvent::ClaimReturned(claim) => Some(claim.id),
            ManagerEvent::AttemptFinished(result) => Some(result.message.envelope.id),
            ManagerEvent::Retry(_) | ManagerEvent::Stop => None,
        };
        match event {
            ManagerEvent::Put { id, envelope, arrived_at } => self.message_put(id, envelope, arrived_at),
            ManagerEvent::AttemptFinished(result) => self.attempt_finished(result),
            ManagerEvent::Retry(ids) => {
                self.schedule.probe_at_once(&ids, self.clock.now());
                for id in ids {
                    self.current_message = Some(id);
                    self.retry(id);
                }
            }
            ManagerEvent::Claim(id, request) => self.claim(id, request),
            ManagerEvent::ClaimReturned(claim) => self.claim_returned(&claim),
            ManagerEvent::Stop => {
                self.is_stopping = true;
                self.claims.stop();
                self.withdraw_ready_batches();
                self.spool.age_clock.write();
            }
        }
    }

    /// Begins the rounds of attempts that are due.
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

    /// Sweeps the spool for a short while, if it is time. To be called after the jobs were handed out, so
    /// that they do not wait for it.
    pub fn run_maintenance(&mut self) {
        self.current_message = None;
        self.sweep.run(&mut self.leases);
        let now = self.clock.now();
        if self.age_clock_saved_at.is_none() {
            // Made here and not before the start, so that clients do not wait for it.
            self.spool.ensure_reserve();
        }
        if self.age_clock_saved_at.is_none_or(|saved| now.since(saved) >= AGE_CLOCK_SAVE_INTERVAL) {
            self.age_clock_saved_at = Some(now);
            self.spool.age_clock.write();
        }
    }

    /// Removes the batches that are ready: the outstanding ones that are left are under way.
    fn withdraw_ready_batches(&mut self) {
        for (id, entry) in self.entries.iter_mut().filter(|(_, entry)| entry.batches_outstanding > 0) {
            entry.batches_outstanding = entry.batches_outstanding.saturating_sub(self.schedule.withdraw(*id));
        }
    }

    /// Writes and syncs what the disk has refused, apart from messages with an attempt under way. To be
    /// called before the process ends.
    ///
    /// # Errors
    /// The disk still refuses.
    pub(super) fn write_unsaved(&mut self) -> io::Result<()> {
        self.current_message = None;
        // A delivery thread holds the lease of a message with an attempt under way, and writes with its next
        // outcome what the disk refused. A command holds the lease of a claimed message.
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

    /// The time until `tick` or `run_maintenance` has something to do; `None` if only an event can bring
    /// work.
    #[must_use]
    pub fn time_until_work(&self) -> Option<Duration> {
        let now = self.clock.now();
        let due = self.schedule.next_due().filter(|_| !self.is_stopping);
        due.into_iter().chain(self.sweep.due()).min().map(|moment| moment.since(now))
    }

    /// The message that is being handled, or was last: the likely cause of a panic.
    pub(super) fn current_message(&self) -> Option<MessageId> {
        self.current_message
    }

    /// Attempts that have not ended.
    #[must_use]
    pub fn under_way(&self) -> usize {
        self.under_way
    }

    /// The server stops: no more jobs are handed out.
    #[must_use]
    pub fn is_stopping(&self) -> bool {
        self.is_stopping
    }

    /// The next job for an idle thread of this pool.
    pub fn next_job(&mut self, pool: DeliveryPool) -> Option<AttemptJob> {
        while !self.is_stopping {
            let now = self.clock.now();
            let dispatch = self.schedule.dispatch_next(pool, now)?;
            let (route, id, is_skipped) =
                (Arc::clone(&dispatch.route), dispatch.batch.id, dispatch.skip_reason.is_some());
            self.current_message = Some(id);
            if let Some(job) = self.job(dispatch, now) {
                self.under_way += 1;
                return Some(job);
            }
            if !is_skipped {
                let contact = ContactResult::NotContacted;
                self.schedule.attempt_finished(pool, &route, &contact, now, &*self.random);
            }
            self.batch_finished(id);
        }
        None
    }

    /// Makes a job. If the message cannot be read, its recipients wait, and there is no job.
    fn job(&mut self, dispatch: Dispatch, now: Moment) -> Option<AttemptJob> {
        let Dispatch { route, batch, is_more_mail_expected, skip_reason } = dispatch;
        let entry = self.entries.get_mut(&batch.id)?;
        let active = match &entry.active_message {
            Some(active) => Arc::clone(active),
            None => {
                let lease = self.leases.take(&batch.id).ok_or_else(|| "another thread changes it".to_owned());
                let read = lease.and_then(|lease| match self.spool.load(&batch.id) {
                    Ok(loaded) => Ok(ActiveMessage::new(lease, loaded.envelope, loaded.progress)),
                    Err(e) => Err(e.to_string()),
                });
                let active = match read {
                    Ok(active) => active,
                    Err(e) => {
                        // The next round reads it again, and decides.
                        log::error!(target: "queue", "{} cannot be read: {e}", batch.id);
                        entry.deferred_batches.push(DeferredBatch {
                            due: now + READ_RETRY_DELAY,
                            recipients: batch.recipients,
                            attempt_number: batch.attempt_number.saturating_sub(1),
                        });
                        return None;
                    }
                };
                entry.active_message = Some(Arc::clone(&active));
                self.active_count += 1;
                active
            }
        };
        let RecipientBatch { recipients, attempt_number, profile, .. } = batch;
        Some(AttemptJob {
            message: active,
            route,
            pool: profile.pool,
            recipients,
            attempt_number,
            is_more_mail_expected,
            skip_reason,
        })
    }

    fn message_put(&mut self, id: MessageId, envelope: Arc<Envelope>, arrived_at: Moment) {
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
            Some(request) => {
                self.schedule_at(id, arrived_at);
                self.grant(id, request);
            }
        }
    }

    fn attempt_finished(&mut self, result: AttemptResult) {
        self.under_way = self.under_way.saturating_sub(1);
        self.sweep.request();
        let AttemptResult { message, route, pool, recipients, attempt_number, summary } = result;
        if let Some(contact) = &summary.contact_result {
            let change =
                self.schedule.attempt_finished(pool, &route, contact, self.clock.now(), &*self.random);
            self.log_reachability_change(pool, &route, change);
        }
        let id = message.envelope.id;
        drop(message);
        if let Some(entry) = self.entries.get_mut(&id) {
            entry.attempts = entry.attempts.max(attempt_number);
            let deferred = summary.due.map(|due| DeferredBatch { due, recipients, attempt_number });
            entry.deferred_batches.extend(deferred);
        }
        self.batch_finished(id);
    }

    fn log_reachability_change(&mut self, pool: DeliveryPool, route: &Route, change: ReachabilityChange) {
        let waiting = self.schedule.waiting_count(pool, route);
        let destination = &route.destination;
        match change {
            ReachabilityChange::Unchanged => {}
            ReachabilityChange::BecameSuspect { probe_delay, reason } => log::warn!(
                target: "queue",
                "{destination} does not answer ({reason}); {waiting} wait for it, and the next try is in {} s",
                probe_delay.as_secs()
            ),
            ReachabilityChange::Recovered => {
                log::info!(target: "queue", "{destination} answers again; {waiting} wait for it");
            }
        }
    }

    /// A batch is not outstanding any more.
    fn batch_finished(&mut self, id: MessageId) {
        let Some(entry) = self.entries.get_mut(&id) else { return };
        entry.batches_outstanding = entry.batches_outstanding.saturating_sub(1);
        if entry.batches_outstanding > 0 {
            return self.schedule_deferred(id);
        }
        self.all_batches_finished(id);
        if let Some(request) = self.claims.waiting.remove(&id) {
            self.grant(id, request);
        }
    }

    /// No batch of the message is ready or under way.
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

    /// Drops the message from memory; it is read again when it is needed.
    fn drop_active(&mut self, id: &MessageId) {
        let Some(entry) = self.entries.get_mut(id) else { return };
        // What the disk refused stays in memory: otherwise a recipient might get the message again.
        let is_saved = entry.active_message.as_ref().is_none_or(|active| !active.is_unsaved());
        if is_saved && entry.active_message.take().is_some() {
            self.active_count = self.active_count.saturating_sub(1);
        }
    }

    /// Makes the message due at this time, and not at an earlier set one.
    fn schedule_at(&mut self, id: MessageId, due: Moment) {
        self.unschedule(id);
        if let Some(entry) = self.entries.get_mut(&id) {
            entry.due = Some(due);
            self.schedule.add(id, due);
        }
    }

    /// Removes the message from the timetable. Returns when it would have been due.
    fn unschedule(&mut self, id: MessageId) -> Option<Moment> {
        let due = self.entries.get_mut(&id)?.due.take()?;
        self.schedule.forget(id, due);
        Some(due)
    }

    /// Makes the message due when the first of its deferred batches is.
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
