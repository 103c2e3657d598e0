//! The spool of this process: what it holds in memory, and the putting of messages.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::age_clock::AgeClock;
use super::index::{Index, MessageLocation};
use super::journal::{Journal, NoteHandle, misplaced_error};
use super::message_file::{self, MessageFileWriter};
use super::parts::SpoolDirs;
use crate::mail::{Envelope, MessageId};
use crate::observe::Counter;
use crate::sys::{Clock, Disk, Mutex};

/// The spool of this process. See the head of the module for what is on disk.
pub(crate) struct Spool {
    pub(super) disk: Arc<dyn Disk>,
    pub(super) clock: Arc<dyn Clock>,
    /// The clock for the ages of messages.
    pub(crate) age_clock: AgeClock,
    pub(super) dirs: SpoolDirs,
    pub(super) journal: Journal,
    pub(super) index: Index,
    /// The number in the name of the next file in `incoming`: no two writers use one name.
    pub(super) next_file_number: AtomicU64,
    /// Files of settled messages that could not be removed, each with its note `moved`.
    pub(super) leftovers: Mutex<Vec<(PathBuf, Option<NoteHandle>)>>,
    pub(super) damaged: Counter,
}

impl Spool {
    /// The number of messages in the spool.
    pub(crate) fn count(&self) -> usize {
        self.index.count()
    }

    /// Whether the message is in the spool.
    pub(crate) fn has(&self, id: &MessageId) -> bool {
        self.index.has(id)
    }

    /// The last write found the disk full: no message can be put.
    pub(crate) fn is_disk_full(&self) -> bool {
        self.journal.is_disk_full()
    }

    /// All messages, oldest first.
    pub(crate) fn ids(&self) -> Vec<MessageId> {
        self.index.ids()
    }

    /// Begins a message in a file of its own.
    pub(crate) fn create_message_file(&self, id: &MessageId) -> io::Result<MessageFileWriter> {
        let number = self.next_file_number.fetch_add(1, Ordering::Relaxed);
        MessageFileWriter::create(&self.disk, &self.dirs.incoming, id, number)
    }

    /// Accepts a small message. Durable on return; one shared sync.
    pub(crate) fn put_in_journal(&self, envelope: &Envelope, octets: &[u8]) -> io::Result<()> {
        let position = self.journal.put(&envelope.id, &serde_json::to_vec(envelope)?, octets)?;
        self.index.insert(&envelope.id, MessageLocation::Journal { position, updates: Vec::new() });
        Ok(())
    }

    /// Accepts a message in a file of its own. Durable on return; two syncs.
    pub(crate) fn put_as_file(&self, writer: MessageFileWriter, envelope: &Envelope) -> io::Result<()> {
        let octets = writer.octets();
        let (path, file) = writer.finish(&self.dirs.waiting, envelope, None, self.age_clock.now())?;
        if !self.disk.is_file_at(&path, file.as_ref()).unwrap_or(false) {
            // Otherwise it would be delivered although the client gets an error.
            let _ = self.disk.remove(&path);
            return Err(misplaced_error(&self.dirs.waiting));
        }
        self.index.insert(&envelope.id, MessageLocation::File { octets, moved_note: None });
        Ok(())
    }

    pub(super) fn message_file_path(&self, id: &MessageId, octets: u64) -> PathBuf {
        self.dirs.waiting.join(message_file::file_name(id, octets))
    }
}
