//! One attempt to be made, and the message that it is about.
//!
//! The manager makes jobs, delivery threads carry them (`attempt`). What both, and an operator's
//! command, look at meanwhile is the [`Active`] message: one in memory, however many legs of it are
//! under way.

use std::io;
use std::sync::Arc;

use super::attempt::Carried;
use super::item::{Progress, Record};
use super::schedule::{Lane, PutOff};
use super::spool::{Lease, Spool};
use super::worker::Report;
use crate::mail::Envelope;
use crate::route::Route;
use crate::sys::Mutex;

/// A message in memory, with the right to change it on disk.
pub(super) struct Active {
    pub(super) envelope: Arc<Envelope>,
    /// Locked while an outcome is written to disk, syncs included, so that the legs of one message do so
    /// one after the other. The queue manager locks it only while nothing of the message is under way.
    pub(super) lease: Mutex<Lease>,
    /// Locked for moments only, also by those who hold the lease.
    pub(super) state: Mutex<MessageState>,
}

impl Active {
    pub(super) fn new(lease: Lease, envelope: Arc<Envelope>, progress: Progress) -> Arc<Self> {
        let state = Mutex::new(MessageState { progress, is_unsaved: false });
        Arc::new(Self { envelope, lease: Mutex::new(lease), state })
    }

    /// Writes down what an attempt found out: `record` makes the record from the progress before it.
    /// It holds in memory although the disk refuses. Says whether the message is settled.
    ///
    /// # Errors
    /// The disk refused; what it refused goes with the next record.
    pub(super) fn note_attempt(
        &self,
        spool: &Spool,
        record: impl FnOnce(&Progress) -> Record,
    ) -> io::Result<bool> {
        let lease = self.lease.lock();
        let (record, after) = {
            let mut state = self.state.lock();
            let record = record(&state.progress);
            state.progress.apply(&record);
            let record = if state.is_unsaved { state.progress.to_record() } else { record };
            (record, state.progress.clone())
        };
        let noted = match spool.note(&lease, &self.envelope, &record, &after) {
            Err(e) if e.kind() == io::ErrorKind::NotFound && spool.forget_missing(&lease) => Ok(()),
            other => other,
        };
        self.state.lock().is_unsaved = noted.is_err();
        noted.map(|()| after.is_settled())
    }

    /// Writes down what an operator's command changes; nothing has changed if the disk refuses.
    ///
    /// # Errors
    /// The disk refused.
    pub(super) fn note_command(&self, spool: &Spool, record: Record) -> io::Result<()> {
        let lease = self.lease.lock();
        let (mut after, is_unsaved) = {
            let state = self.state.lock();
            (state.progress.clone(), state.is_unsaved)
        };
        after.apply(&record);
        // What the disk refused before goes with it.
        let record = match is_unsaved {
            true => {
                let Record { held, routes, .. } = record;
                Record { held, routes, by_operator: true, ..after.to_record() }
            }
            false => record,
        };
        spool.note(&lease, &self.envelope, &record, &after)?;
        *self.state.lock() = MessageState { progress: after, is_unsaved: false };
        Ok(())
    }

    /// Writes down what the disk has refused, if it has refused anything.
    ///
    /// # Errors
    /// The disk refused again.
    pub(super) fn note_unsaved(&self, spool: &Spool) -> io::Result<()> {
        let is_unsaved = self.state.lock().is_unsaved;
        if !is_unsaved {
            return Ok(());
        }
        self.note_attempt(spool, Progress::to_record).map(drop)
    }

    /// The disk has refused something that is known in memory.
    pub(super) fn is_unsaved(&self) -> bool {
        self.state.lock().is_unsaved
    }
}

/// What is known of a message in memory.
pub(super) struct MessageState {
    pub(super) progress: Progress,
    /// The disk refused something that `progress` holds.
    pub(super) is_unsaved: bool,
}

/// One attempt to be made.
pub struct Job {
    pub(super) active: Arc<Active>,
    pub(super) route: Arc<Route>,
    /// Positions in the envelope.
    pub(super) recipients: Vec<usize>,
    /// Number of this attempt, from 1.
    pub(super) round: u32,
    /// More mail for this destination is likely to follow soon.
    pub(super) is_busy: bool,
    /// Nobody is to be asked, and why.
    pub(super) put_off: Option<PutOff>,
}

impl Job {
    /// Whose threads carry it.
    #[must_use]
    pub fn lane(&self) -> Lane {
        Lane::of(&self.route)
    }

    /// The attempt is over. What it had of the message goes back to the manager, so that nobody holds
    /// the lease when the manager hears of it.
    pub(super) fn over(self, carried: Carried) -> Report {
        let Self { active, route, recipients, round, .. } = self;
        let Carried { due, contact } = carried;
        Report { active, route, recipients, round, due, contact }
    }
}
