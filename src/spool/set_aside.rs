//! What we cannot deal with is set aside, where the operator finds it, and never removed by us.

use std::io;
use std::path::PathBuf;

use super::index::MessageLocation;
use super::journal::{JournalPosition, NoteHandle};
use super::lease::Lease;
use super::message_file;
use super::message_store::Spool;
use crate::mail::MessageId;

impl Spool {
    /// Moves a message aside, a copy of it if it is in the journal, and forgets it; `why` is for the
    /// log. If the disk refuses, it stays where it is, to be set aside later.
    pub(crate) fn set_aside(&self, lease: &Lease, why: &str) -> io::Result<()> {
        let id = lease.id();
        let aside = match self.index.get(id) {
            None => return Ok(()),
            Some(MessageLocation::File { octets, moved_note }) => {
                self.move_to_damaged(id, octets, moved_note.as_ref())
            }
            Some(MessageLocation::Journal { position: place, .. }) => self.copy_from_journal(id, place),
        };
        match aside {
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

    /// Moves the file of a message to the damaged ones. The journal may still have the message as it was
    /// before it got its file: the note that it moved is synced first, or that older copy, without what
    /// commands and attempts have changed since, would be in the queue after a power cut.
    fn move_to_damaged(
        &self,
        id: &MessageId,
        octets: u64,
        moved: Option<&NoteHandle>,
    ) -> io::Result<PathBuf> {
        if let Some(moved) = moved {
            self.journal.sync(moved)?;
        }
        let name = message_file::file_name(id, octets);
        let to = self.dirs.damaged.join(&name);
        self.disk.rename(&self.dirs.waiting.join(&name), &to).map(|()| to)
    }

    /// Copies what the journal has of a message to the damaged ones.
    fn copy_from_journal(&self, id: &MessageId, place: JournalPosition) -> io::Result<PathBuf> {
        let octets = usize::try_from(place.octets).unwrap_or(usize::MAX);
        let octets = octets.saturating_add(place.envelope_octets as usize);
        let copy = self.journal.file(place.segment)?.read_range(place.offset, octets)?;
        let path = self.dirs.damaged.join(id.as_str());
        let file = message_file::create_replacing(self.disk.as_ref(), &path)?;
        file.append(&copy)?;
        file.sync()?;
        self.disk.sync_dir(&self.dirs.damaged)?;
        Ok(path)
    }
}
