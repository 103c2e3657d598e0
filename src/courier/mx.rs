//! The hosts of a domain, in the order in which to try them (RFC 5321 §5.1).
//!
//! Decides for every answer of DNS whether mail can be carried now, later or never:
//!
//! | answer of DNS | result |
//! |---|---|
//! | MX records | their hosts, lower preference first, equals in random order; `localhost` is left out |
//! | no MX record | the domain itself, the "implicit MX" |
//! | one MX, `0 .` | permanent 5.1.10: the domain takes no mail (RFC 7505) |
//! | no such domain | permanent 5.1.2 |
//! | no answer | transient 4.4.3; never the implicit MX, which may be a host that takes no mail |
//! | hosts, but none has an address | permanent 5.4.4 |
//!
//! Addresses are looked up one host at a time, because most mail goes to the first. An address literal is
//! its own host and is never looked up. Does not connect. Whether a host is this host is decided by the
//! SMTP courier, which calls this.

use std::collections::HashSet;
use std::net::IpAddr;

use crate::dns::{Budget, DnsError, Mx, MxExchange, Resolver, is_localhost};
use crate::mail::{Domain, Failure};
use crate::sys::Random;

/// Hosts tried in one attempt. RFC 5321 §5.1 allows to stop after two; real domains have a few, and a list
/// of hundreds would hold a delivery thread.
const HOSTS_MAX: usize = 10;

/// Addresses tried of one host.
const ADDRESSES_MAX: usize = 6;

/// A host that takes mail for a domain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    /// The host's name, which its certificate should bear; or an address literal.
    pub name: Domain,
    /// The preference of its MX record; 0 for an implicit MX or a literal.
    pub preference: u16,
}

/// The hosts to try for `domain`, in order: at least one, at most ten.
///
/// # Errors
/// Permanent or transient as the table above says; the receiving domain or its DNS is at fault.
pub fn mx_hosts(
    resolver: &dyn Resolver,
    random: &dyn Random,
    domain: &Domain,
    budget: &Budget,
) -> Result<Vec<Host>, Failure> {
    if domain.as_address().is_some() {
        return Ok(vec![Host { name: domain.clone(), preference: 0 }]);
    }
    let records = resolver.mx_records(domain, budget).map_err(|error| match error {
        DnsError::NoSuchDomain => Failure::permanent(1, 2, format!("the domain {domain} does not exist")),
        DnsError::Temporary(_) | DnsError::BudgetExhausted(_) => dns_failure(domain, &error),
    })?;
    match records.as_slice() {
        // RFC 5321 §5.1: the implicit MX, with a preference of 0.
        [] => return Ok(vec![Host { name: domain.clone(), preference: 0 }]),
        // RFC 7505 §3, §4.2: exactly one record, with preference 0 and the root.
        [Mx { preference: 0, exchange: MxExchange::NullMx }] => {
            return Err(Failure::permanent(1, 10, format!("the domain {domain} takes no mail (null MX)")));
        }
        _ => {}
    }
    let mut hosts: Vec<_> = records.into_iter().filter_map(usable_host).collect();
    shuffle(&mut hosts, random);
    hosts.sort_by_key(|host| host.preference);
    let mut seen = HashSet::new();
    hosts.retain(|host| seen.insert(host.name.clone()));
    hosts.truncate(HOSTS_MAX);
    if hosts.is_empty() {
        // The implicit MX is only for domains without any MX record (RFC 5321 §5.1).
        return Err(Failure::permanent(4, 4, format!("no MX record of {domain} names a host")));
    }
    Ok(hosts)
}

/// The addresses of a host, in the order in which to try them: at least one, at most six. Families
/// alternate, IPv6 first, so that a family without a working route costs one connection and not all.
///
/// # Errors
/// Permanent 5.4.4 if the host has none, transient 4.4.3 if DNS gave no answer. Either is about this host
/// only: another host of the domain may have addresses.
pub fn host_addresses(
    resolver: &dyn Resolver,
    host: &Domain,
    budget: &Budget,
) -> Result<Vec<IpAddr>, Failure> {
    if let Some(address) = host.as_address() {
        return Ok(vec![address]);
    }
    match resolver.addresses(host, budget) {
        Ok(found) if !found.is_empty() => {
            let mut ordered = alternate_families(found);
            ordered.truncate(ADDRESSES_MAX);
            Ok(ordered)
        }
        Ok(_) => Err(Failure::permanent(4, 4, format!("the host {host} has no address"))),
        Err(DnsError::NoSuchDomain) => {
            Err(Failure::permanent(4, 4, format!("the host {host} does not exist")))
        }
        Err(error @ (DnsError::Temporary(_) | DnsError::BudgetExhausted(_))) => {
            Err(dns_failure(host, &error))
        }
    }
}

fn dns_failure(name: &Domain, why: &DnsError) -> Failure {
    Failure::transient(4, 3, format!("DNS does not answer for {name}: {why}")).with_destination_scope()
}

/// The record's host, if mail can be carried to it. The root beside other records has no meaning (RFC 7505
/// §3 forbids it), and `localhost` is this host.
fn usable_host(record: Mx) -> Option<Host> {
    match record.exchange {
        MxExchange::Host(name) if !is_localhost(&name) => Some(Host { name, preference: record.preference }),
        MxExchange::Host(_) | MxExchange::NullMx | MxExchange::InvalidHostName(_) => None,
    }
}

/// The shuffle of Fisher and Yates.
fn shuffle<T>(items: &mut [T], random: &dyn Random) {
    for last in (1..items.len()).rev() {
        let other = usize::try_from(random.below(last as u64 + 1)).unwrap_or(last);
        items.swap(last, other);
    }
}

fn alternate_families(found: Vec<IpAddr>) -> Vec<IpAddr> {
    let mut seen = HashSet::new();
    let (v6, v4): (Vec<_>, Vec<_>) =
        found.into_iter().filter(|address| seen.insert(*address)).partition(IpAddr::is_ipv6);
    let (mut v6, mut v4) = (v6.into_iter(), v4.into_iter());
    let mut ordered = Vec::with_capacity(v6.len() + v4.len());
    while v6.len() + v4.len() > 0 {
        ordered.extend(v6.next());
        ordered.extend(v4.next());
    }
    ordered
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dns::Zone;
    use crate::fakes::SeededRandom;
    use crate::sys::Moment;

    fn budget() -> Budget {
        Budget::new(Moment::default(), 10)
    }

    fn domain(name: &str) -> Domain {
        Domain::parse(name).unwrap()
    }

    fn hosts_of(zone: &str, name: &str) -> Result<Vec<String>, String> {
        let zone = Zone::parse(zone).unwrap();
        match mx_hosts(&zone, &SeededRandom::new(1), &domain(name), &budget()) {
            Ok(hosts) => Ok(hosts.iter().map(|host| host.name.as_ascii().to_owned()).collect()),
            Err(failure) => Err(status(&failure)),
        }
    }

    fn status(failure: &Failure) -> String {
        failure.to_string().split(' ').next().unwrap().to_owned()
    }

    #[test]
    fn lower_preference_comes_first() {
        let zone =
            "there.example. MX 20 c.example\nthere.example. MX 5 a.example\nthere.example. MX 10 b.example";
        assert_eq!(hosts_of(zone, "there.example").unwrap(), ["a.example", "b.example", "c.example"]);
    }

    #[test]
    fn equal_preferences_come_in_any_order() {
        let zone = Zone::parse(
            "there.example. MX 10 a.example\nthere.example. MX 10 b.example\n\
             there.example. MX 10 c.example\nthere.example. MX 20 last.example",
        )
        .unwrap();
        let random = SeededRandom::new(7);
        let mut orders = HashSet::new();
        for _ in 0..200 {
            let hosts = mx_hosts(&zone, &random, &domain("there.example"), &budget()).unwrap();
            assert_eq!(hosts[3].name, domain("last.example"));
            orders.insert(hosts.into_iter().map(|host| host.name).collect::<Vec<_>>());
        }
        assert_eq!(orders.len(), 6, "all orders of three");
    }

    #[test]
    fn a_domain_without_mx_is_its_own_host() {
        assert_eq!(hosts_of("there.example. A 192.0.2.1", "there.example").unwrap(), ["there.example"]);
    }

    #[test]
    fn a_failure_of_dns_is_never_taken_for_no_mx() {
        for failure in ["SERVFAIL", "SILENT"] {
            assert_eq!(hosts_of(&format!("there.example. {failure}"), "there.example"), Err("4.4.3".into()));
        }
    }

    #[test]
    fn a_budget_that_is_used_up_is_transient_whether_or_not_the_name_exists() {
        let zone = Zone::parse("there.example. MX 10 mx.there.example.").unwrap();
        let empty = Budget::new(Moment::default(), 0);
        for name in ["there.example", "nowhere.example"] {
            let hosts = mx_hosts(&zone, &SeededRandom::new(1), &domain(name), &empty).unwrap_err();
            assert_eq!(status(&hosts), "4.4.3", "{name}");
            assert_eq!(status(&host_addresses(&zone, &domain(name), &empty).unwrap_err()), "4.4.3", "{name}");
        }
    }

    #[test]
    fn a_null_mx_is_permanent_at_once() {
        assert_eq!(hosts_of("null.example. MX 0 .", "null.example"), Err("5.1.10".into()));
    }

    #[test]
    fn the_root_beside_other_hosts_is_skipped() {
        let zone = "there.example. MX 0 .\nthere.example. MX 10 mx.there.example.";
        assert_eq!(hosts_of(zone, "there.example").unwrap(), ["mx.there.example"]);
    }

    #[test]
    fn a_domain_that_does_not_exist_is_permanent_at_once() {
        assert_eq!(hosts_of("", "nowhere.example"), Err("5.1.2".into()));
    }

    #[test]
    fn an_mx_that_names_no_host_is_skipped() {
        let zone = "there.example. MX 0 192.0.2.1\nthere.example. MX 5 localhost.\n\
                    there.example. MX 10 mx.there.example.";
        assert_eq!(hosts_of(zone, "there.example").unwrap(), ["mx.there.example"]);
    }

    #[test]
    fn mx_records_without_a_host_do_not_fall_back_to_the_domain() {
        let zone = "there.example. MX 5 192.0.2.1\nthere.example. MX 10 .\nthere.example. A 192.0.2.1";
        assert_eq!(hosts_of(zone, "there.example"), Err("5.4.4".into()));
    }

    #[test]
    fn a_host_named_twice_is_tried_once_and_a_long_list_is_cut() {
        let mut zone = "there.example. MX 1 mx0.example.\n".to_owned();
        for n in 0..50 {
            zone += &format!("there.example. MX {} mx{}.example.\n", 10 + n, n % 20);
        }
        let names: Vec<_> = (0..HOSTS_MAX).map(|n| format!("mx{n}.example")).collect();
        assert_eq!(hosts_of(&zone, "there.example").unwrap(), names);
    }

    #[test]
    fn an_address_literal_is_its_own_host_without_dns() {
        let zone = Zone::default();
        for literal in ["[192.0.2.1]", "[IPv6:2001:db8::1]"] {
            let literal = domain(literal);
            let hosts = mx_hosts(&zone, &SeededRandom::new(1), &literal, &budget()).unwrap();
            assert_eq!(hosts, [Host { name: literal.clone(), preference: 0 }]);
            let found = host_addresses(&zone, &literal, &budget()).unwrap();
            assert_eq!(found, [literal.as_address().unwrap()]);
        }
    }

    #[test]
    fn families_alternate_and_ipv6_comes_first() {
        let zone = Zone::parse(
            "mx.example. A 192.0.2.1\nmx.example. A 192.0.2.2\nmx.example. A 192.0.2.3\n\
             mx.example. AAAA 2001:db8::1\nmx.example. A 192.0.2.1",
        )
        .unwrap();
        let found = host_addresses(&zone, &domain("mx.example"), &budget()).unwrap();
        let shown: Vec<_> = found.iter().map(IpAddr::to_string).collect();
        assert_eq!(shown, ["2001:db8::1", "192.0.2.1", "192.0.2.2", "192.0.2.3"]);
    }

    #[test]
    fn a_host_with_many_addresses_is_tried_at_a_few_of_both_families() {
        let mut text = String::new();
        for n in 1..=20 {
            text += &format!("mx.example. A 192.0.2.{n}\nmx.example. AAAA 2001:db8::{n}\n");
        }
        let zone = Zone::parse(&text).unwrap();
        let found = host_addresses(&zone, &domain("mx.example"), &budget()).unwrap();
        assert_eq!(found.len(), ADDRESSES_MAX);
        assert_eq!(found.iter().filter(|address| address.is_ipv6()).count(), ADDRESSES_MAX / 2);
    }

    #[test]
    fn a_host_without_addresses_is_permanent_unless_dns_gave_no_answer() {
        let zone = Zone::parse("empty.example. EMPTY\nbroken.example. SERVFAIL").unwrap();
        let ask = |name: &str| host_addresses(&zone, &domain(name), &budget()).unwrap_err();
        assert_eq!(status(&ask("empty.example")), "5.4.4");
        assert_eq!(status(&ask("nowhere.example")), "5.4.4");
        assert_eq!(status(&ask("broken.example")), "4.4.3");
    }
}
