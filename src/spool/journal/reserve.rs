//! A file kept for notes when the disk is full.
//!
//! As long as a segment like any other, written in full and synced, so that records can be written over
//! it without more room. Made soon after the first start, and held from then on. When a note finds the disk full, the reserve becomes the
//! current segment; from then on no message is put until there is room for another reserve. So outcomes
//! of messages that are being delivered while the disk is full are still written down.

use std::io;
use std::path::Path;
use std::sync::atomic::Ordering;

use super::{Journal, JournalContents};
use crate::spool::message_file::create_replacing;
use crate::sys::{Disk, MutexGuard};

/// Its name in the journal's directory, once it is whole and synced.
pub(super) const RESERVE_NAME: &str = "reserve";
/// Its name before that.
const RESERVE_TEMPORARY_NAME: &str = "reserve.new";
/// Written at once.
const CHUNK_OCTETS: usize = 64 * 1024;

/// The disk has no room, or the user's quota is used up.
pub(crate) fn is_disk_full_error(kind: io::ErrorKind) -> bool {
    matches!(kind, io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

impl Journal {
    /// Notes stand in the reserve, and there is no other: no message may be put.
    pub(in crate::spool) fn is_disk_full(&self) -> bool {
        self.is_disk_full.load(Ordering::Acquire)
    }

    /// Makes the reserve, if there is none. For one thread only.
    ///
    /// # Errors
    /// The disk refused; with [`is_full`], no message may be put before this succeeds.
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
        let mut state = self.contents.lock();
        // Together: a note that needs the reserve at once finds both as they are.
        state.has_reserve = true;
        let was_short = self.is_disk_full.swap(false, Ordering::AcqRel);
        drop(state);
        if was_short {
            log::info!(target: "queue", "there is room on the disk again: mail is taken");
        }
        Ok(())
    }

    /// Of a spare that is long enough, or of new room.
    fn make_reserve(&self) -> io::Result<()> {
        let (reserve, draft) = (self.dir.join(RESERVE_NAME), self.dir.join(RESERVE_TEMPORARY_NAME));
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
        let made = write_zeros(self.disk.as_ref(), &draft, self.segment_octets)
            .and_then(|()| self.disk.rename(&draft, &reserve));
        if let Err(e) = made {
            // Half of it would only take room from others.
            let _ = self.disk.remove(&draft);
            return Err(e);
        }
        self.disk.sync_dir(&self.dir)
    }

    /// Whether [`Journal::hold_reserve`] has something to do.
    pub(in crate::spool) fn is_reserve_missing(&self) -> bool {
        !self.contents.lock().has_reserve
    }

    /// A note found the disk full: it goes to the reserve. False if there is none.
    pub(super) fn use_reserve(&self, state: &mut MutexGuard<'_, JournalContents>) -> bool {
        // Whatever comes of it, there is none any more that can be relied on.
        if !std::mem::take(&mut state.has_reserve) {
            return false;
        }
        if let Err(e) = self.begin_segment(state, Some(self.dir.join(RESERVE_NAME))) {
            log::error!(target: "queue", "the reserve for a full disk cannot be used: {e}");
            return false;
        }
        self.is_disk_full.store(true, Ordering::Release);
        log::error!(target: "queue", "the disk is full: no mail is taken until there is room");
        true
    }
}

/// Writes the file, durably.
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
