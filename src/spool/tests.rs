//! Sweeps on a slow disk, and with messages that cannot be moved.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::lease::Leases;
use super::message_store::Spool;
use super::parts::SpoolParts;
use super::sweep::SweepResult;
use crate::fakes::{SeededRandom, SimulatedDisk, TestClock, WatchedDisk};
use crate::mail::{Envelope, Mailbox, MessageId, Recipient, ReversePath};
use crate::observe::Metrics;
use crate::sys::{Clock, Disk};

const SYNC: Duration = Duration::from_millis(10);

/// A spool whose messages fill more than one small segment.
fn spool_with_excess_segments(
    disk: Arc<dyn Disk>,
    clock: &Arc<TestClock>,
    messages: u64,
) -> (Spool, Leases, Vec<MessageId>) {
    let parts = SpoolParts {
        disk,
        data_dir: PathBuf::from("/data"),
        clock: Arc::clone(clock) as Arc<dyn Clock>,
        random: Arc::new(SeededRandom::new(1)),
        metrics: Arc::new(Metrics::default()),
        segment_octets: 10_000,
    };
    let (spool, leases, _) = Spool::open(&parts).unwrap();
    let recipient = Recipient::for_mailbox(Mailbox::parse("bo@here.example").unwrap());
    let ids: Vec<_> = (0..messages).map(|n| MessageId::new(clock.wall_time(), n)).collect();
    for id in &ids {
        let envelope = Envelope::new(*id, clock.wall_time(), ReversePath::Null, vec![recipient.clone()]);
        spool.put_in_journal(&envelope, b"Subject: hello\r\n\r\n").unwrap();
    }
    assert!(spool.journal.oldest_excess_segment(1).is_some());
    (spool, leases, ids)
}

#[test]
fn a_sweep_on_a_slow_disk_returns_in_time_and_continues_later() {
    let clock = Arc::<TestClock>::default();
    let time = Arc::clone(&clock);
    let disk = WatchedDisk::new(SimulatedDisk::default(), move |verb, _| {
        if matches!(verb, "sync" | "sync-dir") {
            time.advance(SYNC);
        }
        Ok(())
    });
    let (spool, mut leases, _) = spool_with_excess_segments(Arc::new(disk), &clock, 100);
    for slice in 0.. {
        assert!(slice < 100, "the sweep never ends");
        let began = clock.now();
        let swept = spool.sweep(1, &mut leases, began + 5 * SYNC).unwrap();
        // One move may begin in time and end late.
        assert!(clock.now().since(began) <= 7 * SYNC, "{slice}");
        if swept == SweepResult::Complete && spool.journal.oldest_excess_segment(1).is_none() {
            break;
        }
    }
    assert_eq!(spool.count(), 100);
}

#[test]
fn one_message_that_cannot_be_moved_does_not_keep_the_others_in_the_segment() {
    let clock = Arc::<TestClock>::default();
    let disk = Arc::new(SimulatedDisk::default());
    let (spool, mut leases, ids) = spool_with_excess_segments(Arc::clone(&disk) as Arc<dyn Disk>, &clock, 40);
    // The envelope of the second message is damaged, and half a copy of it is set aside already.
    disk.create(&PathBuf::from("/data/spool/damaged").join(ids[1].as_str())).unwrap();
    let segment = disk.file_paths().into_iter().find(|path| path.starts_with("/data/spool/journal")).unwrap();
    let octets = disk.contents(&segment).unwrap();
    let needle = ids[1].as_str().as_bytes();
    let head = octets.windows(needle.len()).position(|window| window == needle).unwrap();
    let line_end = octets[head..].iter().position(|octet| *octet == b'\n').unwrap();
    disk.damage(&segment, head + line_end + 1);

    let late = clock.now() + Duration::from_secs(3600);
    for _ in 0..10 {
        spool.sweep(1, &mut leases, late).unwrap();
    }
    assert!(spool.journal.oldest_excess_segment(1).is_none(), "no message is left in old segments");
    assert_eq!(spool.count(), 39, "all but the damaged one");
    let copy = disk.contents(&PathBuf::from("/data/spool/damaged").join(ids[1].as_str())).unwrap();
    assert!(copy.ends_with(b"Subject: hello\r\n\r\n"), "the whole message");
}
