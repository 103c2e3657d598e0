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
pub(super) struct UnresponsiveHosts {
    addresses: Mutex<HashMap<SocketAddr, AddressState>>,
}

#[derive(Default)]
struct AddressState {
    /// It did not answer, and is not asked before this.
    avoid_until: Option<Moment>,
    /// Attempts that wait for its greeting, by when they began to.
    waiting_since: Vec<Moment>,
}

/// For so long nobody else asks.
const AVOID_FOR: Duration = Duration::from_secs(30);
/// Nobody joins those who have waited so long for a greeting.
const GREETING_SLOW_AFTER: Duration = Duration::from_secs(20);
/// No wait for a greeting is this long.
const GREETING_WAIT_MAX: Duration = Duration::from_secs(1800);
/// Addresses that are remembered; beyond that, those in use only.
const REMEMBERED_ADDRESSES_MAX: usize = 1000;

impl UnresponsiveHosts {
    /// Begins to ask a host; false if it would be in vain.
    pub(super) fn begin_attempt(&self, address: SocketAddr, now: Moment) -> bool {
        let mut hosts = self.addresses.lock();
        if hosts.len() >= REMEMBERED_ADDRESSES_MAX {
            hosts.retain(|_, host| !host.waiting_since.is_empty());
        }
        let host = hosts.entry(address).or_default();
        // Whoever never came back (a panic) must not stand for ever.
        host.waiting_since.retain(|began| now.since(*began) < GREETING_WAIT_MAX);
        let is_slow = host.waiting_since.iter().any(|began| now.since(*began) >= GREETING_SLOW_AFTER);
        if is_slow || host.avoid_until.is_some_and(|until| now < until) {
            return false;
        }
        host.waiting_since.push(now);
        true
    }

    /// Everybody may be asked again, unless somebody waits for a greeting just now.
    pub(super) fn forget_failures(&self) {
        self.addresses.lock().values_mut().for_each(|host| host.avoid_until = None);
    }

    /// It answered, whatever it said, to who began to ask then.
    pub(super) fn record_response(&self, address: SocketAddr, began: Moment) {
        let mut hosts = self.addresses.lock();
        let Some(host) = hosts.get_mut(&address) else { return };
        host.avoid_until = None;
        host.remove_waiting(began);
        if host.waiting_since.is_empty() {
            hosts.remove(&address);
        }
    }

    /// It did not answer who began to ask then.
    pub(super) fn record_no_response(&self, address: SocketAddr, began: Moment, now: Moment) {
        if let Some(host) = self.addresses.lock().get_mut(&address) {
            host.avoid_until = Some(now + AVOID_FOR);
            host.remove_waiting(began);
        }
    }
}

impl AddressState {
    fn remove_waiting(&mut self, began: Moment) {
        if let Some(place) = self.waiting_since.iter().position(|other| *other == began) {
            self.waiting_since.swap_remove(place);
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
        let absent = UnresponsiveHosts::default();
        assert!(absent.begin_attempt(address(1), at(0)));
        absent.record_no_response(address(1), at(0), at(30));
        assert!(!absent.begin_attempt(address(1), at(59)));
        assert!(absent.begin_attempt(address(2), at(59)), "another is another matter");
        assert!(absent.begin_attempt(address(1), at(60)));
        absent.record_response(address(1), at(60));
        assert!(absent.begin_attempt(address(1), at(61)));
    }

    #[test]
    fn nobody_joins_those_who_wait_for_long() {
        let absent = UnresponsiveHosts::default();
        assert!(absent.begin_attempt(address(1), at(0)) && absent.begin_attempt(address(1), at(19)));
        assert!(!absent.begin_attempt(address(1), at(20)));
        absent.record_response(address(1), at(0));
        assert!(absent.begin_attempt(address(1), at(20)), "it was only slow");
    }

    #[test]
    fn what_is_forgotten_is_asked_again_but_nobody_joins_those_who_wait_for_long() {
        let absent = UnresponsiveHosts::default();
        assert!(absent.begin_attempt(address(1), at(0)) && absent.begin_attempt(address(2), at(0)));
        absent.record_no_response(address(1), at(0), at(30));
        absent.forget_failures();
        assert!(absent.begin_attempt(address(1), at(31)));
        assert!(!absent.begin_attempt(address(2), at(31)));
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let absent = UnresponsiveHosts::default();
        for n in 0..2000 {
            let address = SocketAddr::from(([192, 0, 2, 1], n));
            assert!(absent.begin_attempt(address, at(0)));
            absent.record_no_response(address, at(0), at(1));
        }
        assert!(absent.addresses.lock().len() <= REMEMBERED_ADDRESSES_MAX);
    }
}
