//! What an operator's command asks of the manager: to try a message now, or to have it for itself.
//!
//! See `claims` for what a command does with a message that it has. Here the message leaves the
//! schedule for it, once nothing of it is under way, and comes back.

use std::sync::Arc;

use super::Manager;
use crate::mail::MessageId;
use crate::queue::claims::{AfterClaim, Claim, ClaimReply, ClaimRequest, ClaimReturn, ClaimedMessage};
use crate::queue::handle::ManagerEvent;
use crate::sys::{Moment, Sender};

impl Manager {
    /// An operator wants it to be tried now.
    pub(super) fn retry(&mut self, id: MessageId) {
        let now = self.clock.now();
        let Some(entry) = self.entries.get_mut(&id) else { return };
        entry.deferred_batches.iter_mut().for_each(|part| part.due = now);
        // What is ready or under way is being tried already.
        if entry.due.is_some() {
            entry.is_retry_requested = true;
            self.schedule_at(id, now);
        }
    }

    /// A command wants it for itself.
    pub(super) fn claim(&mut self, id: MessageId, to: Sender<ClaimReply>, news: Sender<ManagerEvent>) {
        let claim = ClaimRequest { reply_to: to, events: news };
        if self.claims.is_claimed(&id) {
            return claim.reply(ClaimReply::ClaimedByOther(id));
        }
        let Some(entry) = self.entries.get_mut(&id) else {
            // It may be in the spool already, and the news of it behind this.
            return match self.spool.has(&id) {
                true => drop(self.claims.waiting.insert(id, claim)),
                false => claim.reply(ClaimReply::NotQueued(id)),
            };
        };
        if entry.batches_outstanding > 0 {
            let withdrawn = self.schedule.withdraw(id);
            entry.batches_outstanding = entry.batches_outstanding.saturating_sub(withdrawn);
            entry.is_due_as_whole |= withdrawn > 0;
            if entry.batches_outstanding > 0 {
                // No other leg of it begins before the command has had it.
                entry.is_due_as_whole = true;
                self.unschedule(id);
                if self.is_stopping {
                    return claim.reply(ClaimReply::Stopping(id));
                }
                claim.reply(ClaimReply::Pending(id));
                self.claims.waiting.insert(id, claim);
                return;
            }
            self.all_batches_finished(id);
        }
        self.grant(id, claim);
    }

    /// Nothing of it is under way: it is the command's.
    pub(super) fn grant(&mut self, id: MessageId, to: ClaimRequest) {
        let due = self.unschedule(id);
        let Some(entry) = self.entries.get(&id) else { return to.reply(ClaimReply::NotQueued(id)) };
        let message = match &entry.active_message {
            Some(active) => ClaimedMessage::InMemory(Arc::clone(active)),
            None => match self.leases.take(&id) {
                Some(lease) => ClaimedMessage::OnDisk(lease),
                None => {
                    due.into_iter().for_each(|due| self.schedule_at(id, due));
                    return to.reply(ClaimReply::ClaimedByOther(id));
                }
            },
        };
        self.claims.granted.insert(id);
        let back = ClaimReturn { id, due, next_step: AfterClaim::Unchanged, events: to.events.clone() };
        to.reply(ClaimReply::Granted(Claim { id, message, on_return: back }));
    }

    /// The command is done with it.
    pub(super) fn claim_returned(&mut self, id: MessageId, due: Option<Moment>, then: AfterClaim) {
        self.claims.granted.remove(&id);
        // The command may have written to the disk.
        self.drop_active(&id);
        match (then, due) {
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
