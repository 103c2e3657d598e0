//! Delivery status notifications (bounces): writes their octets.
//!
//! Pure: all input is in the arguments. A bounce is a multipart/report (RFC 6522) of three parts: a text
//! for people, fields for programs (RFC 3464), and the message or its header. If an address has characters
//! beyond ASCII, the second part is a message/global-delivery-status with `utf-8` addresses (RFC 6533), and
//! the bounce needs SMTPUTF8.
//!
//! No line is over 998 octets. Text of a peer cannot start a line or a part: it was made printable where it
//! was received, and the boundary has an id that nobody could know when the message was written.

mod text;

#[cfg(test)]
mod tests;

use std::fmt::Write as _;

use self::text::{
    escape_non_ascii, has_long_line, printable_xtext, transfer_encoding_field, truncate_long_lines,
    typed_address, write_field, write_paragraph,
};
use crate::mail::{Domain, Envelope, HeaderFields, Mailbox, MessageId, Reason, Recipient, Timestamp};

/// What happened to a recipient (RFC 3464 §2.3.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// The message will not be delivered.
    Failed,
    /// The message will not be delivered, because its lifetime is over: 4.4.7 (RFC 3463 §3.5).
    Expired,
    /// The message has not been delivered yet; the queue tries again.
    Delayed,
    /// The message is in the mailbox, or a program has it.
    Delivered,
    /// Another server has the message and will not report a success.
    Relayed,
    /// The message goes to several recipients; of these only failures are reported.
    Expanded,
}

/// One recipient in a bounce.
#[derive(Debug, Clone, Copy)]
pub struct BounceRecipient<'a> {
    /// The recipient.
    pub recipient: &'a Recipient,
    /// What happened.
    pub action: Action,
    /// Why; for an expired message, why the last attempt failed.
    pub reason: &'a Reason,
}

/// What the bounce returns of the message: whole lines, the added fields included.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReturnedContent {
    /// The whole message.
    FullMessage(Vec<u8>),
    /// The header section.
    Headers(Vec<u8>),
    /// Nothing, because the message cannot be read any more.
    Unreadable,
}

/// The content of a bounce.
#[derive(Debug, Clone)]
pub struct Bounce<'a> {
    /// The domain of the postmaster in From.
    pub from_domain: &'a Domain,
    /// The name of this server: Reporting-MTA.
    pub hostname: &'a Domain,
    /// For the Message-ID and the boundary: unique, and made for this bounce.
    pub id: MessageId,
    /// The current time.
    pub date: Timestamp,
    /// The reverse-path of the message.
    pub to: &'a Mailbox,
    /// The envelope of the message.
    pub envelope: &'a Envelope,
    /// The recipients, in the order of the envelope: failures, or delays, or successes. Not empty.
    pub recipients: Vec<BounceRecipient<'a>>,
    /// When the queue gives up on delayed recipients.
    pub retry_until: Timestamp,
    /// What is returned of the message.
    pub returned: ReturnedContent,
}

/// A written bounce.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BounceMessage {
    /// Header section and body, with CRLF line ends.
    pub octets: Vec<u8>,
    /// There are octets above 127.
    pub has_8bit: bool,
    /// An address has characters beyond ASCII, so that the bounce needs SMTPUTF8.
    pub smtputf8: bool,
}

/// A longer Message-ID is not referred to.
const MESSAGE_ID_OCTETS_MAX: usize = 250;

impl Action {
    /// The action as RFC 3464 §2.3.3 names it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Failed | Self::Expired => "failed",
            Self::Delayed => "delayed",
            Self::Delivered => "delivered",
            Self::Relayed => "relayed",
            Self::Expanded => "expanded",
        }
    }

    fn status_code(self, reason: &Reason) -> String {
        let Reason { subject, detail, .. } = reason;
        match self {
            Self::Failed => format!("5.{subject}.{detail}"),
            Self::Expired => "4.4.7".to_owned(),
            Self::Delayed => format!("4.{subject}.{detail}"),
            Self::Delivered | Self::Relayed | Self::Expanded => format!("2.{subject}.{detail}"),
        }
    }
}

impl Bounce<'_> {
    /// Writes the bounce.
    #[must_use]
    pub fn write(&self) -> BounceMessage {
        let is_global = self.needs_global_format();
        let boundary = format!("=_{}", self.id);
        let text = self.human_readable_part();
        let fields = self.delivery_status_part(is_global);
        let mut body = format!(
            "This is a report about your message, in parts for people and programs.\r\n\r\n--{boundary}\r\n"
        );
        body.push_str("Content-Description: Notification\r\n");
        let charset = if text.is_ascii() { "us-ascii" } else { "utf-8" };
        let _ = write!(body, "Content-Type: text/plain; charset={charset}\r\n");
        body.push_str(&transfer_encoding_field(text.as_bytes()));
        let _ = write!(body, "\r\n{text}\r\n--{boundary}\r\n");
        body.push_str("Content-Description: Delivery report\r\n");
        let status = if is_global { "global-delivery-status" } else { "delivery-status" };
        let _ = write!(body, "Content-Type: message/{status}\r\n");
        body.push_str(&transfer_encoding_field(fields.as_bytes()));
        let _ = write!(body, "\r\n{fields}\r\n--{boundary}");
        let mut body = body.into_bytes();
        // RFC 6522 §3: the third part may be omitted.
        if let Some((kind, original)) = self.returned_part(is_global) {
            let description = if self.has_failure() { "Undelivered message" } else { "Message header" };
            let head = format!(
                "\r\nContent-Description: {description}\r\nContent-Type: {kind}\r\n{}\r\n",
                transfer_encoding_field(&original)
            );
            body.extend_from_slice(head.as_bytes());
            body.extend_from_slice(&original);
            body.extend_from_slice(format!("\r\n--{boundary}").as_bytes());
        }
        body.extend_from_slice(b"--\r\n");
        let mut octets =
            self.header_section(&boundary, is_global, &transfer_encoding_field(&body)).into_bytes();
        octets.extend_from_slice(&body);
        let has_8bit = !octets.is_ascii();
        BounceMessage { octets, has_8bit, smtputf8: is_global }
    }

    fn has_failure(&self) -> bool {
        self.recipients.iter().any(|entry| matches!(entry.action, Action::Failed | Action::Expired))
    }

    fn has_only(&self, action: Action) -> bool {
        self.recipients.iter().all(|entry| entry.action == action)
    }

    /// A local part has characters beyond ASCII. A domain alone is written in A-labels.
    fn needs_global_format(&self) -> bool {
        let needs_smtputf8 = |entry: &BounceRecipient<'_>| {
            let Recipient { forward_path: original, orcpt, .. } = entry.recipient;
            let is_ascii = orcpt.as_deref().is_none_or(str::is_ascii);
            final_recipient(entry).needs_smtputf8() || original.needs_smtputf8() || !is_ascii
        };
        self.to.needs_smtputf8() || self.recipients.iter().any(needs_smtputf8)
    }

    fn header_section(&self, boundary: &str, is_global: bool, encoding: &str) -> String {
        let domain = self.from_domain.as_ascii();
        let kind = if is_global { "global-delivery-status" } else { "delivery-status" };
        let mut head = format!(
            "Date: {}\r\nFrom: Mail Delivery System <postmaster@{domain}>\r\nTo: <{}>\r\n\
             Subject: {}\r\nMessage-ID: <{}@{}>\r\n",
            self.date.to_rfc5322(),
            self.to.to_ascii_domain(),
            self.subject(),
            self.id,
            self.hostname.as_ascii(),
        );
        // RFC 3834 §3.1.5.
        if let Some(id) = self.original_message_id() {
            let _ = write!(head, "In-Reply-To: {id}\r\nReferences: {id}\r\n");
        }
        // RFC 3834 §3.1.7: no program answers a message with this field, and neither does this server.
        head.push_str("Auto-Submitted: auto-replied\r\n");
        let _ = write!(
            head,
            "MIME-Version: 1.0\r\nContent-Type: multipart/report; report-type={kind};\r\n\
             \tboundary=\"{boundary}\"\r\n{encoding}\r\n"
        );
        head
    }

    fn subject(&self) -> &'static str {
        match () {
            () if self.has_only(Action::Expired) => "Undelivered mail: given up",
            () if self.has_failure() => "Undelivered mail: returned to sender",
            () if self.has_only(Action::Delayed) => "Delayed mail: we go on trying",
            () if self.has_only(Action::Delivered) => "Mail report: delivered",
            () if self.has_only(Action::Relayed) => "Mail report: relayed",
            () if self.has_only(Action::Expanded) => "Mail report: forwarded",
            () => "Mail report: delivered or handed on",
        }
    }

    /// The Message-ID of the message, if it is valid (RFC 5322 §3.6.4).
    fn original_message_id(&self) -> Option<String> {
        let (ReturnedContent::FullMessage(octets) | ReturnedContent::Headers(octets)) = &self.returned else {
            return None;
        };
        let id = HeaderFields::new(octets).find(|field| field.has_name("Message-ID"))?.value();
        let inner = id.strip_prefix('<')?.strip_suffix('>')?;
        let is_plain = |b: u8| b.is_ascii_graphic() && !matches!(b, b'<' | b'>' | b'"' | b'(' | b')');
        let (left, right) = inner.split_once('@')?;
        let is_valid = !left.is_empty() && !right.is_empty() && inner.bytes().all(is_plain);
        (is_valid && id.len() <= MESSAGE_ID_OCTETS_MAX).then_some(id)
    }

    /// The part for people.
    fn human_readable_part(&self) -> String {
        let mut text = String::new();
        let arrived = self.envelope.arrived_at.to_rfc5322();
        let opening = format!(
            "This is the mail system at {}. Your message of {arrived} {}",
            self.hostname.to_unicode(),
            self.summary()
        );
        write_paragraph(&mut text, "", &opening);
        for entry in &self.recipients {
            text.push_str("\r\n");
            write_recipient_text(&mut text, entry);
        }
        if self.returned == ReturnedContent::Unreadable {
            text.push_str("\r\n");
            write_paragraph(
                &mut text,
                "",
                "It cannot be read any more here, and so nothing of it is returned.",
            );
        }
        let _ = write!(text, "\r\nQueue ID of your message: {}\r\n", self.envelope.id);
        text
    }

    fn summary(&self) -> String {
        let them = if self.recipients.len() == 1 { "this recipient" } else { "these recipients" };
        if self.has_failure() {
            return format!(
                "could not be delivered to {them}, and we will not try again. If it had other recipients, \
                 this is not about them."
            );
        }
        if self.has_only(Action::Delayed) {
            return format!(
                "has not been delivered to {them} yet. You need not send it again: we go on trying until {}, \
                 and tell you if we give up.",
                self.retry_until.to_rfc5322()
            );
        }
        match self.has_only(Action::Delivered) {
            true => format!("has been delivered to {them}, as you asked to be told."),
            false => format!("has come this far on its way to {them}, as you asked to be told."),
        }
    }

    /// The part for programs: RFC 3464 §2.
    fn delivery_status_part(&self, is_global: bool) -> String {
        let mut text = format!("Reporting-MTA: dns; {}\r\n", self.hostname.as_ascii());
        if let Some(envid) = &self.envelope.envid {
            write_field(&mut text, "Original-Envelope-Id", &escape_non_ascii(&printable_xtext(envid)));
        }
        let _ = write!(text, "Arrival-Date: {}\r\n", self.envelope.arrived_at.to_rfc5322());
        for entry in &self.recipients {
            text.push_str("\r\n");
            self.write_recipient_fields(&mut text, entry, is_global);
        }
        text
    }

    fn write_recipient_fields(&self, text: &mut String, entry: &BounceRecipient<'_>, is_global: bool) {
        let BounceRecipient { recipient, action, reason } = entry;
        let safe = |raw: &str| if is_global { raw.to_owned() } else { escape_non_ascii(raw) };
        // RFC 3461 §6.3: ORCPT as the sender gave it; omitted if the sender gave none.
        if let Some((kind, xtext)) = recipient.orcpt.as_deref().and_then(|orcpt| orcpt.split_once(';')) {
            write_field(text, "Original-Recipient", &format!("{kind}; {}", safe(&printable_xtext(xtext))));
        }
        write_field(text, "Final-Recipient", &typed_address(final_recipient(entry)));
        let _ = write!(text, "Action: {}\r\nStatus: {}\r\n", action.as_str(), action.status_code(reason));
        let is_success = matches!(action, Action::Delivered | Action::Relayed | Action::Expanded);
        match &reason.response {
            Some(remote) if !remote.host.is_empty() => {
                write_field(text, "Remote-MTA", &format!("dns; {}", safe(&remote.host)));
                write_field(text, "Diagnostic-Code", &format!("smtp; {}", safe(&remote.text)));
            }
            _ if is_success => {}
            Some(remote) => {
                write_field(
                    text,
                    "Diagnostic-Code",
                    &format!("x-program; {}: {}", safe(&reason.text), safe(&remote.text)),
                );
            }
            None => write_field(text, "Diagnostic-Code", &format!("x-postrider; {}", safe(&reason.text))),
        }
        let _ = write!(text, "Last-Attempt-Date: {}\r\n", self.date.to_rfc5322());
        let _ = write!(text, "Final-Log-ID: {}\r\n", self.envelope.id);
        if *action == Action::Delayed {
            let _ = write!(text, "Will-Retry-Until: {}\r\n", self.retry_until.to_rfc5322());
        }
    }

    /// The third part and its type, without lines that are too long.
    fn returned_part(&self, is_global: bool) -> Option<(&'static str, Vec<u8>)> {
        let (is_full_message, octets) = match &self.returned {
            ReturnedContent::FullMessage(octets) if has_long_line(octets) => {
                (false, HeaderFields::section(octets))
            }
            ReturnedContent::FullMessage(octets) => (true, octets.as_slice()),
            ReturnedContent::Headers(octets) => (false, octets.as_slice()),
            ReturnedContent::Unreadable => return None,
        };
        // RFC 6532 §3.7: a message whose header has characters beyond ASCII is not a message/rfc822.
        let is_global = is_global || (self.envelope.smtputf8 && !HeaderFields::section(octets).is_ascii());
        let kind = match (is_full_message, is_global) {
            (true, false) => "message/rfc822",
            (false, false) => "text/rfc822-headers",
            (true, true) => "message/global",
            (false, true) => "message/global-headers",
        };
        Some((kind, truncate_long_lines(octets)))
    }
}

/// The final recipient; for an expanded alias, its address (RFC 3464 §2.3.2).
fn final_recipient<'a>(entry: &BounceRecipient<'a>) -> &'a Mailbox {
    match entry.action {
        Action::Expanded => &entry.recipient.forward_path,
        _ => entry.recipient.final_mailbox(),
    }
}

/// Writes about one recipient in the part for people.
fn write_recipient_text(text: &mut String, entry: &BounceRecipient<'_>) {
    let BounceRecipient { recipient, action, reason } = entry;
    let mut addresses = format!("<{}>", recipient.forward_path);
    if recipient.forward_path != *final_recipient(entry) {
        let _ = write!(addresses, ", on to <{}>", final_recipient(entry));
    }
    write_paragraph(text, "", &addresses);
    let mut push = |sentence: &str| write_paragraph(text, "    ", sentence);
    match action {
        Action::Failed | Action::Delayed => push(&reason.text),
        Action::Expired => {
            push("The message could not be delivered in time. The last reason:");
            push(&reason.text);
        }
        Action::Delivered => return push("delivered"),
        Action::Expanded => {
            return push("forwarded to others; you will hear if that fails, not when it succeeds");
        }
        Action::Relayed => push("handed to the next server, which does not report when it has delivered"),
    }
    if let Some(remote) = &reason.response {
        let speaker = if remote.host.is_empty() { "The program" } else { &remote.host };
        push(&format!("{speaker} said: {}", remote.text));
    }
}
