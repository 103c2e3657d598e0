//! What the queue is configured with.

use std::time::Duration;

use super::jitter::shorten_with_jitter;
use crate::sys::Random;

/// Limits, delays and numbers of threads. The defaults of what an operator can set are those of `config`; a
/// test in `daemon` compares them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Messages in the queue at most; messages that the server generates are exempt.
    pub messages_max: usize,
    /// How long a message may wait for a recipient before it is returned. Default: 5 days.
    pub lifetime: Duration,
    /// Waits between attempts; the last one repeats. Not empty.
    pub retry_delays: Vec<Duration>,
    /// Age at which a message is reported as delayed for the recipients that still wait. Default: 4 hours.
    pub delay_warning: Duration,
    /// Delivery threads for local mailboxes and programs. At least 1.
    pub local_threads: usize,
    /// Delivery threads for other servers. At least 1.
    pub remote_threads: usize,
    /// Concurrency limit: attempts under way to one destination at most; local mailboxes are one destination
    /// without a limit. At least 1.
    pub attempts_per_destination_max: usize,
    /// Longest wait between two probes of a destination that does not answer. Default: 15 minutes.
    pub probe_interval_max: Duration,
    /// Deadline of a local attempt.
    pub local_attempt_timeout: Duration,
    /// Deadline of a remote attempt.
    pub remote_attempt_timeout: Duration,
    /// Larger messages are written to a file of their own at once, smaller ones to the journal.
    pub journal_message_octets_max: usize,
    /// A journal segment is closed when it is this long, in octets.
    pub segment_octets: u64,
    /// If there are more journal segments, the messages in the oldest move to files.
    pub segments_max: usize,
}

/// The wait where `retry_delays` is empty.
const RETRY_DELAY_FALLBACK: Duration = Duration::from_secs(600);

impl Default for Settings {
    fn default() -> Self {
        let minutes = |n: u64| Duration::from_secs(60 * n);
        Self {
            messages_max: 20_000,
            lifetime: minutes(5 * 24 * 60),
            retry_delays: [1, 5, 15, 30, 60, 120, 240].map(minutes).to_vec(),
            delay_warning: minutes(4 * 60),
            local_threads: 16,
            remote_threads: 16,
            attempts_per_destination_max: 4,
            probe_interval_max: minutes(15),
            local_attempt_timeout: minutes(10),
            remote_attempt_timeout: minutes(30),
            journal_message_octets_max: 64 * 1024,
            segment_octets: 4 * 1024 * 1024,
            segments_max: 32,
        }
    }
}

impl Settings {
    /// The wait after the `attempts`th attempt (from 1), up to 15 % shorter than in `retry_delays`, so that
    /// messages that failed together are not tried together again.
    #[must_use]
    pub fn retry_delay(&self, attempts: u32, random: &dyn Random) -> Duration {
        let index = usize::try_from(attempts.saturating_sub(1)).unwrap_or(usize::MAX);
        let wait = self
            .retry_delays
            .get(index)
            .or(self.retry_delays.last())
            .copied()
            .unwrap_or(RETRY_DELAY_FALLBACK);
        shorten_with_jitter(wait, random)
    }

    /// The longest wait between two attempts. If the age clock is lost, a restart delays no message for
    /// longer.
    #[must_use]
    pub fn retry_delay_max(&self) -> Duration {
        self.retry_delays.iter().max().copied().unwrap_or(RETRY_DELAY_FALLBACK)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fakes::SeededRandom;

    #[test]
    fn waits_grow_as_configured_and_the_first_is_at_most_a_minute() {
        let settings = Settings::default();
        let random = SeededRandom::new(1);
        for (attempts, minutes) in [(1, 1), (2, 5), (5, 60), (7, 240), (100, 240)] {
            let wait = settings.retry_delay(attempts, &random).as_secs();
            assert!((minutes * 51 - 1..=minutes * 60).contains(&wait), "{attempts}: {wait}");
        }
    }
}
