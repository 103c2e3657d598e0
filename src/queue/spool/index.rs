//! Which messages are in our care, and where on disk each of them is.
//!
//! In memory; a start builds it from what it finds. The gauge of the queue's length follows it.

use std::collections::BTreeMap;

use crate::mail::MessageId;
use crate::observe::Gauge;
use crate::queue::item::Record;
use crate::queue::journal::{Place, Ticket};
use crate::sys::Mutex;

/// Where a message is kept.
#[derive(Clone)]
pub(super) enum Kept {
    Journal {
        place: Place,
        /// Notes about it, which stand elsewhere in the journal. Mostly empty.
        records: Vec<Record>,
    },
    Waiting {
        octets: u64,
        /// The note that must be durable before the parcel may go.
        moved: Option<Ticket>,
    },
}

/// All of them, by age.
pub(super) struct Index {
    kept: Mutex<BTreeMap<MessageId, Kept>>,
    length: Gauge,
}

impl Index {
    pub(super) fn new(length: Gauge) -> Self {
        Self { kept: Mutex::default(), length }
    }

    pub(super) fn count(&self) -> usize {
        self.kept.lock().len()
    }

    pub(super) fn has(&self, id: &MessageId) -> bool {
        self.kept.lock().contains_key(id)
    }

    /// All, oldest first.
    pub(super) fn ids(&self) -> Vec<MessageId> {
        self.kept.lock().keys().copied().collect()
    }

    pub(super) fn get(&self, id: &MessageId) -> Option<Kept> {
        self.kept.lock().get(id).cloned()
    }

    /// From now on it is there.
    pub(super) fn insert(&self, id: &MessageId, kept: Kept) {
        let mut index = self.kept.lock();
        index.insert(*id, kept);
        self.show(&index);
    }

    /// From now on it is not there; says where it was.
    pub(super) fn remove(&self, id: &MessageId) -> Option<Kept> {
        let mut index = self.kept.lock();
        let kept = index.remove(id);
        self.show(&index);
        kept
    }

    /// A message of the journal is in a file of its own from now on, unless it is not at `place` any
    /// more: false then, and nothing has changed.
    pub(super) fn move_from(&self, id: &MessageId, place: Place, moved: Option<Ticket>) -> bool {
        let mut index = self.kept.lock();
        let Some(kept) = index.get_mut(id) else { return false };
        let is_there = matches!(kept, Kept::Journal { place: now, .. } if *now == place);
        if is_there {
            *kept = Kept::Waiting { octets: place.octets, moved };
        }
        is_there
    }

    /// One more note about a message in the journal.
    pub(super) fn add_record(&self, id: &MessageId, record: &Record) {
        if let Some(Kept::Journal { records, .. }) = self.kept.lock().get_mut(id) {
            records.push(record.clone());
        }
    }

    /// Messages whose `put` is in this segment of the journal and that `may_move`.
    pub(super) fn tenants(
        &self,
        segment: u64,
        at_most: usize,
        may_move: impl Fn(&MessageId) -> bool,
    ) -> Vec<MessageId> {
        let index = self.kept.lock();
        let tenants = index.iter().filter_map(|(id, kept)| match kept {
            Kept::Journal { place, .. } if place.segment == segment && may_move(id) => Some(*id),
            Kept::Journal { .. } | Kept::Waiting { .. } => None,
        });
        tenants.take(at_most).collect()
    }

    fn show(&self, index: &BTreeMap<MessageId, Kept>) {
        self.length.set(i64::try_from(index.len()).unwrap_or(i64::MAX));
    }
}
