//! Is a thread stuck?
//!
//! A thread that all others wait for says when it has something in hand and when it waits for
//! something to do; whoever looks sees how long it has been at it. So nobody wakes up only to say that
//! all is well, and a lock that never opens or a disk that never answers is noticed all the same.

use std::sync::Arc;
use std::time::Duration;

use super::clock::{Clock, Moment, SystemClock};
use super::plain_mutex::PlainMutex as Mutex;

/// What is known of one thread.
pub struct ThreadActivity {
    name: String,
    clock: Arc<dyn Clock>,
    /// When it took in hand what it is at; `None` while it waits.
    busy_since: Mutex<Option<Moment>>,
}

impl ThreadActivity {
    /// A thread that waits.
    #[must_use]
    pub fn new(name: impl Into<String>) -> Arc<Self> {
        Self::with_clock(name, Arc::new(SystemClock))
    }

    fn with_clock(name: impl Into<String>, clock: Arc<dyn Clock>) -> Arc<Self> {
        Arc::new(Self { name: name.into(), clock, busy_since: Mutex::default() })
    }

    /// The thread's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// It has something new in hand.
    pub fn set_busy(&self) {
        *self.busy_since.lock() = Some(self.clock.now());
    }

    /// It waits for something to do. A thread that ends in any other way than by being told never
    /// says so again, and is as good as stuck.
    pub fn set_idle(&self) {
        *self.busy_since.lock() = None;
    }

    /// It has been at one thing for this long.
    #[must_use]
    pub fn is_stuck(&self, patience: Duration) -> bool {
        let since = *self.busy_since.lock();
        since.is_some_and(|since| self.clock.now().since(since) >= patience)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fakes::TestClock;

    #[test]
    fn a_thread_is_stuck_when_it_is_at_one_thing_for_too_long_and_never_while_it_waits() {
        let clock = Arc::new(TestClock::default());
        let pulse = ThreadActivity::with_clock("queue", clock.clone());
        let patience = Duration::from_secs(60);
        clock.advance(patience * 2);
        assert!(!pulse.is_stuck(patience), "it waits");
        pulse.set_busy();
        clock.advance(patience / 2);
        pulse.set_busy();
        clock.advance(patience / 2);
        assert!(!pulse.is_stuck(patience), "one thing after the other");
        clock.advance(patience / 2);
        assert!(pulse.is_stuck(patience));
        pulse.set_idle();
        assert!(!pulse.is_stuck(patience));
    }
}
