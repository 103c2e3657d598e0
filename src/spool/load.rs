//! Reads a message: its envelope, its progress, and where its octets are.
//!
//! A reader looks up a location and then opens the file there. Between the two, the message may move and its
//! segment may be removed. A message moves at most once, so one more look-up is enough.

use std::io;
use std::sync::Arc;

use super::extent::Extent;
use super::index::MessageLocation;
use super::lease::Lease;
use super::message_file::{self, MessageFileError};
use super::message_progress::MessageProgress;
use super::message_store::Spool;
use super::progress_update::ProgressUpdate;
use crate::mail::{Envelope, MessageId};

/// A message, read from disk.
pub(crate) struct LoadedMessage {
    pub(crate) envelope: Arc<Envelope>,
    pub(crate) progress: MessageProgress,
    pub(crate) octets: u64,
    /// The updates of which `progress` is the sum.
    pub(crate) updates: Vec<ProgressUpdate>,
}

/// Why a message cannot be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LoadError {
    #[error("it is not in the queue")]
    NotQueued,
    #[error("somebody removed its file")]
    FileMissing,
    #[error("its envelope is damaged")]
    Damaged,
    #[error("it was written by a later version ({0}) of this program")]
    Newer(u64),
    #[error("{0}")]
    Io(#[from] io::Error),
}

impl From<MessageFileError> for LoadError {
    fn from(error: MessageFileError) -> Self {
        match error {
            MessageFileError::Io(e) => Self::Io(e),
            MessageFileError::Damaged => Self::Damaged,
            MessageFileError::Newer(version) => Self::Newer(version),
        }
    }
}

impl Spool {
    /// Reads envelope and progress.
    pub(crate) fn load(&self, id: &MessageId) -> Result<LoadedMessage, LoadError> {
        match self.load_once(id) {
            Err(LoadError::Io(e)) if e.kind() == io::ErrorKind::NotFound => match self.load_once(id) {
                Err(LoadError::Io(e)) if e.kind() == io::ErrorKind::NotFound && self.is_missing(id) => {
                    Err(LoadError::FileMissing)
                }
                other => other,
            },
            other => other,
        }
    }

    /// The message's file is not in its directory, although the directory can be listed: somebody removed the
    /// file by hand. If the file system is not mounted, the directory cannot be listed.
    fn is_missing(&self, id: &MessageId) -> bool {
        let Some(MessageLocation::File { octets, .. }) = self.index.get(id) else { return false };
        let name = message_file::file_name(id, octets);
        self.disk.list(&self.dirs.waiting).is_ok_and(|files| files.iter().all(|file| file.name != name))
    }

    /// Forgets a message if somebody removed its file by hand. Returns whether that is so. If the disk refuses,
    /// the message is forgotten later.
    pub(crate) fn forget_missing(&self, lease: &Lease) -> bool {
        let id = lease.id();
        if !self.is_missing(id) {
            return false;
        }
        let moved_note = match self.index.get(id) {
            Some(MessageLocation::File { moved_note, .. }) => moved_note,
            Some(MessageLocation::Journal { .. }) | None => None,
        };
        if let Err(e) = self.sync_move(moved_note.as_ref()) {
            log::error!(target: "queue", "{id}: its file was removed, and the journal cannot be synced: {e}");
            return false;
        }
        log::warn!(target: "queue", "{id} is forgotten: somebody removed its file from the spool");
        self.remove_from_index(id);
        true
    }

    /// Where the octets of a message are now.
    pub(crate) fn extent(&self, id: &MessageId) -> io::Result<Extent> {
        match self.extent_once(id) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => self.extent_once(id),
            other => other,
        }
    }

    fn load_once(&self, id: &MessageId) -> Result<LoadedMessage, LoadError> {
        let (envelope, updates, octets) = match self.index.get(id).ok_or(LoadError::NotQueued)? {
            MessageLocation::Journal { position, updates } => {
                let file = self.journal.file(position.segment)?;
                let json = file.read_range(position.offset, position.envelope_octets as usize)?;
                (message_file::read_envelope(&json)?, updates, position.octets)
            }
            MessageLocation::File { octets, .. } => {
                let path = self.message_file_path(id, octets);
                let file = match self.disk.open(&path) {
                    Err(e) if e.kind() == io::ErrorKind::NotFound && !self.has(id) => {
                        return Err(LoadError::NotQueued);
                    }
                    other => other?,
                };
                let lines = message_file::read(file.as_ref(), octets)?;
                (lines.envelope, lines.updates, octets)
            }
        };
        let mut progress = MessageProgress::new(&envelope);
        updates.iter().for_each(|update| progress.apply(update));
        // Only messages in files are rerouted, and an envelope is not written again.
        let envelope = Arc::new(progress.rerouted(envelope));
        Ok(LoadedMessage { envelope, progress, octets, updates })
    }

    fn extent_once(&self, id: &MessageId) -> io::Result<Extent> {
        match self.index.get(id).ok_or(io::ErrorKind::NotFound)? {
            MessageLocation::Journal { position, .. } => Ok(Extent {
                file: self.journal.file(position.segment)?,
                offset: position.offset + u64::from(position.envelope_octets),
                octets: position.octets,
            }),
            MessageLocation::File { octets, .. } => {
                Ok(Extent { file: self.disk.open(&self.message_file_path(id, octets))?, offset: 0, octets })
            }
        }
    }
}
