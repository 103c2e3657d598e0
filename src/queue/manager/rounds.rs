//! A round of attempts begins: a message is read, and its recipients made ready to leave.
//!
//! What cannot be read now is looked at again later; what is damaged is set aside, where an operator
//! finds it; what is gone is forgotten.

use std::time::Duration;

use super::entry::DeferredBatch;
use super::recipient_batches::{sender, split_into_batches};
use super::{Manager, READ_RETRY_DELAY};
use crate::mail::{Envelope, MessageId};
use crate::queue::bounce::wants_delay_notice;
use crate::queue::schedule::RecipientBatch;
use crate::spool::{LoadError, MessageProgress, Notice};
use crate::sys::Moment;

/// A leg waits for a probe of its destination no longer; then why is written down, and it comes again.
const PROBE_WAIT_MAX: Duration = Duration::from_secs(3600);
/// For a message of a later version: an operator must act.
const NEWER_VERSION_RETRY_DELAY: Duration = Duration::from_secs(3600);

impl Manager {
    /// The time of a message, or of some of its recipients, has come.
    pub(super) fn begin_round(&mut self, id: MessageId, now: Moment) {
        let Some(entry) = self.entries.get_mut(&id) else { return };
        let parts = entry.take_due_batches(now);
        let active = entry.active_message.clone();
        self.schedule_deferred(id);
        if let Some(active) = active {
            let progress = active.state.lock().progress.clone();
            return self.queue_batches(id, &active.envelope, &progress, parts);
        }
        match self.spool.load(&id) {
            Ok(loaded) => {
                // Not kept: its legs may wait for long.
                self.queue_batches(id, &loaded.envelope, &loaded.progress, parts);
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
                    Some(Err(_)) | None => self.reschedule_unread(id, parts, now + READ_RETRY_DELAY),
                }
            }
            Err(e @ (LoadError::Newer(_) | LoadError::Io(_))) => {
                log::error!(target: "queue", "{id} cannot be read: {e}");
                let pause = if matches!(e, LoadError::Newer(_)) {
                    NEWER_VERSION_RETRY_DELAY
                } else {
                    READ_RETRY_DELAY
                };
                self.reschedule_unread(id, parts, now + pause);
            }
        }
    }

    /// What was to begin could not be read.
    fn reschedule_unread(&mut self, id: MessageId, parts: Option<Vec<DeferredBatch>>, due: Moment) {
        let Some(entry) = self.entries.get_mut(&id) else { return };
        match parts {
            None => self.schedule_at(id, due),
            Some(parts) => {
                entry.deferred_batches.extend(parts.into_iter().map(|part| DeferredBatch { due, ..part }));
                self.schedule_deferred(id);
            }
        }
    }

    /// Makes legs of the recipients that wait: of these parts, or of the whole message.
    pub(super) fn queue_batches(
        &mut self,
        id: MessageId,
        envelope: &Envelope,
        progress: &MessageProgress,
        parts: Option<Vec<DeferredBatch>>,
    ) {
        let now = self.clock.now();
        if progress.is_held {
            // Neither due nor under way, until somebody releases it.
            return;
        }
        let legs = split_into_batches(envelope, progress, &self.router.load(), parts);
        let Some(entry) = self.entries.get_mut(&id) else { return };
        if legs.is_empty() && entry.batches_outstanding == 0 && entry.deferred_batches.is_empty() {
            // Settled on disk, but a crash undid the removal, or the disk had refused it.
            return self.settle(id);
        }
        let left = self.settings.lifetime.saturating_sub(self.spool.age_clock.age(envelope));
        let until = now + left.min(PROBE_WAIT_MAX);
        let is_urgent = std::mem::take(&mut entry.is_retry_requested);
        let is_first = !std::mem::replace(&mut entry.has_begun, true);
        entry.batches_outstanding += legs.len();
        let sender = sender(envelope);
        for (route, recipients, round) in legs {
            let leg = RecipientBatch {
                id,
                recipients,
                attempt_number: round,
                sender,
                wait_until: until,
                is_retry_requested: is_urgent,
            };
            if is_first && !is_urgent && self.is_overdue(envelope, progress, &leg.recipients) {
                // It is no attempt, and is not counted as one.
                self.schedule
                    .add_overdue(route, RecipientBatch { attempt_number: round.saturating_sub(1), ..leg });
            } else {
                self.schedule.add_batch(route, leg, now);
            }
        }
    }

    /// While an earlier process ran, these recipients were to be given up or reported as delayed, and
    /// that was not done. An attempt may not come to an end in this process either, if the next hop is slow
    /// and processes do not live for long: so it is done first.
    fn is_overdue(&self, envelope: &Envelope, progress: &MessageProgress, recipients: &[usize]) -> bool {
        let age = self.spool.age_clock.age_at_last_save(envelope);
        let owes_delay = |position: &usize| {
            let recipient = envelope.recipients.get(*position);
            recipient.is_some_and(|one| wants_delay_notice(envelope, envelope.effective_notify(one)))
                && !progress.notices.contains(&(*position, Notice::Delayed))
        };
        age >= self.settings.lifetime
            || (age >= self.settings.delay_notice_after && recipients.iter().any(owes_delay))
    }

    /// All of its recipients are settled, and nothing of it is under way.
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
