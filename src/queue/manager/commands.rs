//! What an operator's command asks of the manager: to try a message now, or to have it for itself.
//!
//! See `claims` for what a command does with a message that it has. Here the message leaves the
//! schedule for it, once nothing of it is under way, and comes back.

use std::sync::Arc;

use super::Manager;
use crate::mail::MessageId;
use crate::queue::claims::{Back, Claim, Claimed, Grant, Then, Waiting};
use crate::queue::handle::News;
use crate::sys::{Moment, Sender};

impl Manager {
    /// An operator wants it to be tried now.
    pub(super) fn retry(&mut self, id: MessageId) {
        let now = self.clock.now();
        let Some(entry) = self.entries.get_mut(&id) else { return };
        entry.parts.iter_mut().for_each(|part| part.due = now);
        // What is ready or under way is being tried already.
        if entry.due.is_some() {
            entry.is_urgent = true;
            self.wait(id, now);
        }
    }

    /// A command wants it for itself.
    pub(super) fn claim(&mut self, id: MessageId, to: Sender<Grant>, news: Sender<News>) {
        let claim = Waiting { to, news };
        if self.claims.is_taken(&id) {
            return claim.tell(Grant::Taken(id));
        }
        let Some(entry) = self.entries.get_mut(&id) else {
            // It may be in the spool already, and the news of it behind this.
            return match self.spool.has(&id) {
                true => drop(self.claims.waiting.insert(id, claim)),
                false => claim.tell(Grant::Gone(id)),
            };
        };
        if entry.legs > 0 {
            let withdrawn = self.schedule.withdraw(id);
            entry.legs = entry.legs.saturating_sub(withdrawn);
            entry.is_whole |= withdrawn > 0;
            if entry.legs > 0 {
                // No other leg of it begins before the command has had it.
                entry.is_whole = true;
                self.call_off(id);
                if self.is_stopping {
                    return claim.tell(Grant::Stopping(id));
                }
                claim.tell(Grant::Later(id));
                self.claims.waiting.insert(id, claim);
                return;
            }
            self.all_back(id);
        }
        self.grant(id, claim);
    }

    /// Nothing of it is under way: it is the command's.
    pub(super) fn grant(&mut self, id: MessageId, to: Waiting) {
        let due = self.call_off(id);
        let Some(entry) = self.entries.get(&id) else { return to.tell(Grant::Gone(id)) };
        let message = match &entry.active {
            Some(active) => Claimed::InMemory(Arc::clone(active)),
            None => match self.leases.take(&id) {
                Some(lease) => Claimed::OnDisk(lease),
                None => {
                    due.into_iter().for_each(|due| self.wait(id, due));
                    return to.tell(Grant::Taken(id));
                }
            },
        };
        self.claims.granted.insert(id);
        let back = Back { id, due, then: Then::Wait, news: to.news.clone() };
        to.tell(Grant::Yours(Claim { id, message, back }));
    }

    /// The command is done with it.
    pub(super) fn back(&mut self, id: MessageId, due: Option<Moment>, then: Then) {
        self.claims.granted.remove(&id);
        // The command may have written to the disk.
        self.let_go(&id);
        match (then, due) {
            (Then::Wait, Some(due)) => self.wait(id, due),
            (Then::Wait, None) | (Then::Hold, _) => {}
            (Then::Now, _) => {
                if let Some(entry) = self.entries.get_mut(&id) {
                    entry.parts = Vec::new();
                    entry.is_urgent = true;
                }
                self.wait(id, self.clock.now());
            }
            (Then::Gone, _) => {
                self.sweep.want();
                self.forget(id);
            }
        }
    }
}
