//! How fast a disk is, and whether its syncs can be trusted.
//!
//! Writes like the spool, for about a second in each measurement, and counts. A program cannot find out whether
//! a sync really reaches storage that keeps its contents without power, but only whether a sync returned sooner
//! than any known device can have written.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use crossbeam_channel::after;
use nix::sys::statfs::{self, FsType};

use super::simulated_queue::parse_recipient;
use crate::mail::{Envelope, ReversePath};
use crate::queue::{Handle, PutError, QueueParts, Settings, open};
use crate::sys::{Clock as _, Disk as _, RootedDisk, SystemClock, SystemDisk, SystemRandom, spawn};

/// How long each measurement lasts.
const MEASUREMENT_TIME: Duration = Duration::from_secs(1);
/// Octets of each write, and of each message.
const WRITE_OCTETS: usize = 4096;
/// No device that keeps its contents without power can sync in less time.
const IMPLAUSIBLE_SYNC_BELOW: Duration = Duration::from_micros(15);
/// A shorter sync ends in a cache between this program and the medium.
const CACHED_SYNC_BELOW: Duration = Duration::from_micros(150);

/// The result of the measurements.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiskBenchmark {
    /// Appends of 4 KiB to one file, each synced, in a second.
    pub syncs_per_second: usize,
    /// The median time of such a sync.
    pub sync_median: Duration,
    /// Whether the syncs can be trusted.
    pub trust: SyncTrust,
    /// Messages of 4 KiB that were accepted in a second, by the number of clients at the same time.
    pub messages_per_second: Vec<(usize, usize)>,
}

/// Whether syncs can be trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SyncTrust {
    /// A file system in memory: nothing survives a power cut.
    InMemory,
    /// Too fast: nothing can have been written.
    TooFast,
    /// As fast as a device with a cache that is protected against power loss, or one whose cache is not.
    Cached,
    /// As slow as a write to a medium.
    Plausible,
}

/// Measures the disk below `dir`, which must be empty.
///
/// # Errors
/// As the file system says.
pub fn measure_disk(dir: &Path) -> io::Result<DiskBenchmark> {
    let (syncs, sync) = measure_syncs(dir)?;
    let trust = if is_in_memory(dir) {
        SyncTrust::InMemory
    } else if sync < IMPLAUSIBLE_SYNC_BELOW {
        SyncTrust::TooFast
    } else if sync < CACHED_SYNC_BELOW {
        SyncTrust::Cached
    } else {
        SyncTrust::Plausible
    };
    let mut accepted = Vec::new();
    for clients in [1, 8, 32] {
        let data_dir = dir.join(format!("{clients}-clients"));
        std::fs::create_dir(&data_dir)?;
        accepted.push((clients, measure_messages(&data_dir, clients)?));
    }
    Ok(DiskBenchmark { syncs_per_second: syncs, sync_median: sync, trust, messages_per_second: accepted })
}

fn is_in_memory(dir: &Path) -> bool {
    let in_memory: [FsType; 1] = [statfs::TMPFS_MAGIC];
    statfs::statfs(dir).is_ok_and(|found| in_memory.contains(&found.filesystem_type()))
}

fn measure_syncs(dir: &Path) -> io::Result<(usize, Duration)> {
    let file = SystemDisk.create(&dir.join("syncs"))?;
    let began = SystemClock.now();
    let mut took = Vec::new();
    while SystemClock.now().since(began) < MEASUREMENT_TIME {
        let before = SystemClock.now();
        file.append(&[b'x'; WRITE_OCTETS])?;
        file.sync()?;
        took.push(SystemClock.now().since(before));
    }
    took.sort_unstable();
    let median = took.get(took.len() / 2).copied().unwrap_or_default();
    Ok((took.len(), median))
}

/// Counts the messages that this many clients put into a spool in a second.
fn measure_messages(data_dir: &Path, clients: usize) -> io::Result<usize> {
    let settings = Settings { messages_max: usize::MAX, ..Settings::default() };
    let (handle, _not_started) = open(QueueParts {
        disk: Arc::new(RootedDisk::open(data_dir)?),
        data_dir: data_dir.to_owned(),
        clock: Arc::new(SystemClock),
        random: Arc::new(SystemRandom),
        metrics: Arc::default(),
        settings,
    })
    .map_err(io::Error::other)?;
    let (is_over, count) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let begin = |n| {
        let (handle, is_over, count) = (handle.clone(), Arc::clone(&is_over), Arc::clone(&count));
        spawn(format!("client-{n}"), move || {
            while !is_over.load(Ordering::Relaxed) && put_message(&handle).is_ok() {
                count.fetch_add(1, Ordering::Relaxed);
            }
        })
    };
    let began = (0..clients).map(begin).collect::<io::Result<Vec<_>>>()?;
    let _ = after(MEASUREMENT_TIME).recv();
    is_over.store(true, Ordering::Relaxed);
    for client in began {
        let _ = client.join();
    }
    Ok(count.load(Ordering::Relaxed))
}

fn put_message(handle: &Handle) -> Result<(), PutError> {
    let mut incoming = handle.begin()?;
    incoming.append(&[b'x'; WRITE_OCTETS])?;
    let recipients = vec![parse_recipient("nobody@here.example")];
    let envelope = Envelope::new(incoming.id(), handle.wall(), ReversePath::Null, recipients);
    incoming.commit(envelope)
}
