//! Keeps events that may be frequent, such as refused connections, from flooding the log.

use std::time::Duration;

use super::clock::Moment;

/// A frequent event is logged once in this time.
const INTERVAL: Duration = Duration::from_secs(1);

/// The log lines of one kind of event.
#[derive(Debug, Default)]
pub struct LogThrottle {
    last_logged: Option<Moment>,
    unlogged: u64,
}

impl LogThrottle {
    /// Counts an event; the number of events since the last log line, if one is to be written now.
    pub fn record(&mut self, now: Moment) -> Option<u64> {
        self.unlogged += 1;
        if self.last_logged.is_some_and(|logged| now.since(logged) < INTERVAL) {
            return None;
        }
        self.last_logged = Some(now);
        Some(std::mem::take(&mut self.unlogged))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frequent_events_are_logged_once_a_second_with_their_number() {
        let mut throttle = LogThrottle::default();
        let at = |millis| Moment::new(Duration::from_millis(millis));
        let logged: Vec<_> = (0..2500).step_by(10).filter_map(|millis| throttle.record(at(millis))).collect();
        assert_eq!(logged, [1, 100, 100]);
    }
}
