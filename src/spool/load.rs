//! A message is read: its envelope, what became of it so far, and where its octets stand.
//!
//! Whoever reads looks up a place and then opens the file there. Between the two, the message may move
//! and its segment go. It moves once, so that looking again is enough.

use std::io;
use std::sync::Arc;

use super::extent::Extent;
use super::index::MessageLocation;
use super::lease::Lease;
use super::message_file::{self, MessageFileError};
use super::message_progress::{MessageProgress, ProgressUpdate};
use super::message_store::Spool;
use crate::mail::{Envelope, MessageId};

/// A message, read from disk.
pub(crate) struct LoadedMessage {
    pub(crate) envelope: Arc<Envelope>,
    pub(crate) progress: MessageProgress,
    pub(crate) octets: u64,
    /// What `progress` is the sum of.
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

    /// Its parcel is not where it should be, though the place is: somebody removed it by hand. A
    /// file system that is not mounted has no place.
    fn is_missing(&self, id: &MessageId) -> bool {
        let Some(MessageLocation::File { octets, .. }) = self.index.get(id) else { return false };
        let name = message_file::file_name(id, octets);
        self.disk.list(&self.dirs.waiting).is_ok_and(|files| files.iter().all(|file| file.name != name))
    }

    /// Forgets a message whose parcel somebody removed by hand; says whether that is so.
    pub(crate) fn forget_missing(&self, lease: &Lease) -> bool {
        let id = lease.id();
        let is_missing = self.is_missing(id);
        if is_missing {
            log::warn!(target: "queue", "{id} is forgotten: somebody removed its file from the spool");
            self.remove_from_index(id);
        }
        is_missing
    }

    /// Where the octets of a message stand now.
    pub(crate) fn extent(&self, id: &MessageId) -> io::Result<Extent> {
        match self.extent_once(id) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => self.extent_once(id),
            other => other,
        }
    }

    fn load_once(&self, id: &MessageId) -> Result<LoadedMessage, LoadError> {
        let (envelope, records, octets) = match self.index.get(id).ok_or(LoadError::NotQueued)? {
            MessageLocation::Journal { position: place, updates: records } => {
                let file = self.journal.file(place.segment)?;
                let json = file.read_range(place.offset, place.envelope_octets as usize)?;
                (message_file::read_envelope(&json)?, records, place.octets)
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
                (lines.envelope, lines.records, octets)
            }
        };
        let mut progress = MessageProgress::new(&envelope);
        records.iter().for_each(|record| progress.apply(record));
        // Only a parcel has been rerouted, and its envelope is not written again.
        let envelope = Arc::new(progress.rerouted(envelope));
        Ok(LoadedMessage { envelope, progress, octets, updates: records })
    }

    fn extent_once(&self, id: &MessageId) -> io::Result<Extent> {
        match self.index.get(id).ok_or(io::ErrorKind::NotFound)? {
            MessageLocation::Journal { position: place, .. } => Ok(Extent {
                file: self.journal.file(place.segment)?,
                offset: place.offset + u64::from(place.envelope_octets),
                octets: place.octets,
            }),
            MessageLocation::File { octets, .. } => {
                Ok(Extent { file: self.disk.open(&self.message_file_path(id, octets))?, offset: 0, octets })
            }
        }
    }
}
