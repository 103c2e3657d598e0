//! The questions that mail asks of DNS.
//!
//! One trait, so that a courier does not know who answers: the stub resolver asks name servers,
//! a zone file answers by itself. An answer is typed by what a caller may conclude from it: "there
//! is none" ([`Ok`] and empty), "there is no such domain" and "we could not find out" are three
//! things, and only the first two are facts.
//!
//! Names are asked in A-labels and are always absolute: no search list. Address literals are no
//! names and never get here; whoever holds one already has the address. Called by couriers.

use std::net::{IpAddr, Ipv4Addr};

use crate::mail::Domain;
use crate::sys::Moment;

/// Answers questions about names.
pub trait Resolver: Send + Sync {
    /// The MX records of a name, in no order; empty only if the answer truly was "no MX". CNAMEs
    /// are followed. Is back by `deadline`.
    ///
    /// # Errors
    /// [`DnsError::NoSuchDomain`] is a fact; [`DnsError::Temporary`] says nothing about the name.
    fn mx_records(&self, name: &Domain, deadline: Moment) -> Result<Vec<Mx>, DnsError>;

    /// The A and AAAA records of a host, in no order; empty if it truly has none. CNAMEs are
    /// followed. One family is enough: trouble with the other is then not reported. Is back by
    /// `deadline`.
    ///
    /// # Errors
    /// [`DnsError::NoSuchDomain`] is a fact; [`DnsError::Temporary`] says nothing about the name.
    fn addresses(&self, host: &Domain, deadline: Moment) -> Result<Vec<IpAddr>, DnsError>;

    /// The PTR records of an address, in no order; what cannot be a host's name is left out. CNAMEs
    /// are followed. Anybody can claim any name there. Is back by `deadline`.
    ///
    /// # Errors
    /// [`DnsError::NoSuchDomain`] is a fact; [`DnsError::Temporary`] says nothing about the address.
    fn ptr_names(&self, address: IpAddr, deadline: Moment) -> Result<Vec<Domain>, DnsError>;
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

/// Why there is no answer to give.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DnsError {
    /// NXDOMAIN: the name does not exist, whatever the type (RFC 8020).
    #[error("no such domain")]
    NoSuchDomain,
    /// SERVFAIL, a timeout, a refusal, a malformed answer, a broken network: asking again later
    /// may help. The text says which, for the log.
    #[error("{0}")]
    Temporary(String),
}

/// An MX record (RFC 1035 §3.3.9).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mx {
    /// Lower is tried first (RFC 5321 §5.1).
    pub preference: u16,
    /// Where mail is to go.
    pub exchange: MxExchange,
}

/// The host that an MX record names. DNS lets it be any name; mail does not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MxExchange {
    /// A host name.
    Host(Domain),
    /// The root, `.`: this domain takes no mail (RFC 7505 §3).
    NullMx,
    /// Something that cannot be a host, such as an address written as a name; kept for the log.
    InvalidHostName(String),
}

impl MxExchange {
    /// Reads a name as DNS shows it, with or without its final dot.
    #[must_use]
    pub fn from_dns_name(raw: &str) -> Self {
        let name = raw.strip_suffix('.').unwrap_or(raw);
        if name.is_empty() {
            return Self::NullMx;
        }
        // A common mistake; as a name it could be asked for, but never answered.
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
    fn an_exchange_is_a_host_the_root_or_no_host_name() {
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
