//! Writes down what an attempt or an operator's command changed of a message.

use std::io;

use super::index::MessageLocation;
use super::journal_record::RecordKind;
use super::lease::Lease;
use super::message_file;
use super::message_progress::MessageProgress;
use super::message_store::Spool;
use super::progress_update::ProgressUpdate;
use crate::mail::{Envelope, MessageId};

/// Read and written at once when a message moves.
const COPY_OCTETS: usize = 64 * 1024;

impl Spool {
    /// Writes down what an attempt or a command changed. `after` is the message's progress with `update`
    /// applied.
    ///
    /// On an error the message is as safe as before, and `after` holds only in memory.
    pub(crate) fn record_update(
        &self,
        lease: &Lease,
        envelope: &Envelope,
        update: &ProgressUpdate,
        after: &MessageProgress,
    ) -> io::Result<()> {
        let id = lease.id();
        if after.is_settled() {
            self.settle(lease, Some(update));
            return Ok(());
        }
        let must_be_synced = update.by_operator || update.states.iter().any(|(_, state)| state.is_settled());
        match self.index.get(id).ok_or(io::ErrorKind::NotFound)? {
            MessageLocation::File { octets, .. } => {
                let path = self.message_file_path(id, octets);
                message_file::append_update(self.disk.as_ref(), &path, octets, update, must_be_synced)?;
                // A hint, see `message_file`.
                let _ = self.disk.set_modified(&path, after.due);
                Ok(())
            }
            MessageLocation::Journal { .. } => {
                let must_move =
                    update.by_operator || update.states.iter().any(|(_, state)| !state.is_settled());
                let moved = if must_move { self.move_to_file(lease, envelope, after) } else { Ok(()) };
                match moved {
                    // The command fails, and nothing has changed.
                    Err(e) if update.by_operator => return Err(e),
                    // An outcome holds although the message cannot move now: the next update moves it.
                    Err(e) => log::warn!(target: "queue", "{id} stays in the journal for now: {e}"),
                    Ok(()) if must_move => return Ok(()),
                    Ok(()) => {}
                }
                self.append_update_note(id, update);
                Ok(())
            }
        }
    }

    fn append_update_note(&self, id: &MessageId, update: &ProgressUpdate) {
        if let Ok(json) = serde_json::to_vec(update) {
            self.journal.note(RecordKind::Note, id, &json);
        }
        self.index.add_update(id, update);
    }

    /// Moves a message from the journal to a file of its own; one that has a file stays there.
    pub(super) fn move_to_file(
        &self,
        lease: &Lease,
        envelope: &Envelope,
        progress: &MessageProgress,
    ) -> io::Result<()> {
        let id = lease.id();
        let MessageLocation::Journal { position, .. } = self.index.get(id).ok_or(io::ErrorKind::NotFound)?
        else {
            return Ok(());
        };
        let file = self.journal.file(position.segment)?;
        let mut writer = self.create_message_file(id)?;
        let start = position.offset + u64::from(position.envelope_octets);
        let mut copied = 0;
        while copied < position.octets {
            let wanted = usize::try_from(position.octets - copied).unwrap_or(usize::MAX).min(COPY_OCTETS);
            let chunk = file.read_range(start + copied, wanted)?;
            if chunk.is_empty() {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            writer.append(&chunk)?;
            copied += chunk.len() as u64;
        }
        writer.finish(&self.dirs.waiting, envelope, Some(&progress.to_update()), progress.due)?;
        let moved = Some(self.journal.note(RecordKind::Moved, id, b""));
        // Only the thread that took the message out of the segment counts it down.
        if self.index.move_from(id, position, moved) {
            self.journal.decrement_live(position.segment);
        }
        Ok(())
    }
}
