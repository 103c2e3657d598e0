//! The queue: accepting messages by the number of sessions, delivering a full journal, and a start with 100,000
//! waiting messages.
//!
//! `make bench T=queue`; `BENCH_DIR` names a directory on the disk to be measured (default: that of the build).
//! Results of one run on a busy host mean little: compare two builds in turn, and quote ratios.

#![allow(missing_docs, clippy::unwrap_used, reason = "a benchmark stops at an error")]

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use crossbeam_channel::{Receiver, Sender, unbounded};
use divan::Bencher;
use divan::counter::ItemsCount;
use postrider::courier::{Courier, CourierProfile, Delivery};
use postrider::fakes::{SimulatedDisk, TestClock};
use postrider::mail::{Domain, Envelope, Outcome, Reason, ReversePath};
use postrider::observe::Traces;
use postrider::queue::{
    Couriers, DeliveryParts, GeneratedMail, Handle, OpenQueue, QueueParts, Settings, StopResult,
    WithoutAliases, open,
};
use postrider::route::Router;
use postrider::sys::{SystemClock, SystemDisk, SystemRandom};
use postrider::torture::{SimulatedQueue, deferred, parse_recipient};
use tempfile::TempDir;

fn main() {
    divan::main();
}

/// 4 KiB.
const MESSAGE_OCTETS: usize = 4096;

fn folder() -> TempDir {
    let root =
        std::env::var_os("BENCH_DIR").map_or_else(|| env!("CARGO_TARGET_TMPDIR").into(), PathBuf::from);
    tempfile::tempdir_in(root).unwrap()
}

fn opened(dir: &TempDir) -> (Handle, OpenQueue) {
    open(QueueParts {
        disk: Arc::new(SystemDisk),
        data_dir: dir.path().to_owned(),
        clock: Arc::new(SystemClock),
        random: Arc::new(SystemRandom),
        metrics: Arc::default(),
        settings: Settings { messages_max: usize::MAX, ..Settings::default() },
    })
    .unwrap()
}

fn put(handle: &Handle) {
    let mut incoming = handle.begin().unwrap();
    incoming.append(&[b'x'; MESSAGE_OCTETS]).unwrap();
    let recipients = vec![parse_recipient("bo@here.example")];
    let envelope = Envelope::new(incoming.id(), handle.wall(), ReversePath::Null, recipients);
    incoming.commit(envelope).unwrap();
}

/// Accepts one message, by threads that share syncs.
#[divan::bench(threads = [1, 8, 32], sample_count = 200)]
fn accept_message(bencher: Bencher<'_, '_>) {
    let dir = folder();
    let (handle, _opened) = opened(&dir);
    bencher.counter(ItemsCount::new(1_usize)).bench(|| put(&handle));
}

/// A courier that discards each message at once.
struct DiscardingCourier(Sender<()>);

impl Courier for DiscardingCourier {
    fn name(&self) -> &'static str {
        "discard"
    }

    fn profile(&self) -> CourierProfile {
        CourierProfile::MAILBOXES
    }

    fn attempt(&self, delivery: &Delivery<'_>) -> Vec<Outcome> {
        self.0.send(()).unwrap();
        delivery.recipients.iter().map(|_| Outcome::Delivered(Reason::new(0, 0, "gone"))).collect()
    }
}

/// Delivers a full journal of messages by the delivery threads.
#[divan::bench(sample_count = 5, sample_size = 1)]
fn settle_a_full_journal(bencher: Bencher<'_, '_>) {
    const MESSAGES: usize = 2000;
    let full = || {
        let dir = folder();
        let (handle, opened) = opened(&dir);
        (0..MESSAGES).for_each(|_| put(&handle));
        (dir, handle, opened)
    };
    bencher.counter(ItemsCount::new(MESSAGES)).with_inputs(full).bench_values(|(dir, handle, opened)| {
        let (sender, delivered): (_, Receiver<()>) = unbounded();
        let courier: Arc<dyn Courier> = Arc::new(DiscardingCourier(sender));
        let running = opened
            .start(DeliveryParts {
                router: Arc::new(ArcSwap::from_pointee(Router::new(Domain::parse("here.example")))),
                couriers: Couriers {
                    local: Arc::clone(&courier),
                    program: Arc::clone(&courier),
                    smtp: courier,
                },
                generated_mail: GeneratedMail::new(handle, Arc::new(WithoutAliases)),
                traces: Traces::new(Arc::new(SystemClock)),
                hostname: Domain::parse("mx.here.example").unwrap(),
            })
            .unwrap();
        (0..MESSAGES).for_each(|_| delivered.recv().unwrap());
        assert_eq!(running.stop(Duration::from_secs(10)), StopResult::Clean);
        dir
    });
}

/// Opens a spool with 100,000 messages and schedules all of them.
#[divan::bench(sample_count = 5, sample_size = 1)]
fn start_with_100_000_waiting(bencher: Bencher<'_, '_>) {
    const MESSAGES: usize = 100_000;
    let settings = || Settings { messages_max: 2 * MESSAGES, ..Settings::default() };
    let disk = SimulatedDisk::default();
    let clock = Arc::<TestClock>::default();
    let mut queue = SimulatedQueue::open(disk.clone(), Arc::clone(&clock), 1, settings()).unwrap();
    queue.remote.set_default_outcome(Some(deferred("busy")));
    for n in 0..MESSAGES {
        queue
            .put("ana@here.example", &[&format!("bo@domain-{}.example", n % 500)], b"Subject: x\r\n\r\n")
            .unwrap();
    }
    queue.stepped.run();
    drop(queue);
    let mut seed = 1;
    bencher.counter(ItemsCount::new(MESSAGES)).bench_local(|| {
        seed += 1;
        let mut queue = SimulatedQueue::open(disk.clone(), Arc::clone(&clock), seed, settings()).unwrap();
        queue.stepped.run();
        assert_eq!(queue.queue_length(), MESSAGES);
    });
}
