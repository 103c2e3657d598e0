//! Hosts that did not answer a moment ago.
//!
//! Many domains may have their mail taken in by one host, and when that is dead each of them would
//! hold a thread until its own timeout is over. What one attempt has found out holds for the others
//! for a little while: shorter than any destination waits for its next probe, so that a probe is one.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Duration;

use crate::sys::{Moment, Mutex};

/// What is known of addresses.
#[derive(Default)]
pub(super) struct Absent {
    hosts: Mutex<HashMap<SocketAddr, Host>>,
}

#[derive(Default)]
struct Host {
    /// It did not answer, and is not asked before this.
    until: Option<Moment>,
    /// Attempts that wait for its greeting, by when they began to.
    waiting: Vec<Moment>,
}

/// For so long nobody else asks.
const HOLDS: Duration = Duration::from_secs(30);
/// Nobody joins those who have waited so long for a greeting.
const SLOW: Duration = Duration::from_secs(20);
/// No wait for a greeting is this long.
const FORGOTTEN: Duration = Duration::from_secs(1800);
/// Addresses that are remembered; beyond that, those in use only.
const HOSTS_MAX: usize = 1000;

impl Absent {
    /// Begins to ask a host; false if it would be in vain.
    pub(super) fn ask(&self, address: SocketAddr, now: Moment) -> bool {
        let mut hosts = self.hosts.lock();
        if hosts.len() >= HOSTS_MAX {
            hosts.retain(|_, host| !host.waiting.is_empty());
        }
        let host = hosts.entry(address).or_default();
        // Whoever never came back (a panic) must not stand for ever.
        host.waiting.retain(|began| now.since(*began) < FORGOTTEN);
        let is_slow = host.waiting.iter().any(|began| now.since(*began) >= SLOW);
        if is_slow || host.until.is_some_and(|until| now < until) {
            return false;
        }
        host.waiting.push(now);
        true
    }

    /// Everybody may be asked again, unless somebody waits for a greeting just now.
    pub(super) fn forget(&self) {
        self.hosts.lock().values_mut().for_each(|host| host.until = None);
    }

    /// It answered, whatever it said, to who began to ask then.
    pub(super) fn answered(&self, address: SocketAddr, began: Moment) {
        let mut hosts = self.hosts.lock();
        let Some(host) = hosts.get_mut(&address) else { return };
        host.until = None;
        host.leave(began);
        if host.waiting.is_empty() {
            hosts.remove(&address);
        }
    }

    /// It did not answer who began to ask then.
    pub(super) fn silent(&self, address: SocketAddr, began: Moment, now: Moment) {
        if let Some(host) = self.hosts.lock().get_mut(&address) {
            host.until = Some(now + HOLDS);
            host.leave(began);
        }
    }
}

impl Host {
    fn leave(&mut self, began: Moment) {
        if let Some(place) = self.waiting.iter().position(|other| *other == began) {
            self.waiting.swap_remove(place);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Moment {
        Moment::new(Duration::from_secs(seconds))
    }

    fn address(last: u8) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, last], 25))
    }

    #[test]
    fn a_host_that_did_not_answer_is_left_alone_for_a_while() {
        let absent = Absent::default();
        assert!(absent.ask(address(1), at(0)));
        absent.silent(address(1), at(0), at(30));
        assert!(!absent.ask(address(1), at(59)));
        assert!(absent.ask(address(2), at(59)), "another is another matter");
        assert!(absent.ask(address(1), at(60)));
        absent.answered(address(1), at(60));
        assert!(absent.ask(address(1), at(61)));
    }

    #[test]
    fn nobody_joins_those_who_wait_for_long() {
        let absent = Absent::default();
        assert!(absent.ask(address(1), at(0)) && absent.ask(address(1), at(19)));
        assert!(!absent.ask(address(1), at(20)));
        absent.answered(address(1), at(0));
        assert!(absent.ask(address(1), at(20)), "it was only slow");
    }

    #[test]
    fn what_is_forgotten_is_asked_again_but_nobody_joins_those_who_wait_for_long() {
        let absent = Absent::default();
        assert!(absent.ask(address(1), at(0)) && absent.ask(address(2), at(0)));
        absent.silent(address(1), at(0), at(30));
        absent.forget();
        assert!(absent.ask(address(1), at(31)));
        assert!(!absent.ask(address(2), at(31)));
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let absent = Absent::default();
        for n in 0..2000 {
            let address = SocketAddr::from(([192, 0, 2, 1], n));
            assert!(absent.ask(address, at(0)));
            absent.silent(address, at(0), at(1));
        }
        assert!(absent.hosts.lock().len() <= HOSTS_MAX);
    }
}
