//! Opens the spool and lists the messages in it.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use super::age_clock::AgeClock;
use super::index::{Index, MessageLocation};
use super::journal_record::RecordKind;
use super::lease::Leases;
use super::message_store::Spool;
use super::open_error::OpenError;
use super::parts::{SpoolDirs, SpoolParts};
use super::recovery::{JournaledMessages, SpoolRecovery, check_version};
use crate::mail::{MessageId, Timestamp};
use crate::sys::{Mutex, create_dir_all};

/// A message that an earlier process accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RecoveredMessage {
    pub(crate) id: MessageId,
    /// By the age clock.
    pub(crate) due: Timestamp,
}

impl Spool {
    /// Opens the spool below a data directory and lists the messages in it, oldest first. A message can be
    /// changed only with a lease, and only the returned [`Leases`] makes them.
    pub(crate) fn open(parts: &SpoolParts) -> Result<(Self, Leases, Vec<RecoveredMessage>), OpenError> {
        let root = parts.data_dir.join("spool");
        let fail = |error| OpenError::Io { path: root.clone(), error };
        let disk = &parts.disk;
        let dirs = SpoolDirs {
            incoming: root.join("incoming"),
            waiting: root.join("waiting"),
            damaged: root.join("damaged"),
        };
        let journal_dir = root.join("journal");
        for dir in [&dirs.incoming, &dirs.waiting, &dirs.damaged, &journal_dir] {
            create_dir_all(disk.as_ref(), dir).map_err(fail)?;
        }
        disk.sync_dir(&root).map_err(fail)?;
        check_version(parts, &root)?;
        let damaged = parts.metrics.counter("queue_damaged_records", "Damaged records and files, set aside");
        let mut recovery = SpoolRecovery {
            disk,
            dirs: &dirs,
            damaged: &damaged,
            journaled: HashMap::new(),
            newer_segment: None,
        };
        let waiting = recovery.list().map_err(fail)?;
        let journal = recovery.replay(parts, &journal_dir).map_err(fail)?;
        if let Some((path, version)) = recovery.newer_segment {
            return Err(OpenError::Newer { path, version: version.to_string() });
        }
        let journaled = recovery.journaled;
        let length = parts.metrics.gauge("queue_messages", "Messages in the queue");
        let spool = Self {
            disk: Arc::clone(disk),
            clock: Arc::clone(&parts.clock),
            age_clock: AgeClock::open(Arc::clone(disk), Arc::clone(&parts.clock), &root),
            dirs,
            journal,
            index: Index::new(length),
            next_file_number: AtomicU64::new(0),
            leftovers: Mutex::default(),
            damaged,
        };
        let recovered = spool.build_index(waiting, journaled);
        Ok((spool, Leases::new(), recovered))
    }

    /// Builds the index from what was found. A message that has a file is not in the journal, even if there
    /// is a `put` for it.
    fn build_index(
        &self,
        waiting: Vec<(MessageId, u64, Timestamp)>,
        journaled: JournaledMessages,
    ) -> Vec<RecoveredMessage> {
        let mut recovered = Vec::with_capacity(waiting.len() + journaled.len());
        for (id, octets, due) in waiting {
            let moved = journaled.contains_key(&id).then(|| self.journal.note(RecordKind::Moved, &id, b""));
            self.index.insert(&id, MessageLocation::File { octets, moved_note: moved });
            recovered.push(RecoveredMessage { id, due });
        }
        for (id, (position, updates)) in journaled {
            if self.index.has(&id) {
                continue;
            }
            let due = updates.last().map_or(Timestamp::from_millis(0), |update| update.due);
            self.journal.increment_live(position.segment);
            self.index.insert(&id, MessageLocation::Journal { position, updates });
            recovered.push(RecoveredMessage { id, due });
        }
        recovered.sort_unstable_by_key(|message| message.id);
        recovered
    }
}
