//! Clearing away: what settled messages leave behind, and what crowds the journal.
//!
//! When to sweep, and for how long, is the manager's business.

use std::io;

use super::lease::Leases;
use super::load::LoadError;
use super::message_store::Spool;
use crate::sys::Moment;

/// How far a sweep came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SweepResult {
    /// As far as it can.
    Complete,
    /// Its time was over.
    Partial,
}

/// Messages moved by one sweep at most.
const MOVES_PER_SWEEP: usize = 100;

impl Spool {
    /// Clears away: old segments, and what could not be removed earlier. When there are more
    /// than `segments_max`, messages of the oldest move to files of their own, apart from those that
    /// somebody has leased. Stops soon after `until`. For the manager's thread only.
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
        // Also if a segment cannot go, or no mail would ever be taken again.
        self.ensure_reserve();
        swept?;
        self.remove_leftovers(&is_late);
        let Some(oldest) = self.journal.oldest_excess_segment(segments_max) else {
            return Ok(if is_late() { SweepResult::Partial } else { SweepResult::Complete });
        };
        // One that cannot be moved must not keep those behind it here.
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

    /// Writes and syncs what the disk has refused so far.
    ///
    /// # Errors
    /// The disk refuses still: after a restart some recipients may be delivered to again.
    pub(crate) fn write_unsaved(&self) -> io::Result<()> {
        self.journal.sync_notes()?;
        self.remove_leftovers(&|| false);
        let left = self.leftovers.lock().len();
        if left > 0 {
            return Err(io::Error::other(format!("{left} files of settled messages cannot be removed")));
        }
        self.disk.sync_dir(&self.dirs.waiting)
    }

    /// Keeps room for notes when the disk is full. What stands against it is tried again by a later sweep.
    pub(crate) fn ensure_reserve(&self) {
        if let Err(e) = self.journal.ensure_reserve() {
            log::warn!(target: "queue", "there is no reserve for a full disk yet: {e}");
        }
    }

    fn remove_leftovers(&self, is_late: &dyn Fn() -> bool) {
        let mut leftovers = std::mem::take(&mut *self.leftovers.lock()).into_iter();
        let mut refused = Vec::new();
        for (path, moved) in leftovers.by_ref() {
            let removed = self.remove_message_file(&path, moved.as_ref());
            if removed.is_err_and(|e| e.kind() != io::ErrorKind::NotFound) {
                refused.push((path, moved));
            }
            if is_late() {
                break;
            }
        }
        // What was refused is tried again after what was not tried yet.
        self.leftovers.lock().extend(leftovers.chain(refused));
    }

    /// Whether there is something that a later sweep might get rid of though nothing new is
    /// settled: what the disk refused, a reserve to be made, or more than `segments_max` segments.
    pub(crate) fn has_sweep_work(&self, segments_max: usize) -> bool {
        !self.leftovers.lock().is_empty()
            || self.journal.is_reserve_missing()
            || self.journal.has_sweep_work(segments_max)
    }
}
