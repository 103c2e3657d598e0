//! What was answered, for as long as it holds.
//!
//! Positive answers by the smallest TTL on the way, negative ones by the SOA (RFC 2308 §5), both
//! within bounds of ours; failures for a few seconds (RFC 9520 §3.2), so that a queue full of mail
//! for one broken domain does not ask for it as often. The number of answers is bounded, and so is
//! the size of each. No clock and no lock of its own: the stub resolver has both.

use std::collections::HashMap;
use std::time::Duration;

use domain::base::Rtype;

use super::answer::Fact;
use super::resolver::DnsError;
use crate::sys::Moment;

/// Answers kept.
const ANSWERS_MAX: usize = 4096;
/// An answer holds for the whole of an attempt, whatever its TTL says.
const POSITIVE_MIN: Duration = Duration::from_secs(1);
/// So that a mistake that an operator has mended is gone within the hour.
const POSITIVE_MAX: Duration = Duration::from_secs(3600);
/// RFC 2308 §5 suggests one to three hours; a domain that has just been made should not wait.
const NEGATIVE_MAX: Duration = Duration::from_secs(300);
/// RFC 9520 §3.2: at least one second, at most five minutes.
const FAILURE: Duration = Duration::from_secs(5);

/// A name in lower case, and the type asked for.
pub(super) type Key = (String, Rtype);

/// Records, none or more, or why there are none to give.
pub(super) type Answer = Result<Vec<Fact>, DnsError>;

/// Answers by question.
#[derive(Debug, Default)]
pub(super) struct Cache {
    answers: HashMap<Key, (Answer, Moment)>,
}

impl Cache {
    /// The answer, if it still holds.
    pub(super) fn find(&self, key: &Key, now: Moment) -> Option<Answer> {
        self.answers.get(key).filter(|(_, until)| now < *until).map(|(answer, _)| answer.clone())
    }

    /// Keeps an answer for `ttl`, within bounds.
    pub(super) fn keep(&mut self, key: Key, answer: Answer, ttl: Duration, now: Moment) {
        let ttl = match &answer {
            Ok(facts) if !facts.is_empty() => ttl.clamp(POSITIVE_MIN, POSITIVE_MAX),
            Ok(_) | Err(DnsError::NoSuchDomain) => ttl.min(NEGATIVE_MAX),
            Err(DnsError::Temporary(_)) => FAILURE,
        };
        if self.answers.len() >= ANSWERS_MAX {
            self.answers.retain(|_, (_, until)| now < *until);
        }
        if self.answers.len() >= ANSWERS_MAX {
            // Any quarter is as good as another: asking again is cheap.
            let mut number = 0;
            self.answers.retain(|_, _| {
                number += 1;
                number % 4 != 0
            });
        }
        self.answers.insert(key, (answer, now + ttl));
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;

    fn at(seconds: u64) -> Moment {
        Moment::new(Duration::from_secs(seconds))
    }

    fn holds(answer: &Answer, ttl_seconds: u64) -> u64 {
        let mut cache = Cache::default();
        let key = ("there.example".to_owned(), Rtype::A);
        cache.keep(key.clone(), answer.clone(), Duration::from_secs(ttl_seconds), at(100));
        (0..).find(|seconds| cache.find(&key, at(100 + seconds)).is_none()).unwrap()
    }

    #[test]
    fn an_answer_holds_for_its_time_within_bounds() {
        let address = Ok(vec![Fact::Address(IpAddr::from([192, 0, 2, 1]))]);
        assert_eq!(holds(&address, 60), 60);
        assert_eq!(holds(&address, 0), 1, "at least a second");
        assert_eq!(holds(&address, 86_400), 3600, "at most an hour");
        for negative in [Ok(vec![]), Err(DnsError::NoSuchDomain)] {
            assert_eq!(holds(&negative, 60), 60);
            assert_eq!(holds(&negative, 0), 0, "no longer than its SOA says");
            assert_eq!(holds(&negative, 86_400), 300, "at most five minutes");
        }
        assert_eq!(holds(&Err(DnsError::Temporary("SERVFAIL".to_owned())), 86_400), 5);
    }

    #[test]
    fn the_number_of_answers_is_bounded() {
        let mut cache = Cache::default();
        for n in 0..ANSWERS_MAX * 3 {
            let key = (format!("{n}.example"), Rtype::A);
            cache.keep(key.clone(), Ok(vec![]), Duration::from_secs(60), at(1));
            assert!(cache.answers.len() <= ANSWERS_MAX);
            assert!(cache.find(&key, at(1)).is_some(), "the latest is always kept");
        }
    }
}
