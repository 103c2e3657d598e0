//! Moves a message that cannot be read to `damaged`, where the operator finds it. The server never removes
//! it.

use std::io;
use std::path::PathBuf;

use super::index::MessageLocation;
use super::journal::{JournalPosition, NoteHandle};
use super::lease::Lease;
use super::message_file;
use super::message_store::Spool;
use crate::mail::MessageId;

impl Spool {
    /// Moves a message to `damaged`, or copies it there from the journal, and forgets it; `why` is for the
    /// log. If the disk refuses, the message stays in the spool, and can be set aside later.
    pub(crate) fn set_aside(&self, lease: &Lease, why: &str) -> io::Result<()> {
        let id = lease.id();
        let set_aside = match self.index.get(id) {
            None => return Ok(()),
            Some(MessageLocation::File { octets, moved_note }) => {
                self.move_to_damaged(id, octets, moved_note.as_ref())
            }
            Some(MessageLocation::Journal { position, .. }) => self.copy_from_journal(id, position),
        };
        match set_aside {
            Ok(path) => {
                self.damaged.add_one();
                log::error!(target: "queue", "{id} was set aside as {}: {why}", path.display());
                self.remove_from_index(id);
                Ok(())
            }
            Err(e) => {
                log::error!(target: "queue", "{id} could not be set aside ({why}): {e}");
                Err(e)
            }
        }
    }

    /// Moves the file of a message to `damaged`.
    fn move_to_damaged(
        &self,
        id: &MessageId,
        octets: u64,
        moved_note: Option<&NoteHandle>,
    ) -> io::Result<PathBuf> {
        self.sync_move(moved_note)?;
        let name = message_file::file_name(id, octets);
        let to = self.dirs.damaged.join(&name);
        self.disk.rename(&self.dirs.waiting.join(&name), &to).map(|()| to)
    }

    /// Copies the envelope and the octets of a message from the journal to `damaged`.
    fn copy_from_journal(&self, id: &MessageId, position: JournalPosition) -> io::Result<PathBuf> {
        let octets = usize::try_from(position.octets).unwrap_or(usize::MAX);
        let octets = octets.saturating_add(position.envelope_octets as usize);
        let copy = self.journal.file(position.segment)?.read_range(position.offset, octets)?;
        let path = self.dirs.damaged.join(id.as_str());
        let file = message_file::create_replacing(self.disk.as_ref(), &path)?;
        file.append(&copy)?;
        file.sync()?;
        self.disk.sync_dir(&self.dirs.damaged)?;
        Ok(path)
    }
}
