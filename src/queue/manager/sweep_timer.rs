//! When the spool is cleared up.
//!
//! Soon after something was settled, in slices that leave news and jobs their turn; and again, after
//! a pause, for what the disk refused or while there is more in the spool than there should be.

use std::sync::Arc;
use std::time::Duration;

use crate::spool::{Leases, Spool, SweepResult};
use crate::sys::{Clock, Moment};

pub(super) struct SweepTimer {
    spool: Arc<Spool>,
    clock: Arc<dyn Clock>,
    /// Journal segments that are no crowd.
    segments_max: usize,
    /// Something was settled since the last one.
    is_requested: bool,
    /// When the last one was.
    last: Moment,
    /// Not sooner after it than this.
    delay: Duration,
}

const SWEEP_EVERY: Duration = Duration::from_secs(1);
/// A sweep stops after this, and news and jobs have their turn for as long.
const SWEEP_TIME_MAX: Duration = Duration::from_millis(50);
/// After the disk refused to clear up, and while there is more in the spool than there should be.
const SWEEP_RETRY_DELAY: Duration = Duration::from_secs(10);

impl SweepTimer {
    pub(super) fn new(spool: Arc<Spool>, clock: Arc<dyn Clock>, segments_max: usize) -> Self {
        let last = clock.now();
        Self { spool, clock, segments_max, is_requested: true, last, delay: SWEEP_EVERY }
    }

    /// Something was settled.
    pub(super) fn request(&mut self) {
        self.is_requested = true;
    }

    /// When the next one is; nothing if there is nothing to clear away.
    pub(super) fn due(&self) -> Option<Moment> {
        if self.is_requested {
            return Some(self.last + self.delay);
        }
        self.spool.has_sweep_work(self.segments_max).then(|| self.last + SWEEP_RETRY_DELAY)
    }

    /// Sweeps for a short while, if it is time.
    pub(super) fn run(&mut self, leases: &mut Leases) {
        let now = self.clock.now();
        if self.due().is_none_or(|due| due > now) {
            return;
        }
        (self.is_requested, self.delay) =
            match self.spool.sweep(self.segments_max, leases, now + SWEEP_TIME_MAX) {
                Ok(SweepResult::Complete) => (false, SWEEP_EVERY),
                Ok(SweepResult::Partial) => (true, SWEEP_TIME_MAX),
                Err(e) => {
                    log::error!(target: "queue", "the spool cannot be cleared up: {e}");
                    (true, SWEEP_RETRY_DELAY)
                }
            };
        self.last = self.clock.now();
    }
}
