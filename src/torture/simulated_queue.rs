//! A queue without threads, on the disk, clock and couriers of a test: for scenarios and crashes.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;

use crate::courier::CourierProfile;
use crate::fakes::{RecordedAttempt, ScriptedCourier, SeededRandom, SimulatedDisk, TestClock, WithProfile};
use crate::mail::{Domain, Envelope, Mailbox, MessageId, Outcome, Reason, Recipient, ReversePath};
use crate::observe::{Metrics, Traces};
use crate::queue::{
    Couriers, DeliveryParts, GeneratedMail, Handle, OpenError, PutError, QueueParts, Settings, SteppedQueue,
    WithoutAliases, open_unlocked,
};
use crate::route::Router;
use crate::sys::Clock as _;

/// The data directory on the simulated disk.
const DATA_DIR: &str = "/data";

/// One minute.
pub const MINUTE: Duration = Duration::from_secs(60);

/// The queue, and everything that a test changes or observes around it.
pub struct SimulatedQueue {
    /// The disk of the spool.
    pub disk: SimulatedDisk,
    /// The clock of the queue.
    pub clock: Arc<TestClock>,
    /// Puts messages into the queue.
    pub handle: Handle,
    /// Runs the queue step by step.
    pub stepped: SteppedQueue,
    /// The courier to local mailboxes and to programs.
    pub local: Arc<ScriptedCourier>,
    /// The courier to other servers.
    pub remote: Arc<ScriptedCourier>,
    /// The metrics of the queue.
    pub metrics: Arc<Metrics>,
}

/// Limits that are so small that a short scenario has large messages and several segments.
#[must_use]
pub fn settings() -> Settings {
    Settings {
        journal_message_octets_max: 1000,
        segment_octets: 3000,
        segments_max: 2,
        retry_delays: vec![MINUTE, 5 * MINUTE, 60 * MINUTE],
        ..Settings::default()
    }
}

/// A mailbox that a test names.
fn parse_mailbox(raw: &str) -> Mailbox {
    #[expect(clippy::expect_used, reason = "a test names it: it is valid")]
    Mailbox::parse(raw).expect("a mailbox")
}

/// A recipient that a test names.
#[must_use]
pub fn parse_recipient(raw: &str) -> Recipient {
    Recipient::for_mailbox(parse_mailbox(raw))
}

/// A transient failure: the queue tries again later.
#[must_use]
pub fn deferred(text: &str) -> Outcome {
    Outcome::Deferred(Reason::new(2, 2, text))
}

/// A permanent failure.
#[must_use]
pub fn failed(text: &str) -> Outcome {
    Outcome::Failed(Reason::new(1, 1, text))
}

/// A successful delivery.
#[must_use]
pub fn delivered() -> Outcome {
    Outcome::Delivered(Reason::new(0, 0, "taken"))
}

impl SimulatedQueue {
    /// A queue on a new disk; `here.example` is local.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn new(settings: Settings) -> Result<Self, OpenError> {
        Self::open(SimulatedDisk::default(), Arc::default(), 1, settings)
    }

    /// A queue on this disk and with this clock; `seed` determines the ids of its messages.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn open(
        disk: SimulatedDisk,
        clock: Arc<TestClock>,
        seed: u64,
        settings: Settings,
    ) -> Result<Self, OpenError> {
        let metrics = Arc::new(Metrics::default());
        disk.set_starting(true);
        let opened = open_unlocked(QueueParts {
            disk: Arc::new(disk.rooted(Path::new(DATA_DIR))),
            data_dir: PathBuf::from(DATA_DIR),
            clock: clock.clone(),
            random: Arc::new(SeededRandom::new(seed)),
            metrics: metrics.clone(),
            settings,
        });
        disk.set_starting(false);
        let (handle, opened) = opened?;
        let courier = || Arc::new(ScriptedCourier::with_disk(disk.clone()));
        let (local, remote) = (courier(), courier());
        let stepped = opened.into_stepped(DeliveryParts {
            router: Arc::new(ArcSwap::from_pointee(Router::new(Domain::parse("here.example")))),
            couriers: Couriers {
                local: Arc::new(WithProfile(local.clone(), CourierProfile::MAILBOXES)),
                program: Arc::new(WithProfile(local.clone(), CourierProfile::PROGRAMS)),
                smtp: remote.clone(),
            },
            generated_mail: GeneratedMail::new(handle.clone(), Arc::new(WithoutAliases)),
            traces: Traces::new(clock.clone()),
            hostname: parse_mailbox("postmaster@mail.here.example").domain,
        });
        Ok(Self { disk, clock, handle, stepped, local, remote, metrics })
    }

    /// Puts a message without running the queue. An empty `from` is the null reverse-path.
    ///
    /// # Errors
    /// See [`PutError`].
    pub fn put(&self, from: &str, to: &[&str], octets: &[u8]) -> Result<Envelope, PutError> {
        self.put_with(from, to, octets, |_| {})
    }

    /// Puts a message like [`Self::put`], with an envelope that `edit` has changed.
    ///
    /// # Errors
    /// See [`PutError`].
    pub fn put_with(
        &self,
        from: &str,
        to: &[&str],
        octets: &[u8],
        edit: impl FnOnce(&mut Envelope),
    ) -> Result<Envelope, PutError> {
        let mut incoming = self.handle.begin()?;
        for chunk in octets.chunks(700) {
            incoming.append(chunk)?;
        }
        let reverse_path = match from {
            "" => ReversePath::Null,
            from => ReversePath::Mailbox(parse_mailbox(from)),
        };
        let recipients = to.iter().map(|to| parse_recipient(to)).collect();
        let mut envelope = Envelope::new(incoming.id(), self.clock.wall_time(), reverse_path, recipients);
        edit(&mut envelope);
        incoming.commit(envelope.clone())?;
        Ok(envelope)
    }

    /// Puts a short message to recipients that are separated by spaces, and runs the queue until it waits.
    ///
    /// # Errors
    /// See [`PutError`].
    pub fn put_and_run(&mut self, from: &str, to: &str) -> Result<MessageId, PutError> {
        let to: Vec<_> = to.split(' ').collect();
        let id = self.put(from, &to, b"Subject: hello\r\n\r\nHello.\r\n")?.id;
        self.stepped.run();
        Ok(id)
    }

    /// Lets time pass, and runs the queue whenever something is due.
    pub fn run_for(&mut self, wait: Duration) {
        let mut left = wait;
        loop {
            let step = self.stepped.time_until_work().unwrap_or(left).min(left).max(Duration::from_millis(1));
            self.clock.advance(step.min(left));
            self.stepped.run();
            left = left.saturating_sub(step);
            if left.is_zero() {
                return;
            }
        }
    }

    /// Messages in the queue.
    #[must_use]
    pub fn queue_length(&self) -> usize {
        self.handle.count()
    }

    /// All attempts, whatever their outcome.
    #[must_use]
    pub fn attempts(&self) -> Vec<RecordedAttempt> {
        self.local.attempts().into_iter().chain(self.remote.attempts()).collect()
    }

    /// Bounces that were delivered.
    #[must_use]
    pub fn bounces(&self) -> Vec<RecordedAttempt> {
        let mut bounces = self.local.delivered();
        bounces.extend(self.remote.delivered());
        bounces.retain(|one| one.envelope.reverse_path.is_null());
        bounces
    }
}
