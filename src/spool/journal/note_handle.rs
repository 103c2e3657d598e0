//! Finds out whether one note is durable.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Numbers the records in the order in which they were appended. When a record is durable, so are all with a
/// smaller number.
pub(super) type SequenceNumber = u64;

/// Has the sequence number of one note. The number changes when a failed sync loses the note and it is
/// written again.
#[derive(Clone)]
pub(in crate::spool) struct NoteHandle(Arc<AtomicU64>);

/// The sequence number of a note that is not in the journal. Never durable.
const UNWRITTEN: SequenceNumber = SequenceNumber::MAX;

impl NoteHandle {
    pub(super) fn unwritten() -> Self {
        Self(Arc::new(AtomicU64::new(UNWRITTEN)))
    }

    /// To be called under the journal's lock, as the other functions here.
    pub(super) fn sequence(&self) -> SequenceNumber {
        self.0.load(Ordering::Relaxed)
    }

    pub(super) fn is_unwritten(&self) -> bool {
        self.sequence() == UNWRITTEN
    }

    pub(super) fn set(&self, sequence: SequenceNumber) {
        self.0.store(sequence, Ordering::Relaxed);
    }

    pub(super) fn set_unwritten(&self) {
        self.set(UNWRITTEN);
    }
}
