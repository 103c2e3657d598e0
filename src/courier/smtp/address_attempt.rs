//! One address: TLS, the legacy TLS library, plain text; and what is known of the domain.
//!
//! A handshake that fails may be the peer's old age or somebody in between who would rather read
//! along. What we know of the domain decides which it is taken for: the next, weaker method is tried,
//! on a new connection, only if the domain was never seen at a level that this method cannot reach.
//! A STARTTLS that is offered and then refused leaves plain text on the same connection: no other
//! library would be told anything else.
//! And whatever the connection turns out to be worth is compared once more before MAIL, because a
//! peer may simply not offer STARTTLS any more.

use std::net::SocketAddr;

use super::attempt::{Counters, SmtpAttempt};
use super::connection_pool::ConnectionKey;
use super::session::{ClientSession, HandshakeContext, OpenConnection, describe_io_error};
use crate::courier::Host;
use crate::domaininfo::DomainInfo;
use crate::mail::{Domain, Failure, TlsPolicy, Via};
use crate::smtp::client::{
    Client, Credentials, Encryption, Plan, PlannedRecipient, Protocol, RecipientResult,
};
use crate::tls::{HandshakeError, SecurityLevel};

/// How a connection is to be encrypted, from the best to the worst.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TlsMethod {
    /// STARTTLS if offered, with rustls.
    Tls,
    /// STARTTLS if offered, with OpenSSL.
    #[cfg(feature = "legacy-tls")]
    LegacyTls,
    /// No STARTTLS.
    Plain,
}

impl TlsMethod {
    /// The best level that this method can reach.
    const fn best_level(self) -> SecurityLevel {
        match self {
            Self::Tls => SecurityLevel::TlsVerified,
            #[cfg(feature = "legacy-tls")]
            Self::LegacyTls => SecurityLevel::TlsUnverified,
            Self::Plain => SecurityLevel::Plain,
        }
    }

    const fn next_weaker(self) -> Option<Self> {
        match self {
            #[cfg(feature = "legacy-tls")]
            Self::Tls => Some(Self::LegacyTls),
            #[cfg(not(feature = "legacy-tls"))]
            Self::Tls => Some(Self::Plain),
            #[cfg(feature = "legacy-tls")]
            Self::LegacyTls => Some(Self::Plain),
            Self::Plain => None,
        }
    }

    const fn encryption(self) -> Encryption {
        match self {
            Self::Tls => Encryption::Opportunistic,
            #[cfg(feature = "legacy-tls")]
            Self::LegacyTls => Encryption::Opportunistic,
            Self::Plain => Encryption::Never,
        }
    }
}

/// Connections to one address in one attempt, where the peer limits what each of them carries.
const CONNECTIONS_PER_ADDRESS_MAX: usize = 20;

/// The port on which TLS begins before the greeting.
const SUBMISSIONS_PORT: u16 = 465;

/// Where to go.
pub(super) struct HostAddress<'a> {
    pub(super) host: &'a Host,
    pub(super) address: SocketAddr,
    /// None for an MX host.
    pub(super) named_host: Option<NamedHostSettings<'a>>,
}

/// What the operator says of a host that he has named.
#[derive(Clone, Copy)]
pub(super) struct NamedHostSettings<'a> {
    pub(super) via: &'a Via,
    /// What to log in with.
    pub(super) credentials: Option<&'a Credentials>,
}

impl HostAddress<'_> {
    /// Whose memory this connection adds to, and is compared with. A host that the operator has named
    /// stands by its own name: how well it is reached says nothing of the domains behind it.
    fn tls_history_domain<'r>(&'r self, recipient: &'r PlannedRecipient) -> &'r Domain {
        if self.named_host.is_some() { &self.host.name } else { &recipient.mailbox.domain }
    }

    /// Nothing else is spoken on this port (RFC 8314 §7.3).
    fn is_implicit_tls(&self) -> bool {
        self.named_host.is_some() && self.address.port() == SUBMISSIONS_PORT
    }

    /// What the connection must be worth, whatever is known.
    fn required_level(&self) -> SecurityLevel {
        match self.named_host.map(|terms| terms.via.tls) {
            Some(TlsPolicy::Opportunistic) if self.is_implicit_tls() => SecurityLevel::TlsUnverified,
            None | Some(TlsPolicy::Opportunistic) => SecurityLevel::Plain,
            Some(TlsPolicy::Required) => SecurityLevel::TlsUnverified,
            Some(TlsPolicy::Verified) => SecurityLevel::TlsVerified,
        }
    }
}

impl SmtpAttempt<'_> {
    /// Asks this address on behalf of `recipients`; one answer each, in order. On as many connections
    /// as it takes: a peer may limit what one of them carries.
    pub(super) fn try_address(
        &self,
        place: &HostAddress<'_>,
        recipients: &[PlannedRecipient],
    ) -> Vec<RecipientResult> {
        let mut answers = vec![RecipientResult::NotAsked; recipients.len()];
        for _ in 0..CONNECTIONS_PER_ADDRESS_MAX {
            let is_left = |(position, _): &(usize, &PlannedRecipient)| {
                answers.get(*position) == Some(&RecipientResult::NotAsked)
            };
            let (positions, left): (Vec<usize>, Vec<PlannedRecipient>) =
                recipients.iter().enumerate().filter(is_left).map(|(n, one)| (n, one.clone())).unzip();
            if left.is_empty() {
                return answers;
            }
            for (position, answer) in positions.into_iter().zip(self.try_connection(place, &left)) {
                if let Some(slot) = answers.get_mut(position) {
                    *slot = answer;
                }
            }
        }
        let failure = Failure::transient(4, 5, format!("{} takes few recipients at once", place.host.name));
        answers.iter_mut().filter(|answer| **answer == RecipientResult::NotAsked).for_each(|answer| {
            *answer = RecipientResult::NoAnswer(failure.clone());
        });
        answers
    }

    /// One connection: one that was kept if there is one, or a new one, or a few of them if TLS gives
    /// trouble.
    fn try_connection(
        &self,
        place: &HostAddress<'_>,
        recipients: &[PlannedRecipient],
    ) -> Vec<RecipientResult> {
        if let Some(answers) = self.deliver_on_pooled_connection(place, recipients) {
            return answers;
        }
        let mut method = TlsMethod::Tls;
        loop {
            let plan = self.plan(place, recipients, method);
            let shown = plan.peer_description();
            let (answers, error) = match self.connect_and_deliver(place, plan, method) {
                Ok(ended) => (ended.results, ended.handshake_error),
                Err(failure) => return vec![RecipientResult::NoAnswer(failure); recipients.len()],
            };
            let Some(error) = error else { return answers };
            match self.weaker_method(place, method, recipients) {
                Ok(next) => {
                    self.delivery.trace.add_event(format!("trying {shown} again: {next:?}"));
                    method = next;
                }
                Err(refused) => {
                    let failures = recipients
                        .iter()
                        .map(|one| refused.failure(place.tls_history_domain(one), &shown, &error));
                    return failures.map(RecipientResult::NoAnswer).collect();
                }
            }
        }
    }

    fn plan(&self, place: &HostAddress<'_>, recipients: &[PlannedRecipient], method: TlsMethod) -> Plan {
        Plan {
            protocol: Protocol::Smtp,
            host: place.host.name.clone(),
            endpoint: place.address.into(),
            hello: self.hello.clone(),
            reverse_path: self.delivery.envelope.reverse_path.clone(),
            recipients: recipients.to_vec(),
            ret: self.delivery.envelope.ret,
            envid: self.delivery.envelope.envid.clone(),
            message_octets: self.delivery.message.octets(),
            has_8bit: self.facts.has_8bit,
            has_utf8_header: self.facts.has_utf8_header,
            encryption: if place.is_implicit_tls() { Encryption::ImplicitTls } else { method.encryption() },
            credentials: place.named_host.and_then(|terms| terms.credentials).cloned(),
        }
    }

    fn connect_and_deliver(
        &self,
        place: &HostAddress<'_>,
        plan: Plan,
        method: TlsMethod,
    ) -> Result<super::session::SessionResult, Failure> {
        let courier = self.courier;
        let trace = self.delivery.trace;
        let shown = plan.peer_description();
        trace.add_event(format!("connecting to {shown}"));
        let connect_by =
            self.delivery.deadline.min(courier.parts.clock.now() + courier.settings.timeouts.connect);
        let began = courier.parts.clock.now();
        if !courier.unresponsive_hosts.begin_attempt(place.address, began) {
            let text = format!("no connection to {shown}: it did not answer others a moment ago");
            trace.add_error(text.clone());
            return Err(Failure::transient(4, 1, text).with_destination_scope());
        }
        let silent =
            || courier.unresponsive_hosts.record_no_response(place.address, began, courier.parts.clock.now());
        let stream = courier.parts.dial.connect(&place.address.into(), connect_by).map_err(|error| {
            silent();
            let text = format!("no connection to {shown}: {}", describe_io_error(&error));
            trace.add_error(text.clone());
            // Refused, unreachable, timed out: all of them may be better later.
            Failure::transient(4, 1, text).with_destination_scope()
        })?;
        let recipients = plan.recipients.clone();
        let mut ended = self.session(place, method).deliver_first(stream, plan, |level, client| {
            courier.unresponsive_hosts.record_response(place.address, began);
            courier.counters.tls.add_one(&level.to_string());
            self.withhold_below_level(place, level, &recipients, &shown, client);
        });
        if ended.is_silent {
            silent();
        } else {
            courier.unresponsive_hosts.record_response(place.address, began);
        }
        if let Some(open) = ended.connection.take() {
            self.keep_or_close(place, method, open);
        }
        Ok(ended)
    }

    /// Asks by a connection that was kept; nothing if there is none, or it was of no more use.
    fn deliver_on_pooled_connection(
        &self,
        place: &HostAddress<'_>,
        recipients: &[PlannedRecipient],
    ) -> Option<Vec<RecipientResult>> {
        let open = self.courier.connection_pool.take(&self.connection_key(place))?;
        let plan = self.plan(place, recipients, TlsMethod::Tls);
        let shown = plan.peer_description();
        self.delivery.trace.add_event(format!("going on with a connection to {shown}"));
        let mut ended = self.session(place, TlsMethod::Tls).deliver_next(open, plan, |level, client| {
            self.withhold_below_level(place, level, recipients, &shown, client);
        });
        if let Some(open) = ended.connection.take() {
            self.keep_or_close(place, TlsMethod::Tls, open);
        }
        if ended.is_stale {
            self.delivery.trace.add_event("it was of no more use");
            return None;
        }
        Some(ended.results)
    }

    /// A connection by a weaker method than the best is not for the next message: its domain may be
    /// known for more, and a new handshake may work.
    fn keep_or_close(&self, place: &HostAddress<'_>, method: TlsMethod, open: OpenConnection) {
        let kept = &self.courier.connection_pool;
        let is_best = method == TlsMethod::Tls && open.client.refused_starttls().is_none();
        if self.delivery.more_follows && is_best && open.client.is_reusable() {
            kept.put_back(self.connection_key(place), open);
        } else {
            self.delivery.trace.add_event("> QUIT");
            kept.close(open);
        }
    }

    fn connection_key(&self, place: &HostAddress<'_>) -> ConnectionKey {
        ConnectionKey { host: place.host.name.clone(), address: place.address, hello: self.hello.clone() }
    }

    fn session<'s>(&'s self, place: &'s HostAddress<'_>, method: TlsMethod) -> ClientSession<'s> {
        let courier = self.courier;
        ClientSession {
            clock: &*courier.parts.clock,
            timeouts: &courier.settings.timeouts,
            deadline: self.delivery.deadline,
            trace: self.delivery.trace,
            message: self.delivery.message,
            handshake: Some(HandshakeContext { tls: &courier.parts.tls, method, host: &place.host.name }),
        }
    }

    /// Withholds whoever's domain deserves better than this.
    fn withhold_below_level(
        &self,
        place: &HostAddress<'_>,
        level: SecurityLevel,
        recipients: &[PlannedRecipient],
        shown: &str,
        client: &mut Client,
    ) {
        let offered = match client.refused_starttls() {
            Some(reply) => format!("{shown} now refuses STARTTLS ({reply})"),
            None => format!("{shown} now offers {level}"),
        };
        let Counters { level_check, .. } = &self.courier.counters;
        let mut checked: Vec<(&Domain, Option<Failure>)> = Vec::new();
        for (position, recipient) in recipients.iter().enumerate() {
            let domain = place.tls_history_domain(recipient);
            let failure = match checked.iter().find(|(known, _)| *known == domain) {
                Some((_, failure)) => failure.clone(),
                None => {
                    let text = if level < place.required_level() {
                        Some(below_required_level(place.required_level(), &offered))
                    } else {
                        let lower = self.courier.parts.domaininfo.check_outgoing(domain, level).err();
                        lower.map(|lower| below_known_level(domain, lower.known, &offered))
                    };
                    let failure = text.map(|text| Failure::transient(7, 5, text));
                    level_check.add_one(if failure.is_none() { "passed" } else { "refused" });
                    if let Some(failure) = &failure {
                        self.delivery.trace.add_error(failure.to_string());
                    }
                    checked.push((domain, failure.clone()));
                    failure
                }
            };
            if let Some(failure) = failure {
                client.withhold(position, failure);
            }
        }
    }

    /// The next method, if it is good enough for at least one of the domains.
    fn weaker_method<'a>(
        &self,
        place: &'a HostAddress<'_>,
        method: TlsMethod,
        recipients: &'a [PlannedRecipient],
    ) -> Result<TlsMethod, NoWeakerMethod<'a>> {
        let info: &DomainInfo = &self.courier.parts.domaininfo;
        let known = |one: &'a PlannedRecipient| {
            let domain = place.tls_history_domain(one);
            (domain, info.get(domain).outgoing)
        };
        let known: Vec<_> = recipients.iter().map(known).collect();
        let demanded = place.required_level();
        let floor = known.iter().map(|(_, level)| *level).min().unwrap_or_default().max(demanded);
        match method.next_weaker() {
            Some(next) if next.best_level() >= floor => Ok(next),
            // The legacy library could do no better than plain text's neighbour; nothing is left.
            Some(_) | None => Err(NoWeakerMethod { known_levels: known, required_level: demanded }),
        }
    }
}

/// No weaker method is allowed: what is known of each domain.
struct NoWeakerMethod<'a> {
    known_levels: Vec<(&'a Domain, SecurityLevel)>,
    required_level: SecurityLevel,
}

impl NoWeakerMethod<'_> {
    fn failure(&self, domain: &Domain, shown: &str, error: &HandshakeError) -> Failure {
        let level = self
            .known_levels
            .iter()
            .find(|(known, _)| *known == domain)
            .map_or(SecurityLevel::Plain, |(_, level)| *level);
        let offered = format!("the TLS handshake with {shown} now fails ({error})");
        let text = if self.required_level > level {
            below_required_level(self.required_level, &offered)
        } else {
            below_known_level(domain, level, &offered)
        };
        Failure::transient(7, 5, text).with_destination_scope()
    }
}

/// The operator has said how mail goes to this host, and in no other way.
fn below_required_level(demanded: SecurityLevel, offered: &str) -> String {
    format!("mail goes there at {demanded} or not at all, as the operator says, and {offered}; it waits")
}

/// What was known, what was offered, and what the operator can do if that is how it should be.
fn below_known_level(domain: &Domain, known: SecurityLevel, offered: &str) -> String {
    format!(
        "{domain} was reached at {known} before, and {offered}; the mail waits. If this change is wanted: \
         postrider domain forget {domain}"
    )
}
