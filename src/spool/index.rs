//! Which messages are in the spool, and where each of them is on disk.
//!
//! Kept in memory; a start builds it from the files that it finds. The gauge of the number of messages
//! follows it.

use std::collections::BTreeMap;

use super::journal::{JournalPosition, NoteHandle};
use super::progress_update::ProgressUpdate;
use crate::mail::MessageId;
use crate::observe::Gauge;
use crate::sys::Mutex;

/// Where a message is on disk.
#[derive(Clone)]
pub(super) enum MessageLocation {
    Journal {
        position: JournalPosition,
        /// Updates, whose notes are elsewhere in the journal. Usually none.
        updates: Vec<ProgressUpdate>,
    },
    File {
        octets: u64,
        /// The note `moved`, which must be durable before the file may be removed.
        moved_note: Option<NoteHandle>,
    },
}

/// All messages, by age.
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

    /// Adds a message, or replaces its location.
    pub(super) fn insert(&self, id: &MessageId, location: MessageLocation) {
        let mut index = self.locations.lock();
        index.insert(*id, location);
        self.update_gauge(&index);
    }

    /// Removes a message. Returns where it was.
    pub(super) fn remove(&self, id: &MessageId) -> Option<MessageLocation> {
        let mut index = self.locations.lock();
        let location = index.remove(id);
        self.update_gauge(&index);
        location
    }

    /// Records that a message of the journal is now in a file of its own. Changes nothing and returns false
    /// if the message is not at `position` any more.
    pub(super) fn move_from(
        &self,
        id: &MessageId,
        position: JournalPosition,
        moved_note: Option<NoteHandle>,
    ) -> bool {
        let mut index = self.locations.lock();
        let Some(location) = index.get_mut(id) else { return false };
        let is_there = matches!(location, MessageLocation::Journal { position: now, .. } if *now == position);
        if is_there {
            *location = MessageLocation::File { octets: position.octets, moved_note };
        }
        is_there
    }

    /// Adds an update to a message in the journal.
    pub(super) fn add_update(&self, id: &MessageId, update: &ProgressUpdate) {
        if let Some(MessageLocation::Journal { updates, .. }) = self.locations.lock().get_mut(id) {
            updates.push(update.clone());
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
        let found = index.iter().filter_map(|(id, location)| match location {
            MessageLocation::Journal { position, .. } if position.segment == segment && may_move(id) => {
                Some(*id)
            }
            MessageLocation::Journal { .. } | MessageLocation::File { .. } => None,
        });
        found.take(at_most).collect()
    }

    fn update_gauge(&self, index: &BTreeMap<MessageId, MessageLocation>) {
        self.length.set(i64::try_from(index.len()).unwrap_or(i64::MAX));
    }
}
