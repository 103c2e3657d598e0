//! A clock that a test advances.

use std::time::Duration;

use crate::mail::Timestamp;
use crate::sys::{Clock, Moment, PlainMutex as Mutex};

/// A clock that stands still until a test advances it. Begins on 2026-01-01T00:00:00Z.
pub struct TestClock {
    times: Mutex<ClockTimes>,
}

struct ClockTimes {
    now: Duration,
    wall: Timestamp,
    uptime: Duration,
    /// How often the host was started.
    boots: u32,
}

impl Default for TestClock {
    fn default() -> Self {
        let (now, wall) = (Duration::from_secs(1), Timestamp::from_millis(1_767_225_600_000));
        Self { times: Mutex::new(ClockTimes { now, wall, uptime: Duration::from_secs(100), boots: 1 }) }
    }
}

impl TestClock {
    /// Lets time pass on all clocks.
    pub fn advance(&self, by: Duration) {
        let mut times = self.times.lock();
        times.now += by;
        times.wall = times.wall.after(by);
        times.uptime += by;
    }

    /// Sets the wall clock; no time passes.
    pub fn set_wall_time(&self, wall: Timestamp) {
        self.times.lock().wall = wall;
    }

    /// Simulates a restart of the host, which was down for this time; the wall clock stays right.
    pub fn reboot(&self, down: Duration) {
        let mut times = self.times.lock();
        times.now += down;
        times.wall = times.wall.after(down);
        times.uptime = Duration::from_secs(10);
        times.boots += 1;
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
