//! The post office of `postrider::torture`, as tests like to use it: what cannot go wrong, panics.

use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use postrider::fakes::{SimulatedDisk, TestClock};
use postrider::mail::{Mailbox, MessageId};
use postrider::queue::{Change, Changed, OpenError, Selection, Settings};
use postrider::torture;
pub use postrider::torture::{MINUTE, deferred, delivered, failed, settings};

pub struct PostOffice(torture::PostOffice);

pub fn mailbox(raw: &str) -> Mailbox {
    Mailbox::parse(raw).unwrap()
}

impl PostOffice {
    /// `here.example` is local.
    pub fn new() -> Self {
        Self::with(settings())
    }

    pub fn with(settings: Settings) -> Self {
        Self(torture::PostOffice::new(settings).unwrap())
    }

    pub fn open(
        disk: SimulatedDisk,
        clock: Arc<TestClock>,
        seed: u64,
        settings: Settings,
    ) -> Result<Self, OpenError> {
        torture::PostOffice::open(disk, clock, seed, settings).map(Self)
    }

    /// The same disk and time, another process.
    pub fn restarted(self, seed: u64) -> Self {
        Self::open(self.0.disk, self.0.clock, seed, settings()).unwrap()
    }

    /// Puts a short letter and does what can be done at once.
    pub fn receive(&mut self, from: &str, to: &str) -> MessageId {
        self.0.receive(from, to).unwrap()
    }

    /// A command, on a thread of its own as a person's is, and what can be done at once.
    pub fn command(&mut self, selection: Selection, change: Change) -> Changed {
        let operator = self.stepped.operator();
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

impl Deref for PostOffice {
    type Target = torture::PostOffice;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl DerefMut for PostOffice {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.0
    }
}
