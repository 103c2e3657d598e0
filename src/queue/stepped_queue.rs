//! A queue without threads, for tests that turn the clock, and for the simulation of crashes.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use super::attempt::AttemptRunner;
use super::handle::Handle;
use super::manager::Manager;
use super::manager_event::ManagerEvent;
use super::queue_control::QueueControl;
use crate::courier::DeliveryPool;
use crate::sys::Receiver;

/// A queue without threads.
pub struct SteppedQueue {
    pub(super) manager: Manager,
    pub(super) attempt_runner: Arc<AttemptRunner>,
    pub(super) events: Receiver<ManagerEvent>,
}

impl SteppedQueue {
    /// Does everything that can be done now, attempts included, on the caller's thread.
    pub fn run(&mut self) {
        loop {
            self.manager.tick();
            while let Ok(event) = self.events.try_recv() {
                self.manager.handle_event(event);
            }
            let job = self
                .manager
                .next_job(DeliveryPool::Local)
                .or_else(|| self.manager.next_job(DeliveryPool::Remote));
            self.manager.run_maintenance();
            match job {
                Some(job) => {
                    let summary = self.attempt_runner.run(&job);
                    self.manager.handle_event(ManagerEvent::AttemptFinished(job.into_result(summary)));
                }
                None if self.manager.time_until_work() == Some(Duration::ZERO) || !self.events.is_empty() => {
                }
                None => return,
            }
        }
    }

    /// Stops as a process does: no attempt begins, and what the disk refused is written.
    ///
    /// # Errors
    /// The disk still refuses.
    pub fn stop(&mut self) -> io::Result<()> {
        Handle::new(Arc::clone(&self.attempt_runner.shared)).stop();
        while let Ok(event) = self.events.try_recv() {
            self.manager.handle_event(event);
        }
        self.manager.write_unsaved()
    }

    /// Shows the queue to an operator and changes it. To be used on another thread than
    /// [`SteppedQueue::run`].
    #[must_use]
    pub fn queue_control(&self) -> QueueControl {
        self.attempt_runner.queue_control()
    }

    /// The time until there is something to do without an event.
    #[must_use]
    pub fn time_until_work(&self) -> Option<Duration> {
        self.manager.time_until_work()
    }
}
