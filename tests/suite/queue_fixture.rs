//! The queue of `postrider::torture`, in the form that tests need: an unexpected error panics.

use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use postrider::fakes::{SimulatedDisk, TestClock};
use postrider::mail::{Mailbox, MessageId};
use postrider::queue::{ChangeResult, OpenError, QueueChange, Selection, Settings};
use postrider::torture;
pub use postrider::torture::{MINUTE, deferred, delivered, failed, settings};

pub struct QueueFixture(torture::SimulatedQueue);

pub fn mailbox(raw: &str) -> Mailbox {
    Mailbox::parse(raw).unwrap()
}

/// Exactly this message.
pub fn only(id: MessageId) -> Selection {
    Selection { ids: vec![id], ..Selection::default() }
}

/// Removes without a bounce.
pub fn remove() -> QueueChange {
    QueueChange::Remove { bounce_text: None }
}

impl QueueFixture {
    /// `here.example` is local.
    pub fn new() -> Self {
        Self::with_settings(settings())
    }

    pub fn with_settings(settings: Settings) -> Self {
        Self(torture::SimulatedQueue::new(settings).unwrap())
    }

    pub fn open(
        disk: SimulatedDisk,
        clock: Arc<TestClock>,
        seed: u64,
        settings: Settings,
    ) -> Result<Self, OpenError> {
        torture::SimulatedQueue::open(disk, clock, seed, settings).map(Self)
    }

    /// The queue of another process with the same disk and clock.
    pub fn restarted(self, seed: u64) -> Self {
        Self::open(self.0.disk, self.0.clock, seed, settings()).unwrap()
    }

    /// Accepts a short message, and runs the queue until it has to wait.
    pub fn receive(&mut self, from: &str, to: &str) -> MessageId {
        self.0.put_and_run(from, to).unwrap()
    }

    /// Runs a command on a thread of its own, as the server does, and the queue until it has to wait.
    pub fn run_command(&mut self, selection: Selection, change: QueueChange) -> ChangeResult {
        let operator = self.stepped.queue_control();
        std::thread::scope(|scope| {
            let command = scope.spawn(move || operator.change(selection, change));
            while !command.is_finished() {
                self.stepped.run();
                std::thread::yield_now();
            }
            self.stepped.run();
            command.join().unwrap()
        })
    }
}

impl Deref for QueueFixture {
    type Target = torture::SimulatedQueue;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl DerefMut for QueueFixture {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.0
    }
}
