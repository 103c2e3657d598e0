//! A round of attempts begins: a message is read, and its recipients made ready to leave.
//!
//! What cannot be read now is looked at again later; what is damaged is set aside, where an operator
//! finds it; what is gone is forgotten.

use std::time::Duration;

use super::entry::Part;
use super::legs::{legs, sender};
use super::{Manager, READ_AGAIN};
use crate::mail::{Envelope, MessageId};
use crate::queue::bounce::wants_delay;
use crate::queue::item::{Notice, Progress};
use crate::queue::schedule::Leg;
use crate::queue::spool::LoadError;
use crate::sys::Moment;

/// A leg waits for a probe of its destination no longer; then why is written down, and it comes again.
const HOLD_MAX: Duration = Duration::from_secs(3600);
/// For a message of a later version: an operator must act.
const NEWER_AGAIN: Duration = Duration::from_secs(3600);

impl Manager {
    /// The time of a message, or of some of its recipients, has come.
    pub(super) fn begin_round(&mut self, id: MessageId, now: Moment) {
        let Some(entry) = self.entries.get_mut(&id) else { return };
        let parts = entry.take_due(now);
        let active = entry.active.clone();
        self.wait_for_parts(id);
        if let Some(active) = active {
            let progress = active.state.lock().progress.clone();
            return self.spread(id, &active.envelope, &progress, parts);
        }
        match self.spool.load(&id) {
            Ok(loaded) => {
                // Not kept: its legs may wait for long.
                self.spread(id, &loaded.envelope, &loaded.progress, parts);
            }
            Err(LoadError::Gone) => self.forget(id),
            Err(LoadError::Missing) => {
                if let Some(lease) = self.leases.take(&id) {
                    self.spool.forget_missing(&lease);
                }
                self.forget(id);
            }
            Err(e @ LoadError::Damaged) => {
                let lease = self.leases.take(&id);
                match lease.map(|lease| self.spool.set_aside(&lease, &e.to_string())) {
                    Some(Ok(())) => self.forget(id),
                    Some(Err(_)) | None => self.look_again(id, parts, now + READ_AGAIN),
                }
            }
            Err(e @ (LoadError::Newer(_) | LoadError::Io(_))) => {
                log::error!(target: "queue", "{id} cannot be read: {e}");
                let pause = if matches!(e, LoadError::Newer(_)) { NEWER_AGAIN } else { READ_AGAIN };
                self.look_again(id, parts, now + pause);
            }
        }
    }

    /// What was to begin could not be read.
    fn look_again(&mut self, id: MessageId, parts: Option<Vec<Part>>, due: Moment) {
        let Some(entry) = self.entries.get_mut(&id) else { return };
        match parts {
            None => self.wait(id, due),
            Some(parts) => {
                entry.parts.extend(parts.into_iter().map(|part| Part { due, ..part }));
                self.wait_for_parts(id);
            }
        }
    }

    /// Makes legs of the recipients that wait: of these parts, or of the whole message.
    pub(super) fn spread(
        &mut self,
        id: MessageId,
        envelope: &Envelope,
        progress: &Progress,
        parts: Option<Vec<Part>>,
    ) {
        let now = self.clock.now();
        if progress.is_held {
            // Neither due nor under way, until somebody releases it.
            return;
        }
        let legs = legs(envelope, progress, &self.router.load(), parts);
        let Some(entry) = self.entries.get_mut(&id) else { return };
        if legs.is_empty() && entry.legs == 0 && entry.parts.is_empty() {
            // Settled on disk, but a crash undid the removal, or the disk had refused it.
            return self.settle(id);
        }
        let left = self.settings.lifetime.saturating_sub(self.spool.ages.age(envelope));
        let until = now + left.min(HOLD_MAX);
        let is_urgent = std::mem::take(&mut entry.is_urgent);
        let is_first = !std::mem::replace(&mut entry.has_begun, true);
        entry.legs += legs.len();
        let sender = sender(envelope);
        for (route, recipients, round) in legs {
            let leg = Leg { id, recipients, round, sender, until, is_urgent };
            if is_first && !is_urgent && self.is_overdue(envelope, progress, &leg.recipients) {
                // It is no attempt, and is not counted as one.
                self.schedule.overdue(route, Leg { round: round.saturating_sub(1), ..leg });
            } else {
                self.schedule.ready(route, leg, now);
            }
        }
    }

    /// While an earlier process ran, these recipients were to be given up or reported as delayed, and
    /// that was not done. An attempt may not come to an end in this process either, if the next hop is slow
    /// and processes do not live for long: so it is done first.
    fn is_overdue(&self, envelope: &Envelope, progress: &Progress, recipients: &[usize]) -> bool {
        let age = self.spool.ages.age_before(envelope);
        let owes_delay = |position: &usize| {
            let recipient = envelope.recipients.get(*position);
            recipient.is_some_and(|one| wants_delay(envelope, envelope.notify(one)))
                && !progress.told.contains(&(*position, Notice::Delayed))
        };
        age >= self.settings.lifetime
            || (age >= self.settings.delay_report && recipients.iter().any(owes_delay))
    }

    /// All of its recipients are settled, and nothing of it is under way.
    fn settle(&mut self, id: MessageId) {
        let Some(entry) = self.entries.get_mut(&id) else { return };
        match entry.active.take() {
            Some(active) => {
                self.kept = self.kept.saturating_sub(1);
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
