//! When the spool is swept.
//!
//! A sweep is soon after a message was settled, in slices, so that events and jobs do not wait for long.
//! There is another one, after a pause, if the disk refused something, or while there are too many journal
//! segments.

use std::sync::Arc;
use std::time::Duration;

use crate::spool::{Leases, Spool, SweepResult};
use crate::sys::{Clock, Moment};

pub(super) struct SweepTimer {
    spool: Arc<Spool>,
    clock: Arc<dyn Clock>,
    /// Messages of older segments move to files if there are more segments than this.
    segments_max: usize,
    /// A message was settled since the last sweep.
    is_requested: bool,
    /// When the last sweep ended.
    last: Moment,
    /// The least time between the last sweep and the next.
    delay: Duration,
}

const SWEEP_EVERY: Duration = Duration::from_secs(1);
/// A sweep stops after this time, and the next one begins not earlier than after the same time.
const SWEEP_TIME_MAX: Duration = Duration::from_millis(50);
/// The wait after the disk refused something, or while there are too many segments.
const SWEEP_RETRY_DELAY: Duration = Duration::from_secs(10);

impl SweepTimer {
    pub(super) fn new(spool: Arc<Spool>, clock: Arc<dyn Clock>, segments_max: usize) -> Self {
        let last = clock.now();
        Self { spool, clock, segments_max, is_requested: true, last, delay: SWEEP_EVERY }
    }

    /// A message was settled: sweep soon.
    pub(super) fn request(&mut self) {
        self.is_requested = true;
    }

    /// When the next sweep is; `None` if there is nothing to sweep.
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
