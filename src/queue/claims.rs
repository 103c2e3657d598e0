//! Messages that an operator's command wants for itself, or has.
//!
//! A command may change a message only while nothing of it is under way. So it asks for it: the
//! manager takes it out of the schedule, waits for the attempts under way, and hands over a
//! [`Claim`]. As long as that lives no attempt begins; dropped, it tells the manager how to go on.
//! What the command writes to disk meanwhile is written on its own thread.

use std::collections::{HashMap, HashSet};
use std::io;
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::Sender;

use super::handle::{News, Shared};
use super::item::{Progress, Record};
use super::job::Active;
use super::spool::LoadError;
use crate::mail::{Envelope, MessageId};
use crate::sys::Moment;

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
}

impl Grant {
    pub(super) fn id(&self) -> MessageId {
        match self {
            Self::Yours(claim) => claim.id,
            Self::Later(id) | Self::Gone(id) | Self::Taken(id) => *id,
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
    /// What is kept of it in memory, if anything.
    pub(super) active: Option<Arc<Active>>,
    /// Known age, and when it was that.
    pub(super) age: Option<(Duration, Moment)>,
    /// When it would have been due; nothing if it is held.
    pub(super) due: Option<Moment>,
    /// Set by the command.
    pub(super) then: Then,
    pub(super) news: Sender<News>,
}

impl Claim {
    /// Envelope and progress as they are now.
    pub(super) fn load(&self, shared: &Shared) -> Result<(Arc<Envelope>, Progress), LoadError> {
        if let Some(active) = &self.active {
            return Ok((Arc::clone(&active.envelope), active.standing.lock().progress.clone()));
        }
        shared.spool.load(&self.id).map(|loaded| (loaded.envelope, loaded.progress))
    }

    /// A record that changes nothing yet, for an operator's hand.
    pub(super) fn record(&self, shared: &Shared, progress: &Progress) -> Record {
        let (now, wall) = (shared.clock.now(), shared.clock.wall());
        let age = match self.age {
            Some((age, since)) => age + now.since(since),
            None => progress.age_at_restart(wall),
        };
        Record { by_operator: true, ..Record::new(wall, progress.attempts, age, progress.due) }
    }

    /// Writes it down, durably.
    pub(super) fn note(&self, shared: &Shared, envelope: &Envelope, record: Record) -> io::Result<()> {
        let Some(active) = &self.active else {
            let mut after = self.load(shared).map_err(io::Error::other)?.1;
            after.apply(&record);
            return shared.spool.note(envelope, &record, &after);
        };
        let mut standing = active.standing.lock();
        let mut after = standing.progress.clone();
        after.apply(&record);
        // What the disk refused before goes with it.
        let record = match standing.is_unsaved {
            true => {
                let Record { held, routes, .. } = record;
                Record { held, routes, by_operator: true, ..after.to_record() }
            }
            false => record,
        };
        shared.spool.note(envelope, &record, &after)?;
        standing.progress = after;
        standing.is_unsaved = false;
        Ok(())
    }
}

impl Drop for Claim {
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

    /// The message is not in our care any more.
    pub(super) fn forget(&mut self, id: &MessageId) {
        self.granted.remove(id);
        if let Some(waiting) = self.waiting.remove(id) {
            waiting.tell(Grant::Gone(*id));
        }
    }
}
