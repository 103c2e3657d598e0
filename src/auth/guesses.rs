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
const LOGIN_FREE: u32 = 5;

/// Failures from one client before its logins wait: there may be an office behind it.
const CLIENT_FREE: u32 = 20;

/// Failures from one network before its logins wait: there may be many offices in it.
const NETWORK_FREE: u32 = 100;

/// The first wait; each failure doubles it.
const WAIT_FIRST: Duration = Duration::from_secs(5);

/// The longest wait.
const WAIT_MAX: Duration = Duration::from_secs(15 * 60);

/// So long after its last failure everything is forgotten.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(60 * 60);

/// Logins, clients and networks that are remembered, each.
const REMEMBERED_MAX: usize = 10_000;

/// What a login that was let through turned out to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Guess {
    /// No guess: this is the user.
    Right,
    /// Counts.
    Wrong,
    /// We could not find out; counts for nothing.
    Unknown,
}

/// Where a login comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Origin {
    /// One client, as far as its address tells.
    pub client: IpAddr,
    /// One owner of many clients.
    pub network: IpAddr,
}

/// Who has been guessing.
#[derive(Debug, Default)]
pub struct Guesses {
    /// By client and login. The login is kept as a keyed hash of a fixed size, whatever its length.
    logins: HashMap<(IpAddr, u64), Record>,
    clients: HashMap<IpAddr, Record>,
    networks: HashMap<IpAddr, Record>,
    hasher: RandomState,
}

#[derive(Debug, Clone, Copy, Default)]
struct Record {
    failures: u32,
    /// Of the last failure or success.
    last: Moment,
    /// Logins that were let through and have not turned out to be anything yet.
    open: u32,
    /// It has succeeded, and not failed too often since.
    is_trusted: bool,
}

impl Record {
    /// How long it has to wait still. While it is suspect, one guess at a time is let through.
    fn wait(&self, free: u32, now: Moment) -> Duration {
        if self.failures <= free {
            return Duration::ZERO;
        }
        let left = wait_after(self.failures - free).saturating_sub(now.since(self.last));
        if self.open > 0 { left.max(WAIT_FIRST) } else { left }
    }

    fn settle(&mut self, guess: Guess, now: Moment) {
        self.open = self.open.saturating_sub(1);
        if guess == Guess::Wrong {
            self.failures = self.failures.saturating_add(1);
            self.last = now;
        }
    }

    fn is_old(&self, now: Moment) -> bool {
        self.open == 0 && !self.is_trusted && now.since(self.last) > FORGOTTEN_AFTER
    }
}

fn wait_after(failures: u32) -> Duration {
    let doubled = 1_u32.checked_shl(failures.saturating_sub(1)).unwrap_or(u32::MAX);
    WAIT_FIRST.saturating_mul(doubled).min(WAIT_MAX)
}

impl Guesses {
    /// May `user`, in the client's words, try to log in from `origin`? Each `Ok` is followed by
    /// [`Self::settle`].
    ///
    /// # Errors
    /// How long it has to wait.
    pub fn admit(&mut self, origin: Origin, user: &str, now: Moment) -> Result<(), Duration> {
        let Origin { client, network } = origin;
        let key = self.key(client, user);
        self.clients.retain_young(&client, now);
        self.networks.retain_young(&network, now);
        self.logins.retain_young(&key, now);
        let login = self.logins.get(&key).copied().unwrap_or_default();
        let wait_of = |table: &HashMap<_, Record>, key, free| {
            table.get(key).map_or(Duration::ZERO, |record| record.wait(free, now))
        };
        let for_others = if login.is_trusted {
            Duration::ZERO
        } else {
            let neighbours = wait_of(&self.networks, &network, NETWORK_FREE);
            wait_of(&self.clients, &client, CLIENT_FREE).max(neighbours)
        };
        let wait = login.wait(LOGIN_FREE, now).max(for_others);
        if wait > Duration::ZERO {
            return Err(wait);
        }
        self.logins.entry_bounded(key, now).open += 1;
        self.clients.entry_bounded(client, now).open += 1;
        self.networks.entry_bounded(network, now).open += 1;
        Ok(())
    }

    /// A login that was let through turned out to be this.
    pub fn settle(&mut self, origin: Origin, user: &str, guess: Guess, now: Moment) {
        let Origin { client, network } = origin;
        let key = self.key(client, user);
        let login = self.logins.entry_bounded(key, now);
        login.settle(guess, now);
        match guess {
            Guess::Right => *login = Record { failures: 0, last: now, is_trusted: true, ..*login },
            Guess::Wrong => login.is_trusted &= login.failures <= LOGIN_FREE,
            Guess::Unknown => {}
        }
        self.clients.entry_bounded(client, now).settle(guess, now);
        self.networks.entry_bounded(network, now).settle(guess, now);
    }

    /// One spelling of each user.
    fn key(&self, client: IpAddr, user: &str) -> (IpAddr, u64) {
        let login = match Mailbox::parse(user) {
            Ok(mailbox) => self.hasher.hash_one((mailbox.local_part.key(), mailbox.domain)),
            Err(_) => self.hasher.hash_one(user),
        };
        (client, login)
    }
}

/// A table that forgets.
trait Forgetful<K> {
    /// Forgets this one if it is old.
    fn retain_young(&mut self, key: &K, now: Moment);
    /// This one; if it is new and the table is full, in the place of old ones.
    fn entry_bounded(&mut self, key: K, now: Moment) -> &mut Record;
}

impl<K: Eq + std::hash::Hash + Copy> Forgetful<K> for HashMap<K, Record> {
    fn retain_young(&mut self, key: &K, now: Moment) {
        if self.get(key).is_some_and(|record| record.is_old(now)) {
            self.remove(key);
        }
    }

    fn entry_bounded(&mut self, key: K, now: Moment) -> &mut Record {
        if self.len() >= REMEMBERED_MAX && !self.contains_key(&key) {
            self.retain(|_, record| !record.is_old(now));
            // Users come last, so that a flood does not wash away who is trusted.
            let first = self.iter().min_by_key(|(_, record)| (record.is_trusted, record.last));
            if let Some(first) = first.map(|(key, _)| *key)
                && self.len() >= REMEMBERED_MAX
            {
                self.remove(&first);
            }
        }
        self.entry(key).or_insert(Record { last: now, ..Record::default() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));
    const THERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 2));

    /// A table and a clock.
    fn alone(client: IpAddr) -> Origin {
        Origin { client, network: client }
    }

    #[derive(Default)]
    struct Door {
        guesses: Guesses,
        now: Moment,
    }

    impl Door {
        fn after(&mut self, seconds: u64) {
            self.now = self.now + Duration::from_secs(seconds);
        }

        /// From a client that is the only one of its network.
        fn tries(&mut self, from: IpAddr, user: &str, guess: Guess) -> Result<(), u64> {
            self.tries_from(alone(from), user, guess)
        }

        fn tries_from(&mut self, from: Origin, user: &str, guess: Guess) -> Result<(), u64> {
            self.guesses.admit(from, user, self.now).map_err(|wait| wait.as_secs())?;
            self.guesses.settle(from, user, guess, self.now);
            Ok(())
        }
    }

    #[test]
    fn guesses_of_one_login_wait_longer_and_longer() {
        let mut door = Door::default();
        for _ in 0..=LOGIN_FREE {
            assert_eq!(door.tries(HERE, "ana@here.example", Guess::Wrong), Ok(()));
        }
        for wait in [5, 10, 20, 40, 80, 160, 320, 640, 900, 900] {
            assert_eq!(door.tries(HERE, "ANA@here.example", Guess::Right), Err(wait), "in any spelling");
            door.after(wait - 1);
            assert_eq!(door.tries(HERE, "ana@here.example", Guess::Wrong), Err(1));
            door.after(1);
            assert_eq!(door.tries(HERE, "ana@here.example", Guess::Wrong), Ok(()));
        }
        door.after(FORGOTTEN_AFTER.as_secs() + 1);
        assert_eq!(door.tries(HERE, "ana@here.example", Guess::Wrong), Ok(()));
        assert_eq!(door.tries(HERE, "ana@here.example", Guess::Wrong), Ok(()));
    }

    #[test]
    fn nobody_is_locked_out_from_elsewhere() {
        let mut door = Door::default();
        for n in 0..200 {
            let _ = door.tries(HERE, "ana@here.example", Guess::Wrong);
            let _ = door.tries(HERE, &format!("user{n}"), Guess::Wrong);
        }
        assert!(door.tries(HERE, "ana@here.example", Guess::Right).is_err());
        assert_eq!(door.tries(THERE, "ana@here.example", Guess::Right), Ok(()));
    }

    #[test]
    fn one_origin_that_tries_many_logins_waits_but_not_its_users() {
        let mut door = Door::default();
        assert_eq!(door.tries(HERE, "ana@here.example", Guess::Right), Ok(()));
        for n in 0..=CLIENT_FREE {
            assert_eq!(door.tries(HERE, &format!("user{n}"), Guess::Wrong), Ok(()));
        }
        assert_eq!(door.tries(HERE, "bo@here.example", Guess::Right), Err(5));
        assert_eq!(door.tries(HERE, "ana@here.example", Guess::Right), Ok(()), "has been here before");
        door.after(5);
        assert_eq!(door.tries(HERE, "bo@here.example", Guess::Right), Ok(()));
    }

    #[test]
    fn a_right_login_clears_its_own_failures_and_not_the_origins() {
        let mut door = Door::default();
        for round in 0..CLIENT_FREE {
            let user = "ana@here.example";
            assert_eq!(door.tries(HERE, user, Guess::Wrong), Ok(()), "{round}");
            assert_eq!(door.tries(HERE, user, Guess::Right), Ok(()));
        }
        assert_eq!(door.tries(HERE, "eve", Guess::Wrong), Ok(()));
        assert_eq!(door.tries(HERE, "eve", Guess::Wrong), Err(5));
    }

    #[test]
    fn trust_ends_when_the_login_fails_too_often() {
        let mut door = Door::default();
        door.tries(HERE, "ana@here.example", Guess::Right).unwrap();
        for _ in 0..=LOGIN_FREE {
            door.tries(HERE, "ana@here.example", Guess::Wrong).unwrap();
        }
        assert_eq!(door.tries(HERE, "ana@here.example", Guess::Wrong), Err(5));
    }

    #[test]
    fn what_we_could_not_find_out_counts_for_nothing() {
        let mut door = Door::default();
        for _ in 0..100 {
            assert_eq!(door.tries(HERE, "ana@here.example", Guess::Unknown), Ok(()));
        }
    }

    #[test]
    fn who_is_suspect_may_not_try_many_at_once() {
        let mut door = Door::default();
        for _ in 0..=LOGIN_FREE {
            door.tries(HERE, "ana", Guess::Wrong).unwrap();
        }
        door.after(60);
        assert_eq!(door.guesses.admit(alone(HERE), "ana", door.now), Ok(()));
        assert!(door.guesses.admit(alone(HERE), "ana", door.now).is_err(), "the first has not been answered");
        door.guesses.settle(alone(HERE), "ana", Guess::Right, door.now);
        assert_eq!(door.guesses.admit(alone(HERE), "ana", door.now), Ok(()));
    }

    #[test]
    fn a_network_whose_clients_are_one_guesser_waits_as_a_whole() {
        let mut door = Door::default();
        let client = |n: u32| Origin { client: std::net::Ipv4Addr::from(n).into(), network: HERE };
        door.tries_from(client(0), "bo@here.example", Guess::Right).unwrap();
        for n in 1..=NETWORK_FREE + 1 {
            assert_eq!(door.tries_from(client(n), "ana@here.example", Guess::Wrong), Ok(()), "{n}");
        }
        assert_eq!(door.tries_from(client(5000), "ana@here.example", Guess::Wrong), Err(5));
        assert_eq!(
            door.tries_from(client(0), "bo@here.example", Guess::Right),
            Ok(()),
            "who is trusted there"
        );
        assert_eq!(door.tries(THERE, "ana@here.example", Guess::Right), Ok(()));
    }

    #[test]
    fn the_table_is_bounded_and_keeps_those_who_are_trusted() {
        let mut door = Door::default();
        door.tries(HERE, "ana@here.example", Guess::Right).unwrap();
        for n in 0..REMEMBERED_MAX as u32 + 100 {
            door.now = door.now + Duration::from_millis(1);
            let from = IpAddr::V4(std::net::Ipv4Addr::from(n));
            door.tries(from, "ana@here.example", Guess::Wrong).unwrap();
        }
        assert_eq!((door.guesses.logins.len(), door.guesses.clients.len()), (REMEMBERED_MAX, REMEMBERED_MAX));
        let ana = door.guesses.key(HERE, "ana@here.example");
        assert!(door.guesses.logins[&ana].is_trusted);
    }
}
