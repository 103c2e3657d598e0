//! The name of a client's address in DNS, for the Received field (RFC 5321 §4.4) and for hooks.
//!
//! A name counts only if its own records have the address: the owner of an address can put any name into its
//! reverse record. A client without a confirmed name has no disadvantage, so an error in DNS is the same as no
//! name, and is not logged. Needed at each MAIL of a client without a login. The client waits, so the deadline
//! is short, and the result is kept for a minute, also that there is no name: a name server that does not
//! answer delays a client once and not at each of its messages.

use std::net::{IpAddr, Ipv6Addr};
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use lru::LruCache;

use crate::dns::{Budget, Resolver};
use crate::mail::Domain;
use crate::sys::{Clock, Moment, Mutex};

/// Looks up confirmed names.
pub struct ReverseNames {
    resolver: Arc<dyn Resolver>,
    clock: Arc<dyn Clock>,
    /// Results, and the times until which they are used.
    kept: Mutex<LruCache<IpAddr, (Moment, Option<Domain>)>>,
}

/// The time for all look-ups of one client.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(3);
/// A result is used for this time.
const RESULT_TTL: Duration = Duration::from_mins(1);
/// Addresses whose results are kept.
const RESULTS_MAX: NonZeroUsize = NonZeroUsize::new(1000).unwrap();
/// Names of one address that are checked.
const NAMES_MAX: usize = 3;
/// Look-ups for one client: its PTR records, and the addresses of each name.
const DNS_LOOKUPS_MAX: u32 = 1 + NAMES_MAX as u32;

impl ReverseNames {
    /// Looks names up with `resolver`.
    #[must_use]
    pub fn new(resolver: Arc<dyn Resolver>, clock: Arc<dyn Clock>) -> Self {
        Self { resolver, clock, kept: Mutex::new(LruCache::new(RESULTS_MAX)) }
    }

    /// A name of a public address whose own records have this address.
    pub(super) fn confirmed_name(&self, address: IpAddr) -> Option<Domain> {
        let address = address.to_canonical();
        if !is_public(address) {
            return None;
        }
        if let Some((until, name)) = self.kept.lock().get(&address)
            && self.clock.now() < *until
        {
            return name.clone();
        }
        let name = self.look_up(address);
        self.kept.lock().put(address, (self.clock.now() + RESULT_TTL, name.clone()));
        name
    }

    fn look_up(&self, address: IpAddr) -> Option<Domain> {
        let budget = Budget::new(self.clock.now() + LOOKUP_TIMEOUT, DNS_LOOKUPS_MAX);
        let names = self.resolver.ptr_names(address, &budget).ok()?;
        let has_address = |name: &Domain| {
            let addresses = self.resolver.addresses(name, &budget);
            addresses.is_ok_and(|addresses| addresses.contains(&address))
        };
        names.into_iter().take(NAMES_MAX).find(has_address)
    }
}

/// The address belongs to one host on the Internet, so that its name has a meaning for others.
fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => !(v4.is_loopback() || v4.is_private() || v4.is_link_local() || v4.is_unspecified()),
        IpAddr::V6(v6) => {
            let is_local = |v6: Ipv6Addr| v6.is_unique_local() || v6.is_unicast_link_local();
            !(v6.is_loopback() || v6.is_unspecified() || is_local(v6))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::dns::{DnsError, Mx, Zone};
    use crate::fakes::TestClock;

    const ZONE: &str = "
        7.2.0.192.in-addr.arpa.   PTR forged.there.example.
        7.2.0.192.in-addr.arpa.   PTR out-7.there.example.
        out-7.there.example.      A 192.0.2.7
        forged.there.example.     A 192.0.2.99
        8.2.0.192.in-addr.arpa.   PTR forged.there.example.
        9.2.0.192.in-addr.arpa.   SERVFAIL
        10.2.0.192.in-addr.arpa.  PTR nowhere.example.
        11.2.0.192.in-addr.arpa.  CNAME 11.sub.2.0.192.in-addr.arpa.
        11.sub.2.0.192.in-addr.arpa. PTR out-11.there.example.
        out-11.there.example.     A 192.0.2.11
        1.0.0.127.in-addr.arpa.   PTR localhost.example.
        localhost.example.        A 127.0.0.1
        7.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa. PTR six.there.example.
        six.there.example.        AAAA 2001:db8::7
    ";

    #[test]
    fn a_name_is_confirmed_if_its_records_have_the_address() {
        let names = ReverseNames::new(Arc::new(Zone::parse(ZONE).unwrap()), Arc::new(TestClock::default()));
        for (address, name) in [
            ("192.0.2.7", "out-7.there.example"),
            ("::ffff:192.0.2.7", "out-7.there.example"),
            ("192.0.2.11", "out-11.there.example"),
            ("2001:db8::7", "six.there.example"),
            ("192.0.2.8", ""),
            ("192.0.2.9", ""),
            ("192.0.2.10", ""),
            ("192.0.2.12", ""),
            ("127.0.0.1", ""),
            ("10.0.0.1", ""),
            ("fe80::1", ""),
        ] {
            let confirmed = names.confirmed_name(address.parse().unwrap());
            assert_eq!(confirmed.as_ref().map_or("", Domain::as_ascii), name, "{address}");
        }
    }

    /// Counts the questions, and never has an answer.
    #[derive(Default)]
    struct Unreachable(AtomicUsize);

    impl Resolver for Unreachable {
        fn mx_records(&self, _: &Domain, _: &Budget) -> Result<Vec<Mx>, DnsError> {
            Err(DnsError::Temporary("no answer".to_owned()))
        }

        fn addresses(&self, _: &Domain, _: &Budget) -> Result<Vec<IpAddr>, DnsError> {
            Err(DnsError::Temporary("no answer".to_owned()))
        }

        fn ptr_names(&self, _: IpAddr, _: &Budget) -> Result<Vec<Domain>, DnsError> {
            self.0.fetch_add(1, Ordering::Relaxed);
            Err(DnsError::Temporary("no answer".to_owned()))
        }
    }

    #[test]
    fn an_address_whose_name_server_does_not_answer_is_looked_up_once_a_minute() {
        let (resolver, clock) = (Arc::new(Unreachable::default()), Arc::new(TestClock::default()));
        let names = ReverseNames::new(resolver.clone(), clock.clone());
        let address = "192.0.2.7".parse().unwrap();
        for _ in 0..5 {
            assert_eq!(names.confirmed_name(address), None);
        }
        assert_eq!(resolver.0.load(Ordering::Relaxed), 1);
        clock.advance(RESULT_TTL);
        names.confirmed_name(address);
        assert_eq!(resolver.0.load(Ordering::Relaxed), 2);
    }
}
