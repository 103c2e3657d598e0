//! A sweep that meets a slow disk, and messages that cannot be moved.

use std::time::Duration;

use super::*;
use crate::fakes::{SeededRandom, SimulatedDisk, TestClock};
use crate::mail::{Mailbox, Recipient, ReversePath};
use crate::sys::{DiskFile, Entry};

const SYNC: Duration = Duration::from_millis(10);

/// A disk on which a sync takes its time.
struct SlowDisk(SimulatedDisk, Arc<TestClock>);
struct SlowFile(Arc<dyn DiskFile>, Arc<TestClock>);

impl Disk for SlowDisk {
    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        Ok(Arc::new(SlowFile(self.0.create(path)?, Arc::clone(&self.1))))
    }
    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        self.0.open(path)
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.0.rename(from, to)
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        self.0.remove(path)
    }
    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.1.advance(SYNC);
        self.0.sync_dir(dir)
    }
    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        self.0.create_dir(dir)
    }
    fn list(&self, dir: &Path) -> io::Result<Vec<Entry>> {
        self.0.list(dir)
    }
    fn set_modified(&self, path: &Path, when: Timestamp) -> io::Result<()> {
        self.0.set_modified(path, when)
    }
}

impl DiskFile for SlowFile {
    fn write_at(&self, octets: &[u8], offset: u64) -> io::Result<()> {
        self.0.write_at(octets, offset)
    }
    fn sync(&self) -> io::Result<()> {
        self.1.advance(SYNC);
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

/// A spool with so many messages that they fill more than one small segment.
fn crowded(disk: Arc<dyn Disk>, clock: &Arc<TestClock>, messages: u64) -> (Spool, Vec<MessageId>) {
    let parts = SpoolParts {
        disk,
        data_dir: PathBuf::from("/data"),
        clock: Arc::clone(clock) as Arc<dyn Clock>,
        random: Arc::new(SeededRandom::new(1)),
        metrics: Arc::new(Metrics::default()),
        settings: Settings { segment_octets: 10_000, ..Settings::default() },
    };
    let (spool, _) = Spool::open(&parts).unwrap();
    let recipient = Recipient::mailbox(Mailbox::parse("bo@here.example").unwrap());
    let ids: Vec<_> = (0..messages).map(|n| MessageId::new(clock.wall(), n)).collect();
    for id in &ids {
        let envelope = Envelope::new(*id, clock.wall(), ReversePath::Null, vec![recipient.clone()]);
        spool.put_small(&envelope, b"Subject: hello\r\n\r\n").unwrap();
    }
    assert!(spool.journal.crowded(1).is_some());
    (spool, ids)
}

#[test]
fn a_sweep_on_a_slow_disk_comes_back_in_time_and_goes_on_later() {
    let clock = Arc::<TestClock>::default();
    let disk = SlowDisk(SimulatedDisk::default(), Arc::clone(&clock));
    let (spool, _) = crowded(Arc::new(disk), &clock, 100);
    for slice in 0.. {
        assert!(slice < 100, "it never ends");
        let began = clock.now();
        let swept = spool.sweep(1, &|_| false, began + 5 * SYNC).unwrap();
        // One move may begin in time and end late.
        assert!(clock.now().since(began) <= 7 * SYNC, "{slice}");
        if swept == Swept::All && spool.journal.crowded(1).is_none() {
            break;
        }
    }
    assert_eq!(spool.count(), 100);
}

#[test]
fn one_message_that_cannot_be_moved_holds_up_nobody() {
    let clock = Arc::<TestClock>::default();
    let disk = Arc::new(SimulatedDisk::default());
    let (spool, ids) = crowded(Arc::clone(&disk) as Arc<dyn Disk>, &clock, 40);
    // What an earlier move of the first one left behind.
    disk.create(&PathBuf::from("/data/spool/incoming").join(ids[0].as_str())).unwrap();
    // The second one's envelope has rotted, and half a copy of it is aside already.
    disk.create(&PathBuf::from("/data/spool/damaged").join(ids[1].as_str())).unwrap();
    let segment = disk.names().into_iter().find(|path| path.starts_with("/data/spool/journal")).unwrap();
    let octets = disk.octets(&segment).unwrap();
    let needle = ids[1].as_str().as_bytes();
    let head = octets.windows(needle.len()).position(|window| window == needle).unwrap();
    let line_end = octets[head..].iter().position(|octet| *octet == b'\n').unwrap();
    disk.damage(&segment, head + line_end + 1);

    let late = clock.now() + Duration::from_secs(3600);
    for _ in 0..10 {
        spool.sweep(1, &|_| false, late).unwrap();
    }
    assert!(spool.journal.crowded(1).is_none(), "nothing is left in old segments");
    assert_eq!(spool.count(), 39, "all but the damaged one");
    let aside = disk.octets(&PathBuf::from("/data/spool/damaged").join(ids[1].as_str())).unwrap();
    assert!(aside.ends_with(b"Subject: hello\r\n\r\n"), "the whole of it");
}
