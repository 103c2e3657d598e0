//! Delays logins after failures, so that passwords cannot be guessed quickly.
//!
//! Failures are counted in three ways: of one login from one client, of one client over all its logins, and of
//! the network of the client, because one guesser may use many addresses of it. Failures from elsewhere do not
//! count, so that an attacker in another network cannot lock a user out. A login that has succeeded from a client is
//! trusted there: failures of other logins behind the same address do not delay it.
//!
//! Pure: the time is an argument. Bounded: old entries are removed, and when a table is full, the oldest entry.
//! The caller derives client and network from the address.
//!
//! The tables are not an LRU cache of a library: which entry goes depends on trust and on the last failure, not
//! on the last use. Otherwise a flood of guesses would displace the trusted logins.

use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher as _, Hash};
use std::net::IpAddr;
use std::time::Duration;

use crate::mail::Mailbox;
use crate::sys::Moment;

/// Failures of one login from one client before it is delayed: a user may mistype.
const LOGIN_FAILURES_FREE: u32 = 5;

/// Failures from one client before its logins are delayed: many users may share the address.
const CLIENT_FAILURES_FREE: u32 = 20;

/// Failures from one network before its logins are delayed: it may have many such clients.
const NETWORK_FAILURES_FREE: u32 = 100;

/// The first delay; each further failure doubles it.
const WAIT_FIRST: Duration = Duration::from_secs(5);

/// The longest delay.
const WAIT_MAX: Duration = Duration::from_secs(15 * 60);

/// An entry is removed this long after its last failure.
const ENTRY_LIFETIME: Duration = Duration::from_secs(60 * 60);

/// Most entries of each table: logins, clients, networks.
const ENTRIES_MAX: usize = 10_000;

/// The result of a login that was admitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BackoffOutcome {
    /// The password was right.
    Succeeded,
    /// The password was wrong: a failure is counted.
    Failed,
    /// The password could not be checked: nothing is counted.
    Undecided,
}

/// Where a login comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LoginOrigin {
    /// The client, as far as its address identifies it.
    pub client: IpAddr,
    /// The network of the client, which probably has one owner.
    pub network: IpAddr,
}

/// The failures of logins, clients and networks.
#[derive(Debug, Default)]
pub struct LoginBackoff {
    /// By client and login. The login is stored as a keyed hash, which has a fixed size.
    logins: ExpiringTable<(IpAddr, u64)>,
    clients: ExpiringTable<IpAddr>,
    networks: ExpiringTable<IpAddr>,
    hasher: RandomState,
}

#[derive(Debug, Clone, Copy, Default)]
struct FailureHistory {
    failures: u32,
    /// When the last login failed or succeeded.
    last_outcome_at: Moment,
    /// Logins that were admitted and have no outcome yet.
    pending_logins: u32,
    /// The login has succeeded, and has not failed too often since.
    is_trusted: bool,
}

impl FailureHistory {
    /// The remaining delay. After too many failures, only one login at a time is admitted.
    fn remaining_wait(&self, free: u32, now: Moment) -> Duration {
        if self.failures <= free {
            return Duration::ZERO;
        }
        let left = wait_after_failures(self.failures - free).saturating_sub(now.since(self.last_outcome_at));
        if self.pending_logins > 0 { left.max(WAIT_FIRST) } else { left }
    }

    fn record_outcome(&mut self, outcome: BackoffOutcome, now: Moment) {
        self.pending_logins = self.pending_logins.saturating_sub(1);
        if outcome == BackoffOutcome::Failed {
            self.failures = self.failures.saturating_add(1);
            self.last_outcome_at = now;
        }
    }

    fn is_expired(&self, now: Moment) -> bool {
        self.pending_logins == 0 && !self.is_trusted && now.since(self.last_outcome_at) > ENTRY_LIFETIME
    }
}

fn wait_after_failures(failures: u32) -> Duration {
    let doubled = 1_u32.checked_shl(failures.saturating_sub(1)).unwrap_or(u32::MAX);
    WAIT_FIRST.saturating_mul(doubled).min(WAIT_MAX)
}

impl LoginBackoff {
    /// Whether `user`, as the client has written it, may try to log in from `origin`. After each `Ok` the caller
    /// calls [`Self::record_outcome`].
    ///
    /// # Errors
    /// The remaining delay.
    pub fn admit(&mut self, origin: LoginOrigin, user: &str, now: Moment) -> Result<(), Duration> {
        let LoginOrigin { client, network } = origin;
        let key = self.login_key(client, user);
        self.clients.remove_expired(&client, now);
        self.networks.remove_expired(&network, now);
        self.logins.remove_expired(&key, now);
        let is_trusted = self.logins.entries.get(&key).is_some_and(|login| login.is_trusted);
        let shared_wait = if is_trusted {
            Duration::ZERO
        } else {
            let network_wait = self.networks.remaining_wait(&network, NETWORK_FAILURES_FREE, now);
            self.clients.remaining_wait(&client, CLIENT_FAILURES_FREE, now).max(network_wait)
        };
        let wait = self.logins.remaining_wait(&key, LOGIN_FAILURES_FREE, now).max(shared_wait);
        if wait > Duration::ZERO {
            return Err(wait);
        }
        self.logins.entry_or_replace_oldest(key, now).pending_logins += 1;
        self.clients.entry_or_replace_oldest(client, now).pending_logins += 1;
        self.networks.entry_or_replace_oldest(network, now).pending_logins += 1;
        Ok(())
    }

    /// Records the result of a login that was admitted.
    pub fn record_outcome(&mut self, origin: LoginOrigin, user: &str, outcome: BackoffOutcome, now: Moment) {
        let LoginOrigin { client, network } = origin;
        let key = self.login_key(client, user);
        let login = self.logins.entry_or_replace_oldest(key, now);
        login.record_outcome(outcome, now);
        match outcome {
            BackoffOutcome::Succeeded => {
                *login = FailureHistory { failures: 0, last_outcome_at: now, is_trusted: true, ..*login }
            }
            BackoffOutcome::Failed => login.is_trusted &= login.failures <= LOGIN_FAILURES_FREE,
            BackoffOutcome::Undecided => {}
        }
        self.clients.entry_or_replace_oldest(client, now).record_outcome(outcome, now);
        self.networks.entry_or_replace_oldest(network, now).record_outcome(outcome, now);
    }

    /// The key of a login: the same for all spellings of a user.
    fn login_key(&self, client: IpAddr, user: &str) -> (IpAddr, u64) {
        let login = match Mailbox::parse(user) {
            Ok(mailbox) => self.hasher.hash_one((mailbox.local_part.comparison_key(), mailbox.domain)),
            Err(_) => self.hasher.hash_one(user),
        };
        (client, login)
    }
}

/// A table of at most [`ENTRIES_MAX`] entries, which expire.
#[derive(Debug)]
struct ExpiringTable<K> {
    entries: HashMap<K, FailureHistory>,
}

impl<K> Default for ExpiringTable<K> {
    fn default() -> Self {
        Self { entries: HashMap::new() }
    }
}

impl<K: Eq + Hash + Copy> ExpiringTable<K> {
    fn remaining_wait(&self, key: &K, free: u32, now: Moment) -> Duration {
        self.entries.get(key).map_or(Duration::ZERO, |history| history.remaining_wait(free, now))
    }

    fn remove_expired(&mut self, key: &K, now: Moment) {
        if self.entries.get(key).is_some_and(|history| history.is_expired(now)) {
            self.entries.remove(key);
        }
    }

    /// The entry of `key`. If it is new and the table is full, expired entries are removed, or else the oldest.
    fn entry_or_replace_oldest(&mut self, key: K, now: Moment) -> &mut FailureHistory {
        if self.entries.len() >= ENTRIES_MAX && !self.entries.contains_key(&key) {
            self.entries.retain(|_, history| !history.is_expired(now));
            // Trusted logins go last, so that a flood of guesses does not displace them.
            let oldest =
                self.entries.iter().min_by_key(|(_, history)| (history.is_trusted, history.last_outcome_at));
            if let Some(oldest) = oldest.map(|(key, _)| *key)
                && self.entries.len() >= ENTRIES_MAX
            {
                self.entries.remove(&oldest);
            }
        }
        self.entries
            .entry(key)
            .or_insert(FailureHistory { last_outcome_at: now, ..FailureHistory::default() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLIENT: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));
    const OTHER_CLIENT: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 2));

    fn sole_client(client: IpAddr) -> LoginOrigin {
        LoginOrigin { client, network: client }
    }

    /// A table and a clock.
    #[derive(Default)]
    struct BackoffFixture {
        backoff: LoginBackoff,
        now: Moment,
    }

    impl BackoffFixture {
        fn advance(&mut self, seconds: u64) {
            self.now = self.now + Duration::from_secs(seconds);
        }

        /// Tries a login from a client that is the only one of its network.
        fn attempt(&mut self, from: IpAddr, user: &str, outcome: BackoffOutcome) -> Result<(), u64> {
            self.attempt_from(sole_client(from), user, outcome)
        }

        fn attempt_from(
            &mut self,
            from: LoginOrigin,
            user: &str,
            outcome: BackoffOutcome,
        ) -> Result<(), u64> {
            self.backoff.admit(from, user, self.now).map_err(|wait| wait.as_secs())?;
            self.backoff.record_outcome(from, user, outcome, self.now);
            Ok(())
        }
    }

    #[test]
    fn the_delay_of_a_login_doubles_with_each_failure() {
        let mut fixture = BackoffFixture::default();
        for _ in 0..=LOGIN_FAILURES_FREE {
            assert_eq!(fixture.attempt(CLIENT, "ana@here.example", BackoffOutcome::Failed), Ok(()));
        }
        for wait in [5, 10, 20, 40, 80, 160, 320, 640, 900, 900] {
            assert_eq!(
                fixture.attempt(CLIENT, "ANA@here.example", BackoffOutcome::Succeeded),
                Err(wait),
                "in any spelling"
            );
            fixture.advance(wait - 1);
            assert_eq!(fixture.attempt(CLIENT, "ana@here.example", BackoffOutcome::Failed), Err(1));
            fixture.advance(1);
            assert_eq!(fixture.attempt(CLIENT, "ana@here.example", BackoffOutcome::Failed), Ok(()));
        }
        fixture.advance(ENTRY_LIFETIME.as_secs() + 1);
        assert_eq!(fixture.attempt(CLIENT, "ana@here.example", BackoffOutcome::Failed), Ok(()));
        assert_eq!(fixture.attempt(CLIENT, "ana@here.example", BackoffOutcome::Failed), Ok(()));
    }

    #[test]
    fn failures_from_one_client_do_not_delay_other_clients() {
        let mut fixture = BackoffFixture::default();
        for n in 0..200 {
            let _ = fixture.attempt(CLIENT, "ana@here.example", BackoffOutcome::Failed);
            let _ = fixture.attempt(CLIENT, &format!("user{n}"), BackoffOutcome::Failed);
        }
        assert!(fixture.attempt(CLIENT, "ana@here.example", BackoffOutcome::Succeeded).is_err());
        assert_eq!(fixture.attempt(OTHER_CLIENT, "ana@here.example", BackoffOutcome::Succeeded), Ok(()));
    }

    #[test]
    fn a_client_that_tries_many_logins_is_delayed_but_not_its_trusted_logins() {
        let mut fixture = BackoffFixture::default();
        assert_eq!(fixture.attempt(CLIENT, "ana@here.example", BackoffOutcome::Succeeded), Ok(()));
        for n in 0..=CLIENT_FAILURES_FREE {
            assert_eq!(fixture.attempt(CLIENT, &format!("user{n}"), BackoffOutcome::Failed), Ok(()));
        }
        assert_eq!(fixture.attempt(CLIENT, "bo@here.example", BackoffOutcome::Succeeded), Err(5));
        assert_eq!(
            fixture.attempt(CLIENT, "ana@here.example", BackoffOutcome::Succeeded),
            Ok(()),
            "this login is trusted"
        );
        fixture.advance(5);
        assert_eq!(fixture.attempt(CLIENT, "bo@here.example", BackoffOutcome::Succeeded), Ok(()));
    }

    #[test]
    fn a_success_clears_the_failures_of_the_login_and_not_of_the_client() {
        let mut fixture = BackoffFixture::default();
        for round in 0..CLIENT_FAILURES_FREE {
            let user = "ana@here.example";
            assert_eq!(fixture.attempt(CLIENT, user, BackoffOutcome::Failed), Ok(()), "{round}");
            assert_eq!(fixture.attempt(CLIENT, user, BackoffOutcome::Succeeded), Ok(()));
        }
        assert_eq!(fixture.attempt(CLIENT, "eve", BackoffOutcome::Failed), Ok(()));
        assert_eq!(fixture.attempt(CLIENT, "eve", BackoffOutcome::Failed), Err(5));
    }

    #[test]
    fn trust_ends_when_the_login_fails_too_often() {
        let mut fixture = BackoffFixture::default();
        fixture.attempt(CLIENT, "ana@here.example", BackoffOutcome::Succeeded).unwrap();
        for _ in 0..=LOGIN_FAILURES_FREE {
            fixture.attempt(CLIENT, "ana@here.example", BackoffOutcome::Failed).unwrap();
        }
        assert_eq!(fixture.attempt(CLIENT, "ana@here.example", BackoffOutcome::Failed), Err(5));
    }

    #[test]
    fn an_undecided_login_counts_neither_as_success_nor_as_failure() {
        let mut fixture = BackoffFixture::default();
        for _ in 0..100 {
            assert_eq!(fixture.attempt(CLIENT, "ana@here.example", BackoffOutcome::Undecided), Ok(()));
        }
    }

    #[test]
    fn after_too_many_failures_only_one_login_at_a_time_is_admitted() {
        let mut fixture = BackoffFixture::default();
        for _ in 0..=LOGIN_FAILURES_FREE {
            fixture.attempt(CLIENT, "ana", BackoffOutcome::Failed).unwrap();
        }
        fixture.advance(60);
        assert_eq!(fixture.backoff.admit(sole_client(CLIENT), "ana", fixture.now), Ok(()));
        assert!(
            fixture.backoff.admit(sole_client(CLIENT), "ana", fixture.now).is_err(),
            "the first login has no outcome yet"
        );
        fixture.backoff.record_outcome(sole_client(CLIENT), "ana", BackoffOutcome::Succeeded, fixture.now);
        assert_eq!(fixture.backoff.admit(sole_client(CLIENT), "ana", fixture.now), Ok(()));
    }

    #[test]
    fn a_network_is_delayed_after_failures_of_many_clients() {
        let mut fixture = BackoffFixture::default();
        let client = |n: u32| LoginOrigin { client: std::net::Ipv4Addr::from(n).into(), network: CLIENT };
        fixture.attempt_from(client(0), "bo@here.example", BackoffOutcome::Succeeded).unwrap();
        for n in 1..=NETWORK_FAILURES_FREE + 1 {
            assert_eq!(
                fixture.attempt_from(client(n), "ana@here.example", BackoffOutcome::Failed),
                Ok(()),
                "{n}"
            );
        }
        assert_eq!(fixture.attempt_from(client(5000), "ana@here.example", BackoffOutcome::Failed), Err(5));
        assert_eq!(
            fixture.attempt_from(client(0), "bo@here.example", BackoffOutcome::Succeeded),
            Ok(()),
            "this login is trusted"
        );
        assert_eq!(fixture.attempt(OTHER_CLIENT, "ana@here.example", BackoffOutcome::Succeeded), Ok(()));
    }

    #[test]
    fn a_full_table_keeps_trusted_logins() {
        let mut fixture = BackoffFixture::default();
        fixture.attempt(CLIENT, "ana@here.example", BackoffOutcome::Succeeded).unwrap();
        for n in 0..ENTRIES_MAX as u32 + 100 {
            fixture.now = fixture.now + Duration::from_millis(1);
            let from = IpAddr::V4(std::net::Ipv4Addr::from(n));
            fixture.attempt(from, "ana@here.example", BackoffOutcome::Failed).unwrap();
        }
        assert_eq!(
            (fixture.backoff.logins.entries.len(), fixture.backoff.clients.entries.len()),
            (ENTRIES_MAX, ENTRIES_MAX)
        );
        let ana = fixture.backoff.login_key(CLIENT, "ana@here.example");
        assert!(fixture.backoff.logins.entries[&ana].is_trusted);
    }
}
