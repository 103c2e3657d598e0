//! A clock that a test turns.

use std::time::Duration;

use crate::mail::Timestamp;
use crate::sys::{Clock, Moment, PlainMutex as Mutex};

/// Stands still until it is told otherwise. Begins on 2026-01-01T00:00:00Z.
pub struct TestClock {
    hands: Mutex<(Duration, Timestamp)>,
}

impl Default for TestClock {
    fn default() -> Self {
        Self { hands: Mutex::new((Duration::from_secs(1), Timestamp::from_millis(1_767_225_600_000))) }
    }
}

impl TestClock {
    /// Time passes, on both clocks.
    pub fn advance(&self, by: Duration) {
        let mut hands = self.hands.lock();
        hands.0 += by;
        hands.1 = hands.1.after(by);
    }

    /// The wall clock is set; no time passes.
    pub fn set_wall(&self, wall: Timestamp) {
        self.hands.lock().1 = wall;
    }
}

impl Clock for TestClock {
    fn now(&self) -> Moment {
        Moment::new(self.hands.lock().0)
    }

    fn wall(&self) -> Timestamp {
        self.hands.lock().1
    }
}
