//! Answers of name servers, each for its time to live.
//!
//! A positive answer is kept for the smallest TTL on the way, a negative one for the time in the SOA record
//! (RFC 2308 §5), both within bounds of ours; a failure for a few seconds (RFC 9520 §3.2), so that a queue
//! with much mail for one broken domain does not send a query for each. The number of answers is bounded,
//! and so is the size of each. Has no clock and no lock; the stub resolver has both.

use std::num::NonZeroUsize;
use std::time::Duration;

use domain::base::Rtype;
use lru::LruCache;

use super::error::DnsError;
use super::response::RecordData;
use crate::sys::Moment;

/// Answers kept; for one more, the one that was used least recently is dropped.
const ENTRIES_MAX: NonZeroUsize = NonZeroUsize::new(4096).unwrap();
/// A host that is asked for twice in a short time is looked up once, whatever its TTL is.
const POSITIVE_TTL_MIN: Duration = Duration::from_secs(1);
/// A mistake that an operator has corrected has no effect after an hour.
const POSITIVE_TTL_MAX: Duration = Duration::from_secs(3600);
/// RFC 2308 §5 suggests one to three hours; a new domain should be found sooner.
const NEGATIVE_TTL_MAX: Duration = Duration::from_secs(300);
/// RFC 9520 §3.2: at least one second, at most five minutes.
const FAILURE_TTL: Duration = Duration::from_secs(5);

/// A name in lower case, and a record type.
pub(super) type CacheKey = (String, Rtype);

/// Records, none or more, or why there is no answer.
pub(super) type LookupResult = Result<Vec<RecordData>, DnsError>;

/// Answers by question, each with the moment until which it is used.
#[derive(Debug)]
pub(super) struct ResponseCache {
    entries: LruCache<CacheKey, (LookupResult, Moment)>,
}

impl ResponseCache {
    pub(super) fn new() -> Self {
        Self { entries: LruCache::new(ENTRIES_MAX) }
    }

    /// The answer, unless its time is over.
    pub(super) fn get(&mut self, key: &CacheKey, now: Moment) -> Option<LookupResult> {
        self.entries.get(key).filter(|(_, until)| now < *until).map(|(answer, _)| answer.clone())
    }

    /// Keeps an answer for `ttl`, within bounds.
    pub(super) fn insert(&mut self, key: CacheKey, answer: LookupResult, ttl: Duration, now: Moment) {
        let ttl = match &answer {
            Ok(records) if !records.is_empty() => ttl.clamp(POSITIVE_TTL_MIN, POSITIVE_TTL_MAX),
            Ok(_) | Err(DnsError::NoSuchDomain) => ttl.min(NEGATIVE_TTL_MAX),
            Err(DnsError::Temporary(_)) => FAILURE_TTL,
            // Says nothing about the name: the next caller has another budget.
            Err(DnsError::BudgetExhausted(_)) => return,
        };
        self.entries.put(key, (answer, now + ttl));
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;

    fn at(seconds: u64) -> Moment {
        Moment::new(Duration::from_secs(seconds))
    }

    fn seconds_cached(answer: &LookupResult, ttl_seconds: u64) -> u64 {
        let mut cache = ResponseCache::new();
        let key = ("there.example".to_owned(), Rtype::A);
        cache.insert(key.clone(), answer.clone(), Duration::from_secs(ttl_seconds), at(100));
        (0..).find(|&seconds| cache.get(&key, at(100 + seconds)).is_none()).unwrap()
    }

    #[test]
    fn an_answer_is_kept_for_its_time_to_live_within_bounds() {
        let address = Ok(vec![RecordData::Address(IpAddr::from([192, 0, 2, 1]))]);
        assert_eq!(seconds_cached(&address, 60), 60);
        assert_eq!(seconds_cached(&address, 0), 1, "at least a second");
        assert_eq!(seconds_cached(&address, 86_400), 3600, "at most an hour");
        for negative in [Ok(vec![]), Err(DnsError::NoSuchDomain)] {
            assert_eq!(seconds_cached(&negative, 60), 60);
            assert_eq!(seconds_cached(&negative, 0), 0, "no longer than its SOA says");
            assert_eq!(seconds_cached(&negative, 86_400), 300, "at most five minutes");
        }
        assert_eq!(seconds_cached(&Err(DnsError::Temporary("SERVFAIL".to_owned())), 86_400), 5);
    }

    #[test]
    fn an_exhausted_budget_is_not_an_answer_for_the_next_caller() {
        assert_eq!(seconds_cached(&Err(DnsError::BudgetExhausted("no time is left")), 60), 0);
    }

    #[test]
    fn the_number_of_answers_is_bounded_and_one_in_use_stays() {
        let mut cache = ResponseCache::new();
        let key = |n: usize| (format!("{n}.example"), Rtype::A);
        for n in 0..ENTRIES_MAX.get() * 3 {
            cache.insert(key(n), Ok(vec![]), Duration::from_secs(60), at(1));
            assert!(cache.entries.len() <= ENTRIES_MAX.get());
            assert!(cache.get(&key(n), at(1)).is_some(), "the latest answer is kept");
            assert!(cache.get(&key(0), at(1)).is_some(), "an answer that is asked for is kept");
        }
    }
}
