//! Three clocks: monotonic time, wall time, and the time since the host was started.

use std::ops::Add;
use std::sync::OnceLock;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rustix::time::{ClockId, clock_gettime};

use crate::mail::Timestamp;

/// A time on the monotonic clock, for deadlines and intervals within this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Moment(Duration);

impl Moment {
    /// `since_start` after the clock began.
    #[must_use]
    pub const fn new(since_start: Duration) -> Self {
        Self(since_start)
    }

    /// The time from `earlier` to this moment; zero if this moment is before `earlier`.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

impl Add<Duration> for Moment {
    type Output = Self;

    fn add(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(duration))
    }
}

/// The clocks of a host.
pub trait Clock: Send + Sync {
    /// Monotonic time: for intervals and deadlines.
    fn now(&self) -> Moment;

    /// Wall time: for times that are stored or shown. May jump.
    fn wall_time(&self) -> Timestamp;

    /// The time since the host was started, including time in which it was suspended. Never jumps.
    fn uptime(&self) -> Duration;

    /// Identifies the start of the host from which `uptime` counts; empty if the host has no such id.
    fn boot_id(&self) -> String;
}

/// The host's clocks.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Moment {
        static START: OnceLock<Instant> = OnceLock::new();
        Moment(START.get_or_init(Instant::now).elapsed())
    }

    fn wall_time(&self) -> Timestamp {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Timestamp::from_millis(i64::try_from(since_epoch.as_millis()).unwrap_or(i64::MAX))
    }

    fn uptime(&self) -> Duration {
        Duration::try_from(clock_gettime(ClockId::Boottime)).unwrap_or_default()
    }

    fn boot_id(&self) -> String {
        let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        id.trim().to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_has_an_uptime_and_a_boot_id() {
        let clock = SystemClock;
        let first = clock.uptime();
        assert!(first > Duration::ZERO && clock.uptime() >= first);
        assert_eq!(clock.boot_id(), clock.boot_id());
        assert!(!clock.boot_id().is_empty());
    }
}
