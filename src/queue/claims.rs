//! Messages that an operator's command wants for itself, or has.
//!
//! A command may change a message only while nothing of it is under way. So it asks for it: the
//! manager takes it out of the schedule, waits for the attempts under way, and hands over a
//! [`Claim`]. As long as that lives no attempt begins; dropped, it tells the manager how to go on.
//! What the command writes to disk meanwhile is written on its own thread.

use std::collections::{HashMap, HashSet};
use std::io;
use std::sync::Arc;

use super::handle::{News, Shared};
use super::item::{Progress, Record};
use super::job::Active;
use super::spool::{Lease, LoadError};
use crate::mail::{Envelope, MessageId};
use crate::sys::{Moment, Sender};

/// What a command hears of a message that it asked for.
pub(super) enum Grant {
    /// It is the command's.
    Yours(Claim),
    /// An attempt is under way; `Yours` or `Gone` follows when it is back.
    Later(MessageId),
    /// It is not in our care, or not any more.
    Gone(MessageId),
    /// Another command has it or waits for it.
    Taken(MessageId),
    /// An attempt is under way, and the server stops: nobody waits for it any more.
    Stopping(MessageId),
}

impl Grant {
    pub(super) fn id(&self) -> MessageId {
        match self {
            Self::Yours(claim) => claim.id,
            Self::Later(id) | Self::Gone(id) | Self::Taken(id) | Self::Stopping(id) => *id,
        }
    }
}

/// How the manager goes on with a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Then {
    /// As before.
    Wait,
    /// It is due now.
    Now,
    /// It is due when somebody releases it.
    Hold,
    /// It has left the spool.
    Gone,
}

/// A message of which nothing is under way, for one command.
pub(super) struct Claim {
    pub(super) id: MessageId,
    // Dropped in this order: the lease is free when the manager hears that the command is done.
    pub(super) message: Claimed,
    pub(super) back: Back,
}

/// The right to change the message.
pub(super) enum Claimed {
    /// With what is kept of it in memory.
    InMemory(Arc<Active>),
    /// The message is to be read from disk.
    OnDisk(Lease),
}

/// Tells the manager, when it is dropped, how to go on.
pub(super) struct Back {
    pub(super) id: MessageId,
    /// When the message would have been due; nothing if it is held.
    pub(super) due: Option<Moment>,
    /// Set by the command.
    pub(super) then: Then,
    pub(super) news: Sender<News>,
}

impl Claim {
    /// Envelope and progress as they are now.
    pub(super) fn load(&self, shared: &Shared) -> Result<(Arc<Envelope>, Progress), LoadError> {
        match &self.message {
            Claimed::InMemory(active) => {
                Ok((Arc::clone(&active.envelope), active.state.lock().progress.clone()))
            }
            Claimed::OnDisk(lease) => {
                shared.spool.load(lease.id()).map(|loaded| (loaded.envelope, loaded.progress))
            }
        }
    }

    /// A record that changes nothing yet, for an operator's hand.
    pub(super) fn record(&self, shared: &Shared, progress: &Progress) -> Record {
        let wall = shared.clock.wall();
        Record { by_operator: true, ..Record::new(wall, progress.attempts, progress.due) }
    }

    /// Writes it down, durably.
    pub(super) fn note(&self, shared: &Shared, envelope: &Envelope, record: Record) -> io::Result<()> {
        match &self.message {
            Claimed::InMemory(active) => active.note_command(&shared.spool, record),
            Claimed::OnDisk(lease) => {
                let mut after = shared.spool.load(lease.id()).map_err(io::Error::other)?.progress;
                after.apply(&record);
                shared.spool.note(lease, envelope, &record, &after)
            }
        }
    }

    /// Nothing is left to do for the message; durable on return.
    pub(super) fn settle_durably(&self, shared: &Shared, record: &Record) -> io::Result<()> {
        match &self.message {
            Claimed::InMemory(active) => shared.spool.settle_durably(&active.lease.lock(), record),
            Claimed::OnDisk(lease) => shared.spool.settle_durably(lease, record),
        }
    }
}

impl Drop for Back {
    fn drop(&mut self) {
        // A manager that has ended does not hear; the next one reads the disk.
        let _ = self.news.send(News::Back { id: self.id, due: self.due, then: self.then });
    }
}

/// A command that asked for a message.
pub(super) struct Waiting {
    pub(super) to: Sender<Grant>,
    /// For the claim that it gets.
    pub(super) news: Sender<News>,
}

impl Waiting {
    pub(super) fn tell(&self, grant: Grant) {
        // Whoever asked may have left; a claim is then dropped here, and the message goes on.
        let _ = self.to.send(grant);
    }
}

/// The manager's list of them.
#[derive(Default)]
pub(super) struct Claims {
    /// Commands that wait for an attempt under way, or for the news that a message was put.
    pub(super) waiting: HashMap<MessageId, Waiting>,
    /// In a command's hands.
    pub(super) granted: HashSet<MessageId>,
}

impl Claims {
    pub(super) fn is_taken(&self, id: &MessageId) -> bool {
        self.waiting.contains_key(id) || self.granted.contains(id)
    }

    /// The server stops: nobody waits any more.
    pub(super) fn stop(&mut self) {
        for (id, waiting) in self.waiting.drain() {
            waiting.tell(Grant::Stopping(id));
        }
    }

    /// The message is not in our care any more.
    pub(super) fn forget(&mut self, id: &MessageId) {
        self.granted.remove(id);
        if let Some(waiting) = self.waiting.remove(id) {
            waiting.tell(Grant::Gone(*id));
        }
    }
}
