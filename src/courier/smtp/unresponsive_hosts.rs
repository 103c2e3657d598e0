//! Addresses of hosts that did not answer a moment ago.
//!
//! Many domains may have the same MX host. When that host is down, the mail of each domain would hold a
//! delivery thread until a timeout. So an address that did not answer one attempt is not tried by others
//! for 30 seconds. That is less than the queue waits before it probes a destination, so that a probe
//! always connects. A bounded map, but not by last use: addresses that attempts wait for must stay.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Duration;

use crate::sys::{Moment, Mutex};

/// The addresses that did not answer, and those that attempts wait for.
#[derive(Default)]
pub(super) struct UnresponsiveHosts {
    addresses: Mutex<HashMap<SocketAddr, AddressState>>,
}

#[derive(Default)]
struct AddressState {
    /// The address did not answer, and is not tried before this.
    avoid_until: Option<Moment>,
    /// When each attempt began that waits for the greeting.
    waiting_since: Vec<Moment>,
}

/// An address that did not answer is not tried for so long.
const AVOID_FOR: Duration = Duration::from_secs(30);
/// Once an attempt has waited so long for the greeting, no other attempt tries the address.
const GREETING_SLOW_AFTER: Duration = Duration::from_secs(20);
/// Longer than any wait for a greeting: an older one has ended without a report.
const GREETING_WAIT_MAX: Duration = Duration::from_secs(1800);
/// Addresses that are remembered; beyond, only those that attempts wait for.
const REMEMBERED_ADDRESSES_MAX: usize = 1000;

impl UnresponsiveHosts {
    /// Registers an attempt at an address; false if the address does not answer.
    pub(super) fn begin_attempt(&self, address: SocketAddr, now: Moment) -> bool {
        let mut hosts = self.addresses.lock();
        if hosts.len() >= REMEMBERED_ADDRESSES_MAX {
            hosts.retain(|_, host| !host.waiting_since.is_empty());
        }
        let host = hosts.entry(address).or_default();
        // An attempt that ended by a panic has not reported its end.
        host.waiting_since.retain(|began| now.since(*began) < GREETING_WAIT_MAX);
        let is_slow = host.waiting_since.iter().any(|began| now.since(*began) >= GREETING_SLOW_AFTER);
        if is_slow || host.avoid_until.is_some_and(|until| now < until) {
            return false;
        }
        host.waiting_since.push(now);
        true
    }

    /// Lets all addresses be tried again, except those whose greeting an attempt has waited for too long.
    pub(super) fn forget_failures(&self) {
        self.addresses.lock().values_mut().for_each(|host| host.avoid_until = None);
    }

    /// The address answered the attempt that began at `began`, whatever the answer was.
    pub(super) fn record_response(&self, address: SocketAddr, began: Moment) {
        let mut hosts = self.addresses.lock();
        let Some(host) = hosts.get_mut(&address) else { return };
        host.avoid_until = None;
        host.remove_waiting(began);
        if host.waiting_since.is_empty() {
            hosts.remove(&address);
        }
    }

    /// The address did not answer the attempt that began at `began`.
    pub(super) fn record_no_response(&self, address: SocketAddr, began: Moment, now: Moment) {
        if let Some(host) = self.addresses.lock().get_mut(&address) {
            host.avoid_until = Some(now + AVOID_FOR);
            host.remove_waiting(began);
        }
    }
}

impl AddressState {
    fn remove_waiting(&mut self, began: Moment) {
        if let Some(position) = self.waiting_since.iter().position(|other| *other == began) {
            self.waiting_since.swap_remove(position);
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
    fn an_address_that_did_not_answer_is_not_tried_for_a_while() {
        let hosts = UnresponsiveHosts::default();
        assert!(hosts.begin_attempt(address(1), at(0)));
        hosts.record_no_response(address(1), at(0), at(30));
        assert!(!hosts.begin_attempt(address(1), at(59)));
        assert!(hosts.begin_attempt(address(2), at(59)), "another address is tried");
        assert!(hosts.begin_attempt(address(1), at(60)));
        hosts.record_response(address(1), at(60));
        assert!(hosts.begin_attempt(address(1), at(61)));
    }

    #[test]
    fn an_address_with_a_slow_greeting_is_not_tried_by_others() {
        let hosts = UnresponsiveHosts::default();
        assert!(hosts.begin_attempt(address(1), at(0)) && hosts.begin_attempt(address(1), at(19)));
        assert!(!hosts.begin_attempt(address(1), at(20)));
        hosts.record_response(address(1), at(0));
        assert!(hosts.begin_attempt(address(1), at(20)), "the greeting came");
    }

    #[test]
    fn a_forgotten_failure_is_tried_again_but_a_slow_greeting_is_not() {
        let hosts = UnresponsiveHosts::default();
        assert!(hosts.begin_attempt(address(1), at(0)) && hosts.begin_attempt(address(2), at(0)));
        hosts.record_no_response(address(1), at(0), at(30));
        hosts.forget_failures();
        assert!(hosts.begin_attempt(address(1), at(31)));
        assert!(!hosts.begin_attempt(address(2), at(31)));
    }

    #[test]
    fn the_number_of_addresses_is_bounded() {
        let hosts = UnresponsiveHosts::default();
        for n in 0..2000 {
            let address = SocketAddr::from(([192, 0, 2, 1], n));
            assert!(hosts.begin_attempt(address, at(0)));
            hosts.record_no_response(address, at(0), at(1));
        }
        assert!(hosts.addresses.lock().len() <= REMEMBERED_ADDRESSES_MAX);
    }
}
