//! A clock that a test turns.

use std::time::Duration;

use crate::mail::Timestamp;
use crate::sys::{Clock, Moment, PlainMutex as Mutex};

/// Stands still until it is told otherwise. Begins on 2026-01-01T00:00:00Z.
pub struct TestClock {
    times: Mutex<ClockTimes>,
}

struct ClockTimes {
    now: Duration,
    wall: Timestamp,
    uptime: Duration,
    /// Starts of the host.
    boots: u32,
}

impl Default for TestClock {
    fn default() -> Self {
        let (now, wall) = (Duration::from_secs(1), Timestamp::from_millis(1_767_225_600_000));
        Self { times: Mutex::new(ClockTimes { now, wall, uptime: Duration::from_secs(100), boots: 1 }) }
    }
}

impl TestClock {
    /// Time passes, on all clocks.
    pub fn advance(&self, by: Duration) {
        let mut hands = self.times.lock();
        hands.now += by;
        hands.wall = hands.wall.after(by);
        hands.uptime += by;
    }

    /// The wall clock is set; no time passes.
    pub fn set_wall_time(&self, wall: Timestamp) {
        self.times.lock().wall = wall;
    }

    /// The host was down for so long, by a wall clock that is right, and has just started.
    pub fn reboot(&self, down: Duration) {
        let mut hands = self.times.lock();
        hands.now += down;
        hands.wall = hands.wall.after(down);
        hands.uptime = Duration::from_secs(10);
        hands.boots += 1;
    }
}

impl Clock for TestClock {
    fn now(&self) -> Moment {
        Moment::new(self.times.lock().now)
    }

    fn wall_time(&self) -> Timestamp {
        self.times.lock().wall
    }

    fn uptime(&self) -> Duration {
        self.times.lock().uptime
    }

    fn boot_id(&self) -> String {
        format!("boot-{}", self.times.lock().boots)
    }
}
