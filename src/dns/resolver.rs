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
    fn mx(&self, name: &Domain, deadline: Moment) -> Result<Vec<Mx>, DnsError>;

    /// The A and AAAA records of a host, in no order; empty if it truly has none. CNAMEs are
    /// followed. One family is enough: trouble with the other is then not reported. Is back by
    /// `deadline`.
    ///
    /// # Errors
    /// [`DnsError::NoSuchDomain`] is a fact; [`DnsError::Temporary`] says nothing about the name.
    fn addresses(&self, host: &Domain, deadline: Moment) -> Result<Vec<IpAddr>, DnsError>;
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
    pub exchange: Exchange,
}

/// The host that an MX record names. DNS lets it be any name; mail does not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Exchange {
    /// A host name.
    Host(Domain),
    /// The root, `.`: this domain takes no mail (RFC 7505 §3).
    Root,
    /// Something that cannot be a host, such as an address written as a name; kept for the log.
    NoHostName(String),
}

impl Exchange {
    /// Reads a name as DNS shows it, with or without its final dot.
    #[must_use]
    pub fn read(raw: &str) -> Self {
        let name = raw.strip_suffix('.').unwrap_or(raw);
        if name.is_empty() {
            return Self::Root;
        }
        // A common mistake; as a name it could be asked for, but never answered.
        if name.parse::<Ipv4Addr>().is_ok() {
            return Self::NoHostName(name.to_owned());
        }
        match Domain::parse(name) {
            Ok(host) if host.as_address().is_none() => Self::Host(host),
            _ => Self::NoHostName(name.to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exchange_is_a_host_the_root_or_no_host_name() {
        let host = Domain::parse("mx.there.example").unwrap();
        assert_eq!(Exchange::read("MX.There.example."), Exchange::Host(host));
        assert_eq!(Exchange::read("."), Exchange::Root);
        for raw in ["192.0.2.1", "192.0.2.1.", "[192.0.2.1]", "mx_1.there.example.", "a\\.b.example"] {
            assert!(matches!(Exchange::read(raw), Exchange::NoHostName(_)), "{raw}");
        }
    }
}
