//! Removes what settled messages leave behind, and moves messages out of old segments.
//!
//! The queue manager decides when to sweep, and for how long.

use std::io;

use super::lease::Leases;
use super::load::LoadError;
use super::message_store::Spool;
use crate::sys::Moment;

/// Whether a sweep finished.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SweepResult {
    /// It did everything that the disk allows.
    Complete,
    /// It stopped because its time was over.
    Partial,
}

/// Messages moved by one sweep at most.
const MOVES_PER_SWEEP: usize = 100;

impl Spool {
    /// Removes finished segments, and files that could not be removed earlier. If there are more than
    /// `segments_max` segments, messages of the oldest move to files of their own, except those that are
    /// leased. Stops soon after `until`. To be called by the manager's thread only.
    pub(crate) fn sweep(
        &self,
        segments_max: usize,
        leases: &mut Leases,
        until: Moment,
    ) -> io::Result<SweepResult> {
        let is_late = || self.clock.now() >= until;
        // If the disk is still full, the next sweep tries again.
        let _ = self.journal.retry_unwritten_notes();
        let swept = self.journal.remove_finished_segments(&is_late);
        // Also if a segment cannot be removed: without a reserve no mail is accepted.
        self.ensure_reserve();
        swept?;
        self.remove_leftovers(&is_late);
        let Some(oldest) = self.journal.oldest_excess_segment(segments_max) else {
            return Ok(if is_late() { SweepResult::Partial } else { SweepResult::Complete });
        };
        // A message that cannot be moved must not keep the later ones in the segment.
        let mut refused = Ok(());
        // At least one, however late it is.
        for id in self.index.messages_in_segment(oldest, MOVES_PER_SWEEP, |id| !leases.is_leased(id)) {
            let Some(lease) = leases.take(&id) else { continue };
            match self.load(&id) {
                Ok(loaded) => {
                    let moved = self.move_to_file(&lease, &loaded.envelope, &loaded.progress);
                    refused = refused.and(moved);
                }
                Err(LoadError::NotQueued | LoadError::FileMissing | LoadError::Newer(_)) => {}
                Err(LoadError::Io(e)) => refused = refused.and(Err(e)),
                Err(e @ LoadError::Damaged) => {
                    refused = refused.and(self.set_aside(&lease, &e.to_string()));
                }
            }
            if is_late() {
                return Ok(SweepResult::Partial);
            }
        }
        self.journal.remove_finished_segments(&is_late)?;
        refused?;
        Ok(if is_late() { SweepResult::Partial } else { SweepResult::Complete })
    }

    /// Writes and syncs everything that the disk has refused so far.
    ///
    /// # Errors
    /// The disk still refuses: after a restart some recipients may get their message again.
    pub(crate) fn write_unsaved(&self) -> io::Result<()> {
        self.journal.sync_notes()?;
        self.remove_leftovers(&|| false);
        let left = self.leftovers.lock().len();
        if left > 0 {
            return Err(io::Error::other(format!("{left} files of settled messages cannot be removed")));
        }
        self.disk.sync_dir(&self.dirs.waiting)
    }

    /// Makes the reserve for notes when the disk is full. If it cannot be made, a later sweep tries again.
    pub(crate) fn ensure_reserve(&self) {
        if let Err(e) = self.journal.ensure_reserve() {
            log::warn!(target: "queue", "there is no reserve for a full disk yet: {e}");
        }
    }

    fn remove_leftovers(&self, is_late: &dyn Fn() -> bool) {
        let mut leftovers = std::mem::take(&mut *self.leftovers.lock()).into_iter();
        let mut refused = Vec::new();
        for (path, moved_note) in leftovers.by_ref() {
            let removed = self.remove_message_file(&path, moved_note.as_ref());
            if removed.is_err_and(|e| e.kind() != io::ErrorKind::NotFound) {
                refused.push((path, moved_note));
            }
            if is_late() {
                break;
            }
        }
        // The files that were not tried yet come first the next time.
        self.leftovers.lock().extend(leftovers.chain(refused));
    }

    /// Whether a sweep may have something to do although no message was settled since the last one: files
    /// that the disk refused to remove, a reserve to be made, or more than `segments_max` segments.
    pub(crate) fn has_sweep_work(&self, segments_max: usize) -> bool {
        !self.leftovers.lock().is_empty()
            || self.journal.is_reserve_missing()
            || self.journal.has_sweep_work(segments_max)
    }
}
