//! Token buckets: a number of events in an hour for each of many keys, in a table of bounded size.
//!
//! A key may take `per_hour` tokens at once, which come back at an even pace within an hour. The table keeps
//! one moment for each key: when all taken tokens are back. A key with a full bucket has no entry. When the
//! table is full, the keys that took least are removed first, so that events of very many keys do not remove
//! the entry of one that took much.
//!
//! Pure arithmetic; the time is an argument.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::Duration;

use crate::sys::Moment;

const HOUR: Duration = Duration::from_hours(1);

/// Entries of one table, each some 50 octets.
pub(super) const ENTRIES_MAX: usize = 10_000;

/// The buckets of one limit.
#[derive(Debug)]
pub(super) struct TokenBuckets<K> {
    /// One token comes back in this time; `None` for no limit.
    refill_interval: Option<Duration>,
    /// When all taken tokens are back.
    full_at: HashMap<K, Moment>,
}

impl<K: Eq + Hash + Clone> TokenBuckets<K> {
    /// `per_hour` tokens for each key; 0 is no limit.
    pub(super) fn new(per_hour: usize) -> Self {
        let pace = u32::try_from(per_hour).ok().and_then(|per_hour| HOUR.checked_div(per_hour));
        Self { refill_interval: pace, full_at: HashMap::new() }
    }

    /// Takes a token, if there is one.
    pub(super) fn take(&mut self, key: &K, now: Moment) -> bool {
        let Some(pace) = self.refill_interval else { return true };
        let Some(full_again) = self.full_at_after_take(key, pace, now) else { return false };
        if self.full_at.len() >= ENTRIES_MAX && !self.full_at.contains_key(key) {
            self.evict(now);
        }
        self.full_at.insert(key.clone(), full_again);
        true
    }

    /// There is a token.
    pub(super) fn has_token(&self, key: &K, now: Moment) -> bool {
        self.refill_interval.is_none_or(|pace| self.full_at_after_take(key, pace, now).is_some())
    }

    /// When the bucket would be full again after one more token; `None` if it has none.
    fn full_at_after_take(&self, key: &K, pace: Duration, now: Moment) -> Option<Moment> {
        let full_again = self.full_at.get(key).copied().unwrap_or(now).max(now) + pace;
        (full_again.since(now) <= HOUR).then_some(full_again)
    }

    /// Removes full buckets, and if that is not enough the keys that took least, down to half of the table.
    fn evict(&mut self, now: Moment) {
        self.full_at.retain(|_, full_again| *full_again > now);
        if self.full_at.len() < ENTRIES_MAX {
            return;
        }
        let mut moments: Vec<_> = self.full_at.values().copied().collect();
        let (_, median, _) = moments.select_nth_unstable(ENTRIES_MAX / 2);
        let median = *median;
        self.full_at.retain(|_, full_again| *full_again > median);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Moment {
        Moment::new(Duration::from_secs(seconds))
    }

    #[test]
    fn all_tokens_may_be_taken_at_once_and_come_back_at_an_even_pace() {
        let mut buckets = TokenBuckets::new(60);
        for _ in 0..60 {
            assert!(buckets.take(&"ana", at(1000)));
        }
        assert!(!buckets.has_token(&"ana", at(1000)) && !buckets.take(&"ana", at(1059)));
        assert!(buckets.take(&"bo", at(1059)), "each has a bucket of its own");
        assert!(buckets.has_token(&"ana", at(1060)) && buckets.take(&"ana", at(1060)));
        assert!(!buckets.take(&"ana", at(1061)), "a refused token is not counted, and one came back");
        assert!(buckets.take(&"ana", at(1120)));
        let later = (0..100).filter(|_| buckets.take(&"ana", at(100_000))).count();
        assert_eq!(later, 60, "there are never more tokens than for one hour");
    }

    #[test]
    fn zero_is_no_limit_and_keeps_nothing() {
        let mut buckets = TokenBuckets::new(0);
        assert!((0..100_000).all(|_| buckets.take(&"ana", at(0)) && buckets.has_token(&"ana", at(0))));
        assert!(buckets.full_at.is_empty());
    }

    #[test]
    fn very_many_keys_neither_fill_the_memory_nor_remove_the_one_that_took_most() {
        let mut buckets = TokenBuckets::new(10);
        for _ in 0..10 {
            buckets.take(&u64::MAX, at(0));
        }
        for key in 0..100_000 {
            assert!(buckets.take(&key, at(key / 1000)));
            assert!(buckets.full_at.len() <= ENTRIES_MAX);
        }
        assert!(!buckets.has_token(&u64::MAX, at(100)));
        buckets.take(&1, at(5000));
        for key in 200_000..200_000 + ENTRIES_MAX as u64 {
            buckets.take(&key, at(5000));
        }
        assert!(buckets.full_at.len() <= ENTRIES_MAX, "full buckets go first");
    }
}
