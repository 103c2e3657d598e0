//! Begins a round of attempts: reads a message and makes its recipients ready.
//!
//! A message that cannot be read is read again later; a damaged one is set aside, where an operator finds it;
//! a missing one is forgotten.

use std::time::Duration;

use super::entry::DeferredBatch;
use super::recipient_batches::{sender, split_into_batches};
use super::{Manager, READ_RETRY_DELAY};
use crate::mail::{Envelope, MessageId};
use crate::queue::bounce::wants_delay_notice;
use crate::queue::recipient_batch::RecipientBatch;
use crate::spool::{LoadError, MessageProgress, Notice};
use crate::sys::Moment;

/// A batch waits for a probe of its destination for at most this long; then the reason is recorded, and it
/// waits again.
const PROBE_WAIT_MAX: Duration = Duration::from_secs(3600);
/// The wait after a message of a later version was found: an operator must act.
const NEWER_VERSION_RETRY_DELAY: Duration = Duration::from_secs(3600);

impl Manager {
    /// A message, or some of its recipients, are due.
    pub(super) fn begin_round(&mut self, id: MessageId, now: Moment) {
        let Some(entry) = self.entries.get_mut(&id) else { return };
        let due = entry.take_due_batches(now);
        let active = entry.active_message.clone();
        self.schedule_deferred(id);
        if let Some(active) = active {
            let progress = active.state.lock().progress.clone();
            return self.queue_batches(id, &active.envelope, &progress, due);
        }
        match self.spool.load(&id) {
            Ok(loaded) => {
                // Not kept in memory: its batches may wait for long.
                self.queue_batches(id, &loaded.envelope, &loaded.progress, due);
            }
            Err(LoadError::NotQueued) => self.forget(id),
            Err(LoadError::FileMissing) => {
                if let Some(lease) = self.leases.take(&id) {
                    self.spool.forget_missing(&lease);
                }
                self.forget(id);
            }
            Err(e @ LoadError::Damaged) => {
                let lease = self.leases.take(&id);
                match lease.map(|lease| self.spool.set_aside(&lease, &e.to_string())) {
                    Some(Ok(())) => self.forget(id),
                    Some(Err(_)) | None => self.reschedule_unread(id, due, now + READ_RETRY_DELAY),
                }
            }
            Err(e @ (LoadError::Newer(_) | LoadError::Io(_))) => {
                log::error!(target: "queue", "{id} cannot be read: {e}");
                let delay = if matches!(e, LoadError::Newer(_)) {
                    NEWER_VERSION_RETRY_DELAY
                } else {
                    READ_RETRY_DELAY
                };
                self.reschedule_unread(id, due, now + delay);
            }
        }
    }

    /// The message of a round could not be read: its recipients are due again at this time.
    fn reschedule_unread(&mut self, id: MessageId, deferred: Option<Vec<DeferredBatch>>, due: Moment) {
        let Some(entry) = self.entries.get_mut(&id) else { return };
        match deferred {
            None => self.schedule_at(id, due),
            Some(deferred) => {
                entry
                    .deferred_batches
                    .extend(deferred.into_iter().map(|batch| DeferredBatch { due, ..batch }));
                self.schedule_deferred(id);
            }
        }
    }

    /// Makes the waiting recipients of these deferred batches, or of the whole message, ready for attempts.
    pub(super) fn queue_batches(
        &mut self,
        id: MessageId,
        envelope: &Envelope,
        progress: &MessageProgress,
        deferred: Option<Vec<DeferredBatch>>,
    ) {
        let now = self.clock.now();
        if progress.is_held {
            // Neither due nor under way until an operator releases it.
            return;
        }
        let batches = split_into_batches(envelope, progress, &self.router.load(), &self.couriers, deferred);
        let Some(entry) = self.entries.get_mut(&id) else { return };
        if batches.is_empty() && entry.batches_outstanding == 0 && entry.deferred_batches.is_empty() {
            // Settled, but a crash undid the removal, or the disk refused it.
            return self.settle(id);
        }
        let time_left = self.settings.lifetime.saturating_sub(self.spool.age_clock.age(envelope));
        let wait_until = now + time_left.min(PROBE_WAIT_MAX);
        let is_retry_requested = std::mem::take(&mut entry.is_retry_requested);
        let is_first = !std::mem::replace(&mut entry.has_begun, true);
        entry.batches_outstanding += batches.len();
        let sender = sender(envelope);
        for (route, recipients, attempt_number) in batches {
            let batch = RecipientBatch {
                id,
                recipients,
                profile: self.couriers.profile(&route),
                attempt_number,
                sender,
                wait_until,
                is_retry_requested,
            };
            if is_first && !is_retry_requested && self.is_overdue(envelope, progress, &batch.recipients) {
                // This is no attempt, and is not counted as one.
                let attempt_number = attempt_number.saturating_sub(1);
                self.schedule.add_overdue(route, RecipientBatch { attempt_number, ..batch });
            } else {
                self.schedule.add_batch(route, batch, now);
            }
        }
    }

    /// Whether these recipients were to be given up, or reported as delayed, while an earlier process ran.
    /// Then that is done before an attempt: if the next hop is slow and processes end soon, an attempt may
    /// not end in this process either.
    fn is_overdue(&self, envelope: &Envelope, progress: &MessageProgress, recipients: &[usize]) -> bool {
        let age = self.spool.age_clock.age_at_last_save(envelope);
        let wants_notice = |position: &usize| {
            let recipient = envelope.recipients.get(*position);
            recipient.is_some_and(|one| wants_delay_notice(envelope, envelope.effective_notify(one)))
                && !progress.notices.contains(&(*position, Notice::Delayed))
        };
        age >= self.settings.lifetime
            || (age >= self.settings.delay_warning && recipients.iter().any(wants_notice))
    }

    /// Removes a message whose recipients are all settled, and of which no attempt is under way.
    fn settle(&mut self, id: MessageId) {
        let Some(entry) = self.entries.get_mut(&id) else { return };
        match entry.active_message.take() {
            Some(active) => {
                self.active_count = self.active_count.saturating_sub(1);
                self.spool.settle(&active.lease.lock(), None);
            }
            None => {
                if let Some(lease) = self.leases.take(&id) {
                    self.spool.settle(&lease, None);
                }
            }
        }
        self.forget(id);
    }
}
