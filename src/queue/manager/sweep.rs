//! When the spool is cleared up.
//!
//! Soon after something was settled, in slices that leave news and jobs their turn; and again, after
//! a pause, for what the disk refused or while there is more in the spool than there should be.

use std::sync::Arc;
use std::time::Duration;

use crate::queue::spool::{Leases, Spool, Swept};
use crate::sys::{Clock, Moment};

pub(super) struct Sweep {
    spool: Arc<Spool>,
    clock: Arc<dyn Clock>,
    /// Journal segments that are no crowd.
    segments_max: usize,
    /// Something was settled since the last one.
    is_wanted: bool,
    /// When the last one was.
    last: Moment,
    /// Not sooner after it than this.
    pause: Duration,
}

const SWEEP_EVERY: Duration = Duration::from_secs(1);
/// A sweep stops after this, and news and jobs have their turn for as long.
const SWEEP_MAX: Duration = Duration::from_millis(50);
/// After the disk refused to clear up, and while there is more in the spool than there should be.
const SWEEP_AGAIN: Duration = Duration::from_secs(10);

impl Sweep {
    pub(super) fn new(spool: Arc<Spool>, clock: Arc<dyn Clock>, segments_max: usize) -> Self {
        let last = clock.now();
        Self { spool, clock, segments_max, is_wanted: true, last, pause: SWEEP_EVERY }
    }

    /// Something was settled.
    pub(super) fn want(&mut self) {
        self.is_wanted = true;
    }

    /// When the next one is; nothing if there is nothing to clear away.
    pub(super) fn due(&self) -> Option<Moment> {
        if self.is_wanted {
            return Some(self.last + self.pause);
        }
        self.spool.is_untidy(self.segments_max).then(|| self.last + SWEEP_AGAIN)
    }

    /// Sweeps for a short while, if it is time.
    pub(super) fn run(&mut self, leases: &mut Leases) {
        let now = self.clock.now();
        if self.due().is_none_or(|due| due > now) {
            return;
        }
        (self.is_wanted, self.pause) = match self.spool.sweep(self.segments_max, leases, now + SWEEP_MAX) {
            Ok(Swept::All) => (false, SWEEP_EVERY),
            Ok(Swept::InPart) => (true, SWEEP_MAX),
            Err(e) => {
                log::error!(target: "queue", "the spool cannot be cleared up: {e}");
                (true, SWEEP_AGAIN)
            }
        };
        self.last = self.clock.now();
    }
}
