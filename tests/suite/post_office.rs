//! A queue without threads, on a disk, a clock and couriers of the test's: for stories and crashes.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use postrider::fakes::{Carried, ScriptedCourier, SeededRandom, SimulatedDisk, TestClock};
use postrider::mail::{Domain, Envelope, Mailbox, MessageId, Outcome, Reason, Recipient, ReversePath};
use postrider::observe::{Metrics, Traces};
use postrider::queue::{
    Couriers, Crew, Direct, Handle, OpenError, PutError, Settings, SpoolParts, Stepped, open_unlocked,
};
use postrider::route::Router;
use postrider::sys::Clock as _;

pub const MINUTE: Duration = Duration::from_secs(60);

pub struct PostOffice {
    pub disk: SimulatedDisk,
    pub clock: Arc<TestClock>,
    pub handle: Handle,
    pub stepped: Stepped,
    pub local: Arc<ScriptedCourier>,
    pub remote: Arc<ScriptedCourier>,
    pub metrics: Arc<Metrics>,
}

/// Small enough that a short story has large messages and several segments.
pub fn settings() -> Settings {
    Settings {
        small_octets_max: 1000,
        segment_octets: 3000,
        segments_max: 2,
        retry: vec![MINUTE, 5 * MINUTE, 60 * MINUTE],
        ..Settings::default()
    }
}

pub fn mailbox(raw: &str) -> Mailbox {
    Mailbox::parse(raw).unwrap()
}

pub fn deferred(text: &str) -> Outcome {
    Outcome::Deferred(Reason::new(2, 2, text))
}

pub fn failed(text: &str) -> Outcome {
    Outcome::Failed(Reason::new(1, 1, text))
}

pub fn delivered() -> Outcome {
    Outcome::Delivered(Reason::new(0, 0, "taken"))
}

impl PostOffice {
    /// `here.example` is local.
    pub fn new() -> Self {
        Self::with(settings())
    }

    pub fn with(settings: Settings) -> Self {
        let disk = SimulatedDisk::default();
        Self::open(disk, Arc::default(), 1, settings).unwrap()
    }

    pub fn open(
        disk: SimulatedDisk,
        clock: Arc<TestClock>,
        seed: u64,
        settings: Settings,
    ) -> Result<Self, OpenError> {
        let metrics = Arc::new(Metrics::default());
        let (handle, opened) = open_unlocked(SpoolParts {
            disk: Arc::new(disk.clone()),
            data_dir: PathBuf::from("/data"),
            clock: clock.clone(),
            random: Arc::new(SeededRandom::new(seed)),
            metrics: metrics.clone(),
            settings,
        })?;
        let courier = || Arc::new(ScriptedCourier::watching(disk.clone()));
        let (local, remote) = (courier(), courier());
        let stepped = opened.into_stepped(Crew {
            router: Arc::new(ArcSwap::from_pointee(Router::new([Domain::parse("here.example").unwrap()]))),
            couriers: Couriers { local: local.clone(), program: local.clone(), smtp: remote.clone() },
            own_mail: Arc::new(Direct(handle.clone())),
            traces: Traces::new(clock.clone()),
            hostname: Domain::parse("mail.here.example").unwrap(),
        });
        Ok(Self { disk, clock, handle, stepped, local, remote, metrics })
    }

    /// The same disk and time, another process.
    pub fn restarted(self, seed: u64) -> Self {
        Self::open(self.disk, self.clock, seed, settings()).unwrap()
    }

    /// Puts a message without running the queue.
    pub fn put(&self, from: &str, to: &[&str], octets: &[u8]) -> Result<Envelope, PutError> {
        self.put_with(from, to, octets, |_| {})
    }

    /// The same, with whatever else the envelope is to say.
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
            from => ReversePath::Mailbox(mailbox(from)),
        };
        let recipients = to.iter().map(|to| Recipient::mailbox(mailbox(to))).collect();
        let mut envelope = Envelope::new(incoming.id(), self.clock.wall(), reverse_path, recipients);
        edit(&mut envelope);
        incoming.commit(envelope.clone())?;
        Ok(envelope)
    }

    /// Puts a short letter and does what can be done at once.
    pub fn receive(&mut self, from: &str, to: &str) -> MessageId {
        let to: Vec<_> = to.split(' ').collect();
        let id = self.put(from, &to, b"Subject: hello\r\n\r\nHello.\r\n").unwrap().id;
        self.stepped.run();
        id
    }

    /// Time passes, and what is due is done in its time.
    pub fn after(&mut self, wait: Duration) {
        let mut left = wait;
        loop {
            let step = self.stepped.idle().unwrap_or(left).min(left).max(Duration::from_millis(1));
            self.clock.advance(step.min(left));
            self.stepped.run();
            left = left.saturating_sub(step);
            if left.is_zero() {
                return;
            }
        }
    }

    pub fn waiting(&self) -> usize {
        self.handle.count()
    }

    /// Reports that reached a local or remote mailbox.
    pub fn reports(&self) -> Vec<Carried> {
        let mut all = self.local.delivered();
        all.extend(self.remote.delivered());
        all.retain(|one| one.envelope.reverse_path.is_null());
        all
    }
}
