//! Sample data for the tests of the pages.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::monitor_data::{CertificateExpiry, MonitorData, ServerStatus};
use crate::mail::{Domain, Mailbox, MessageId, Reason, Recipient, ReversePath, Timestamp};
use crate::observe::{Metrics, Traces};
use crate::queue::{QueuedMessage, QueuedRecipient, RecipientState};
use crate::sys::Clock;

/// Some counters, two traces, two messages.
pub(super) struct SampleData {
    metrics: Metrics,
    traces: Arc<Traces>,
    pub(super) items: Vec<QueuedMessage>,
}

impl SampleData {
    /// `pass` lets time pass on `clock`.
    pub(super) fn new(clock: Arc<dyn Clock>, pass: impl Fn(Duration)) -> Self {
        let metrics = Metrics::default();
        metrics.counter("queue_messages_accepted", "Messages accepted").add(1284);
        metrics.counter("queue_damaged_records", "Damaged records and files, set aside");
        metrics.gauge("queue_messages", "Messages in the queue").set(2);
        let verbs = metrics.counter_family("session_command", "Commands, by verb", "verb");
        for verb in ["EHLO", "MAIL", "RCPT", "RCPT", "DATA", "QUIT"] {
            verbs.add_one(verb);
        }
        let traces = Traces::new(clock);
        let session = traces.begin("session", "192.0.2.7:52110");
        session.add_event("EHLO there.example");
        pass(Duration::from_millis(140));
        session.add_event("MAIL FROM:<ana@there.example> → 250 2.1.0");
        drop(session);
        let attempt = traces.begin("attempt", "01kax3vnm2tq8w5c4e7z smtp there.example");
        attempt.add_event("mx.there.example [192.0.2.25]: connected");
        pass(Duration::from_secs(3));
        attempt.add_error("mx.there.example said: 451 4.7.1 <script>alert('greylisted')</script>");
        drop(attempt);
        Self { metrics, traces, items: items() }
    }
}

fn items() -> Vec<QueuedMessage> {
    let wall = Timestamp::from_millis(1_767_225_600_000);
    let deferred = Reason::new(4, 1, "the server could not be reached")
        .with_response("mx.there.example", "421 4.3.2 <b>come back later</b>");
    let recipient = |raw: &str, state| QueuedRecipient {
        recipient: Recipient::for_mailbox(Mailbox::parse(raw).unwrap()),
        state,
    };
    vec![
        QueuedMessage {
            id: MessageId::new(wall, 0x1234_5678_9abc_def0),
            arrived: wall,
            age: Duration::from_secs(5400),
            octets: 52_311,
            reverse_path: ReversePath::Mailbox(Mailbox::parse("\"<i>ana\"@bücher.example").unwrap()),
            attempts: 4,
            due: Some(wall.after(Duration::from_secs(7200))),
            is_held: false,
            recipients: vec![
                recipient("bo@there.example", RecipientState::Waiting(Some(deferred))),
                recipient(
                    "cy@here.example",
                    RecipientState::Delivered(Reason::new(0, 0, "delivered to the mailbox")),
                ),
                recipient("dee@there.example", RecipientState::Failed(Reason::new(1, 1, "no such mailbox"))),
            ],
        },
        QueuedMessage {
            id: MessageId::new(wall, 0x0fed_cba9_8765_4321),
            arrived: wall,
            age: Duration::from_secs(12),
            octets: 820,
            reverse_path: ReversePath::Null,
            attempts: 0,
            due: None,
            is_held: true,
            recipients: vec![recipient("ana@here.example", RecipientState::Waiting(None))],
        },
    ]
}

impl MonitorData for SampleData {
    fn status(&self) -> ServerStatus {
        ServerStatus {
            version: "0.1.0",
            hostname: Domain::parse("mail.here.example").unwrap(),
            uptime: Duration::from_secs(273_600),
            sessions: 3,
            certificate: Some(CertificateExpiry { remaining: Duration::from_hours(60 * 24), is_near: false }),
            queue: self.items.len(),
        }
    }

    fn queue(&self) -> Vec<QueuedMessage> {
        self.items.clone()
    }

    fn queue_json(&self) -> Value {
        json!({"count": self.items.len(), "messages": []})
    }

    fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    fn traces(&self) -> &Traces {
        &self.traces
    }
}
