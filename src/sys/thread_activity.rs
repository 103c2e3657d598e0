//! Detects a thread that is stuck.
//!
//! An important thread records when it begins a piece of work and when it waits for the next one. The watchdog
//! checks how long the current piece has taken. So the thread need not wake up only to report that it is
//! alive, and a lock that is never released or a disk that never answers is noticed.

use std::sync::Arc;
use std::time::Duration;

use super::clock::{Clock, Moment, SystemClock};
use super::plain_mutex::PlainMutex as Mutex;

/// What one thread is doing: whether it works, and since when.
pub struct ThreadActivity {
    name: String,
    clock: Arc<dyn Clock>,
    /// When the current piece of work began; `None` while the thread waits.
    busy_since: Mutex<Option<Moment>>,
}

impl ThreadActivity {
    /// The activity of a thread that waits for work.
    #[must_use]
    pub fn new(name: impl Into<String>) -> Arc<Self> {
        Self::with_clock(name, Arc::new(SystemClock))
    }

    fn with_clock(name: impl Into<String>, clock: Arc<dyn Clock>) -> Arc<Self> {
        Arc::new(Self { name: name.into(), clock, busy_since: Mutex::default() })
    }

    /// The name of the thread.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The thread begins a piece of work.
    pub fn set_busy(&self) {
        *self.busy_since.lock() = Some(self.clock.now());
    }

    /// The thread waits for work. A thread that ends by a fault does not call this, and so counts as stuck.
    pub fn set_idle(&self) {
        *self.busy_since.lock() = None;
    }

    /// The current piece of work has taken `busy_max` or longer.
    #[must_use]
    pub fn is_stuck(&self, busy_max: Duration) -> bool {
        let since = *self.busy_since.lock();
        since.is_some_and(|since| self.clock.now().since(since) >= busy_max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fakes::TestClock;

    #[test]
    fn a_thread_is_stuck_when_one_piece_of_work_takes_too_long_and_never_while_it_waits() {
        let clock = Arc::new(TestClock::default());
        let activity = ThreadActivity::with_clock("queue", clock.clone());
        let busy_max = Duration::from_secs(60);
        clock.advance(busy_max * 2);
        assert!(!activity.is_stuck(busy_max), "the thread waits");
        activity.set_busy();
        clock.advance(busy_max / 2);
        activity.set_busy();
        clock.advance(busy_max / 2);
        assert!(!activity.is_stuck(busy_max), "these are two pieces of work");
        clock.advance(busy_max / 2);
        assert!(activity.is_stuck(busy_max));
        activity.set_idle();
        assert!(!activity.is_stuck(busy_max));
    }
}
