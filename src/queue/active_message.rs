//! A message in memory, with the right to change it on disk.
//!
//! There is one for a message, however many attempts of it are under way. The queue manager, the delivery
//! threads and an operator's command share it.

use std::io;
use std::sync::Arc;

use crate::mail::Envelope;
use crate::spool::{Lease, MessageProgress, ProgressUpdate, Spool};
use crate::sys::Mutex;

/// A message in memory, with the right to change it on disk.
pub(super) struct ActiveMessage {
    pub(super) envelope: Arc<Envelope>,
    /// Locked while an outcome is written to disk, syncs included, so that the attempts of one message write
    /// one after the other. The queue manager locks it only while nothing of the message is under way.
    pub(super) lease: Mutex<Lease>,
    /// Locked for moments only, also by a thread that holds the lease.
    pub(super) state: Mutex<MessageState>,
}

/// What is known of a message in memory.
pub(super) struct MessageState {
    pub(super) progress: MessageProgress,
    /// The disk refused to take something that `progress` has.
    pub(super) is_unsaved: bool,
}

impl ActiveMessage {
    pub(super) fn new(lease: Lease, envelope: Arc<Envelope>, progress: MessageProgress) -> Arc<Self> {
        let state = Mutex::new(MessageState { progress, is_unsaved: false });
        Arc::new(Self { envelope, lease: Mutex::new(lease), state })
    }

    /// Writes down the result of an attempt: `update` makes the update from the progress before it. The
    /// progress in memory has it even if the disk refuses. Returns whether the message is settled.
    ///
    /// # Errors
    /// The disk refused; the next update includes what it refused.
    pub(super) fn record_attempt(
        &self,
        spool: &Spool,
        update: impl FnOnce(&MessageProgress) -> ProgressUpdate,
    ) -> io::Result<bool> {
        let lease = self.lease.lock();
        let (update, after) = {
            let mut state = self.state.lock();
            let update = update(&state.progress);
            state.progress.apply(&update);
            let update = if state.is_unsaved { state.progress.to_update() } else { update };
            (update, state.progress.clone())
        };
        let recorded = match spool.record_update(&lease, &self.envelope, &update, &after) {
            Err(e) if e.kind() == io::ErrorKind::NotFound && spool.forget_missing(&lease) => Ok(()),
            other => other,
        };
        self.state.lock().is_unsaved = recorded.is_err();
        recorded.map(|()| after.is_settled())
    }

    /// Writes down what an operator's command changes. If the disk refuses, nothing has changed.
    ///
    /// # Errors
    /// The disk refused.
    pub(super) fn record_command(&self, spool: &Spool, update: ProgressUpdate) -> io::Result<()> {
        let lease = self.lease.lock();
        let (mut after, is_unsaved) = {
            let state = self.state.lock();
            (state.progress.clone(), state.is_unsaved)
        };
        after.apply(&update);
        // Includes what the disk refused before.
        let update = match is_unsaved {
            true => {
                let ProgressUpdate { is_held, routes, .. } = update;
                ProgressUpdate { is_held, routes, by_operator: true, ..after.to_update() }
            }
            false => update,
        };
        spool.record_update(&lease, &self.envelope, &update, &after)?;
        *self.state.lock() = MessageState { progress: after, is_unsaved: false };
        Ok(())
    }

    /// Writes down what the disk has refused, if it has refused anything.
    ///
    /// # Errors
    /// The disk refused again.
    pub(super) fn write_unsaved(&self, spool: &Spool) -> io::Result<()> {
        if !self.is_unsaved() {
            return Ok(());
        }
        self.record_attempt(spool, MessageProgress::to_update).map(drop)
    }

    /// The disk refused to take something that is known in memory.
    pub(super) fn is_unsaved(&self) -> bool {
        self.state.lock().is_unsaved
    }
}
