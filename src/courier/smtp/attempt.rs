//! One attempt: from host to host and from address to address, until every recipient has an answer.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use super::address_attempt::AddressAttempt;
use super::context::AttemptContext;
use super::demand::TargetHosts;
use super::parts::CredentialsByName;
use super::recipient_answer::{RecipientAnswer, combine_failures_of_host};
use super::settings::Settings;
use crate::courier::{Host, host_addresses, mx_hosts};
use crate::mail::{Destination, Domain, Failure, NextHop, Outcome, Via};
use crate::smtp::client::{Credentials, PlannedRecipient, RecipientResult};
use crate::sys::{Moment, is_own_address};

/// One attempt.
pub(super) struct SmtpAttempt<'a> {
    context: &'a AttemptContext<'a>,
    answers: Vec<RecipientAnswer>,
    /// No further address is tried after this.
    search_deadline: Moment,
    addresses_left: usize,
}

/// Addresses tried in one attempt, of all hosts together. RFC 5321 §5.1 asks for at least two; a domain
/// with sixty addresses must not hold a delivery thread.
const ADDRESSES_TRIED_MAX: usize = 8;

/// The hosts that take a recipient's mail.
#[derive(Debug, Clone, PartialEq, Eq)]
enum HostSelection {
    MxHosts(Domain),
    NamedHosts(Via),
}

impl HostSelection {
    /// The hosts to which `host` belongs, for the demand.
    const fn target_hosts<'a>(&'a self, host: &'a Host) -> TargetHosts<'a> {
        match self {
            Self::MxHosts(domain) => TargetHosts::MxHostsOf(domain),
            Self::NamedHosts(via) => TargetHosts::Named { host: &host.name, tls: via.tls },
        }
    }

    /// What to log in with at the hosts; `None` if nothing.
    fn credentials<'a>(&self, known: &'a CredentialsByName) -> Result<Option<&'a Credentials>, Failure> {
        let Self::NamedHosts(Via { credentials_name: Some(name), .. }) = self else { return Ok(None) };
        known.get(name).map(Some).ok_or_else(|| {
            Failure::transient(3, 5, format!("credentials.toml has no login {name}; the mail waits for it"))
        })
    }
}

impl<'a> SmtpAttempt<'a> {
    pub(super) fn new(context: &'a AttemptContext<'a>) -> Self {
        let delivery = context.delivery;
        let search_end = context.courier.parts.clock.now() + context.settings.timeouts.host_search;
        Self {
            context,
            answers: delivery.recipients.iter().map(|_| RecipientAnswer::Pending(None)).collect(),
            search_deadline: delivery.deadline.min(search_end),
            addresses_left: ADDRESSES_TRIED_MAX,
        }
    }

    /// Makes the attempt; one outcome for each recipient, in order. The queue passes recipients of one
    /// route, which have the same hosts; recipients with other hosts would be tried one group after
    /// the other.
    pub(super) fn run(mut self) -> Vec<Outcome> {
        let mut groups: Vec<(HostSelection, Vec<usize>)> = Vec::new();
        for (position, recipient) in self.context.delivery.recipients.iter().enumerate() {
            let selection = match &recipient.destination {
                Destination::Mailbox(mailbox) => match &self.context.settings.via {
                    None => HostSelection::MxHosts(mailbox.domain.clone()),
                    Some(via) => HostSelection::NamedHosts(via.clone()),
                },
                Destination::Via { via, .. } => HostSelection::NamedHosts(via.clone()),
                Destination::Program { .. } => {
                    let failure = Failure::transient(3, 5, "a program is not reached by SMTP");
                    self.record_failure(&[position], &failure);
                    continue;
                }
            };
            match groups.iter_mut().find(|(other, _)| *other == selection) {
                Some((_, group)) => group.push(position),
                None => groups.push((selection, vec![position])),
            }
        }
        for (selection, group) in groups {
            self.try_hosts(&selection, &group);
        }
        self.answers.into_iter().map(RecipientAnswer::into_outcome).collect()
    }

    /// From host to host, until every recipient of the group has an answer.
    fn try_hosts(&mut self, selection: &HostSelection, group: &[usize]) {
        let credentials = match selection.credentials(&self.context.credentials) {
            Ok(credentials) => credentials,
            Err(failure) => return self.record_failure(group, &failure),
        };
        let candidates = match self.candidate_hosts(selection) {
            Ok(candidates) => candidates,
            Err(failure) => return self.record_failure(group, &failure),
        };
        let mut last_preference = None;
        for (host, port) in &candidates {
            let open = self.unanswered(group);
            if open.is_empty() {
                return;
            }
            // RFC 5321 §5.1: a host with our own preference, or a less preferred one, would send the mail
            // to us.
            let is_first_of_preference = last_preference.replace(host.preference) != Some(host.preference);
            if is_first_of_preference
                && let HostSelection::MxHosts(domain) = selection
                && self.includes_this_host(&candidates, host.preference)
            {
                let text = format!("mail for {domain} loops back to myself: no better MX host is left");
                return self.record_failure(&open, &Failure::permanent(4, 6, text));
            }
            match host_addresses(&*self.context.courier.parts.resolver, &host.name, &self.context.dns_budget)
            {
                Ok(found) => {
                    let hosts = selection.target_hosts(host);
                    let addresses = found.into_iter().map(|ip| AddressAttempt {
                        context: self.context,
                        host,
                        address: SocketAddr::new(ip, *port),
                        hosts,
                        credentials,
                    });
                    self.try_addresses(addresses.collect(), open);
                }
                Err(failure) => self.record_failure(&open, &failure),
            }
            if self.is_search_over() {
                return;
            }
        }
    }

    /// One of the hosts of this preference is this host: it has our name, or an address at which we take
    /// mail in.
    fn includes_this_host(&self, candidates: &[(Host, u16)], preference: u16) -> bool {
        let Settings { hostname, listen_addresses, .. } = &*self.context.settings;
        let is_here = |address: SocketAddr| {
            listen_addresses.iter().filter(|ours| ours.port() == address.port()).any(|ours| {
                ours.ip() == address.ip() || (ours.ip().is_unspecified() && is_own_address(address.ip()))
            })
        };
        let addresses_of = |host: &Host| {
            host_addresses(&*self.context.courier.parts.resolver, &host.name, &self.context.dns_budget)
        };
        candidates.iter().filter(|(host, _)| host.preference == preference).any(|(host, port)| {
            let takes_mail_in = listen_addresses.iter().any(|ours| ours.port() == *port);
            takes_mail_in
                && (host.name == *hostname
                    || addresses_of(host)
                        .is_ok_and(|found| found.into_iter().any(|ip| is_here(SocketAddr::new(ip, *port)))))
        })
    }

    /// From address to address of one host, until every recipient in `open` has an answer or a permanent
    /// failure of this host.
    fn try_addresses(&mut self, addresses: Vec<AddressAttempt<'_>>, open: Vec<usize>) {
        let mut open: BTreeMap<usize, Option<Failure>> =
            open.into_iter().map(|position| (position, None)).collect();
        for address in addresses {
            let can_succeed = |why: &Option<Failure>| !matches!(why, Some(Failure::Permanent(_)));
            let asked: Vec<usize> =
                open.iter().filter(|(_, why)| can_succeed(why)).map(|(position, _)| *position).collect();
            if asked.is_empty() {
                break;
            }
            let results = if self.is_search_over() {
                let text = "the time of this attempt was over before a host gave an answer";
                let failure = Failure::transient(4, 1, text);
                self.context.delivery.trace.add_error(failure.to_string());
                vec![RecipientResult::NoAnswer(failure); asked.len()]
            } else {
                self.addresses_left -= 1;
                let planned: Vec<PlannedRecipient> =
                    asked.iter().filter_map(|&position| self.planned_recipient(position)).collect();
                address.run(&planned)
            };
            for (&position, result) in asked.iter().zip(results) {
                match (result, self.answers.get_mut(position)) {
                    (RecipientResult::Outcome(outcome), Some(answer)) => {
                        *answer = RecipientAnswer::Answered(outcome);
                        open.remove(&position);
                    }
                    (RecipientResult::NoAnswer(failure), _) => {
                        let why = open.entry(position).or_default();
                        *why = Some(match why.take() {
                            None => failure,
                            Some(before) => combine_failures_of_host(before, failure),
                        });
                    }
                    // An AddressAttempt leaves no recipient without a result.
                    (RecipientResult::Outcome(_), None) | (RecipientResult::NotAsked, _) => {}
                }
            }
        }
        for (position, why) in open {
            if let (Some(answer), Some(failure)) = (self.answers.get_mut(position), why) {
                answer.record_failure(failure);
            }
        }
    }

    /// No further address is tried.
    fn is_search_over(&self) -> bool {
        self.addresses_left == 0 || self.search_deadline <= self.context.courier.parts.clock.now()
    }

    /// The hosts to try, each with its port, in order.
    fn candidate_hosts(&self, selection: &HostSelection) -> Result<Vec<(Host, u16)>, Failure> {
        let AttemptContext { courier, settings, delivery, hello, dns_budget, .. } = self.context;
        match selection {
            HostSelection::MxHosts(domain) => {
                let parts = &courier.parts;
                let mut found = mx_hosts(&*parts.resolver, &*parts.random, domain, dns_budget)?;
                // Of hosts with equal preference, one to which a connection is open comes first.
                let has_open = |host: &Host| courier.connection_pool.has_connection_to(&host.name, hello);
                found.sort_by_key(|host| (host.preference, !has_open(host)));
                let names: Vec<_> = found.iter().map(|host| host.name.to_string()).collect();
                delivery.trace.add_event(format!("hosts of {domain}: {}", names.join(", ")));
                Ok(found.into_iter().map(|host| (host, settings.port)).collect())
            }
            HostSelection::NamedHosts(via) => {
                Ok(via.hosts.iter().map(|hop| named_host_and_port(hop, settings.port)).collect())
            }
        }
    }

    fn planned_recipient(&self, position: usize) -> Option<PlannedRecipient> {
        let delivery = self.context.delivery;
        let recipient = delivery.recipients.get(position)?;
        Some(PlannedRecipient {
            mailbox: recipient.final_mailbox().clone(),
            notify: delivery.envelope.effective_notify(recipient),
            orcpt: recipient.orcpt.clone(),
        })
    }

    /// The recipients of the group that have no answer yet.
    fn unanswered(&self, group: &[usize]) -> Vec<usize> {
        let is_open =
            |position: &usize| matches!(self.answers.get(*position), Some(RecipientAnswer::Pending(_)));
        group.iter().copied().filter(is_open).collect()
    }

    fn record_failure(&mut self, group: &[usize], failure: &Failure) {
        self.context.delivery.trace.add_error(failure.to_string());
        for &position in group {
            if let Some(answer) = self.answers.get_mut(position) {
                answer.record_failure(failure.clone());
            }
        }
    }
}

/// A host that the operator names, and its port; `usual_port` if the operator names none.
fn named_host_and_port(hop: &NextHop, usual_port: u16) -> (Host, u16) {
    let (name, port) = match hop {
        NextHop::Name { host, port } => (host.clone(), *port),
        NextHop::Address(address) => (Domain::from(address.ip()), address.port()),
    };
    (Host { name, preference: 0 }, if port == 0 { usual_port } else { port })
}
