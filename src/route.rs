//! Chooses the courier and the destination of a recipient.
//!
//! The choice depends on the recipient and on the list of local domains. Recipients of a message that have
//! the same route are tried in one attempt, and the concurrency limit of the queue applies to each route.

use std::collections::BTreeSet;
use std::fmt;

use crate::mail::{Destination, Domain, Mailbox, Recipient, Via};

/// The kinds of couriers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CourierKind {
    /// Delivers to mailboxes on this host, in the way that the operator chose.
    Local,
    /// Delivers to programs that alias files name.
    Program,
    /// Sends to other servers by SMTP.
    Smtp,
}

/// A courier and a destination.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Route {
    /// The courier.
    pub courier: CourierKind,
    /// Where the message goes.
    pub destination: RouteDestination,
}

/// The destination of a route. Displayed, it is the name of the destination in logs and in commands.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RouteDestination {
    /// The mailboxes on this host, displayed as `local`.
    LocalMailboxes,
    /// The programs of one alias, displayed as the address of the alias.
    ProgramsOf(Mailbox),
    /// The MX hosts of a domain, displayed in A-labels.
    Domain(Domain),
    /// Hosts that the operator named, displayed as `via` and the hosts with their options.
    NamedHosts(Via),
}

impl fmt::Display for RouteDestination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::LocalMailboxes => f.write_str("local"),
            Self::ProgramsOf(alias) => alias.fmt(f),
            Self::Domain(domain) => f.write_str(domain.as_ascii()),
            Self::NamedHosts(via) => write!(f, "via {via}"),
        }
    }
}

/// Chooses routes. A snapshot: a reload makes a new one.
#[derive(Debug, Clone, Default)]
pub struct Router {
    local_domains: BTreeSet<Domain>,
}

impl Router {
    /// A router for these local domains; `localhost` is always local.
    #[must_use]
    pub fn new(local_domains: impl IntoIterator<Item = Domain>) -> Self {
        let mut local_domains: BTreeSet<_> = local_domains.into_iter().collect();
        local_domains.extend(Domain::parse("localhost"));
        Self { local_domains }
    }

    /// Whether the domain is local.
    #[must_use]
    pub fn is_local(&self, domain: &Domain) -> bool {
        self.local_domains.contains(domain)
    }

    /// The local domains, sorted by A-labels.
    pub fn local_domains(&self) -> impl Iterator<Item = &Domain> {
        self.local_domains.iter()
    }

    /// The route to a recipient.
    #[must_use]
    pub fn route(&self, recipient: &Recipient) -> Route {
        match &recipient.destination {
            Destination::Mailbox(mailbox) if self.is_local(&mailbox.domain) => {
                Route { courier: CourierKind::Local, destination: RouteDestination::LocalMailboxes }
            }
            Destination::Mailbox(mailbox) => {
                let destination = RouteDestination::Domain(mailbox.domain.clone());
                Route { courier: CourierKind::Smtp, destination }
            }
            Destination::Program { alias_address, .. } => {
                let destination = RouteDestination::ProgramsOf(alias_address.clone());
                Route { courier: CourierKind::Program, destination }
            }
            // A host may have the name of a domain, whose MX hosts are another destination. The same host
            // with another login, or with less TLS, is another destination too.
            Destination::Via { via, .. } => {
                let destination = RouteDestination::NamedHosts(via.clone());
                Route { courier: CourierKind::Smtp, destination }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(address: &str) -> Route {
        let router = Router::new([Domain::parse("bücher.test").unwrap()]);
        router.route(&Recipient::for_mailbox(Mailbox::parse(address).unwrap()))
    }

    #[test]
    fn a_local_domain_is_local_in_u_labels_and_in_a_labels() {
        for address in ["ana@bücher.test", "ana@XN--BCHER-KVA.test", "ana@localhost"] {
            assert_eq!(route(address).courier, CourierKind::Local, "{address}");
        }
        for address in ["ana@sub.bücher.test", "ana@[127.0.0.1]"] {
            assert_eq!(route(address).courier, CourierKind::Smtp, "{address}");
        }
    }

    #[test]
    fn a_named_host_is_another_destination_than_the_domain_of_that_name() {
        let via = |address: &str, hosts: &str| {
            let mailbox = Mailbox::parse(address).unwrap();
            let destination = Destination::Via { mailbox: mailbox.clone(), via: Via::parse(hosts).unwrap() };
            Router::default().route(&Recipient { destination, ..Recipient::for_mailbox(mailbox) })
        };
        assert_ne!(via("bo@b.example", "a.example"), route("ana@a.example"));
        assert_eq!(via("bo@b.example", "a.example"), via("cy@c.example", "a.example"));
        let all = "a.example 192.0.2.1:25 tls=required login=x";
        assert_eq!(via("bo@b.example", all).destination.to_string(), format!("via {all}"));
        for other in ["a.example:26", "a.example tls=required", "a.example tls=required login=x"] {
            assert_ne!(via("bo@b.example", other), via("bo@b.example", "a.example"), "{other}");
        }
    }

    #[test]
    fn recipients_of_one_domain_have_the_same_route() {
        assert_eq!(route("ana@there.example"), route("bo@THERE.example"));
        assert_ne!(route("ana@there.example"), route("ana@elsewhere.example"));
    }
}
