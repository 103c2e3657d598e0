//! The journal in memory: its segments, and the records that are not durable yet. Behind the journal's lock.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use super::note_handle::{NoteHandle, SequenceNumber};
use crate::mail::MessageId;
use crate::spool::journal_record::{PreparedRecord, RecordKind};
use crate::sys::DiskFile;

#[derive(Default)]
pub(super) struct JournalContents {
    pub(super) segments: BTreeMap<u64, Segment>,
    /// Files that may be written over.
    pub(super) spares: Vec<PathBuf>,
    /// There is a file for notes when the disk is full.
    pub(super) has_reserve: bool,
    pub(super) current: Option<u64>,
    pub(super) last_number: u64,
    pub(super) last_sequence: SequenceNumber,
    pub(super) durable_sequence: SequenceNumber,
    /// Records after `durable_sequence`, in order.
    pub(super) unsynced: VecDeque<(SequenceNumber, UnsyncedRecord)>,
    /// Notes that could not be written yet, in order.
    pub(super) unwritten_notes: VecDeque<PendingNote>,
    /// Messages that a failed sync refused, until their sessions have got the error.
    pub(super) failed_puts: HashMap<SequenceNumber, (io::ErrorKind, String)>,
    pub(super) is_syncing: bool,
}

/// A record that is written and not durable.
pub(super) enum UnsyncedRecord {
    Put { id: MessageId, segment: u64 },
    Note(PendingNote),
}

/// A note with what is needed to write it again.
pub(super) struct PendingNote {
    pub(super) record: PreparedRecord,
    pub(super) handle: NoteHandle,
}

impl PendingNote {
    /// Takes back a message that was written and not accepted.
    pub(super) fn cancel(id: &MessageId) -> Self {
        Self {
            record: PreparedRecord::new(RecordKind::Cancel, id, b"", b""),
            handle: NoteHandle::unwritten(),
        }
    }
}

/// One segment file.
pub(super) struct Segment {
    pub(super) path: PathBuf,
    pub(super) salt: u32,
    pub(super) file: Option<Arc<dyn DiskFile>>,
    pub(super) length: u64,
    /// Durable up to here.
    pub(super) durable_octets: u64,
    /// The directory entry is durable.
    pub(super) is_name_durable: bool,
    /// Messages in it that are not settled and not moved.
    pub(super) live: usize,
    /// Some of it could not be read: the file is kept for the operator.
    pub(super) is_unreadable: bool,
}

impl Segment {
    /// Whether it has records that are not durable.
    pub(super) fn is_unsynced(&self) -> bool {
        self.length > self.durable_octets
    }
}

impl JournalContents {
    /// Counts one message less as live in a segment.
    pub(super) fn decrement_live(&mut self, segment: u64) {
        if let Some(segment) = self.segments.get_mut(&segment) {
            segment.live = segment.live.saturating_sub(1);
        }
    }

    /// The oldest segment, if nothing is left to do in it.
    pub(super) fn oldest_finished(&self) -> Option<(u64, &Segment)> {
        let (number, segment) = self.segments.first_key_value()?;
        (segment.live == 0 && self.current != Some(*number)).then_some((*number, segment))
    }

    /// The sequence number of the last note that is written and not durable.
    pub(super) fn last_unsynced_note(&self) -> Option<SequenceNumber> {
        let mut unsynced = self.unsynced.iter().rev();
        unsynced.find(|(_, record)| matches!(record, UnsyncedRecord::Note(_))).map(|(sequence, _)| *sequence)
    }

    /// Takes back the records that are not durable: notes are to be written again, and the sessions that put
    /// messages get the error.
    pub(super) fn requeue_unsynced(&mut self, error: &(io::ErrorKind, String)) {
        // They were written before the notes that are not written yet, and are written again before these.
        let later = std::mem::take(&mut self.unwritten_notes);
        for (sequence, record) in std::mem::take(&mut self.unsynced) {
            let note = match record {
                UnsyncedRecord::Note(note) => {
                    note.handle.set_unwritten();
                    note
                }
                UnsyncedRecord::Put { id, segment } => {
                    self.failed_puts.insert(sequence, error.clone());
                    // Removed with its segment: needs no `cancel`. Otherwise every retry would add one.
                    if !self.segments.contains_key(&segment) {
                        continue;
                    }
                    self.decrement_live(segment);
                    PendingNote::cancel(&id)
                }
            };
            self.unwritten_notes.push_back(note);
        }
        self.unwritten_notes.extend(later);
    }
}
