//! The courier, and its way from host to host.

use std::collections::BTreeMap;
use std::io::{self, Read as _};
use std::net::SocketAddr;
use std::sync::Arc;

use arc_swap::ArcSwap;

use super::address_attempt::{HostAddress, NamedHostSettings};
use super::connection_pool::ConnectionPool;
use super::hello;
use super::settings::Settings;
use super::unresponsive_hosts::UnresponsiveHosts;
use crate::courier::{Courier, Delivery, Host, host_addresses, mx_hosts};
use crate::dns::{Budget, Resolver};
use crate::domaininfo::DomainInfo;
use crate::mail::{Destination, Domain, Failure, NextHop, Outcome, Recipient, Via};
use crate::observe::{Counter, CounterFamily, Metrics};
use crate::route::Router;
use crate::smtp::client::{Credentials, PlannedRecipient, RecipientResult};
use crate::sys::{Clock, Connector, Moment, Random, is_own_address};
use crate::tls::TlsClient;

/// Carries mail to other servers.
pub struct SmtpCourier {
    pub(super) settings: Settings,
    pub(super) parts: SmtpCourierParts,
    pub(super) counters: Counters,
    pub(super) connection_pool: ConnectionPool,
    pub(super) unresponsive_hosts: UnresponsiveHosts,
}

/// What the courier works with.
pub struct SmtpCourierParts {
    /// Knows MX hosts and addresses.
    pub resolver: Arc<dyn Resolver>,
    /// Opens connections.
    pub dial: Arc<dyn Connector>,
    /// Knows how well domains were reached before.
    pub domaininfo: Arc<DomainInfo>,
    /// Encrypts.
    pub tls: Arc<TlsClient>,
    /// Shuffles MX hosts of equal preference.
    pub random: Arc<dyn Random>,
    /// Tells the time.
    pub clock: Arc<dyn Clock>,
    /// What to log in with at named hosts, by name; a snapshot is taken for each attempt.
    pub credentials: Arc<ArcSwap<CredentialsByName>>,
    /// Knows which domains are ours; a snapshot is taken for each attempt.
    pub router: Arc<ArcSwap<Router>>,
}

/// Credentials by the names that the operator gives them.
pub type CredentialsByName = BTreeMap<String, Credentials>;

pub(super) struct Counters {
    attempts: Counter,
    pub(super) tls: CounterFamily,
    pub(super) level_check: CounterFamily,
}

impl SmtpCourier {
    /// A courier; asks `metrics` for its counters.
    #[must_use]
    pub fn new(settings: Settings, parts: SmtpCourierParts, metrics: &Metrics) -> Self {
        let counters = Counters {
            attempts: metrics.counter("smtp_out_attempts", "Attempts to carry a message to another server"),
            tls: metrics.counter_family(
                "smtp_out_tls",
                "Connections to other servers, by level of TLS",
                "level",
            ),
            level_check: metrics.counter_family(
                "smtp_out_level_check",
                "Comparisons of a connection with the level known of its domain, by result",
                "result",
            ),
        };
        let messages_max = settings.messages_per_connection_max;
        let kept = ConnectionPool::new(messages_max, settings.timeouts.quit, Arc::clone(&parts.clock));
        Self {
            settings,
            parts,
            counters,
            connection_pool: kept,
            unresponsive_hosts: UnresponsiveHosts::default(),
        }
    }
}

impl Courier for SmtpCourier {
    fn name(&self) -> &'static str {
        "smtp"
    }

    fn forget_host_failures(&self) {
        self.unresponsive_hosts.forget_failures();
    }

    fn attempt(&self, delivery: &Delivery<'_>) -> Vec<Outcome> {
        self.counters.attempts.add_one();
        let facts = match MessageFacts::from_delivery(delivery) {
            Ok(facts) => facts,
            Err(error) => {
                let failure = Failure::transient(3, 0, format!("the message cannot be read here: {error}"));
                return vec![failure.into(); delivery.recipients.len()];
            }
        };
        let hello = hello::hello_name(
            self.settings.hello_mode,
            &self.settings.hostname,
            &delivery.envelope.reverse_path,
            &self.parts.router.load(),
        );
        let open = |_: &&Recipient| RecipientAnswer::Pending(None);
        let standings = delivery.recipients.iter().map(open).collect();
        let mut attempt = SmtpAttempt {
            courier: self,
            delivery,
            hello,
            facts,
            answers: standings,
            search_deadline: delivery
                .deadline
                .min(self.parts.clock.now() + self.settings.timeouts.host_search),
            addresses_left: ADDRESSES_TRIED_MAX,
            dns_budget: Budget::new(delivery.deadline, DNS_LOOKUPS_MAX),
        };
        attempt.run();
        attempt.answers.into_iter().map(RecipientAnswer::into_outcome).collect()
    }
}

/// What must be known of the octets before the first of them is sent.
pub(in crate::courier) struct MessageFacts {
    pub(in crate::courier) has_8bit: bool,
    pub(in crate::courier) has_utf8_header: bool,
}

impl MessageFacts {
    pub(in crate::courier) fn from_delivery(delivery: &Delivery<'_>) -> io::Result<Self> {
        let envelope = delivery.envelope;
        // Who asked for SMTPUTF8 may have meant an address only: look, at the header and no further.
        let has_utf8_header = envelope.smtputf8 && has_utf8_header(delivery.message.open()?)?;
        let has_8bit = envelope.has_8bit || has_utf8_header || !envelope.added_fields.is_ascii();
        Ok(Self { has_8bit, has_utf8_header })
    }
}

/// Octets above 127 come before the first empty line.
fn has_utf8_header(mut message: Box<dyn io::Read + '_>) -> io::Result<bool> {
    let mut block = vec![0; 4096];
    let mut line_octets = 0_usize;
    loop {
        let count = match message.read(&mut block) {
            Ok(0) => return Ok(false),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        for &octet in block.get(..count).unwrap_or_default() {
            match octet {
                128.. => return Ok(true),
                b'\n' if line_octets == 0 => return Ok(false),
                b'\n' => line_octets = 0,
                b'\r' => {}
                _ => line_octets += 1,
            }
        }
    }
}

/// One attempt.
pub(super) struct SmtpAttempt<'a> {
    pub(super) courier: &'a SmtpCourier,
    pub(super) delivery: &'a Delivery<'a>,
    pub(super) hello: Domain,
    pub(super) facts: MessageFacts,
    answers: Vec<RecipientAnswer>,
    /// No further address is asked after this.
    search_deadline: Moment,
    addresses_left: usize,
    dns_budget: Budget,
}

/// Addresses asked in one attempt, of all hosts together. RFC 5321 §5.1 asks for at least two; a list
/// of sixty is meant to keep us busy.
const ADDRESSES_TRIED_MAX: usize = 8;

/// Look-ups of one attempt: the MX records, and for each of ten hosts its addresses, twice where this
/// host may be among them; the rest is room for what else an attempt asks about a domain.
const DNS_LOOKUPS_MAX: u32 = 50;

/// Where a recipient stands.
enum RecipientAnswer {
    /// No host has given an answer, and why the most telling one has not.
    Pending(Option<Failure>),
    Answered(Outcome),
}

impl RecipientAnswer {
    fn into_outcome(self) -> Outcome {
        match self {
            Self::Answered(outcome) => outcome,
            Self::Pending(Some(failure)) => failure.into(),
            Self::Pending(None) => Failure::transient(4, 0, "no host was asked").into(),
        }
    }

    /// One more host has given no answer.
    fn record_failure(&mut self, failure: Failure) {
        if let Self::Pending(why) = self {
            *why = Some(match why.take() {
                None => failure,
                Some(before) => combine_failures(before, failure),
            });
        }
    }
}

/// As long as one host may work later, so may the domain. Otherwise the later word counts; but that
/// there was no connection says less than anything that was heard on one.
fn combine_failures(before: Failure, now: Failure) -> Failure {
    match (&before, &now) {
        (Failure::Transient(_), Failure::Permanent(_)) => before,
        (Failure::Permanent(_), Failure::Transient(_)) => now,
        _ if is_connection_failure(&now) && !is_connection_failure(&before) => before,
        _ => now,
    }
}

/// The same, of two addresses of a host: what it lacks at one it will lack at the other, and that
/// there was no connection to that one (an IPv6 address, say) does not keep the matter open.
fn combine_failures_of_host(before: Failure, now: Failure) -> Failure {
    match &now {
        Failure::Permanent(_) if is_connection_failure(&before) => now,
        Failure::Permanent(_) | Failure::Transient(_) => combine_failures(before, now),
    }
}

fn is_connection_failure(failure: &Failure) -> bool {
    (failure.reason().subject, failure.reason().detail) == (4, 1)
}

/// Where a recipient's mail goes.
#[derive(Debug, Clone, PartialEq, Eq)]
enum HostSelection {
    MxHosts(Domain),
    NamedHosts(Via),
}

/// What the operator says of the hosts, with the credentials that he has given.
fn named_host_settings<'a>(
    target: &'a HostSelection,
    logins: &'a CredentialsByName,
) -> Result<Option<NamedHostSettings<'a>>, Failure> {
    let HostSelection::NamedHosts(via) = target else { return Ok(None) };
    let login = match &via.credentials_name {
        None => None,
        Some(name) => Some(logins.get(name).ok_or_else(|| {
            Failure::transient(3, 5, format!("credentials.toml has no login {name}; the mail waits for it"))
        })?),
    };
    Ok(Some(NamedHostSettings { via, credentials: login }))
}

impl SmtpAttempt<'_> {
    /// The queue brings recipients of one route, and those have one target. Were it otherwise, each
    /// target would have its own walk.
    fn run(&mut self) {
        let mut groups: Vec<(HostSelection, Vec<usize>)> = Vec::new();
        for (position, recipient) in self.delivery.recipients.iter().enumerate() {
            let target = match &recipient.destination {
                Destination::Mailbox(mailbox) => match &self.courier.settings.via {
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
            match groups.iter_mut().find(|(known, _)| *known == target) {
                Some((_, group)) => group.push(position),
                None => groups.push((target, vec![position])),
            }
        }
        for (target, group) in groups {
            self.try_hosts(&target, &group);
        }
    }

    /// From host to host, until everyone in the group has an answer.
    fn try_hosts(&mut self, target: &HostSelection, group: &[usize]) {
        let logins = self.courier.parts.credentials.load_full();
        let terms = match named_host_settings(target, &logins) {
            Ok(terms) => terms,
            Err(failure) => return self.record_failure(group, &failure),
        };
        let stops = match self.candidate_hosts(target) {
            Ok(stops) => stops,
            Err(failure) => return self.record_failure(group, &failure),
        };
        for (place, (host, port)) in stops.iter().enumerate() {
            let open = self.unanswered(group);
            if open.is_empty() {
                return;
            }
            // RFC 5321 §5.1: whoever is as preferred as we are, or less, would hand it to us.
            let is_new = place.checked_sub(1).and_then(|before| stops.get(before));
            let is_new = is_new.is_none_or(|(before, _)| before.preference != host.preference);
            if is_new
                && let HostSelection::MxHosts(domain) = target
                && self.includes_this_host(&stops, host.preference)
            {
                let text = format!("mail for {domain} loops back to myself: no better MX host is left");
                return self.record_failure(&open, &Failure::permanent(4, 6, text));
            }
            let resolver = &*self.courier.parts.resolver;
            match host_addresses(resolver, &host.name, &self.dns_budget) {
                Ok(found) => {
                    let found = found.into_iter().map(|ip| SocketAddr::new(ip, *port));
                    self.try_addresses(host, found, terms, open);
                }
                Err(failure) => self.record_failure(&open, &failure),
            }
            if self.is_search_over() {
                return;
            }
        }
    }

    /// One of the hosts of this preference is ourselves, by its name or by an address at which we take
    /// mail in.
    fn includes_this_host(&self, stops: &[(Host, u16)], preference: u16) -> bool {
        let Settings { hostname, listen_addresses: listening, .. } = &self.courier.settings;
        let is_here = |address: SocketAddr| {
            listening.iter().filter(|ours| ours.port() == address.port()).any(|ours| {
                ours.ip() == address.ip() || (ours.ip().is_unspecified() && is_own_address(address.ip()))
            })
        };
        let resolver = &*self.courier.parts.resolver;
        stops.iter().filter(|(host, _)| host.preference == preference).any(|(host, port)| {
            let takes_mail_in = listening.iter().any(|ours| ours.port() == *port);
            takes_mail_in
                && (host.name == *hostname
                    || host_addresses(resolver, &host.name, &self.dns_budget)
                        .is_ok_and(|found| found.into_iter().any(|ip| is_here(SocketAddr::new(ip, *port)))))
        })
    }

    /// From address to address of one host, until everyone in `open` has an answer or the host has
    /// said what it lacks.
    fn try_addresses(
        &mut self,
        host: &Host,
        addresses: impl Iterator<Item = SocketAddr>,
        terms: Option<NamedHostSettings<'_>>,
        open: Vec<usize>,
    ) {
        let mut open: BTreeMap<usize, Option<Failure>> =
            open.into_iter().map(|position| (position, None)).collect();
        for address in addresses {
            let is_worth_it = |why: &Option<Failure>| !matches!(why, Some(Failure::Permanent(_)));
            let asked: Vec<usize> =
                open.iter().filter(|(_, why)| is_worth_it(why)).map(|(position, _)| *position).collect();
            if asked.is_empty() {
                break;
            }
            let answers = if self.is_search_over() {
                let text = "the time of this attempt was over before a host gave an answer";
                let failure = Failure::transient(4, 1, text);
                self.delivery.trace.add_error(failure.to_string());
                vec![RecipientResult::NoAnswer(failure); asked.len()]
            } else {
                self.addresses_left -= 1;
                let addressees: Vec<PlannedRecipient> =
                    asked.iter().filter_map(|&position| self.planned_recipient(position)).collect();
                self.try_address(&HostAddress { host, address, named_host: terms }, &addressees)
            };
            for (&position, answer) in asked.iter().zip(answers) {
                match (answer, self.answers.get_mut(position)) {
                    (RecipientResult::Outcome(outcome), Some(standing)) => {
                        *standing = RecipientAnswer::Answered(outcome);
                        open.remove(&position);
                    }
                    (RecipientResult::NoAnswer(failure), _) => {
                        let why = open.entry(position).or_default();
                        *why = Some(match why.take() {
                            None => failure,
                            Some(before) => combine_failures_of_host(before, failure),
                        });
                    }
                    // `visit` has asked until nobody was left to ask.
                    (RecipientResult::Outcome(_), None) | (RecipientResult::NotAsked, _) => {}
                }
            }
        }
        for (position, why) in open {
            if let (Some(standing), Some(failure)) = (self.answers.get_mut(position), why) {
                standing.record_failure(failure);
            }
        }
    }

    /// Time or patience for further addresses is over.
    fn is_search_over(&self) -> bool {
        self.addresses_left == 0 || self.search_deadline <= self.courier.parts.clock.now()
    }

    /// The hosts to ask, each with its port.
    fn candidate_hosts(&self, target: &HostSelection) -> Result<Vec<(Host, u16)>, Failure> {
        let parts = &self.courier.parts;
        let usual = self.courier.settings.port;
        match target {
            HostSelection::MxHosts(domain) => {
                let mut found = mx_hosts(&*parts.resolver, &*parts.random, domain, &self.dns_budget)?;
                // Of equals, one to whom a connection is open.
                let has_open =
                    |host: &Host| self.courier.connection_pool.has_connection_to(&host.name, &self.hello);
                found.sort_by_key(|host| (host.preference, !has_open(host)));
                let names: Vec<_> = found.iter().map(|host| host.name.to_string()).collect();
                self.delivery.trace.add_event(format!("hosts of {domain}: {}", names.join(", ")));
                Ok(found.into_iter().map(|host| (host, usual)).collect())
            }
            HostSelection::NamedHosts(via) => {
                Ok(via.hosts.iter().map(|hop| named_host_and_port(hop, usual)).collect())
            }
        }
    }

    fn planned_recipient(&self, position: usize) -> Option<PlannedRecipient> {
        let recipient = self.delivery.recipients.get(position)?;
        Some(PlannedRecipient {
            mailbox: recipient.final_mailbox().clone(),
            notify: self.delivery.envelope.effective_notify(recipient),
            orcpt: recipient.orcpt.clone(),
        })
    }

    /// Who of the group has no answer yet.
    fn unanswered(&self, group: &[usize]) -> Vec<usize> {
        let is_open =
            |position: &usize| matches!(self.answers.get(*position), Some(RecipientAnswer::Pending(_)));
        group.iter().copied().filter(is_open).collect()
    }

    fn record_failure(&mut self, group: &[usize], failure: &Failure) {
        self.delivery.trace.add_error(failure.to_string());
        for &position in group {
            if let Some(standing) = self.answers.get_mut(position) {
                standing.record_failure(failure.clone());
            }
        }
    }
}

/// A host that an alias names; its port, or the usual one.
fn named_host_and_port(hop: &NextHop, usual: u16) -> (Host, u16) {
    let (name, port) = match hop {
        NextHop::Name { host, port } => (host.clone(), *port),
        NextHop::Address(address) => (Domain::from(address.ip()), address.port()),
    };
    (Host { name, preference: 0 }, if port == 0 { usual } else { port })
}
