//! The reserve: a file with room for notes when the disk is full.
//!
//! The reserve is as long as a segment, and is written in full and synced, so that records can be written
//! over it without more room. It is made soon after the first start. When a note cannot be written because
//! the disk is full, the reserve becomes the current segment, and no message is put until there is room for
//! another reserve. So outcomes of attempts that end while the disk is full are still written.

use std::io;
use std::path::Path;
use std::sync::atomic::Ordering;

use super::Journal;
use super::contents::JournalContents;
use crate::spool::message_file::create_replacing;
use crate::sys::{Disk, MutexGuard};

/// The name of the reserve in the journal's directory, when it is whole and synced.
pub(super) const RESERVE_NAME: &str = "reserve";
/// The name of the reserve while it is written.
const RESERVE_TEMPORARY_NAME: &str = "reserve.new";
/// Written at once.
const CHUNK_OCTETS: usize = 64 * 1024;

/// Whether the disk has no room, or the user's quota is used up.
pub(crate) fn is_disk_full_error(kind: io::ErrorKind) -> bool {
    matches!(kind, io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

impl Journal {
    /// The reserve is used, and there is no other: no message may be put.
    pub(in crate::spool) fn is_disk_full(&self) -> bool {
        self.is_disk_full.load(Ordering::Acquire)
    }

    /// Makes the reserve, if there is none. To be called by one thread only.
    ///
    /// # Errors
    /// The disk refused. If it is full, no message may be put before this succeeds.
    pub(in crate::spool) fn ensure_reserve(&self) -> io::Result<()> {
        if self.contents.lock().has_reserve {
            return Ok(());
        }
        if let Err(e) = self.make_reserve() {
            if is_disk_full_error(e.kind()) && !self.is_disk_full.swap(true, Ordering::AcqRel) {
                log::error!(target: "queue", "the disk is full: no mail is taken until there is room: {e}");
            }
            return Err(e);
        }
        let mut contents = self.contents.lock();
        // Both under the lock: a note may need the reserve at once.
        contents.has_reserve = true;
        let was_short = self.is_disk_full.swap(false, Ordering::AcqRel);
        drop(contents);
        if was_short {
            log::info!(target: "queue", "there is room on the disk again: mail is taken");
        }
        Ok(())
    }

    /// Makes the reserve of a spare that is long enough, or of a new file.
    fn make_reserve(&self) -> io::Result<()> {
        let (reserve, temporary) = (self.dir.join(RESERVE_NAME), self.dir.join(RESERVE_TEMPORARY_NAME));
        let spare = self.contents.lock().spares.pop();
        if let Some(spare) = spare {
            let length = self.disk.open(&spare).and_then(|file| file.length());
            if length.is_ok_and(|length| length >= self.segment_octets)
                && self.disk.rename(&spare, &reserve).is_ok()
            {
                return self.disk.sync_dir(&self.dir);
            }
            self.contents.lock().spares.push(spare);
        }
        let made = write_zeros(self.disk.as_ref(), &temporary, self.segment_octets)
            .and_then(|()| self.disk.rename(&temporary, &reserve));
        if let Err(e) = made {
            // Half a reserve would only use up room.
            let _ = self.disk.remove(&temporary);
            return Err(e);
        }
        self.disk.sync_dir(&self.dir)
    }

    /// Whether [`Journal::ensure_reserve`] has something to do.
    pub(in crate::spool) fn is_reserve_missing(&self) -> bool {
        !self.contents.lock().has_reserve
    }

    /// Makes the reserve the current segment, because a note found the disk full. Returns false if there is
    /// none.
    pub(super) fn use_reserve(&self, contents: &mut MutexGuard<'_, JournalContents>) -> bool {
        // Even if the reserve cannot be used: it is not there for another note.
        if !std::mem::take(&mut contents.has_reserve) {
            return false;
        }
        if let Err(e) = self.begin_segment(contents, Some(self.dir.join(RESERVE_NAME))) {
            log::error!(target: "queue", "the reserve for a full disk cannot be used: {e}");
            return false;
        }
        self.is_disk_full.store(true, Ordering::Release);
        log::error!(target: "queue", "the disk is full: no mail is taken until there is room");
        true
    }
}

/// Writes a file of zeros, durably.
fn write_zeros(disk: &dyn Disk, path: &Path, octets: u64) -> io::Result<()> {
    let file = create_replacing(disk, path)?;
    let mut written = 0;
    while written < octets {
        let chunk = usize::try_from(octets - written).unwrap_or(usize::MAX).min(CHUNK_OCTETS);
        file.write_at(&vec![0; chunk], written)?;
        written += chunk as u64;
    }
    file.sync()
}
