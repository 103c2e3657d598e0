//! A clock that a test turns.

use std::time::Duration;

use crate::mail::Timestamp;
use crate::sys::{Clock, Moment, PlainMutex as Mutex};

/// Stands still until it is told otherwise. Begins on 2026-01-01T00:00:00Z.
pub struct TestClock {
    hands: Mutex<Hands>,
}

struct Hands {
    now: Duration,
    wall: Timestamp,
    uptime: Duration,
    /// Starts of the host.
    boots: u32,
}

impl Default for TestClock {
    fn default() -> Self {
        let (now, wall) = (Duration::from_secs(1), Timestamp::from_millis(1_767_225_600_000));
        Self { hands: Mutex::new(Hands { now, wall, uptime: Duration::from_secs(100), boots: 1 }) }
    }
}

impl TestClock {
    /// Time passes, on all clocks.
    pub fn advance(&self, by: Duration) {
        let mut hands = self.hands.lock();
        hands.now += by;
        hands.wall = hands.wall.after(by);
        hands.uptime += by;
    }

    /// The wall clock is set; no time passes.
    pub fn set_wall(&self, wall: Timestamp) {
        self.hands.lock().wall = wall;
    }

    /// The host was down for so long, by a wall clock that is right, and has just started.
    pub fn reboot(&self, down: Duration) {
        let mut hands = self.hands.lock();
        hands.now += down;
        hands.wall = hands.wall.after(down);
        hands.uptime = Duration::from_secs(10);
        hands.boots += 1;
    }
}

impl Clock for TestClock {
    fn now(&self) -> Moment {
        Moment::new(self.hands.lock().now)
    }

    fn wall(&self) -> Timestamp {
        self.hands.lock().wall
    }

    fn uptime(&self) -> Duration {
        self.hands.lock().uptime
    }

    fn boot(&self) -> String {
        format!("boot-{}", self.hands.lock().boots)
    }
}
