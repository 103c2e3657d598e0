//! What was answered, for as long as it holds.
//!
//! Positive answers by the smallest TTL on the way, negative ones by the SOA (RFC 2308 §5), both
//! within bounds of ours; failures for a few seconds (RFC 9520 §3.2), so that a queue full of mail
//! for one broken domain does not ask for it as often. The number of answers is bounded, and so is
//! the size of each. No clock and no lock of its own: the stub resolver has both.

use std::collections::HashMap;
use std::time::Duration;

use domain::base::Rtype;

use super::error::DnsError;
use super::response::RecordData;
use crate::sys::Moment;

/// Answers kept.
const ENTRIES_MAX: usize = 4096;
/// An answer holds for the whole of an attempt, whatever its TTL says.
const POSITIVE_TTL_MIN: Duration = Duration::from_secs(1);
/// So that a mistake that an operator has mended is gone within the hour.
const POSITIVE_TTL_MAX: Duration = Duration::from_secs(3600);
/// RFC 2308 §5 suggests one to three hours; a domain that has just been made should not wait.
const NEGATIVE_TTL_MAX: Duration = Duration::from_secs(300);
/// RFC 9520 §3.2: at least one second, at most five minutes.
const FAILURE_TTL: Duration = Duration::from_secs(5);

/// A name in lower case, and the type asked for.
pub(super) type CacheKey = (String, Rtype);

/// Records, none or more, or why there are none to give.
pub(super) type LookupResult = Result<Vec<RecordData>, DnsError>;

/// Answers by question.
#[derive(Debug, Default)]
pub(super) struct ResponseCache {
    entries: HashMap<CacheKey, (LookupResult, Moment)>,
}

impl ResponseCache {
    /// The answer, if it still holds.
    pub(super) fn get(&self, key: &CacheKey, now: Moment) -> Option<LookupResult> {
        self.entries.get(key).filter(|(_, until)| now < *until).map(|(answer, _)| answer.clone())
    }

    /// Keeps an answer for `ttl`, within bounds.
    pub(super) fn insert(&mut self, key: CacheKey, answer: LookupResult, ttl: Duration, now: Moment) {
        let ttl = match &answer {
            Ok(facts) if !facts.is_empty() => ttl.clamp(POSITIVE_TTL_MIN, POSITIVE_TTL_MAX),
            Ok(_) | Err(DnsError::NoSuchDomain) => ttl.min(NEGATIVE_TTL_MAX),
            Err(DnsError::Temporary(_)) => FAILURE_TTL,
            // Says nothing about the name: the next caller has another budget.
            Err(DnsError::BudgetExhausted(_)) => return,
        };
        if self.entries.len() >= ENTRIES_MAX {
            self.entries.retain(|_, (_, until)| now < *until);
        }
        if self.entries.len() >= ENTRIES_MAX {
            // Any quarter is as good as another: asking again is cheap.
            let mut number = 0;
            self.entries.retain(|_, _| {
                number += 1;
                number % 4 != 0
            });
        }
        self.entries.insert(key, (answer, now + ttl));
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
        let mut cache = ResponseCache::default();
        let key = ("there.example".to_owned(), Rtype::A);
        cache.insert(key.clone(), answer.clone(), Duration::from_secs(ttl_seconds), at(100));
        (0..).find(|seconds| cache.get(&key, at(100 + seconds)).is_none()).unwrap()
    }

    #[test]
    fn an_answer_holds_for_its_time_within_bounds() {
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
    fn the_number_of_answers_is_bounded() {
        let mut cache = ResponseCache::default();
        for n in 0..ENTRIES_MAX * 3 {
            let key = (format!("{n}.example"), Rtype::A);
            cache.insert(key.clone(), Ok(vec![]), Duration::from_secs(60), at(1));
            assert!(cache.entries.len() <= ENTRIES_MAX);
            assert!(cache.get(&key, at(1)).is_some(), "the latest is always kept");
        }
    }
}
