//! Prevents that one message makes the queue manager panic at every start.
//!
//! When the manager panics, the id of the message that it was handling is appended to
//! `DATA/spool/crash-loop`, one id a line, before the process ends. A start that finds an id there twice sets
//! the message aside, where the operator finds it, and continues with the others. One panic may have had
//! another cause, and only costs a restart.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::mail::MessageId;
use crate::spool::{Leases, RecoveredMessage, Spool, SpoolParts};
use crate::sys::{Disk, Random, replace_file};

/// The list of the messages over which the manager panicked.
pub(super) struct CrashLoopGuard {
    disk: Arc<dyn Disk>,
    random: Arc<dyn Random>,
    path: PathBuf,
}

/// Only so much of the list is read.
const LIST_OCTETS_MAX: usize = 64 * 1024;

impl CrashLoopGuard {
    pub(super) fn new(parts: &SpoolParts) -> Self {
        let path = parts.data_dir.join("spool").join("crash-loop");
        Self { disk: Arc::clone(&parts.disk), random: Arc::clone(&parts.random), path }
    }

    /// Records that the manager panicked while it handled this message.
    pub(super) fn record(&self, id: &MessageId) {
        let mut ids = self.recorded_ids();
        ids.push(*id);
        if let Err(e) = self.write(&ids) {
            log::error!(target: "queue", "{id} cannot be noted in {}: {e}", self.path.display());
        }
    }

    /// Sets aside the messages that were recorded twice. Returns the others.
    pub(super) fn filter(
        &self,
        spool: &Spool,
        leases: &mut Leases,
        mut recovered: Vec<RecoveredMessage>,
    ) -> Vec<RecoveredMessage> {
        let ids = self.recorded_ids();
        if ids.is_empty() {
            return recovered;
        }
        let is_recorded_twice = |id: &MessageId| ids.iter().filter(|other| *other == id).count() > 1;
        // A message that cannot be set aside is tried again: better than no start.
        let why = "the queue manager panicked over it twice";
        recovered.retain(|message| {
            let lease = if is_recorded_twice(&message.id) { leases.take(&message.id) } else { None };
            lease.is_none_or(|lease| spool.set_aside(&lease, why).is_err())
        });
        let is_left = |id: &&MessageId| recovered.iter().any(|message| message.id == **id);
        let left: Vec<_> = ids.iter().filter(is_left).copied().collect();
        if let Err(e) = self.write(&left) {
            log::error!(target: "queue", "{} cannot be written: {e}", self.path.display());
        }
        recovered
    }

    fn recorded_ids(&self) -> Vec<MessageId> {
        let text = self.disk.open(&self.path).and_then(|file| file.read_range(0, LIST_OCTETS_MAX));
        let text = text.unwrap_or_default();
        String::from_utf8_lossy(&text).lines().filter_map(|line| line.parse().ok()).collect()
    }

    fn write(&self, ids: &[MessageId]) -> io::Result<()> {
        if ids.is_empty() {
            return remove(self.disk.as_ref(), &self.path);
        }
        let text: String = ids.iter().map(|id| format!("{id}\n")).collect();
        replace_file(self.disk.as_ref(), self.random.as_ref(), &self.path, text.as_bytes())
    }
}

fn remove(disk: &dyn Disk, path: &Path) -> io::Result<()> {
    match disk.remove(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fakes::{SeededRandom, SimulatedDisk, TestClock};
    use crate::mail::{Envelope, Mailbox, Recipient, ReversePath, Timestamp};
    use crate::observe::Metrics;

    fn parts(disk: &SimulatedDisk) -> SpoolParts {
        SpoolParts {
            disk: Arc::new(disk.clone()),
            data_dir: PathBuf::from("/data"),
            clock: Arc::<TestClock>::default(),
            random: Arc::new(SeededRandom::new(disk.operations().len() as u64)),
            metrics: Arc::new(Metrics::default()),
            segment_octets: 4 * 1024 * 1024,
        }
    }

    fn id(number: u64) -> MessageId {
        MessageId::new(Timestamp::from_millis(0), number)
    }

    #[test]
    fn a_message_is_set_aside_after_the_manager_panicked_over_it_twice() {
        let disk = SimulatedDisk::default();
        let parts = || parts(&disk);
        let (spool, ..) = Spool::open(&parts()).unwrap();
        let [crashing, other] = [1, 2].map(id);
        for id in [crashing, other] {
            let recipient = Recipient::for_mailbox(Mailbox::parse("bo@here.example").unwrap());
            let envelope = Envelope::new(id, id.arrived_at(), ReversePath::Null, vec![recipient]);
            spool.put_in_journal(&envelope, b"Subject: hello\r\n\r\n").unwrap();
        }
        let start = || {
            let (spool, mut leases, recovered) = Spool::open(&parts()).unwrap();
            let left = CrashLoopGuard::new(&parts()).filter(&spool, &mut leases, recovered);
            left.into_iter().map(|message| message.id).collect::<Vec<_>>()
        };
        let guard = CrashLoopGuard::new(&parts());
        guard.record(&crashing);
        assert_eq!(start(), [crashing, other], "once is not enough");
        guard.record(&other);
        guard.record(&crashing);
        assert_eq!(start(), [other]);
        assert!(disk.file_paths().iter().any(|path| path.ends_with(format!("damaged/{crashing}"))));
        assert_eq!(start(), [other], "it stays set aside");
        assert_eq!(guard.recorded_ids(), [other]);
    }

    #[test]
    fn an_empty_list_needs_no_file_and_a_file_that_cannot_be_removed_is_an_error() {
        let disk = SimulatedDisk::default();
        drop(Spool::open(&parts(&disk)).unwrap());
        let guard = CrashLoopGuard::new(&parts(&disk));
        guard.write(&[]).unwrap();
        guard.write(&[id(1)]).unwrap();
        disk.fail_after(0, io::ErrorKind::ReadOnlyFilesystem);
        assert_eq!(guard.write(&[]).unwrap_err().kind(), io::ErrorKind::ReadOnlyFilesystem);
        assert_eq!(guard.recorded_ids(), [id(1)]);
        guard.write(&[]).unwrap();
        assert_eq!(guard.recorded_ids(), []);
    }

    #[test]
    fn a_long_list_is_read_completely() {
        let disk = SimulatedDisk::default();
        drop(Spool::open(&parts(&disk)).unwrap());
        let guard = CrashLoopGuard::new(&parts(&disk));
        let ids: Vec<_> = (0..1000).map(id).collect();
        guard.write(&ids).unwrap();
        assert_eq!(guard.recorded_ids(), ids);
    }
}
