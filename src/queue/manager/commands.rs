//! Requests of operators' commands: to try a message now, or to change it.
//!
//! A message is granted to a command (`claims`) once no attempt of it is under way. Until the claim is
//! returned the message is not in the schedule.

use std::sync::Arc;

use super::Manager;
use crate::mail::MessageId;
use crate::queue::claims::{AfterClaim, ClaimReply, ClaimRequest, ClaimedMessage, ReturnedClaim};

impl Manager {
    /// Makes a message due now.
    pub(super) fn retry(&mut self, id: MessageId) {
        let now = self.clock.now();
        let Some(entry) = self.entries.get_mut(&id) else { return };
        entry.deferred_batches.iter_mut().for_each(|batch| batch.due = now);
        // Batches that are ready or under way are being tried already.
        if entry.due.is_some() {
            entry.is_retry_requested = true;
            self.schedule_at(id, now);
        }
    }

    /// Grants a message to a command, or makes the command wait, or refuses.
    pub(super) fn claim(&mut self, id: MessageId, request: ClaimRequest) {
        if self.claims.is_claimed(&id) {
            return request.refuse(ClaimReply::ClaimedByOther(id));
        }
        let Some(entry) = self.entries.get_mut(&id) else {
            // The message may be in the spool, and the event of its put come after this one.
            return match self.spool.has(&id) {
                true => drop(self.claims.waiting.insert(id, request)),
                false => request.refuse(ClaimReply::NotQueued(id)),
            };
        };
        if entry.batches_outstanding > 0 {
            let withdrawn = self.schedule.withdraw(id);
            entry.batches_outstanding = entry.batches_outstanding.saturating_sub(withdrawn);
            entry.is_due_as_whole |= withdrawn > 0;
            if entry.batches_outstanding > 0 {
                // No other batch of the message begins before the command has had it.
                entry.is_due_as_whole = true;
                self.unschedule(id);
                if self.is_stopping {
                    return request.refuse(ClaimReply::Stopping(id));
                }
                request.defer(id);
                self.claims.waiting.insert(id, request);
                return;
            }
            self.all_batches_finished(id);
        }
        self.grant(id, request);
    }

    /// Grants a message to a command: no attempt of it is under way.
    pub(super) fn grant(&mut self, id: MessageId, request: ClaimRequest) {
        let due = self.unschedule(id);
        let Some(entry) = self.entries.get(&id) else { return request.refuse(ClaimReply::NotQueued(id)) };
        let message = match &entry.active_message {
            Some(active) => ClaimedMessage::InMemory(Arc::clone(active)),
            None => match self.leases.take(&id) {
                Some(lease) => ClaimedMessage::OnDisk(lease),
                None => {
                    due.into_iter().for_each(|due| self.schedule_at(id, due));
                    return request.refuse(ClaimReply::ClaimedByOther(id));
                }
            },
        };
        self.claims.granted.insert(id);
        request.grant(id, message, due);
    }

    /// Goes on with a message after a command.
    pub(super) fn claim_returned(&mut self, claim: &ReturnedClaim) {
        let id = claim.id;
        self.claims.granted.remove(&id);
        // The command may have changed the message on disk.
        self.drop_active(&id);
        match (claim.next_step, claim.due) {
            (AfterClaim::Unchanged, Some(due)) => self.schedule_at(id, due),
            (AfterClaim::Unchanged, None) | (AfterClaim::Hold, _) => {}
            (AfterClaim::RetryNow, _) => {
                if let Some(entry) = self.entries.get_mut(&id) {
                    entry.deferred_batches = Vec::new();
                    entry.is_retry_requested = true;
                }
                self.schedule_at(id, self.clock.now());
            }
            (AfterClaim::Removed, _) => {
                self.sweep.request();
                self.forget(id);
            }
        }
    }
}
