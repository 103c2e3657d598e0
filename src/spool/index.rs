//! Which messages are in our care, and where on disk each of them is.
//!
//! In memory; a start builds it from what it finds. The gauge of the queue's length follows it.

use std::collections::BTreeMap;

use super::journal::{JournalPosition, NoteHandle};
use super::message_progress::ProgressUpdate;
use crate::mail::MessageId;
use crate::observe::Gauge;
use crate::sys::Mutex;

/// Where a message is kept.
#[derive(Clone)]
pub(super) enum MessageLocation {
    Journal {
        position: JournalPosition,
        /// Notes about it, which stand elsewhere in the journal. Mostly empty.
        updates: Vec<ProgressUpdate>,
    },
    File {
        octets: u64,
        /// The note that must be durable before the parcel may go.
        moved_note: Option<NoteHandle>,
    },
}

/// All of them, by age.
pub(super) struct Index {
    locations: Mutex<BTreeMap<MessageId, MessageLocation>>,
    length: Gauge,
}

impl Index {
    pub(super) fn new(length: Gauge) -> Self {
        Self { locations: Mutex::default(), length }
    }

    pub(super) fn count(&self) -> usize {
        self.locations.lock().len()
    }

    pub(super) fn has(&self, id: &MessageId) -> bool {
        self.locations.lock().contains_key(id)
    }

    /// All, oldest first.
    pub(super) fn ids(&self) -> Vec<MessageId> {
        self.locations.lock().keys().copied().collect()
    }

    pub(super) fn get(&self, id: &MessageId) -> Option<MessageLocation> {
        self.locations.lock().get(id).cloned()
    }

    /// From now on it is there.
    pub(super) fn insert(&self, id: &MessageId, kept: MessageLocation) {
        let mut index = self.locations.lock();
        index.insert(*id, kept);
        self.update_gauge(&index);
    }

    /// From now on it is not there; says where it was.
    pub(super) fn remove(&self, id: &MessageId) -> Option<MessageLocation> {
        let mut index = self.locations.lock();
        let kept = index.remove(id);
        self.update_gauge(&index);
        kept
    }

    /// A message of the journal is in a file of its own from now on, unless it is not at `place` any
    /// more: false then, and nothing has changed.
    pub(super) fn move_from(
        &self,
        id: &MessageId,
        place: JournalPosition,
        moved: Option<NoteHandle>,
    ) -> bool {
        let mut index = self.locations.lock();
        let Some(kept) = index.get_mut(id) else { return false };
        let is_there = matches!(kept, MessageLocation::Journal { position: now, .. } if *now == place);
        if is_there {
            *kept = MessageLocation::File { octets: place.octets, moved_note: moved };
        }
        is_there
    }

    /// One more note about a message in the journal.
    pub(super) fn add_update(&self, id: &MessageId, record: &ProgressUpdate) {
        if let Some(MessageLocation::Journal { updates: records, .. }) = self.locations.lock().get_mut(id) {
            records.push(record.clone());
        }
    }

    /// Messages whose `put` is in this segment of the journal and that `may_move`.
    pub(super) fn messages_in_segment(
        &self,
        segment: u64,
        at_most: usize,
        may_move: impl Fn(&MessageId) -> bool,
    ) -> Vec<MessageId> {
        let index = self.locations.lock();
        let tenants = index.iter().filter_map(|(id, kept)| match kept {
            MessageLocation::Journal { position: place, .. } if place.segment == segment && may_move(id) => {
                Some(*id)
            }
            MessageLocation::Journal { .. } | MessageLocation::File { .. } => None,
        });
        tenants.take(at_most).collect()
    }

    fn update_gauge(&self, index: &BTreeMap<MessageId, MessageLocation>) {
        self.length.set(i64::try_from(index.len()).unwrap_or(i64::MAX));
    }
}
