//! A message is read: its envelope, what became of it so far, and where its octets stand.
//!
//! Whoever reads looks up a place and then opens the file there. Between the two, the message may move
//! and its segment go. It moves once, so that looking again is enough.

use std::io;
use std::sync::Arc;

use super::Spool;
use super::index::Kept;
use super::lease::Lease;
use crate::mail::{Envelope, MessageId};
use crate::queue::item::{Progress, Record};
use crate::queue::octets::Extent;
use crate::queue::parcel::{self, ParcelError};

/// A message, read from disk.
pub(in crate::queue) struct Loaded {
    pub(in crate::queue) envelope: Arc<Envelope>,
    pub(in crate::queue) progress: Progress,
    pub(in crate::queue) octets: u64,
    /// What `progress` is the sum of.
    pub(in crate::queue) records: Vec<Record>,
}

/// Why a message cannot be read.
#[derive(Debug, thiserror::Error)]
pub(in crate::queue) enum LoadError {
    #[error("it is not in the queue")]
    Gone,
    #[error("somebody removed its file")]
    Missing,
    #[error("its envelope is damaged")]
    Damaged,
    #[error("it was written by a later version ({0}) of this program")]
    Newer(u64),
    #[error("{0}")]
    Io(#[from] io::Error),
}

impl From<ParcelError> for LoadError {
    fn from(error: ParcelError) -> Self {
        match error {
            ParcelError::Io(e) => Self::Io(e),
            ParcelError::Damaged => Self::Damaged,
            ParcelError::Newer(version) => Self::Newer(version),
        }
    }
}

impl Spool {
    /// Reads envelope and progress.
    pub(in crate::queue) fn load(&self, id: &MessageId) -> Result<Loaded, LoadError> {
        match self.load_once(id) {
            Err(LoadError::Io(e)) if e.kind() == io::ErrorKind::NotFound => match self.load_once(id) {
                Err(LoadError::Io(e)) if e.kind() == io::ErrorKind::NotFound && self.is_missing(id) => {
                    Err(LoadError::Missing)
                }
                other => other,
            },
            other => other,
        }
    }

    /// Its parcel is not where it should be, though the place is: somebody removed it by hand. A
    /// file system that is not mounted has no place.
    fn is_missing(&self, id: &MessageId) -> bool {
        let Some(Kept::Waiting { octets, .. }) = self.index.get(id) else { return false };
        let name = parcel::file_name(id, octets);
        self.disk.list(&self.dirs.waiting).is_ok_and(|files| files.iter().all(|file| file.name != name))
    }

    /// Forgets a message whose parcel somebody removed by hand; says whether that is so.
    pub(in crate::queue) fn forget_missing(&self, lease: &Lease) -> bool {
        let id = lease.id();
        let is_missing = self.is_missing(id);
        if is_missing {
            log::warn!(target: "queue", "{id} is forgotten: somebody removed its file from the spool");
            self.leave(id);
        }
        is_missing
    }

    /// Where the octets of a message stand now.
    pub(in crate::queue) fn extent(&self, id: &MessageId) -> io::Result<Extent> {
        match self.extent_once(id) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => self.extent_once(id),
            other => other,
        }
    }

    fn load_once(&self, id: &MessageId) -> Result<Loaded, LoadError> {
        let (envelope, records, octets) = match self.index.get(id).ok_or(LoadError::Gone)? {
            Kept::Journal { place, records } => {
                let file = self.journal.file(place.segment)?;
                let json = file.read_range(place.offset, place.envelope_octets as usize)?;
                (parcel::read_envelope(&json)?, records, place.octets)
            }
            Kept::Waiting { octets, .. } => {
                let path = self.parcel_path(id, octets);
                let file = match self.disk.open(&path) {
                    Err(e) if e.kind() == io::ErrorKind::NotFound && !self.has(id) => {
                        return Err(LoadError::Gone);
                    }
                    other => other?,
                };
                let lines = parcel::read(file.as_ref(), octets)?;
                (lines.envelope, lines.records, octets)
            }
        };
        let mut progress = Progress::new(&envelope);
        records.iter().for_each(|record| progress.apply(record));
        // Only a parcel has been rerouted, and its envelope is not written again.
        let envelope = Arc::new(progress.rerouted(envelope));
        Ok(Loaded { envelope, progress, octets, records })
    }

    fn extent_once(&self, id: &MessageId) -> io::Result<Extent> {
        match self.index.get(id).ok_or(io::ErrorKind::NotFound)? {
            Kept::Journal { place, .. } => Ok(Extent {
                file: self.journal.file(place.segment)?,
                offset: place.offset + u64::from(place.envelope_octets),
                octets: place.octets,
            }),
            Kept::Waiting { octets, .. } => {
                Ok(Extent { file: self.disk.open(&self.parcel_path(id, octets))?, offset: 0, octets })
            }
        }
    }
}
