//! The queue, as other modules use it.
//!
//! A [`Handle`] is cheap to clone, and every thread may use it. A message is put on the caller's own thread,
//! sync included. Everything else is a hint to the queue manager, which looks at the disk.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::incoming_message::{IncomingMessage, PutError};
use super::manager_event::ManagerEvent;
use super::queue_shared::QueueShared;
use super::queued_message::QueuedMessage;
use crate::mail::{MessageId, Timestamp};
use crate::spool::LoadError;

/// The queue, as sessions, the monitor and the control socket use it.
#[derive(Clone)]
pub struct Handle {
    shared: Arc<QueueShared>,
}

impl Handle {
    pub(super) fn new(shared: Arc<QueueShared>) -> Self {
        Self { shared }
    }

    /// Begins a message, and chooses its id.
    ///
    /// # Errors
    /// [`PutError::Full`] at `messages-max` and while the disk is full, [`PutError::Stopping`] after
    /// [`Handle::stop`].
    pub fn begin(&self) -> Result<IncomingMessage, PutError> {
        let shared = &self.shared;
        if shared.is_stopping.load(Ordering::Acquire) {
            return Err(PutError::Stopping);
        }
        let incoming = shared.incoming_count.load(Ordering::Relaxed);
        if shared.spool.count() + incoming >= shared.settings.messages_max || self.is_disk_full() {
            return Err(PutError::Full);
        }
        self.begin_generated()
    }

    /// The last write found the disk full: no message can be put until there is room again.
    #[must_use]
    pub fn is_disk_full(&self) -> bool {
        self.shared.spool.is_disk_full()
    }

    /// Begins a message that the server generates: exempt from `messages-max`, and possible while the server
    /// stops, so that no bounce is lost. For [`super::GeneratedMail`] only.
    ///
    /// # Errors
    /// None at present; an error of the disk comes later.
    pub fn begin_generated(&self) -> Result<IncomingMessage, PutError> {
        let id = MessageId::new(self.wall(), self.shared.random.bits());
        Ok(IncomingMessage::new(Arc::clone(&self.shared), id))
    }

    /// The time of the wall clock.
    #[must_use]
    pub fn wall(&self) -> Timestamp {
        self.shared.clock.wall_time()
    }

    /// The number of messages in the queue.
    #[must_use]
    pub fn count(&self) -> usize {
        self.shared.spool.count()
    }

    /// One message; `None` if it is not in the queue, or cannot be read.
    #[must_use]
    pub fn message(&self, id: &MessageId) -> Option<QueuedMessage> {
        let loaded = match self.shared.spool.load(id) {
            Ok(loaded) => loaded,
            Err(LoadError::NotQueued | LoadError::FileMissing) => return None,
            Err(e) => {
                log::warn!(target: "queue", "{id} cannot be shown: {e}");
                return None;
            }
        };
        Some(QueuedMessage::new(
            &loaded.envelope,
            loaded.progress,
            loaded.octets,
            &self.shared.spool.age_clock,
        ))
    }

    /// Begins to stop: no more attempts begin, and no message can be begun. Messages that were begun may
    /// still be committed, and attempts under way may end.
    pub fn stop(&self) {
        self.shared.is_stopping.store(true, Ordering::Release);
        let _ = self.shared.events.send(ManagerEvent::Stop);
    }
}
