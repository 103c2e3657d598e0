//! Which courier carries to a recipient, and who may travel together.
//!
//! The router knows one thing: the list of local domains. Recipients of a message that share a
//! route travel in one attempt; the queue counts attempts by the same key.

use std::collections::BTreeSet;

use crate::mail::{Destination, Domain, Recipient};

/// Who carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Transport {
    /// To a mailbox on this host, in the way that the operator chose.
    Local,
    /// To a program that an alias file names.
    Program,
    /// To another server by SMTP.
    Smtp,
}

/// A courier and a destination; recipients of one message with equal routes travel together.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Route {
    /// Who carries.
    pub transport: Transport,
    /// Where to: a domain in A-labels, `via` and what an alias says behind it, a program's owner, or
    /// `local`.
    pub destination: String,
}

/// Chooses routes. A snapshot: a reload makes a new one.
#[derive(Debug, Clone, Default)]
pub struct Router {
    local_domains: BTreeSet<Domain>,
}

impl Router {
    /// A router for these local domains; `localhost` is always one.
    #[must_use]
    pub fn new(local_domains: impl IntoIterator<Item = Domain>) -> Self {
        let mut local_domains: BTreeSet<_> = local_domains.into_iter().collect();
        local_domains.extend(Domain::parse("localhost"));
        Self { local_domains }
    }

    /// The domain is one of ours.
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
                Route { transport: Transport::Local, destination: "local".to_owned() }
            }
            Destination::Mailbox(mailbox) => {
                Route { transport: Transport::Smtp, destination: mailbox.domain.as_ascii().to_owned() }
            }
            Destination::Program { alias_address: owner, .. } => {
                Route { transport: Transport::Program, destination: owner.to_string() }
            }
            // A host may have the name of a domain: its MX hosts are another destination. So is the
            // same host with another login, or with less TLS.
            Destination::Via { via, .. } => {
                Route { transport: Transport::Smtp, destination: format!("via {via}") }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mail::{Mailbox, Via};

    fn route(address: &str) -> Route {
        let router = Router::new([Domain::parse("bücher.test").unwrap()]);
        router.route(&Recipient::for_mailbox(Mailbox::parse(address).unwrap()))
    }

    #[test]
    fn a_local_domain_is_local_in_every_spelling() {
        for address in ["ana@bücher.test", "ana@XN--BCHER-KVA.test", "ana@localhost"] {
            assert_eq!(route(address).transport, Transport::Local, "{address}");
        }
        for address in ["ana@sub.bücher.test", "ana@[127.0.0.1]"] {
            assert_eq!(route(address).transport, Transport::Smtp, "{address}");
        }
    }

    #[test]
    fn a_named_host_is_not_the_domain_of_the_same_name() {
        let via = |address: &str, hosts: &str| {
            let mailbox = Mailbox::parse(address).unwrap();
            let destination = Destination::Via { mailbox: mailbox.clone(), via: Via::parse(hosts).unwrap() };
            Router::default().route(&Recipient { destination, ..Recipient::for_mailbox(mailbox) })
        };
        assert_ne!(via("bo@b.example", "a.example"), route("ana@a.example"));
        assert_eq!(via("bo@b.example", "a.example"), via("cy@c.example", "a.example"));
        let all = "a.example 192.0.2.1:25 tls=required login=x";
        assert_eq!(via("bo@b.example", all).destination, format!("via {all}"));
        for other in ["a.example:26", "a.example tls=required", "a.example tls=required login=x"] {
            assert_ne!(via("bo@b.example", other), via("bo@b.example", "a.example"), "{other}");
        }
    }

    #[test]
    fn recipients_travel_together_by_domain() {
        assert_eq!(route("ana@there.example"), route("bo@THERE.example"));
        assert_ne!(route("ana@there.example"), route("ana@elsewhere.example"));
    }
}
