//! The queue with its threads, on a real disk.

use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arc_swap::ArcSwap;
use crossbeam_channel::{Receiver, Sender, unbounded};
use postrider::courier::{Courier, Delivery};
use postrider::mail::{
    Domain, Envelope, Mailbox, MessageId, Outcome, Reason, Recipient, ReversePath, Timestamp,
};
use postrider::observe::{Metrics, Traces};
use postrider::queue::{
    Couriers, Crew, Direct, Handle, OpenError, Opened, PutError, Settings, SpoolParts, open,
};
use postrider::route::Router;
use postrider::sys::{Disk, DiskFile, Entry, SystemClock, SystemDisk, SystemRandom};

const PATIENCE: Duration = Duration::from_secs(30);

/// A real disk that counts its syncs, each of which takes a while.
#[derive(Clone, Default)]
struct CountingDisk {
    syncs: Arc<AtomicUsize>,
    pause: Duration,
}

struct CountingFile(Arc<dyn DiskFile>, CountingDisk);

impl Disk for CountingDisk {
    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        Ok(Arc::new(CountingFile(SystemDisk.create(path)?, self.clone())))
    }
    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        SystemDisk.open(path)
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        SystemDisk.rename(from, to)
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        SystemDisk.remove(path)
    }
    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        SystemDisk.sync_dir(dir)
    }
    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        SystemDisk.create_dir(dir)
    }
    fn list(&self, dir: &Path) -> io::Result<Vec<Entry>> {
        SystemDisk.list(dir)
    }
    fn set_modified(&self, path: &Path, when: Timestamp) -> io::Result<()> {
        SystemDisk.set_modified(path, when)
    }
}

impl DiskFile for CountingFile {
    fn append(&self, octets: &[u8]) -> io::Result<()> {
        self.0.append(octets)
    }
    fn sync(&self) -> io::Result<()> {
        self.1.syncs.fetch_add(1, Ordering::Relaxed);
        std::thread::sleep(self.1.pause);
        self.0.sync()
    }
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.0.read_at(buffer, offset)
    }
    fn length(&self) -> io::Result<u64> {
        self.0.length()
    }
    fn truncate(&self, octets: u64) -> io::Result<()> {
        self.0.truncate(octets)
    }
}

/// Delivers, after `gate` let it, and says whom.
struct Through {
    gate: Option<Receiver<()>>,
    delivered: Sender<MessageId>,
}

impl Courier for Through {
    fn name(&self) -> &'static str {
        "through"
    }
    fn carry(&self, delivery: &Delivery<'_>) -> Vec<Outcome> {
        if let Some(gate) = &self.gate {
            let _ = gate.recv();
        }
        let _ = self.delivered.send(delivery.envelope.id);
        vec![Outcome::Delivered(Reason::new(0, 0, "taken")); delivery.recipients.len()]
    }
}

fn opened(dir: &Path, disk: Arc<dyn Disk>) -> Result<(Handle, Opened), OpenError> {
    open(SpoolParts {
        disk,
        data_dir: dir.to_owned(),
        clock: Arc::new(SystemClock),
        random: Arc::new(SystemRandom),
        metrics: Arc::new(Metrics::default()),
        settings: Settings { segment_octets: 100_000, ..Settings::default() },
    })
}

/// The crew, and where to hear of deliveries; remote ones wait for the gate to close.
fn crew(handle: &Handle) -> (Crew, Receiver<MessageId>, Sender<()>) {
    let (sender, delivered) = unbounded();
    let (gate, waiting) = unbounded();
    let courier = |gate| Arc::new(Through { gate, delivered: sender.clone() });
    let crew = Crew {
        router: Arc::new(ArcSwap::from_pointee(Router::new([Domain::parse("here.example").unwrap()]))),
        couriers: Couriers { local: courier(None), program: courier(None), smtp: courier(Some(waiting)) },
        own_mail: Arc::new(Direct(handle.clone())),
        traces: Traces::new(Arc::new(SystemClock)),
        hostname: Domain::parse("mail.here.example").unwrap(),
    };
    (crew, delivered, gate)
}

fn put(handle: &Handle, to: &str) -> Result<MessageId, PutError> {
    let mut incoming = handle.begin()?;
    let id = incoming.id();
    incoming.append(&[b"Subject: hello\r\n\r\n".as_slice(), &b"Hello, hello.\r\n".repeat(270)].concat())?;
    let recipients = vec![Recipient::mailbox(Mailbox::parse(to).unwrap())];
    incoming.commit(Envelope::new(id, handle.wall(), ReversePath::Null, recipients))?;
    Ok(id)
}

fn put_from_threads(handle: &Handle, threads: usize, each: usize) -> Vec<MessageId> {
    let ids = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                for _ in 0..each {
                    let id = put(handle, "bo@here.example").unwrap();
                    ids.lock().unwrap().push(id);
                }
            });
        }
    });
    ids.into_inner().unwrap()
}

#[test]
fn sessions_that_come_together_share_a_sync() {
    let dir = tempfile::tempdir().unwrap();
    let disk = CountingDisk { pause: Duration::from_millis(2), ..CountingDisk::default() };
    let (handle, _opened) = opened(dir.path(), Arc::new(disk.clone())).unwrap();
    let before = disk.syncs.load(Ordering::Relaxed);
    put_from_threads(&handle, 20, 10);
    let syncs = disk.syncs.load(Ordering::Relaxed) - before;
    assert_eq!(handle.count(), 200);
    assert!(syncs < 100, "{syncs} syncs for 200 messages");
}

#[test]
fn everything_that_is_put_is_delivered_once_and_a_stop_is_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let (handle, opened_queue) = opened(dir.path(), Arc::new(SystemDisk)).unwrap();
    let (crew, delivered, _gate) = crew(&handle);
    let running = opened_queue.start(crew).unwrap();
    let mut ids = put_from_threads(&handle, 8, 50);
    let mut there: Vec<_> = (0..400).map(|_| delivered.recv_timeout(PATIENCE).unwrap()).collect();
    ids.sort();
    there.sort();
    assert_eq!(ids, there);
    assert!(
        matches!(opened(dir.path(), Arc::new(SystemDisk)), Err(OpenError::Busy(_))),
        "one process per spool"
    );
    assert!(running.stop(PATIENCE));
    assert!(delivered.try_recv().is_err());
    assert!(
        matches!(opened(dir.path(), Arc::new(SystemDisk)), Err(OpenError::Busy(_))),
        "a session that still holds the queue could still commit"
    );
    drop(handle);
    // The delivery threads let go of it when they end, a moment after the stop.
    let (handle, opened) =
        crate::house::wait_for("the spool to be free", || opened(dir.path(), Arc::new(SystemDisk)).ok());
    assert_eq!((handle.count(), opened.survivors()), (0, 0), "what was noted is known to the next process");
}

#[test]
fn local_delivery_is_never_behind_remote_delivery() {
    let dir = tempfile::tempdir().unwrap();
    let (handle, opened) = opened(dir.path(), Arc::new(SystemDisk)).unwrap();
    let (crew, delivered, gate) = crew(&handle);
    let running = opened.start(crew).unwrap();
    for n in 0..100 {
        put(&handle, &format!("cy@there{n}.example")).unwrap();
    }
    let id = put(&handle, "bo@here.example").unwrap();
    assert_eq!(delivered.recv_timeout(PATIENCE), Ok(id), "every remote thread is held up");
    drop(gate);
    for _ in 0..100 {
        delivered.recv_timeout(PATIENCE).unwrap();
    }
    assert!(running.stop(PATIENCE));
    assert_eq!(handle.count(), 0);
}

#[test]
fn a_message_is_removed_while_others_of_its_destination_are_under_way() {
    let dir = tempfile::tempdir().unwrap();
    let (handle, opened) = opened(dir.path(), Arc::new(SystemDisk)).unwrap();
    let (crew, delivered, gate) = crew(&handle);
    let running = opened.start(crew).unwrap();
    let ids: Vec<_> = (0..20).map(|_| put(&handle, "cy@there.example").unwrap()).collect();
    // No more of them leave at once than the destination's cap, and those wait for the gate.
    let last = ids.last().unwrap();
    assert!(handle.remove(last));
    let began = std::time::Instant::now();
    while handle.view(last).is_some() {
        assert!(began.elapsed() < PATIENCE, "it waits for the others");
        std::thread::yield_now();
    }
    drop(gate);
    for _ in 0..19 {
        assert_ne!(delivered.recv_timeout(PATIENCE).unwrap(), *last);
    }
    assert!(running.stop(PATIENCE));
    assert_eq!(handle.count(), 0);
}
