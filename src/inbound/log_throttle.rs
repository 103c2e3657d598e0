//! What is not logged each time that it happens: a flood of clients would flood the log too.

use std::time::Duration;

use crate::sys::Moment;

/// What happens often is said once in this time.
const INTERVAL: Duration = Duration::from_secs(1);

/// Something that happens, perhaps often.
#[derive(Debug, Default)]
pub(super) struct LogThrottle {
    last_logged: Option<Moment>,
    unlogged: u64,
}

impl LogThrottle {
    /// It happened; how often since it was last said, if it is to be said now.
    pub(super) fn record(&mut self, now: Moment) -> Option<u64> {
        self.unlogged += 1;
        if self.last_logged.is_some_and(|said| now.since(said) < INTERVAL) {
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
    fn a_flood_is_said_once_a_second_with_how_much_it_was() {
        let mut flood = LogThrottle::default();
        let at = |millis| Moment::new(Duration::from_millis(millis));
        let said: Vec<_> = (0..2500).step_by(10).filter_map(|millis| flood.record(at(millis))).collect();
        assert_eq!(said, [1, 100, 100]);
    }
}
