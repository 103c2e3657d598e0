//! One address of one host: TLS, then the legacy TLS library, then plain text.
//!
//! A failed handshake can mean an old peer or an attacker between the two hosts. The [`Demand`] decides
//! which of the two is assumed: the next, weaker method is tried on a new connection only if it can
//! reach the demanded level. A peer that offers STARTTLS and then refuses it leaves the connection in
//! plain text; no other method is tried, because the peer would answer the same.
//! Before MAIL the level of the connection is compared with the demand, whatever the method: a peer may
//! have ceased to offer STARTTLS. A level that is higher than before is saved before MAIL.

use std::net::SocketAddr;

use super::connection_pool::ConnectionKey;
use super::context::AttemptContext;
use super::demand::{Demand, DemandReason, TargetHosts};
use super::open_connection::{OpenConnection, describe_io_error};
use super::session::{HandshakeContext, SessionProgress, SessionResult, SmtpConversation};
use super::tls_method::TlsMethod;
use crate::courier::Host;
use crate::mail::Failure;
use crate::smtp::client::{Credentials, Encryption, Plan, PlannedRecipient, Protocol, RecipientResult};

/// Connections to one address in one attempt, where the peer limits what each of them carries.
const CONNECTIONS_PER_ADDRESS_MAX: usize = 20;

/// The attempt at one address.
pub(super) struct AddressAttempt<'a> {
    pub(super) context: &'a AttemptContext<'a>,
    pub(super) host: &'a Host,
    pub(super) address: SocketAddr,
    /// The hosts to which `host` belongs.
    pub(super) hosts: TargetHosts<'a>,
    /// What to log in with; only at a host that the operator has named.
    pub(super) credentials: Option<&'a Credentials>,
}

impl AddressAttempt<'_> {
    /// Carries the message to `recipients`; one result each, in order. Opens as many connections as
    /// the recipients need, because a peer may limit what one connection carries.
    pub(super) fn run(&self, recipients: &[PlannedRecipient]) -> Vec<RecipientResult> {
        let mut results = vec![RecipientResult::NotAsked; recipients.len()];
        for _ in 0..CONNECTIONS_PER_ADDRESS_MAX {
            let is_left = |(position, _): &(usize, &PlannedRecipient)| {
                results.get(*position) == Some(&RecipientResult::NotAsked)
            };
            let (positions, left): (Vec<usize>, Vec<PlannedRecipient>) =
                recipients.iter().enumerate().filter(is_left).map(|(n, one)| (n, one.clone())).unzip();
            if left.is_empty() {
                return results;
            }
            for (position, result) in positions.into_iter().zip(self.try_connection(&left)) {
                if let Some(slot) = results.get_mut(position) {
                    *slot = result;
                }
            }
        }
        let failure = Failure::transient(4, 5, format!("{} takes few recipients at once", self.host.name));
        results.iter_mut().filter(|result| **result == RecipientResult::NotAsked).for_each(|result| {
            *result = RecipientResult::NoAnswer(failure.clone());
        });
        results
    }

    /// One connection: a pooled one if there is one, else a new one, or several if the handshake fails.
    fn try_connection(&self, recipients: &[PlannedRecipient]) -> Vec<RecipientResult> {
        if let Some(results) = self.deliver_on_pooled_connection(recipients) {
            return results;
        }
        let trace = self.context.delivery.trace;
        let mut method = TlsMethod::Tls;
        loop {
            let plan = self.plan(recipients, method);
            let peer = plan.peer_description();
            let (results, error) = match self.connect_and_deliver(plan, method) {
                Ok(ended) => (ended.results, ended.handshake_error),
                Err(failure) => return vec![RecipientResult::NoAnswer(failure); recipients.len()],
            };
            let Some(error) = error else { return results };
            let demand = self.demand();
            match method.next_weaker().filter(|next| demand.is_met_by(next.best_level())) {
                Some(next) => {
                    trace.add_event(format!("trying {peer} again: {next:?}"));
                    method = next;
                }
                None => {
                    let offered = format!("the TLS handshake with {peer} now fails ({error})");
                    let failure = demand.failure(&offered).with_destination_scope();
                    return vec![RecipientResult::NoAnswer(failure); recipients.len()];
                }
            }
        }
    }

    /// What the next connection must offer. Decided anew for each connection: another attempt may have
    /// reached a higher level meanwhile.
    fn demand(&self) -> Demand<'_> {
        let learned = self.context.courier.parts.domaininfo.get(self.hosts.learning_domain()).outgoing;
        Demand::decide(self.hosts, self.address.port(), learned)
    }

    fn plan(&self, recipients: &[PlannedRecipient], method: TlsMethod) -> Plan {
        let AttemptContext { delivery, hello, facts, .. } = self.context;
        Plan {
            protocol: Protocol::Smtp,
            host: self.host.name.clone(),
            endpoint: self.address.into(),
            hello: hello.clone(),
            reverse_path: delivery.envelope.reverse_path.clone(),
            recipients: recipients.to_vec(),
            ret: delivery.envelope.ret,
            envid: delivery.envelope.envid.clone(),
            message_octets: delivery.message.octets(),
            has_8bit: facts.has_8bit,
            has_utf8_header: facts.has_utf8_header,
            encryption: if self.hosts.is_implicit_tls(self.address.port()) {
                Encryption::ImplicitTls
            } else {
                method.encryption()
            },
            credentials: self.credentials.cloned(),
        }
    }

    fn connect_and_deliver(&self, plan: Plan, method: TlsMethod) -> Result<SessionResult, Failure> {
        let AttemptContext { courier, settings, delivery, .. } = self.context;
        let (trace, clock, unresponsive) =
            (delivery.trace, &*courier.parts.clock, &courier.unresponsive_hosts);
        let (peer, demand, recipient_count) = (plan.peer_description(), self.demand(), plan.recipients.len());
        trace.add_event(format!("connecting to {peer}"));
        let began = clock.now();
        let connect_by = delivery.deadline.min(began + settings.timeouts.connect);
        if !unresponsive.begin_attempt(self.address, began) {
            let text = format!("no connection to {peer}: it did not answer others a moment ago");
            trace.add_error(text.clone());
            return Err(Failure::transient(4, 1, text).with_destination_scope());
        }
        let stream = courier.parts.dial.connect(&self.address.into(), connect_by).map_err(|error| {
            unresponsive.record_no_response(self.address, began, clock.now());
            let text = format!("no connection to {peer}: {}", describe_io_error(&error));
            trace.add_error(text.clone());
            // Refused, unreachable, timed out: each may be over at the next attempt.
            Failure::transient(4, 1, text).with_destination_scope()
        })?;
        let session = self.session(method);
        let progress = session.begin(stream, plan);
        if let SessionProgress::LevelKnown(open) = &progress {
            unresponsive.record_response(self.address, began);
            courier.counters.tls.add_one(&open.level.to_string());
        }
        let ended = self.transfer(&session, progress, &demand, recipient_count, &peer);
        if ended.is_silent {
            unresponsive.record_no_response(self.address, began, clock.now());
        } else {
            unresponsive.record_response(self.address, began);
        }
        Ok(ended)
    }

    /// Carries the message over a pooled connection; `None` if there is none, or if the peer has closed
    /// it meanwhile.
    fn deliver_on_pooled_connection(&self, recipients: &[PlannedRecipient]) -> Option<Vec<RecipientResult>> {
        let open = self.context.courier.connection_pool.take(&self.connection_key())?;
        let trace = self.context.delivery.trace;
        let plan = self.plan(recipients, TlsMethod::Tls);
        let (peer, demand) = (plan.peer_description(), self.demand());
        trace.add_event(format!("going on with a connection to {peer}"));
        let session = self.session(TlsMethod::Tls);
        let progress = session.begin_next(open, plan);
        let ended = self.transfer(&session, progress, &demand, recipients.len(), &peer);
        if ended.is_stale {
            trace.add_event("the pooled connection was closed by the peer");
            return None;
        }
        Some(ended.results)
    }

    /// Sends the message to the recipients whose demand the connection meets, on new and pooled connections
    /// alike, and keeps or closes the connection.
    fn transfer(
        &self,
        session: &SmtpConversation<'_>,
        progress: SessionProgress,
        demand: &Demand<'_>,
        recipient_count: usize,
        peer: &str,
    ) -> SessionResult {
        let mut ended = match progress {
            SessionProgress::LevelKnown(mut open) => {
                self.withhold_unless_met(demand, &mut open, recipient_count, peer);
                session.transfer(open)
            }
            SessionProgress::Ended(ended) => ended,
        };
        if let Some(open) = ended.connection.take() {
            self.keep_or_close(session, open);
        }
        ended
    }

    /// Keeps the connection for the next message if the best TLS method was used: another domain may
    /// demand more, and a new handshake may succeed.
    fn keep_or_close(&self, session: &SmtpConversation<'_>, open: OpenConnection) {
        let AttemptContext { courier, settings, delivery, .. } = self.context;
        let is_best_method = session.handshake.as_ref().is_some_and(|one| one.method == TlsMethod::Tls);
        let is_best = is_best_method && open.client.refused_starttls().is_none();
        let has_messages_left = open.message_count < settings.messages_per_connection_max;
        if delivery.is_more_mail_expected && is_best && open.client.is_reusable() && has_messages_left {
            courier.connection_pool.put_back(self.connection_key(), open, settings.timeouts.quit);
        } else {
            delivery.trace.add_event("> QUIT");
            courier.connection_pool.close(open, settings.timeouts.quit);
        }
    }

    fn connection_key(&self) -> ConnectionKey {
        ConnectionKey {
            host: self.host.name.clone(),
            address: self.address,
            hello: self.context.hello.clone(),
        }
    }

    fn session(&self, method: TlsMethod) -> SmtpConversation<'_> {
        let AttemptContext { courier, settings, delivery, .. } = self.context;
        SmtpConversation {
            clock: &*courier.parts.clock,
            timeouts: &settings.timeouts,
            deadline: delivery.deadline,
            trace: delivery.trace,
            message: delivery.message,
            handshake: Some(HandshakeContext { tls: &courier.parts.tls, method, host: &self.host.name }),
        }
    }

    /// Withholds all recipients from a connection that does not meet the demand. Saves the level of a
    /// connection that does, if it is higher than before.
    fn withhold_unless_met(
        &self,
        demand: &Demand<'_>,
        open: &mut OpenConnection,
        recipient_count: usize,
        peer: &str,
    ) {
        let (courier, level) = (self.context.courier, open.level);
        let offered = match open.client.refused_starttls() {
            Some(reply) => format!("{peer} now refuses STARTTLS ({reply})"),
            None => format!("{peer} now offers {level}"),
        };
        let failure = if demand.is_met_by(level) {
            let domain = demand.hosts.learning_domain();
            // Refused if another attempt has reached a higher level since the demand was decided.
            courier.parts.domaininfo.check_outgoing(domain, level).err().map(|lower| {
                let demand = Demand { level: lower.known, why: DemandReason::LearnedLevel, ..*demand };
                demand.failure(&offered)
            })
        } else {
            Some(demand.failure(&offered))
        };
        courier.counters.level_check.add_one(if failure.is_none() { "passed" } else { "refused" });
        let Some(failure) = failure else { return };
        self.context.delivery.trace.add_error(failure.to_string());
        for position in 0..recipient_count {
            open.client.withhold(position, failure.clone());
        }
    }
}
