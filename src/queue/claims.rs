//! Messages that an operator's command wants for itself, or has.
//!
//! A command may change a message only while nothing of it is under way. So it asks for it: the
//! manager takes it out of the schedule, waits for the attempts under way, and hands over a
//! [`Claim`]. As long as that lives no attempt begins; dropped, it tells the manager how to go on.
//! What the command writes to disk meanwhile is written on its own thread.

use std::collections::{HashMap, HashSet};
use std::io;
use std::sync::Arc;

use super::handle::{ManagerEvent, QueueShared};
use super::job::ActiveMessage;
use crate::mail::{Envelope, MessageId};
use crate::spool::{Lease, LoadError, MessageProgress, ProgressUpdate};
use crate::sys::{Moment, Sender};

/// What a command hears of a message that it asked for.
pub(super) enum ClaimReply {
    /// It is the command's.
    Granted(Claim),
    /// An attempt is under way; `Yours` or `Gone` follows when it is back.
    Pending(MessageId),
    /// It is not in our care, or not any more.
    NotQueued(MessageId),
    /// Another command has it or waits for it.
    ClaimedByOther(MessageId),
    /// An attempt is under way, and the server stops: nobody waits for it any more.
    Stopping(MessageId),
}

impl ClaimReply {
    pub(super) fn id(&self) -> MessageId {
        match self {
            Self::Granted(claim) => claim.id,
            Self::Pending(id) | Self::NotQueued(id) | Self::ClaimedByOther(id) | Self::Stopping(id) => *id,
        }
    }
}

/// How the manager goes on with a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum AfterClaim {
    /// As before.
    Unchanged,
    /// It is due now.
    RetryNow,
    /// It is due when somebody releases it.
    Hold,
    /// It has left the spool.
    Removed,
}

/// A message of which nothing is under way, for one command.
pub(super) struct Claim {
    pub(super) id: MessageId,
    // Dropped in this order: the lease is free when the manager hears that the command is done.
    pub(super) message: ClaimedMessage,
    pub(super) on_return: ClaimReturn,
}

/// The right to change the message.
pub(super) enum ClaimedMessage {
    /// With what is kept of it in memory.
    InMemory(Arc<ActiveMessage>),
    /// The message is to be read from disk.
    OnDisk(Lease),
}

/// Tells the manager, when it is dropped, how to go on.
pub(super) struct ClaimReturn {
    pub(super) id: MessageId,
    /// When the message would have been due; nothing if it is held.
    pub(super) due: Option<Moment>,
    /// Set by the command.
    pub(super) next_step: AfterClaim,
    pub(super) events: Sender<ManagerEvent>,
}

impl Claim {
    /// Envelope and progress as they are now.
    pub(super) fn load(&self, shared: &QueueShared) -> Result<(Arc<Envelope>, MessageProgress), LoadError> {
        match &self.message {
            ClaimedMessage::InMemory(active) => {
                Ok((Arc::clone(&active.envelope), active.state.lock().progress.clone()))
            }
            ClaimedMessage::OnDisk(lease) => {
                shared.spool.load(lease.id()).map(|loaded| (loaded.envelope, loaded.progress))
            }
        }
    }

    /// A record that changes nothing yet, for an operator's hand.
    pub(super) fn record(&self, shared: &QueueShared, progress: &MessageProgress) -> ProgressUpdate {
        let wall = shared.clock.wall_time();
        ProgressUpdate { by_operator: true, ..ProgressUpdate::new(wall, progress.attempts, progress.due) }
    }

    /// Writes it down, durably.
    pub(super) fn record_update(
        &self,
        shared: &QueueShared,
        envelope: &Envelope,
        record: ProgressUpdate,
    ) -> io::Result<()> {
        match &self.message {
            ClaimedMessage::InMemory(active) => active.record_command(&shared.spool, record),
            ClaimedMessage::OnDisk(lease) => {
                let mut after = shared.spool.load(lease.id()).map_err(io::Error::other)?.progress;
                after.apply(&record);
                shared.spool.record_update(lease, envelope, &record, &after)
            }
        }
    }

    /// Nothing is left to do for the message; durable on return.
    pub(super) fn settle_durably(&self, shared: &QueueShared, record: &ProgressUpdate) -> io::Result<()> {
        match &self.message {
            ClaimedMessage::InMemory(active) => shared.spool.settle_durably(&active.lease.lock(), record),
            ClaimedMessage::OnDisk(lease) => shared.spool.settle_durably(lease, record),
        }
    }
}

impl Drop for ClaimReturn {
    fn drop(&mut self) {
        // A manager that has ended does not hear; the next one reads the disk.
        let _ = self.events.send(ManagerEvent::ClaimReturned {
            id: self.id,
            due: self.due,
            next_step: self.next_step,
        });
    }
}

/// A command that asked for a message.
pub(super) struct ClaimRequest {
    pub(super) reply_to: Sender<ClaimReply>,
    /// For the claim that it gets.
    pub(super) events: Sender<ManagerEvent>,
}

impl ClaimRequest {
    pub(super) fn reply(&self, grant: ClaimReply) {
        // Whoever asked may have left; a claim is then dropped here, and the message goes on.
        let _ = self.reply_to.send(grant);
    }
}

/// The manager's list of them.
#[derive(Default)]
pub(super) struct Claims {
    /// Commands that wait for an attempt under way, or for the news that a message was put.
    pub(super) waiting: HashMap<MessageId, ClaimRequest>,
    /// In a command's hands.
    pub(super) granted: HashSet<MessageId>,
}

impl Claims {
    pub(super) fn is_claimed(&self, id: &MessageId) -> bool {
        self.waiting.contains_key(id) || self.granted.contains(id)
    }

    /// The server stops: nobody waits any more.
    pub(super) fn stop(&mut self) {
        for (id, waiting) in self.waiting.drain() {
            waiting.reply(ClaimReply::Stopping(id));
        }
    }

    /// The message is not in our care any more.
    pub(super) fn forget(&mut self, id: &MessageId) {
        self.granted.remove(id);
        if let Some(waiting) = self.waiting.remove(id) {
            waiting.reply(ClaimReply::NotQueued(*id));
        }
    }
}
