//! A message over which the manager stumbles does not bring every start down.
//!
//! The manager notes which message it is busy with. When it panics, that name is written to
//! `DATA/spool/culprits`, one a line, before the process ends. A start that finds a name there twice
//! sets the message aside, where the operator finds it, and goes on with the others. Once may have
//! been somebody else's fault, and costs a restart.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::mail::MessageId;
use crate::spool::{Leases, RecoveredMessage, Spool, SpoolParts};
use crate::sys::{Disk, Random, replace_file};

/// The list of names.
pub(super) struct CrashLoopGuard {
    disk: Arc<dyn Disk>,
    random: Arc<dyn Random>,
    path: PathBuf,
}

/// More of the list is not read.
const LIST_OCTETS_MAX: usize = 64 * 1024;

impl CrashLoopGuard {
    pub(super) fn new(parts: &SpoolParts) -> Self {
        let path = parts.data_dir.join("spool").join("culprits");
        Self { disk: Arc::clone(&parts.disk), random: Arc::clone(&parts.random), path }
    }

    /// The manager panicked while it was busy with this message.
    pub(super) fn record(&self, id: &MessageId) {
        let mut names = self.recorded_ids();
        names.push(*id);
        if let Err(e) = self.write(&names) {
            log::error!(target: "queue", "{id} cannot be noted in {}: {e}", self.path.display());
        }
    }

    /// Sets aside who was accused twice; those who remain.
    pub(super) fn filter(
        &self,
        spool: &Spool,
        leases: &mut Leases,
        mut survivors: Vec<RecoveredMessage>,
    ) -> Vec<RecoveredMessage> {
        let names = self.recorded_ids();
        if names.is_empty() {
            return survivors;
        }
        let is_guilty = |id: &MessageId| names.iter().filter(|name| *name == id).count() > 1;
        // Who cannot be set aside is tried again: better than no start.
        let why = "the queue manager panicked over it twice";
        survivors.retain(|survivor| {
            let lease = if is_guilty(&survivor.id) { leases.take(&survivor.id) } else { None };
            lease.is_none_or(|lease| spool.set_aside(&lease, why).is_err())
        });
        let is_left = |id: &&MessageId| survivors.iter().any(|survivor| survivor.id == **id);
        let left: Vec<_> = names.iter().filter(is_left).copied().collect();
        if let Err(e) = self.write(&left) {
            log::error!(target: "queue", "{} cannot be written: {e}", self.path.display());
        }
        survivors
    }

    fn recorded_ids(&self) -> Vec<MessageId> {
        let text = self.disk.open(&self.path).and_then(|file| file.read_range(0, LIST_OCTETS_MAX));
        let text = text.unwrap_or_default();
        String::from_utf8_lossy(&text).lines().filter_map(|line| line.parse().ok()).collect()
    }

    fn write(&self, names: &[MessageId]) -> io::Result<()> {
        if names.is_empty() {
            return remove(self.disk.as_ref(), &self.path);
        }
        let text: String = names.iter().map(|name| format!("{name}\n")).collect();
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
    fn a_message_is_set_aside_when_the_manager_has_died_of_it_twice() {
        let disk = SimulatedDisk::default();
        let parts = || parts(&disk);
        let (spool, ..) = Spool::open(&parts()).unwrap();
        let [guilty, other] = [1, 2].map(id);
        for id in [guilty, other] {
            let recipient = Recipient::for_mailbox(Mailbox::parse("bo@here.example").unwrap());
            let envelope = Envelope::new(id, id.arrived_at(), ReversePath::Null, vec![recipient]);
            spool.put_in_journal(&envelope, b"Subject: hello\r\n\r\n").unwrap();
        }
        let start = || {
            let (spool, mut leases, survivors) = Spool::open(&parts()).unwrap();
            let left = CrashLoopGuard::new(&parts()).filter(&spool, &mut leases, survivors);
            left.into_iter().map(|survivor| survivor.id).collect::<Vec<_>>()
        };
        let culprits = CrashLoopGuard::new(&parts());
        culprits.record(&guilty);
        assert_eq!(start(), [guilty, other], "once is no proof");
        culprits.record(&other);
        culprits.record(&guilty);
        assert_eq!(start(), [other]);
        assert!(disk.file_paths().iter().any(|path| path.ends_with(format!("damaged/{guilty}"))));
        assert_eq!(start(), [other], "and that is the end of it");
        assert_eq!(culprits.recorded_ids(), [other]);
    }

    #[test]
    fn an_empty_list_needs_no_file_and_a_file_that_cannot_be_removed_is_an_error() {
        let disk = SimulatedDisk::default();
        drop(Spool::open(&parts(&disk)).unwrap());
        let culprits = CrashLoopGuard::new(&parts(&disk));
        culprits.write(&[]).unwrap();
        culprits.write(&[id(1)]).unwrap();
        disk.fail_after(0, io::ErrorKind::ReadOnlyFilesystem);
        assert_eq!(culprits.write(&[]).unwrap_err().kind(), io::ErrorKind::ReadOnlyFilesystem);
        assert_eq!(culprits.recorded_ids(), [id(1)]);
        culprits.write(&[]).unwrap();
        assert_eq!(culprits.recorded_ids(), []);
    }

    #[test]
    fn a_long_list_is_read_as_a_whole() {
        let disk = SimulatedDisk::default();
        drop(Spool::open(&parts(&disk)).unwrap());
        let culprits = CrashLoopGuard::new(&parts(&disk));
        let names: Vec<_> = (0..1000).map(id).collect();
        culprits.write(&names).unwrap();
        assert_eq!(culprits.recorded_ids(), names);
    }
}
