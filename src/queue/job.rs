//! One attempt to be made, and the message that it is about.
//!
//! The manager makes jobs, delivery threads carry them (`attempt`). What both, and an operator's
//! command, look at meanwhile is the [`Active`] message: one in memory, however many legs of it are
//! under way.

use std::io;
use std::sync::Arc;

use super::attempt::AttemptSummary;
use super::delivery_threads::AttemptResult;
use super::schedule::{DeliveryPool, SkipReason};
use crate::mail::Envelope;
use crate::route::Route;
use crate::spool::{Lease, MessageProgress, ProgressUpdate, Spool};
use crate::sys::Mutex;

/// A message in memory, with the right to change it on disk.
pub(super) struct ActiveMessage {
    pub(super) envelope: Arc<Envelope>,
    /// Locked while an outcome is written to disk, syncs included, so that the legs of one message do so
    /// one after the other. The queue manager locks it only while nothing of the message is under way.
    pub(super) lease: Mutex<Lease>,
    /// Locked for moments only, also by those who hold the lease.
    pub(super) state: Mutex<MessageState>,
}

impl ActiveMessage {
    pub(super) fn new(lease: Lease, envelope: Arc<Envelope>, progress: MessageProgress) -> Arc<Self> {
        let state = Mutex::new(MessageState { progress, is_unsaved: false });
        Arc::new(Self { envelope, lease: Mutex::new(lease), state })
    }

    /// Writes down what an attempt found out: `record` makes the record from the progress before it.
    /// It holds in memory although the disk refuses. Says whether the message is settled.
    ///
    /// # Errors
    /// The disk refused; what it refused goes with the next record.
    pub(super) fn record_attempt(
        &self,
        spool: &Spool,
        record: impl FnOnce(&MessageProgress) -> ProgressUpdate,
    ) -> io::Result<bool> {
        let lease = self.lease.lock();
        let (record, after) = {
            let mut state = self.state.lock();
            let record = record(&state.progress);
            state.progress.apply(&record);
            let record = if state.is_unsaved { state.progress.to_update() } else { record };
            (record, state.progress.clone())
        };
        let noted = match spool.record_update(&lease, &self.envelope, &record, &after) {
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
    pub(super) fn record_command(&self, spool: &Spool, record: ProgressUpdate) -> io::Result<()> {
        let lease = self.lease.lock();
        let (mut after, is_unsaved) = {
            let state = self.state.lock();
            (state.progress.clone(), state.is_unsaved)
        };
        after.apply(&record);
        // What the disk refused before goes with it.
        let record = match is_unsaved {
            true => {
                let ProgressUpdate { held, routes, .. } = record;
                ProgressUpdate { held, routes, by_operator: true, ..after.to_update() }
            }
            false => record,
        };
        spool.record_update(&lease, &self.envelope, &record, &after)?;
        *self.state.lock() = MessageState { progress: after, is_unsaved: false };
        Ok(())
    }

    /// Writes down what the disk has refused, if it has refused anything.
    ///
    /// # Errors
    /// The disk refused again.
    pub(super) fn write_unsaved(&self, spool: &Spool) -> io::Result<()> {
        let is_unsaved = self.state.lock().is_unsaved;
        if !is_unsaved {
            return Ok(());
        }
        self.record_attempt(spool, MessageProgress::to_update).map(drop)
    }

    /// The disk has refused something that is known in memory.
    pub(super) fn is_unsaved(&self) -> bool {
        self.state.lock().is_unsaved
    }
}

/// What is known of a message in memory.
pub(super) struct MessageState {
    pub(super) progress: MessageProgress,
    /// The disk refused something that `progress` holds.
    pub(super) is_unsaved: bool,
}

/// One attempt to be made.
pub struct AttemptJob {
    pub(super) message: Arc<ActiveMessage>,
    pub(super) route: Arc<Route>,
    /// Positions in the envelope.
    pub(super) recipients: Vec<usize>,
    /// Number of this attempt, from 1.
    pub(super) attempt_number: u32,
    /// More mail for this destination is likely to follow soon.
    pub(super) is_more_mail_expected: bool,
    /// Nobody is to be asked, and why.
    pub(super) skip_reason: Option<SkipReason>,
}

impl AttemptJob {
    /// Whose threads carry it.
    #[must_use]
    pub fn pool(&self) -> DeliveryPool {
        DeliveryPool::of(&self.route)
    }

    /// The attempt is over. What it had of the message goes back to the manager, so that nobody holds
    /// the lease when the manager hears of it.
    pub(super) fn into_result(self, carried: AttemptSummary) -> AttemptResult {
        let Self { message: active, route, recipients, attempt_number: round, .. } = self;
        let AttemptSummary { due, contact_result: contact } = carried;
        AttemptResult {
            message: active,
            route,
            recipients,
            attempt_number: round,
            due,
            contact_result: contact,
        }
    }
}
