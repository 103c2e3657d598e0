//! Shortens waits at random, so that attempts that failed together are not repeated together.

use std::time::Duration;

use crate::sys::Random;

/// Up to 15 % less than `wait`.
pub(super) fn shorten_with_jitter(wait: Duration, random: &dyn Random) -> Duration {
    let jitter = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX).saturating_mul(15) / 100;
    wait.saturating_sub(Duration::from_millis(random.below(jitter + 1)))
}
