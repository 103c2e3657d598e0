//! The questions that mail asks of DNS, as a trait.
//!
//! The stub resolver answers by asking name servers, a zone from the text of a file. The type of an
//! answer separates what a caller may conclude from it: "no such record" ([`Ok`] and empty), "no such
//! domain" and "not found out" are three results, and only the first two are facts.
//!
//! Names are asked in A-labels and are always absolute: there is no search list. An address literal is
//! not a name and is not asked for. Every question counts against the caller's [`Budget`]. Called by
//! couriers and sessions.

use std::net::{IpAddr, Ipv4Addr};

use super::budget::Budget;
use super::error::DnsError;
use crate::mail::Domain;

/// Answers questions about names. Each call is one look-up of the budget and is back by its deadline.
pub trait Resolver: Send + Sync {
    /// The MX records of a name, in no order; empty only if the name has no MX record. CNAMEs are
    /// followed.
    ///
    /// # Errors
    /// [`DnsError::NoSuchDomain`] is a fact; the other errors say nothing about the name.
    fn mx_records(&self, name: &Domain, budget: &Budget) -> Result<Vec<Mx>, DnsError>;

    /// The A and AAAA records of a host, in no order; empty only if it has none. CNAMEs are followed.
    /// If one address family can be looked up and the other cannot, the result is that of the first.
    ///
    /// # Errors
    /// [`DnsError::NoSuchDomain`] is a fact; the other errors say nothing about the name.
    fn addresses(&self, host: &Domain, budget: &Budget) -> Result<Vec<IpAddr>, DnsError>;

    /// The PTR records of an address, in no order; a name that cannot be a host's is left out. CNAMEs
    /// are followed. The owner of the address can write any name there.
    ///
    /// # Errors
    /// [`DnsError::NoSuchDomain`] is a fact; the other errors say nothing about the address.
    fn ptr_names(&self, address: IpAddr, budget: &Budget) -> Result<Vec<Domain>, DnsError>;
}

/// RFC 6761 §6.3: `localhost` and the names below it are this host, whatever DNS says.
#[must_use]
pub fn is_localhost(name: &Domain) -> bool {
    name.as_ascii() == "localhost" || name.as_ascii().ends_with(".localhost")
}

/// The name under which an address has its PTR records (RFC 1035 §3.5, RFC 3596 §2.5).
pub(super) fn reverse_name(address: IpAddr) -> Result<Domain, DnsError> {
    let name = match address {
        IpAddr::V4(v4) => {
            let [a, b, c, d] = v4.octets();
            format!("{d}.{c}.{b}.{a}.in-addr.arpa")
        }
        IpAddr::V6(v6) => {
            let nibbles = v6.octets().into_iter().rev().flat_map(|octet| [octet & 15, octet >> 4]);
            nibbles.map(|nibble| format!("{nibble:x}.")).collect::<String>() + "ip6.arpa"
        }
    };
    Domain::parse(&name).map_err(|_| DnsError::NoSuchDomain)
}

/// An MX record (RFC 1035 §3.3.9).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mx {
    /// Lower is tried first (RFC 5321 §5.1).
    pub preference: u16,
    /// The host to which mail goes.
    pub exchange: MxExchange,
}

/// The host that an MX record names. DNS allows any name there; mail needs a host name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MxExchange {
    /// A host name.
    Host(Domain),
    /// The root, `.`: this domain takes no mail (RFC 7505 §3).
    NullMx,
    /// A name that cannot be a host's, such as an address written as a name; kept for the log.
    InvalidHostName(String),
}

impl MxExchange {
    /// Reads a name in the form in which DNS libraries show it, with or without its final dot.
    #[must_use]
    pub fn from_dns_name(raw: &str) -> Self {
        let name = raw.strip_suffix('.').unwrap_or(raw);
        if name.is_empty() {
            return Self::NullMx;
        }
        // An address instead of a name is a common mistake; it could be looked up, but has no records.
        if name.parse::<Ipv4Addr>().is_ok() {
            return Self::InvalidHostName(name.to_owned());
        }
        match Domain::parse_host(name) {
            Ok(host) if host.as_address().is_none() => Self::Host(host),
            _ => Self::InvalidHostName(name.to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_its_records_under_its_octets_or_nibbles_backwards() {
        let name = |raw: &str| reverse_name(raw.parse().unwrap()).unwrap().to_string();
        assert_eq!(name("192.0.2.17"), "17.2.0.192.in-addr.arpa");
        assert_eq!(
            name("2001:db8::567:89ab"),
            "b.a.9.8.7.6.5.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa"
        );
    }

    #[test]
    fn an_exchange_is_a_host_the_root_or_an_invalid_name() {
        let host = Domain::parse("mx.there.example").unwrap();
        assert_eq!(MxExchange::from_dns_name("MX.There.example."), MxExchange::Host(host));
        let MxExchange::Host(host) = MxExchange::from_dns_name("mx_1.There.example.") else {
            panic!("it answers")
        };
        assert_eq!(host.as_ascii(), "mx_1.there.example");
        assert_eq!(MxExchange::from_dns_name("."), MxExchange::NullMx);
        for raw in
            ["192.0.2.1", "192.0.2.1.", "[192.0.2.1]", "mx_1.there..example.", "a\\.b.example", "ü_1.example"]
        {
            assert!(matches!(MxExchange::from_dns_name(raw), MxExchange::InvalidHostName(_)), "{raw}");
        }
    }
}
