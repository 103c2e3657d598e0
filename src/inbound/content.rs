//! The content of a message: from its first octet to the queue.
//!
//! An [`Arrival`] passes each octet once, in pieces of any size, to the queue and to its observers. The octets
//! are stored as they came; fields that the server adds are in the envelope's `added_fields`, and octets that
//! are left out in its `removed_ranges`. After the last octet, [`Arrival::commit`] refuses a mail loop, a
//! submission with too many Bcc fields or a malformed header, and a user who writes as another; it makes the
//! envelope, runs the operator's hook on the result, and puts the message into the queue.
//!
//! A message is a submission if its client has logged in or is in `relay.networks`: it is new, and this is
//! its first server. Only a submission is completed (RFC 6409 §8): Date, Message-ID and From are added where
//! they are missing. Its Bcc fields are left out, so that no recipient reads them (RFC 5322 §3.6.3, the first
//! of its three ways). Return-Path fields are left out of every message, as many as the header scanner
//! remembers: only the server of the final delivery writes one (RFC 5321 §4.4).

use super::circumstances::Circumstances;
use super::content_observer::ContentObserver;
use super::decision::Decision;
use super::header_scanner::{HeaderScanner, RawOriginatorField};
use super::originator_field::OriginatorField;
use super::services::SessionServices;
use super::settings::Settings;
use crate::mail::{Envelope, Failure, MessageId, parse_address_list};
use crate::observe::{Trace, maillog};
use crate::queue::{Handle, IncomingMessage, PutError};
use crate::smtp::{BodyFacts, Transaction, Verdict};
use crate::stamp::{MissingFields, StampFacts, stamp};

/// A message that arrives.
pub(super) struct Arrival {
    incoming: Result<IncomingMessage, PutError>,
    observers: Observers,
}

/// All observers of the octets of a message.
#[derive(Default)]
struct Observers {
    header: HeaderScanner,
}

impl Observers {
    fn list(&mut self) -> [&mut dyn ContentObserver; 1] {
        [&mut self.header]
    }
}

/// All that decides about a message beside its octets.
pub(super) struct MessageContext<'a> {
    pub(super) services: &'a SessionServices,
    pub(super) settings: &'a Settings,
    pub(super) trace: &'a Trace,
    pub(super) circumstances: Circumstances<'a>,
    pub(super) transaction: &'a Transaction,
    pub(super) body_facts: &'a BodyFacts,
}

impl Arrival {
    /// Begins a message in the queue. If the queue has no room, the message is refused at its end.
    pub(super) fn begin(queue: &Handle) -> Self {
        Self { incoming: queue.begin(), observers: Observers::default() }
    }

    /// The next octets of the message. After an error of the queue the rest is read and discarded, so that
    /// the client gets the reason in the reply.
    pub(super) fn append(&mut self, octets: &[u8]) {
        self.observers.list().into_iter().for_each(|observer| observer.feed(octets));
        if let Ok(incoming) = &mut self.incoming
            && let Err(e) = incoming.append(octets)
        {
            self.incoming = Err(e);
        }
    }

    /// Puts the message into the queue. When this returns an id, the message is safe on disk.
    pub(super) fn commit(mut self, context: &MessageContext<'_>) -> Result<MessageId, Verdict> {
        let MessageContext { services, trace, circumstances, transaction, .. } = context;
        self.observers.list().into_iter().for_each(ContentObserver::finish);
        self.check_mail_loop(context).map_err(Verdict::refused)?;
        if circumstances.is_submission() {
            self.check_submission().map_err(Verdict::refused)?;
        }
        self.check_originators(context)?;
        let mut incoming = self.incoming.map_err(|e| queue_refusal(&e))?;
        let (id, octets) = (incoming.id(), incoming.octets());
        let mut envelope = envelope(context, id, &self.observers.header);
        if services.hooks.has_message_hook() {
            let recipients = &transaction.recipients;
            let fields = incoming.read_as_sent(&envelope, |message| {
                services.hooks.run_post_data_hook(circumstances, id, recipients, message, trace)
            });
            envelope.added_fields.splice(0..0, fields.map_err(|e| queue_refusal(&e))??);
        }
        incoming.commit(envelope.clone()).map_err(|e| queue_refusal(&e))?;
        services.counters.messages.add_one();
        trace.add_event(format!("{id}: {octets} octets safe on disk"));
        maillog::queued(&envelope, octets);
        Ok(id)
    }

    /// RFC 5321 §6.3.
    fn check_mail_loop(&self, context: &MessageContext<'_>) -> Result<(), Failure> {
        let received = self.observers.header.received_count();
        if received <= context.settings.received_max {
            return Ok(());
        }
        context.services.counters.mail_loops.add_one();
        let text = format!("This message is in a mail loop: it has passed {received} servers");
        Err(Failure::permanent(4, 6, text))
    }

    /// Refuses a submission whose Bcc fields cannot all be removed, or whose header can be read in two
    /// ways.
    fn check_submission(&self) -> Result<(), Failure> {
        if self.observers.header.has_too_many_bcc_fields() {
            return Err(Failure::permanent(6, 0, "The message has too many Bcc fields"));
        }
        // Fields behind such a line are not looked at: a From there would not be checked, and a Bcc
        // there would not be removed.
        if self.observers.header.has_malformed_line() {
            return Err(Failure::permanent(6, 0, "A line of the header is neither a field nor empty"));
        }
        Ok(())
    }

    /// Refuses a message of a user whose From or Sender field names another.
    fn check_originators(&self, context: &MessageContext<'_>) -> Result<(), Verdict> {
        let Some(user) = context.circumstances.login else { return Ok(()) };
        let fields = [("From", self.observers.header.from()), ("Sender", self.observers.header.sender())];
        for field in fields.into_iter().filter_map(|(name, field)| parse_originator_field(name, field)) {
            let Decision { refusal, reasons } = context.services.policy.check_originator(user, &field);
            if let Some(failure) = refusal {
                return Err(Verdict { reasons, ..Verdict::refused(failure) });
            }
            reasons.into_iter().for_each(|reason| context.trace.add_event(reason));
        }
        Ok(())
    }
}

/// The mailboxes of an originator field, if there is only one way to read it.
fn parse_originator_field(field: &'static str, originator: &RawOriginatorField) -> Option<OriginatorField> {
    let mailboxes = match originator {
        RawOriginatorField { count: 0, .. } => return None,
        RawOriginatorField { count: 2.., .. } => Err("there is more than one such field".to_owned()),
        RawOriginatorField { is_truncated: true, .. } => Err("it is too long".to_owned()),
        RawOriginatorField { raw_value, .. } => parse_address_list(raw_value).map_err(|e| e.to_string()),
    };
    Some(OriginatorField { name: field, mailboxes })
}

fn envelope(context: &MessageContext<'_>, id: MessageId, header: &HeaderScanner) -> Envelope {
    let MessageContext { services, settings, circumstances, transaction, body_facts, .. } = context;
    let arrived = services.clock.wall_time();
    let is_submission = circumstances.is_submission();
    let mut envelope = Envelope {
        removed_ranges: header.removed_ranges(is_submission),
        body_type: transaction.parameters.body,
        has_8bit: body_facts.has_8bit,
        smtputf8: transaction.parameters.smtputf8,
        ret: transaction.parameters.ret,
        envid: transaction.parameters.envid.clone(),
        authenticated_user: transaction.login.clone(),
        client: Some(circumstances.to_client()),
        ..Envelope::new(id, arrived, transaction.reverse_path.clone(), transaction.recipients.clone())
    };
    // Only a submission is completed (RFC 6409 §8).
    let missing = if is_submission { missing_fields(header, transaction) } else { MissingFields::default() };
    let facts = StampFacts {
        hostname: &settings.hostname,
        reverse_name: circumstances.reverse_name(),
        is_esmtp: circumstances.is_esmtp,
        missing,
    };
    stamp(&mut envelope, &facts);
    envelope
}

fn missing_fields<'a>(header: &HeaderScanner, transaction: &'a Transaction) -> MissingFields<'a> {
    let sender = transaction.reverse_path.mailbox().or(transaction.login.as_ref());
    // A header beyond ASCII takes SMTPUTF8 (RFC 6532 §3), which the client has not asked for.
    let sender = sender.filter(|mailbox| transaction.parameters.smtputf8 || !mailbox.needs_smtputf8());
    MissingFields {
        date: !header.has_date(),
        message_id: !header.has_message_id(),
        from: sender.filter(|_| header.from().count == 0),
        header: header.is_header_missing(),
    }
}

/// The refusal of a message that the queue has not taken.
pub(super) fn queue_refusal(error: &PutError) -> Verdict {
    log::error!("a message was not taken: {error}");
    let failure = match error {
        PutError::Full => Failure::transient(3, 1, "There is no room for your message now, try again later"),
        PutError::Io(_) => Failure::transient(3, 0, "Your message could not be stored, try again later"),
        PutError::Stopping => Failure::transient(3, 2, "The server is stopping, try again later"),
    };
    Verdict::refused(failure).with_reason(error.to_string())
}
