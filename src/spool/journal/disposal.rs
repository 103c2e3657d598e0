//! Removes segments in which nothing is left to do.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use super::{Journal, SPARE_EXTENSION, SPARES_MAX};

/// What becomes of a segment's file.
enum Disposal {
    Spare(PathBuf),
    SetAside(PathBuf),
    Removed,
}

impl Journal {
    /// Removes segments in which nothing is left to do, the oldest first, until `is_late`. To be called by
    /// one thread only.
    pub(in crate::spool) fn remove_finished_segments(&self, is_late: &dyn Fn() -> bool) -> io::Result<()> {
        loop {
            if self.sync_oldest_finished()? && is_late() {
                return Ok(());
            }
            let Some((number, path, disposal)) = self.next_disposable() else { return Ok(()) };
            let disposed = match &disposal {
                Disposal::Spare(to) => self.disk.rename(&path, to),
                Disposal::SetAside(to) => {
                    self.disk.rename(&path, to).and_then(|()| self.disk.sync_dir(&self.damaged_dir))
                }
                Disposal::Removed => self.disk.remove(&path),
            };
            match disposed {
                Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
                _ => self.disk.sync_dir(&self.dir)?,
            }
            let mut contents = self.contents.lock();
            contents.segments.remove(&number);
            if let (Ok(()), Disposal::Spare(path)) = (disposed, disposal) {
                contents.spares.push(path);
            }
            drop(contents);
            if is_late() {
                return Ok(());
            }
        }
    }

    /// Syncs the notes of the oldest segment, if nothing is left to do in it. A segment that is removed is
    /// not synced any more, so a note in it would count as durable although its removal is not durable yet,
    /// or fails. Returns whether a sync was needed.
    fn sync_oldest_finished(&self) -> io::Result<bool> {
        let contents = self.contents.lock();
        match (contents.oldest_finished(), contents.last_unsynced_note()) {
            (Some((_, segment)), Some(sequence)) if segment.is_unsynced() => {
                self.wait_until_durable(contents, sequence).map(|()| true)
            }
            _ => Ok(false),
        }
    }

    /// The oldest segment, if nothing is left to do in it, and what becomes of its file.
    fn next_disposable(&self) -> Option<(u64, PathBuf, Disposal)> {
        let mut contents = self.contents.lock();
        let is_spare_wanted = contents.spares.len() < SPARES_MAX;
        let (number, _) = contents.oldest_finished().filter(|(_, segment)| !segment.is_unsynced())?;
        let segment = contents.segments.get_mut(&number)?;
        let path = segment.path.clone();
        // A thread that still reads in the file must not read what is written over it.
        let is_free = segment.file.as_ref().is_none_or(|file| Arc::strong_count(file) == 1);
        let disposal = if segment.is_unreadable {
            Disposal::SetAside(self.damaged_dir.join(path.file_name()?))
        } else if is_spare_wanted && is_free {
            segment.file = None;
            Disposal::Spare(path.with_extension(SPARE_EXTENSION))
        } else {
            Disposal::Removed
        };
        Some((number, path, disposal))
    }
}
