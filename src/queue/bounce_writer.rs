//! Writes bounces and queues them.

use std::sync::Arc;

use super::bounce::{self, PlannedBounce};
use super::delivery_parts::DeliveryParts;
use super::generated_mail::OutgoingBounce;
use super::outgoing_content::OutgoingContent;
use super::panic_message::panic_message;
use super::queue_shared::QueueShared;
use crate::dsn::{Bounce, BounceRecipient, ReturnedContent};
use crate::mail::{Envelope, MessageId, Notify, Recipient, ReversePath, Timestamp};
use crate::observe::maillog;
use crate::observe::{CounterFamily, Metrics};
use crate::sys::catch_panic;

/// Writes bounces and queues them. Cheap to clone.
#[derive(Clone)]
pub(super) struct BounceWriter {
    shared: Arc<QueueShared>,
    parts: DeliveryParts,
    bounces_put: CounterFamily,
}

impl BounceWriter {
    pub(super) fn new(shared: Arc<QueueShared>, parts: DeliveryParts, metrics: &Metrics) -> Self {
        let bounces_put = metrics.counter_family("queue_bounces", "Bounces queued, by kind", "kind");
        Self { shared, parts, bounces_put }
    }

    /// Writes one bounce and queues it; `until` is when delayed recipients are given up. Returns false if it
    /// could not be queued: the caller tries again.
    pub(super) fn put_bounce(&self, envelope: &Envelope, planned: &PlannedBounce, until: Timestamp) -> bool {
        // After a panic here, the other outcomes of the attempt must still be recorded: deliveries above all.
        let put = catch_panic(|| match self.compose(envelope, planned, until) {
            Some(bounce) => self.parts.generated_mail.put(bounce).map_err(|e| e.to_string()),
            None => Ok(None),
        })
        .unwrap_or_else(|panic| Err(panic_message(panic.as_ref())));
        let Envelope { id, reverse_path, .. } = envelope;
        match put {
            Ok(Some(bounce_id)) => {
                self.bounces_put.add_one(planned.kind.name());
                maillog::bounce_queued(id, reverse_path, &bounce_id, planned.kind.name());
                true
            }
            Ok(None) => {
                maillog::bounce_suppressed(id, "there is nobody of the sender's name");
                true
            }
            Err(e) => {
                let kind = planned.kind.name();
                log::error!(target: "queue", "{id}: the bounce for a {kind} cannot be queued: {e}");
                false
            }
        }
    }

    /// Composes the bounce; `None` for a null reverse-path.
    fn compose(
        &self,
        envelope: &Envelope,
        planned: &PlannedBounce,
        until: Timestamp,
    ) -> Option<OutgoingBounce> {
        let to = envelope.reverse_path.mailbox()?;
        let hostname = &self.parts.hostname;
        let date = self.shared.clock.wall_time();
        // To a local sender, From has the sender's own domain. To others it has the server's name, which EHLO
        // has too: with a null reverse-path SPF checks that name (RFC 7208 §2.4).
        let is_local = self.parts.router.load().is_local(&to.domain);
        let entries = planned.entries.iter().filter_map(|(position, action, reason)| {
            let recipient = envelope.recipients.get(*position)?;
            Some(BounceRecipient { recipient, action: *action, reason })
        });
        let bounce = Bounce {
            from_domain: if is_local { &to.domain } else { hostname },
            hostname,
            id: MessageId::new(date, self.shared.random.bits()),
            date,
            to,
            envelope,
            recipients: entries.collect(),
            retry_until: until,
            returned: self.returned_content(envelope, planned),
        };
        let written = bounce.write();
        Some(OutgoingBounce {
            reverse_path: ReversePath::Null,
            recipients: vec![Recipient { notify: Notify::Never, ..Recipient::for_mailbox(to.clone()) }],
            hostname: hostname.clone(),
            octets: written.octets,
            has_8bit: written.has_8bit,
            smtputf8: written.smtputf8,
        })
    }

    fn returned_content(&self, envelope: &Envelope, planned: &PlannedBounce) -> ReturnedContent {
        let message =
            self.shared.spool.extent(&envelope.id).and_then(|extent| OutgoingContent::new(extent, envelope));
        // The sender gets the bounce although the message cannot be read any more.
        message.and_then(|message| bounce::returned_content(envelope, &message, planned.kind)).unwrap_or_else(
            |e| {
                log::error!(target: "queue", "{}: the message cannot be returned: {e}", envelope.id);
                ReturnedContent::Unreadable
            },
        )
    }
}
