//! Who has been guessing passwords, and how long they have to wait.
//!
//! Three counts: failures of one login from one client, failures from one client over all its logins,
//! and failures from the network that it is in, whose clients may all be one. None says anything of the same login from elsewhere, so that nobody can lock a user
//! out. A login that has succeeded from an origin is trusted there: it does not wait for what others
//! behind the same address have done.
//!
//! Pure: the time is given. Bounded: the table forgets what is old, and when it is full, what is
//! oldest. Origins are for the caller to make of addresses.

use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher as _;
use std::net::IpAddr;
use std::time::Duration;

use crate::mail::Mailbox;
use crate::sys::Moment;

/// Failures of one login from one client before it waits: a person mistypes.
const LOGIN_FAILURES_FREE: u32 = 5;

/// Failures from one client before its logins wait: there may be an office behind it.
const CLIENT_FAILURES_FREE: u32 = 20;

/// Failures from one network before its logins wait: there may be many offices in it.
const NETWORK_FAILURES_FREE: u32 = 100;

/// The first wait; each failure doubles it.
const WAIT_FIRST: Duration = Duration::from_secs(5);

/// The longest wait.
const WAIT_MAX: Duration = Duration::from_secs(15 * 60);

/// So long after its last failure everything is forgotten.
const ENTRY_LIFETIME: Duration = Duration::from_secs(60 * 60);

/// Logins, clients and networks that are remembered, each.
const ENTRIES_MAX: usize = 10_000;

/// What a login that was let through turned out to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BackoffOutcome {
    /// No guess: this is the user.
    Succeeded,
    /// Counts.
    Failed,
    /// We could not find out; counts for nothing.
    Undecided,
}

/// Where a login comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LoginOrigin {
    /// One client, as far as its address tells.
    pub client: IpAddr,
    /// One owner of many clients.
    pub network: IpAddr,
}

/// Who has been guessing.
#[derive(Debug, Default)]
pub struct LoginBackoff {
    /// By client and login. The login is kept as a keyed hash of a fixed size, whatever its length.
    logins: HashMap<(IpAddr, u64), FailureHistory>,
    clients: HashMap<IpAddr, FailureHistory>,
    networks: HashMap<IpAddr, FailureHistory>,
    hasher: RandomState,
}

#[derive(Debug, Clone, Copy, Default)]
struct FailureHistory {
    failures: u32,
    /// Of the last failure or success.
    last_outcome_at: Moment,
    /// Logins that were let through and have not turned out to be anything yet.
    pending_logins: u32,
    /// It has succeeded, and not failed too often since.
    is_trusted: bool,
}

impl FailureHistory {
    /// How long it has to wait still. While it is suspect, one guess at a time is let through.
    fn remaining_wait(&self, free: u32, now: Moment) -> Duration {
        if self.failures <= free {
            return Duration::ZERO;
        }
        let left = wait_after_failures(self.failures - free).saturating_sub(now.since(self.last_outcome_at));
        if self.pending_logins > 0 { left.max(WAIT_FIRST) } else { left }
    }

    fn record_outcome(&mut self, guess: BackoffOutcome, now: Moment) {
        self.pending_logins = self.pending_logins.saturating_sub(1);
        if guess == BackoffOutcome::Failed {
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
    /// May `user`, in the client's words, try to log in from `origin`? Each `Ok` is followed by
    /// [`Self::settle`].
    ///
    /// # Errors
    /// How long it has to wait.
    pub fn admit(&mut self, origin: LoginOrigin, user: &str, now: Moment) -> Result<(), Duration> {
        let LoginOrigin { client, network } = origin;
        let key = self.login_key(client, user);
        self.clients.remove_expired(&client, now);
        self.networks.remove_expired(&network, now);
        self.logins.remove_expired(&key, now);
        let login = self.logins.get(&key).copied().unwrap_or_default();
        let wait_of = |table: &HashMap<_, FailureHistory>, key, free| {
            table.get(key).map_or(Duration::ZERO, |record| record.remaining_wait(free, now))
        };
        let for_others = if login.is_trusted {
            Duration::ZERO
        } else {
            let neighbours = wait_of(&self.networks, &network, NETWORK_FAILURES_FREE);
            wait_of(&self.clients, &client, CLIENT_FAILURES_FREE).max(neighbours)
        };
        let wait = login.remaining_wait(LOGIN_FAILURES_FREE, now).max(for_others);
        if wait > Duration::ZERO {
            return Err(wait);
        }
        self.logins.entry_or_replace_oldest(key, now).pending_logins += 1;
        self.clients.entry_or_replace_oldest(client, now).pending_logins += 1;
        self.networks.entry_or_replace_oldest(network, now).pending_logins += 1;
        Ok(())
    }

    /// A login that was let through turned out to be this.
    pub fn record_outcome(&mut self, origin: LoginOrigin, user: &str, guess: BackoffOutcome, now: Moment) {
        let LoginOrigin { client, network } = origin;
        let key = self.login_key(client, user);
        let login = self.logins.entry_or_replace_oldest(key, now);
        login.record_outcome(guess, now);
        match guess {
            BackoffOutcome::Succeeded => {
                *login = FailureHistory { failures: 0, last_outcome_at: now, is_trusted: true, ..*login }
            }
            BackoffOutcome::Failed => login.is_trusted &= login.failures <= LOGIN_FAILURES_FREE,
            BackoffOutcome::Undecided => {}
        }
        self.clients.entry_or_replace_oldest(client, now).record_outcome(guess, now);
        self.networks.entry_or_replace_oldest(network, now).record_outcome(guess, now);
    }

    /// One spelling of each user.
    fn login_key(&self, client: IpAddr, user: &str) -> (IpAddr, u64) {
        let login = match Mailbox::parse(user) {
            Ok(mailbox) => self.hasher.hash_one((mailbox.local_part.comparison_key(), mailbox.domain)),
            Err(_) => self.hasher.hash_one(user),
        };
        (client, login)
    }
}

/// A table that forgets.
trait ExpiringTable<K> {
    /// Forgets this one if it is old.
    fn remove_expired(&mut self, key: &K, now: Moment);
    /// This one; if it is new and the table is full, in the place of old ones.
    fn entry_or_replace_oldest(&mut self, key: K, now: Moment) -> &mut FailureHistory;
}

impl<K: Eq + std::hash::Hash + Copy> ExpiringTable<K> for HashMap<K, FailureHistory> {
    fn remove_expired(&mut self, key: &K, now: Moment) {
        if self.get(key).is_some_and(|record| record.is_expired(now)) {
            self.remove(key);
        }
    }

    fn entry_or_replace_oldest(&mut self, key: K, now: Moment) -> &mut FailureHistory {
        if self.len() >= ENTRIES_MAX && !self.contains_key(&key) {
            self.retain(|_, record| !record.is_expired(now));
            // Users come last, so that a flood does not wash away who is trusted.
            let first = self.iter().min_by_key(|(_, record)| (record.is_trusted, record.last_outcome_at));
            if let Some(first) = first.map(|(key, _)| *key)
                && self.len() >= ENTRIES_MAX
            {
                self.remove(&first);
            }
        }
        self.entry(key).or_insert(FailureHistory { last_outcome_at: now, ..FailureHistory::default() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLIENT: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));
    const OTHER_CLIENT: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 2));

    /// A table and a clock.
    fn sole_client(client: IpAddr) -> LoginOrigin {
        LoginOrigin { client, network: client }
    }

    #[derive(Default)]
    struct BackoffFixture {
        backoff: LoginBackoff,
        now: Moment,
    }

    impl BackoffFixture {
        fn advance(&mut self, seconds: u64) {
            self.now = self.now + Duration::from_secs(seconds);
        }

        /// From a client that is the only one of its network.
        fn attempt(&mut self, from: IpAddr, user: &str, guess: BackoffOutcome) -> Result<(), u64> {
            self.attempt_from(sole_client(from), user, guess)
        }

        fn attempt_from(&mut self, from: LoginOrigin, user: &str, guess: BackoffOutcome) -> Result<(), u64> {
            self.backoff.admit(from, user, self.now).map_err(|wait| wait.as_secs())?;
            self.backoff.record_outcome(from, user, guess, self.now);
            Ok(())
        }
    }

    #[test]
    fn guesses_of_one_login_wait_longer_and_longer() {
        let mut door = BackoffFixture::default();
        for _ in 0..=LOGIN_FAILURES_FREE {
            assert_eq!(door.attempt(CLIENT, "ana@here.example", BackoffOutcome::Failed), Ok(()));
        }
        for wait in [5, 10, 20, 40, 80, 160, 320, 640, 900, 900] {
            assert_eq!(
                door.attempt(CLIENT, "ANA@here.example", BackoffOutcome::Succeeded),
                Err(wait),
                "in any spelling"
            );
            door.advance(wait - 1);
            assert_eq!(door.attempt(CLIENT, "ana@here.example", BackoffOutcome::Failed), Err(1));
            door.advance(1);
            assert_eq!(door.attempt(CLIENT, "ana@here.example", BackoffOutcome::Failed), Ok(()));
        }
        door.advance(ENTRY_LIFETIME.as_secs() + 1);
        assert_eq!(door.attempt(CLIENT, "ana@here.example", BackoffOutcome::Failed), Ok(()));
        assert_eq!(door.attempt(CLIENT, "ana@here.example", BackoffOutcome::Failed), Ok(()));
    }

    #[test]
    fn nobody_is_locked_out_from_elsewhere() {
        let mut door = BackoffFixture::default();
        for n in 0..200 {
            let _ = door.attempt(CLIENT, "ana@here.example", BackoffOutcome::Failed);
            let _ = door.attempt(CLIENT, &format!("user{n}"), BackoffOutcome::Failed);
        }
        assert!(door.attempt(CLIENT, "ana@here.example", BackoffOutcome::Succeeded).is_err());
        assert_eq!(door.attempt(OTHER_CLIENT, "ana@here.example", BackoffOutcome::Succeeded), Ok(()));
    }

    #[test]
    fn one_origin_that_tries_many_logins_waits_but_not_its_users() {
        let mut door = BackoffFixture::default();
        assert_eq!(door.attempt(CLIENT, "ana@here.example", BackoffOutcome::Succeeded), Ok(()));
        for n in 0..=CLIENT_FAILURES_FREE {
            assert_eq!(door.attempt(CLIENT, &format!("user{n}"), BackoffOutcome::Failed), Ok(()));
        }
        assert_eq!(door.attempt(CLIENT, "bo@here.example", BackoffOutcome::Succeeded), Err(5));
        assert_eq!(
            door.attempt(CLIENT, "ana@here.example", BackoffOutcome::Succeeded),
            Ok(()),
            "has been here before"
        );
        door.advance(5);
        assert_eq!(door.attempt(CLIENT, "bo@here.example", BackoffOutcome::Succeeded), Ok(()));
    }

    #[test]
    fn a_right_login_clears_its_own_failures_and_not_the_origins() {
        let mut door = BackoffFixture::default();
        for round in 0..CLIENT_FAILURES_FREE {
            let user = "ana@here.example";
            assert_eq!(door.attempt(CLIENT, user, BackoffOutcome::Failed), Ok(()), "{round}");
            assert_eq!(door.attempt(CLIENT, user, BackoffOutcome::Succeeded), Ok(()));
        }
        assert_eq!(door.attempt(CLIENT, "eve", BackoffOutcome::Failed), Ok(()));
        assert_eq!(door.attempt(CLIENT, "eve", BackoffOutcome::Failed), Err(5));
    }

    #[test]
    fn trust_ends_when_the_login_fails_too_often() {
        let mut door = BackoffFixture::default();
        door.attempt(CLIENT, "ana@here.example", BackoffOutcome::Succeeded).unwrap();
        for _ in 0..=LOGIN_FAILURES_FREE {
            door.attempt(CLIENT, "ana@here.example", BackoffOutcome::Failed).unwrap();
        }
        assert_eq!(door.attempt(CLIENT, "ana@here.example", BackoffOutcome::Failed), Err(5));
    }

    #[test]
    fn what_we_could_not_find_out_counts_for_nothing() {
        let mut door = BackoffFixture::default();
        for _ in 0..100 {
            assert_eq!(door.attempt(CLIENT, "ana@here.example", BackoffOutcome::Undecided), Ok(()));
        }
    }

    #[test]
    fn who_is_suspect_may_not_try_many_at_once() {
        let mut door = BackoffFixture::default();
        for _ in 0..=LOGIN_FAILURES_FREE {
            door.attempt(CLIENT, "ana", BackoffOutcome::Failed).unwrap();
        }
        door.advance(60);
        assert_eq!(door.backoff.admit(sole_client(CLIENT), "ana", door.now), Ok(()));
        assert!(
            door.backoff.admit(sole_client(CLIENT), "ana", door.now).is_err(),
            "the first has not been answered"
        );
        door.backoff.record_outcome(sole_client(CLIENT), "ana", BackoffOutcome::Succeeded, door.now);
        assert_eq!(door.backoff.admit(sole_client(CLIENT), "ana", door.now), Ok(()));
    }

    #[test]
    fn a_network_whose_clients_are_one_guesser_waits_as_a_whole() {
        let mut door = BackoffFixture::default();
        let client = |n: u32| LoginOrigin { client: std::net::Ipv4Addr::from(n).into(), network: CLIENT };
        door.attempt_from(client(0), "bo@here.example", BackoffOutcome::Succeeded).unwrap();
        for n in 1..=NETWORK_FAILURES_FREE + 1 {
            assert_eq!(
                door.attempt_from(client(n), "ana@here.example", BackoffOutcome::Failed),
                Ok(()),
                "{n}"
            );
        }
        assert_eq!(door.attempt_from(client(5000), "ana@here.example", BackoffOutcome::Failed), Err(5));
        assert_eq!(
            door.attempt_from(client(0), "bo@here.example", BackoffOutcome::Succeeded),
            Ok(()),
            "who is trusted there"
        );
        assert_eq!(door.attempt(OTHER_CLIENT, "ana@here.example", BackoffOutcome::Succeeded), Ok(()));
    }

    #[test]
    fn the_table_is_bounded_and_keeps_those_who_are_trusted() {
        let mut door = BackoffFixture::default();
        door.attempt(CLIENT, "ana@here.example", BackoffOutcome::Succeeded).unwrap();
        for n in 0..ENTRIES_MAX as u32 + 100 {
            door.now = door.now + Duration::from_millis(1);
            let from = IpAddr::V4(std::net::Ipv4Addr::from(n));
            door.attempt(from, "ana@here.example", BackoffOutcome::Failed).unwrap();
        }
        assert_eq!((door.backoff.logins.len(), door.backoff.clients.len()), (ENTRIES_MAX, ENTRIES_MAX));
        let ana = door.backoff.login_key(CLIENT, "ana@here.example");
        assert!(door.backoff.logins[&ana].is_trusted);
    }
}
