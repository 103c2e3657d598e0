//! Writes reports in our name, and puts them through the door for our own mail.

use std::sync::Arc;

use super::bounce::{self, PlannedBounce};
use super::delivery_threads::{DeliveryParts, panic_message};
use super::generated_mail::OutgoingBounce;
use super::handle::QueueShared;
use super::outgoing_content::OutgoingContent;
use crate::dsn::{Bounce, BounceRecipient, ReturnedContent};
use crate::mail::{Envelope, MessageId, Notify, Recipient, ReversePath, Timestamp};
use crate::observe::maillog;
use crate::observe::{CounterFamily, Metrics};
use crate::sys::catch_panic;

/// Whoever writes reports. Cheap to clone.
#[derive(Clone)]
pub(super) struct BounceWriter {
    shared: Arc<QueueShared>,
    parts: DeliveryParts,
    bounces_put: CounterFamily,
}

impl BounceWriter {
    pub(super) fn new(shared: Arc<QueueShared>, crew: DeliveryParts, metrics: &Metrics) -> Self {
        let reports = metrics.counter_family("queue_reports", "Reports put, by what they are about", "kind");
        Self { shared, parts: crew, bounces_put: reports }
    }

    /// Writes one report and puts it; `until` is when we give up on those who are delayed. False
    /// if it could not be put: it is owed still.
    pub(super) fn put_bounce(&self, envelope: &Envelope, due: &PlannedBounce, until: Timestamp) -> bool {
        // A panic here must not cost what else the attempt has found out: that a recipient has it.
        let put = catch_panic(|| match self.compose(envelope, due, until) {
            Some(letter) => self.parts.generated_mail.put(letter).map_err(|e| e.to_string()),
            None => Ok(None),
        })
        .unwrap_or_else(|panic| Err(panic_message(panic.as_ref())));
        let Envelope { id, reverse_path, .. } = envelope;
        match put {
            Ok(Some(report)) => {
                self.bounces_put.add_one(due.kind.name());
                maillog::bounce_queued(id, reverse_path, &report, due.kind.name());
                true
            }
            Ok(None) => {
                maillog::bounce_suppressed(id, "there is nobody of the sender's name");
                true
            }
            Err(e) => {
                log::error!(target: "queue", "{id}: the report of a {} cannot be put: {e}", due.kind.name());
                false
            }
        }
    }

    /// The report; nothing for a null reverse-path.
    fn compose(&self, envelope: &Envelope, due: &PlannedBounce, until: Timestamp) -> Option<OutgoingBounce> {
        let to = envelope.reverse_path.mailbox()?;
        let hostname = &self.parts.hostname;
        let date = self.shared.clock.wall_time();
        // A sender of ours hears from its own domain; others from the name that we say in EHLO when
        // the reverse-path is null, so that SPF vouches for the address in From (RFC 7208 §2.4).
        let is_ours = self.parts.router.load().is_local(&to.domain);
        let entries = due.entries.iter().filter_map(|(position, action, reason)| {
            let recipient = envelope.recipients.get(*position)?;
            Some(BounceRecipient { recipient, action: *action, reason })
        });
        let report = Bounce {
            from_domain: if is_ours { &to.domain } else { hostname },
            hostname,
            id: MessageId::new(date, self.shared.random.bits()),
            date,
            to,
            envelope,
            recipients: entries.collect(),
            retry_until: until,
            returned: self.returned_content(envelope, due),
        };
        let written = report.write();
        Some(OutgoingBounce {
            reverse_path: ReversePath::Null,
            recipients: vec![Recipient { notify: Notify::Never, ..Recipient::for_mailbox(to.clone()) }],
            hostname: hostname.clone(),
            octets: written.octets,
            has_8bit: written.has_8bit,
            smtputf8: written.smtputf8,
        })
    }

    fn returned_content(&self, envelope: &Envelope, due: &PlannedBounce) -> ReturnedContent {
        let message =
            self.shared.spool.extent(&envelope.id).and_then(|extent| OutgoingContent::new(extent, envelope));
        // Who sent it hears that it failed, though not a word of it can be read any more.
        message.and_then(|message| bounce::returned_content(envelope, &message, due.kind)).unwrap_or_else(
            |e| {
                log::error!(target: "queue", "{}: the message cannot be returned: {e}", envelope.id);
                ReturnedContent::Unreadable
            },
        )
    }
}
