//! To a server that keeps mailboxes, such as Dovecot, by LMTP.
//!
//! All recipients of the message are named in one transaction, and after the final dot the server
//! answers for each of them: one may be delivered, another deferred, a third refused for good, and the
//! message is not sent again to those that have an answer. The server adds Return-Path and the other fields
//! of final delivery (RFC 2033 §2).
//!
//! A recipient is named as the mailbox `user@domain` to which aliases led, the domain in A-labels.
//!
//! The port is never 25, where servers expect SMTP (RFC 2033 §5): the configuration refuses it. The
//! connection is in plain text: the server is on this host or in the operator's own network.
//!
//! Standards: RFC 2033, and what `smtp::client` follows.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;

use super::contract::{Courier, CourierProfile, Delivery};
use super::message_facts::MessageFacts;
use super::smtp::{SmtpConversation, Timeouts, describe_io_error};
use crate::mail::{Destination, Domain, Endpoint, Failure, Outcome};
use crate::smtp::client::{Encryption, Plan, PlannedRecipient, Protocol, RecipientResult};
use crate::sys::{Clock, Connector};

/// The server, and our name.
#[derive(Debug, Clone)]
pub struct LmtpSettings {
    /// Where the server listens.
    pub endpoint: Endpoint,
    /// Our name in LHLO; also the server's name in bounces if it listens at a Unix socket.
    pub hostname: Domain,
}

/// Delivers to one LMTP server.
pub struct LmtpCourier {
    settings: Arc<ArcSwap<LmtpSettings>>,
    timeouts: Timeouts,
    dial: Arc<dyn Connector>,
    clock: Arc<dyn Clock>,
}

impl LmtpCourier {
    /// A courier to one server. Each attempt reads the settings once.
    #[must_use]
    pub fn new(
        settings: Arc<ArcSwap<LmtpSettings>>,
        dial: Arc<dyn Connector>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        const MINUTE: Duration = Duration::from_secs(60);
        // A server nearby answers soon, or something is wrong with it. It answers the dot after filters and
        // full-text indices for all recipients; a client that gives up on that reply delivers twice.
        let timeouts = Timeouts {
            connect: MINUTE / 6,
            greeting: MINUTE,
            hello: MINUTE,
            mail: MINUTE,
            rcpt: MINUTE,
            data: MINUTE,
            write_block: MINUTE,
            ..Timeouts::default()
        };
        Self { settings, timeouts, dial, clock }
    }

    fn run_transaction(&self, delivery: &Delivery<'_>) -> Result<Vec<RecipientResult>, Failure> {
        let plan = plan(&self.settings.load(), delivery)?;
        let peer = plan.peer_description();
        delivery.trace.add_event(format!("connecting to {peer}"));
        let connect_by = delivery.deadline.min(self.clock.now() + self.timeouts.connect);
        let stream = self.dial.connect(&plan.endpoint, connect_by).map_err(|error| {
            Failure::transient(4, 1, format!("no connection to {peer}: {}", describe_io_error(&error)))
                .with_destination_scope()
        })?;
        let session = SmtpConversation {
            clock: &*self.clock,
            timeouts: &self.timeouts,
            deadline: delivery.deadline,
            trace: delivery.trace,
            message: delivery.message,
            handshake: None,
        };
        Ok(session.deliver_and_quit(stream, plan))
    }
}

fn plan(settings: &LmtpSettings, delivery: &Delivery<'_>) -> Result<Plan, Failure> {
    let recipients = delivery.recipients.iter().map(|recipient| match &recipient.destination {
        Destination::Mailbox(mailbox) | Destination::Via { mailbox, .. } => Ok(PlannedRecipient {
            mailbox: mailbox.clone(),
            notify: recipient.notify,
            orcpt: recipient.orcpt.clone(),
        }),
        Destination::Program { .. } => {
            Err(Failure::transient(3, 5, "a program was routed to the courier for LMTP"))
        }
    });
    let recipients: Vec<PlannedRecipient> = recipients.collect::<Result<_, _>>()?;
    let facts = MessageFacts::from_delivery(delivery)
        .map_err(|error| Failure::transient(3, 0, format!("the message cannot be read here: {error}")))?;
    let host = match &settings.endpoint {
        Endpoint::Tcp(address) => address.ip().into(),
        Endpoint::Unix(_) => settings.hostname.clone(),
    };
    Ok(Plan {
        protocol: Protocol::Lmtp,
        host,
        endpoint: settings.endpoint.clone(),
        hello: settings.hostname.clone(),
        reverse_path: delivery.envelope.reverse_path.clone(),
        recipients,
        ret: delivery.envelope.ret,
        envid: delivery.envelope.envid.clone(),
        message_octets: delivery.message.octets(),
        has_8bit: facts.has_8bit,
        has_utf8_header: facts.has_utf8_header,
        encryption: Encryption::Never,
        credentials: None,
    })
}

impl Courier for LmtpCourier {
    fn name(&self) -> &'static str {
        "lmtp"
    }

    fn profile(&self) -> CourierProfile {
        CourierProfile::MAILBOXES
    }

    fn attempt(&self, delivery: &Delivery<'_>) -> Vec<Outcome> {
        match self.run_transaction(delivery) {
            Ok(answers) => answers
                .into_iter()
                .map(|answer| match answer {
                    RecipientResult::Outcome(outcome) => outcome,
                    // There is no other host to ask.
                    RecipientResult::NoAnswer(failure) => failure.into(),
                    RecipientResult::NotAsked => {
                        Failure::transient(5, 3, "the server takes fewer recipients at once").into()
                    }
                })
                .collect(),
            Err(failure) => {
                delivery.trace.add_error(failure.to_string());
                vec![failure.into(); delivery.recipients.len()]
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::courier::test_delivery::TestDelivery;
    use crate::fakes::{PeerLog, ScriptedConnector};
    use crate::sys::SystemClock;

    const SOCKET: &str = "unix:/run/dovecot/lmtp";
    const TO: [&str; 3] = ["ana@here.example", "bo@here.example", "cy@bücher.example"];
    /// Up to the 354, for three recipients who are all accepted.
    const TO_DATA: &str = "
        S: 220 store
        C: LHLO mail.here.example
        S: 250-store|250-PIPELINING|250 SIZE 0
        C: MAIL FROM:<eve@there.example> SIZE=27
        C: RCPT TO:<ana@here.example>
        C: RCPT TO:<bo@here.example>
        C: RCPT TO:<cy@xn--bcher-kva.example>
        C: DATA
        S: 250 ok|250 ok|250 ok|250 ok|354 go
        ! message
        ";

    fn attempt_to(endpoint: &str, script: &str, delivery: &TestDelivery) -> (Vec<Outcome>, PeerLog) {
        let dial = Arc::new(ScriptedConnector::default());
        dial.add_peer(endpoint, script);
        let settings = Arc::new(ArcSwap::from_pointee(LmtpSettings {
            endpoint: endpoint.parse().unwrap(),
            hostname: Domain::parse("mail.here.example").unwrap(),
        }));
        let courier = LmtpCourier::new(settings, Arc::clone(&dial) as _, Arc::new(SystemClock));
        let outcomes = delivery.attempt(&courier);
        drop(courier);
        let log = dial.finish();
        assert!(log.mismatches.is_empty() && log.open_connections == 0, "{log:?}");
        (outcomes, log)
    }

    fn attempt(script: &str) -> (Vec<Outcome>, PeerLog) {
        attempt_to(SOCKET, script, &TestDelivery::new("eve@there.example", &TO))
    }

    fn statuses(outcomes: &[Outcome]) -> Vec<String> {
        outcomes.iter().map(Outcome::status).collect()
    }

    #[test]
    fn one_transaction_delivers_to_one_recipient_defers_another_and_refuses_a_third() {
        let script = "
            S: 250 2.0.0 stored|452 4.2.2 full|550 5.7.1 not from you
            C: QUIT
            S: 221 bye";
        let (outcomes, log) = attempt(&format!("{TO_DATA}{script}"));
        assert_eq!(statuses(&outcomes), ["2.0.0", "4.2.2", "5.7.1"]);
        assert_eq!(log.messages, [b"Subject: hello\r\n\r\nDear Bo\r\n.\r\n"], "as it is, and once");
        let Outcome::Failed(reason) = &outcomes[2] else { panic!("{outcomes:?}") };
        assert_eq!(reason.response.as_ref().unwrap().host, "mail.here.example", "the server is this host's");
    }

    #[test]
    fn a_server_that_answers_for_some_recipients_and_closes_leaves_the_others_deferred() {
        for end in ["! close", "! silence", "S: nonsense"] {
            let (outcomes, _) = attempt(&format!("{TO_DATA}S: 250 2.0.0 stored\n{end}"));
            assert_eq!(statuses(&outcomes), ["2.0.0", "4.4.2", "4.4.2"], "{end}");
        }
    }

    #[test]
    fn a_server_that_is_missing_or_not_ready_is_transient() {
        for (script, status) in [
            ("! refuse", "4.4.1"),
            ("S: 421 4.3.2 shutting down", "4.3.2"),
            ("S: 554 5.3.2 no service\nC: QUIT\nS: 221 bye", "4.3.2"),
            ("S: 220 mx\nC: LHLO mail.here.example\nS: 500 5.5.1 this is SMTP\nC: QUIT\nS: 221 bye", "4.5.1"),
        ] {
            assert_eq!(statuses(&attempt(script).0), [status; 3], "{script}");
        }
    }

    #[test]
    fn a_server_is_also_reached_by_tcp_and_its_starttls_is_not_used() {
        let script = "
            S: 220 store
            C: LHLO mail.here.example
            S: 250-store|250 STARTTLS
            C: MAIL FROM:<>
            S: 250 ok
            C: RCPT TO:<ana@here.example>
            S: 550 5.1.1 nobody
            C: QUIT
            S: 221 bye";
        let (outcomes, _) = attempt_to("127.0.0.1:24", script, &TestDelivery::new("", &TO[..1]));
        let [Outcome::Failed(reason)] = outcomes.as_slice() else { panic!("{outcomes:?}") };
        assert_eq!(reason.response.as_ref().unwrap().host, "[127.0.0.1]");
    }
}
