//! Messages that an operator's command changes.
//!
//! A command may change a message only while no attempt of it is under way. So it sends the queue manager a
//! [`ClaimRequest`]. The manager takes the message out of the schedule, waits until the attempts under way
//! have ended, and sends a [`Claim`]. No attempt of the message begins while the claim exists; when it is
//! dropped, the manager gets the next step. The command writes its change to disk on its own thread.

use std::collections::{HashMap, HashSet};
use std::io;
use std::sync::Arc;

use super::active_message::ActiveMessage;
use crate::mail::{Envelope, MessageId};
use crate::spool::{Lease, LoadError, MessageProgress, ProgressUpdate, Spool};
use crate::sys::{Moment, Sender};

/// The manager's answer to a [`ClaimRequest`].
pub(super) enum ClaimReply {
    /// The command may change the message.
    Granted(Claim),
    /// An attempt is under way; `Granted` or `NotQueued` follows when it has ended.
    Pending(MessageId),
    /// The message is not in the queue, or not any more.
    NotQueued(MessageId),
    /// Another command or another thread has the message, or waits for it.
    ClaimedByOther(MessageId),
    /// An attempt is under way, and the server stops, so the command cannot wait for it.
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

/// How the manager goes on with a message after a claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum AfterClaim {
    /// As before the claim.
    Unchanged,
    /// The message is due now.
    RetryNow,
    /// The message is due when an operator releases it.
    Hold,
    /// The message has left the spool.
    Removed,
}

/// Lets one command change a message of which no attempt is under way.
pub(super) struct Claim {
    pub(super) id: MessageId,
    // Dropped in this order: the lease is free when the manager gets the returned claim.
    pub(super) message: ClaimedMessage,
    pub(super) on_return: ClaimReturn,
}

/// A claimed message, with the right to change it.
pub(super) enum ClaimedMessage {
    /// The manager has it in memory.
    InMemory(Arc<ActiveMessage>),
    /// It is read from disk.
    OnDisk(Lease),
}

/// A claim that has ended.
pub(super) struct ReturnedClaim {
    pub(super) id: MessageId,
    /// When the message would have been due; `None` if it is held.
    pub(super) due: Option<Moment>,
    pub(super) next_step: AfterClaim,
}

/// Sends the manager a claim that has ended.
pub(super) type ReturnFn = Box<dyn FnOnce(ReturnedClaim) + Send>;

/// Returns the claim to the manager when it is dropped.
pub(super) struct ClaimReturn {
    id: MessageId,
    due: Option<Moment>,
    /// Set by the command.
    pub(super) next_step: AfterClaim,
    send: Option<ReturnFn>,
}

impl Claim {
    /// The envelope and the progress of the message.
    pub(super) fn load(&self, spool: &Spool) -> Result<(Arc<Envelope>, MessageProgress), LoadError> {
        match &self.message {
            ClaimedMessage::InMemory(active) => {
                Ok((Arc::clone(&active.envelope), active.state.lock().progress.clone()))
            }
            ClaimedMessage::OnDisk(lease) => {
                spool.load(lease.id()).map(|loaded| (loaded.envelope, loaded.progress))
            }
        }
    }

    /// Writes down an update, durably.
    pub(super) fn record_update(
        &self,
        spool: &Spool,
        envelope: &Envelope,
        update: ProgressUpdate,
    ) -> io::Result<()> {
        match &self.message {
            ClaimedMessage::InMemory(active) => active.record_command(spool, update),
            ClaimedMessage::OnDisk(lease) => {
                let mut after = spool.load(lease.id()).map_err(io::Error::other)?.progress;
                after.apply(&update);
                spool.record_update(lease, envelope, &update, &after)
            }
        }
    }

    /// Removes the message from the spool; durable on return.
    pub(super) fn settle_durably(&self, spool: &Spool, update: &ProgressUpdate) -> io::Result<()> {
        match &self.message {
            ClaimedMessage::InMemory(active) => spool.settle_durably(&active.lease.lock(), update),
            ClaimedMessage::OnDisk(lease) => spool.settle_durably(lease, update),
        }
    }
}

impl Drop for ClaimReturn {
    fn drop(&mut self) {
        if let Some(send) = self.send.take() {
            send(ReturnedClaim { id: self.id, due: self.due, next_step: self.next_step });
        }
    }
}

/// A command's request to change a message.
pub(super) struct ClaimRequest {
    pub(super) reply_to: Sender<ClaimReply>,
    /// For the claim that is granted.
    pub(super) on_return: ReturnFn,
}

impl ClaimRequest {
    /// Refuses the request.
    pub(super) fn refuse(self, reply: ClaimReply) {
        send(&self.reply_to, reply);
    }

    /// Replies that the command must wait.
    pub(super) fn defer(&self, id: MessageId) {
        send(&self.reply_to, ClaimReply::Pending(id));
    }

    /// Grants the request; `due` is when the message would have been due.
    pub(super) fn grant(self, id: MessageId, message: ClaimedMessage, due: Option<Moment>) {
        let next_step = AfterClaim::Unchanged;
        let on_return = ClaimReturn { id, due, next_step, send: Some(self.on_return) };
        send(&self.reply_to, ClaimReply::Granted(Claim { id, message, on_return }));
    }
}

fn send(reply_to: &Sender<ClaimReply>, reply: ClaimReply) {
    // The command may have ended. A claim is then dropped here, and the manager goes on with the message.
    let _ = reply_to.send(reply);
}

/// The manager's list of requests and claims.
#[derive(Default)]
pub(super) struct Claims {
    /// Requests that wait for an attempt under way, or for the event of the put.
    pub(super) waiting: HashMap<MessageId, ClaimRequest>,
    /// Messages with a claim.
    pub(super) granted: HashSet<MessageId>,
}

impl Claims {
    pub(super) fn is_claimed(&self, id: &MessageId) -> bool {
        self.waiting.contains_key(id) || self.granted.contains(id)
    }

    /// The server stops: refuses the requests that wait.
    pub(super) fn stop(&mut self) {
        for (id, request) in self.waiting.drain() {
            request.refuse(ClaimReply::Stopping(id));
        }
    }

    /// The message is not in the queue any more.
    pub(super) fn forget(&mut self, id: &MessageId) {
        self.granted.remove(id);
        if let Some(request) = self.waiting.remove(id) {
            request.refuse(ClaimReply::NotQueued(*id));
        }
    }
}
