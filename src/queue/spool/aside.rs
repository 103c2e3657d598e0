//! What we cannot deal with is set aside, where the operator finds it, and never removed by us.

use std::io;
use std::path::PathBuf;

use super::Spool;
use super::index::Kept;
use super::lease::Lease;
use crate::mail::MessageId;
use crate::queue::journal::Place;
use crate::queue::parcel;

impl Spool {
    /// Moves a message aside, a copy of it if it is in the journal, and forgets it; `why` is for the
    /// log. If the disk refuses, it stays where it is, to be set aside later.
    pub(in crate::queue) fn set_aside(&self, lease: &Lease, why: &str) -> io::Result<()> {
        let id = lease.id();
        let aside = match self.index.get(id) {
            None => return Ok(()),
            Some(Kept::Waiting { octets, .. }) => {
                let name = parcel::file_name(id, octets);
                let to = self.dirs.damaged.join(&name);
                self.disk.rename(&self.dirs.waiting.join(&name), &to).map(|()| to)
            }
            Some(Kept::Journal { place, .. }) => self.copy_out(id, place),
        };
        match aside {
            Ok(path) => {
                self.damaged.add_one();
                log::error!(target: "queue", "{id} was set aside as {}: {why}", path.display());
                self.leave(id);
                Ok(())
            }
            Err(e) => {
                log::error!(target: "queue", "{id} could not be set aside ({why}): {e}");
                Err(e)
            }
        }
    }

    /// Copies what the journal has of a message to the damaged ones.
    fn copy_out(&self, id: &MessageId, place: Place) -> io::Result<PathBuf> {
        let octets = usize::try_from(place.octets).unwrap_or(usize::MAX);
        let octets = octets.saturating_add(place.envelope_octets as usize);
        let copy = self.journal.file(place.segment)?.read_range(place.offset, octets)?;
        let path = self.dirs.damaged.join(id.as_str());
        let file = parcel::create_anew(self.disk.as_ref(), &path)?;
        file.append(&copy)?;
        file.sync()?;
        self.disk.sync_dir(&self.dirs.damaged)?;
        Ok(path)
    }
}
