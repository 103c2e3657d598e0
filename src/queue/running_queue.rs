//! A queue whose threads run, and how it stops.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use super::handle::Handle;
use super::queue_control::QueueControl;
use crate::sys::{Receiver, ThreadActivity, join};

/// How a queue has stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StopResult {
    /// Every attempt has ended, and all outcomes are on disk.
    Clean,
    /// Some attempts have not ended: their recipients are tried again after the next start.
    AttemptsUnfinished,
    /// The disk refuses to write some outcomes: after the next start their recipients may get the message
    /// again. Other attempts may be under way.
    OutcomesUnwritten,
}

/// A queue whose threads run.
pub struct RunningQueue {
    pub(super) handle: Handle,
    pub(super) queue_control: QueueControl,
    pub(super) manager: JoinHandle<()>,
    pub(super) manager_activity: Arc<ThreadActivity>,
    /// While the server stops, the disk refuses to write some outcomes.
    pub(super) has_unwritten_outcomes: Arc<AtomicBool>,
    pub(super) manager_ended: Receiver<()>,
}

impl RunningQueue {
    /// Shows whether the queue manager is stuck.
    #[must_use]
    pub fn pulse(&self) -> Arc<ThreadActivity> {
        Arc::clone(&self.manager_activity)
    }

    /// Shows the queue to an operator and changes it.
    #[must_use]
    pub fn queue_control(&self) -> QueueControl {
        self.queue_control.clone()
    }

    /// Stops: no more attempts begin, and within `grace` those under way end and their outcomes are written.
    /// The next start continues with the others.
    pub fn stop(self, grace: Duration) -> StopResult {
        self.handle.stop();
        match self.manager_ended.recv_timeout(grace) {
            Ok(()) => {
                // The thread only drops its values.
                let _ = join(self.manager);
                StopResult::Clean
            }
            // Attempts under way may still write, and so may sessions: each of them holds the lock, so that
            // no other process opens the spool before.
            Err(_) if self.has_unwritten_outcomes.load(Ordering::Acquire) => StopResult::OutcomesUnwritten,
            Err(_) => StopResult::AttemptsUnfinished,
        }
    }
}
