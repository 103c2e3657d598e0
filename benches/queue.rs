//! How many promises a second this disk allows, and how fast a full journal empties.
//!
//! `make bench`; `BENCH_DIR` names a folder on the disk to be measured (default: the build's own).
//! Figures of one run on a busy machine mean little: compare two builds in turn, and quote ratios.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a measurement stops where something is wrong, and reads the real clock"
)]

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use crossbeam_channel::{Sender, unbounded};
use postrider::courier::{Courier, Delivery};
use postrider::mail::{Domain, Envelope, Mailbox, Outcome, Reason, Recipient, ReversePath};
use postrider::observe::Traces;
use postrider::queue::{Couriers, Crew, Direct, Handle, Opened, Settings, SpoolParts, open};
use postrider::route::Router;
use postrider::sys::{SystemClock, SystemDisk, SystemRandom};

/// Delivers nothing, at once.
struct Nowhere(Sender<()>);

impl Courier for Nowhere {
    fn name(&self) -> &'static str {
        "nowhere"
    }

    fn carry(&self, delivery: &Delivery<'_>) -> Vec<Outcome> {
        self.0.send(()).unwrap();
        delivery.recipients.iter().map(|_| Outcome::Delivered(Reason::new(0, 0, "gone"))).collect()
    }
}

fn opened(dir: &Path) -> (Handle, Opened) {
    open(SpoolParts {
        disk: Arc::new(SystemDisk),
        data_dir: dir.to_owned(),
        clock: Arc::new(SystemClock),
        random: Arc::new(SystemRandom),
        metrics: Arc::default(),
        settings: Settings::default(),
    })
    .unwrap()
}

fn put(handle: &Handle, octets: &[u8]) {
    let mut incoming = handle.begin().unwrap();
    incoming.append(octets).unwrap();
    let recipient = Recipient::mailbox(Mailbox::parse("bo@here.example").unwrap());
    let envelope = Envelope::new(incoming.id(), handle.wall(), ReversePath::Null, vec![recipient]);
    incoming.commit(envelope).unwrap();
}

fn promises(handle: &Handle, threads: usize, each: usize) -> Duration {
    let octets = b"Subject: bench\r\n\r\n".repeat(228);
    let began = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| (0..each).for_each(|_| put(handle, &octets)));
        }
    });
    began.elapsed()
}

fn deliveries(dir: &Path, count: usize) -> Duration {
    let (sender, delivered) = unbounded();
    let courier: Arc<dyn Courier> = Arc::new(Nowhere(sender));
    let (handle, opened) = opened(dir);
    let crew = Crew {
        router: Arc::new(ArcSwap::from_pointee(Router::new(Domain::parse("here.example")))),
        couriers: Couriers { local: Arc::clone(&courier), program: Arc::clone(&courier), smtp: courier },
        own_mail: Arc::new(Direct(handle)),
        traces: Traces::new(Arc::new(SystemClock)),
        hostname: Domain::parse("mx.here.example").unwrap(),
    };
    let began = Instant::now();
    let running = opened.start(crew).unwrap();
    (0..count).for_each(|_| delivered.recv().unwrap());
    let took = began.elapsed();
    assert!(running.stop(Duration::from_secs(10)));
    took
}

fn main() {
    let root = std::env::var_os("BENCH_DIR").unwrap_or_else(|| env!("CARGO_TARGET_TMPDIR").into());
    for (threads, each) in [(1, 2000), (8, 1000), (32, 500)] {
        let dir = tempfile::tempdir_in(&root).unwrap();
        let count = threads * each;
        let (handle, opened) = opened(dir.path());
        let rate = |took: Duration| count as f64 / took.as_secs_f64();
        println!(
            "{threads:2} threads: {:6.0} promises of 4 KiB a second",
            rate(promises(&handle, threads, each))
        );
        drop((handle, opened));
        println!(
            "            {:6.0} deliveries a second from a full journal",
            rate(deliveries(dir.path(), count))
        );
    }
}
