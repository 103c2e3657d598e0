//! Everything that is known about a message apart from its octets.
//!
//! An envelope is stored with the octets before the message is accepted, and never changes afterwards.
//! `testdata/golden/envelope.json` pins the stored form.

use std::fmt;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::added_field::AddedField;
use super::mailbox::{Mailbox, ReversePath};
use super::message_id::MessageId;
use super::recipient::{Notify, Recipient};
use super::timestamp::Timestamp;

/// The envelope of a message, version [`Envelope::VERSION`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Envelope {
    /// Always 1 in what this program writes; a higher one is refused when read.
    pub version: u32,
    /// The id of the message in the spool, the log and replies.
    pub id: MessageId,
    /// When the message arrived, by the wall clock.
    pub arrived_at: Timestamp,
    /// When the message was put into the queue, by the age clock, which does not jump.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queued_at: Option<Timestamp>,
    /// Where failures are reported.
    pub reverse_path: ReversePath,
    /// Final destinations, after aliases. Their order never changes, because outcomes refer to positions.
    pub recipients: Vec<Recipient>,
    /// Header fields that this server adds, from the top. They are sent before the stored octets.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub added_fields: Vec<AddedField>,
    /// The stored octets have no header section, so that an empty line is sent after the added fields.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub has_no_header: bool,
    /// Octet ranges `[start, end)` of the stored octets that are not sent: Return-Path and, of a
    /// submission, Bcc. In ascending order, not overlapping.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub removed_ranges: Vec<(u64, u64)>,
    /// BODY, as the client declared it (RFC 6152 §3).
    pub body_type: BodyType,
    /// Octets above 127 were seen.
    pub has_8bit: bool,
    /// The client asked for SMTPUTF8 (RFC 6531 §3.4).
    pub smtputf8: bool,
    /// RET (RFC 3461 §4.3).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ret: Option<Ret>,
    /// ENVID, as xtext (RFC 3461 §4.4).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub envid: Option<String>,
    /// REQUIRETLS (RFC 8689 §4).
    pub requiretls: bool,
    /// The user that submitted the message, if one logged in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authenticated_user: Option<Mailbox>,
    /// The client that sent the message; `None` for mail that this server wrote.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client: Option<Client>,
}

impl Envelope {
    /// The version that this program writes.
    pub const VERSION: u32 = 1;

    /// An envelope whose optional fields have their defaults.
    #[must_use]
    pub fn new(
        id: MessageId,
        arrived: Timestamp,
        reverse_path: ReversePath,
        recipients: Vec<Recipient>,
    ) -> Self {
        Self {
            version: Self::VERSION,
            id,
            arrived_at: arrived,
            queued_at: None,
            reverse_path,
            recipients,
            added_fields: Vec::new(),
            has_no_header: false,
            removed_ranges: Vec::new(),
            body_type: BodyType::SevenBit,
            has_8bit: false,
            smtputf8: false,
            ret: None,
            envid: None,
            requiretls: false,
            authenticated_user: None,
            client: None,
        }
    }

    /// The time from which the age of the message counts, by the age clock. If it was not recorded, the
    /// arrival time is close enough.
    #[must_use]
    pub fn age_start(&self) -> Timestamp {
        self.queued_at.unwrap_or(self.arrived_at)
    }

    /// The text that is sent before the stored octets: the added fields, and an empty line if the stored
    /// octets have no header section.
    #[must_use]
    pub fn added_text(&self) -> String {
        let mut text: String = self.added_fields.iter().map(AddedField::as_str).collect();
        if self.has_no_header {
            text.push_str("\r\n");
        }
        text
    }

    /// The reports that apply to a recipient, here and at the next hop. If an alias was expanded into
    /// several recipients, its sender gets one report of success from this server, and the next hops are
    /// asked for none (RFC 3461 §5.2.7.2).
    #[must_use]
    pub fn effective_notify(&self, recipient: &Recipient) -> Notify {
        match recipient.notify.includes_success() && self.is_expanded(recipient) {
            true => recipient.notify.without_success(),
            false => recipient.notify,
        }
    }

    /// The alias behind the recipient has other destinations, too.
    #[must_use]
    pub fn is_expanded(&self, recipient: &Recipient) -> bool {
        self.recipients.iter().any(|other| {
            other.forward_path == recipient.forward_path && other.destination != recipient.destination
        })
    }
}

/// BODY (RFC 6152 §3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum BodyType {
    /// `7BIT`, and the default.
    #[default]
    #[serde(rename = "7bit")]
    SevenBit,
    /// `8BITMIME`.
    #[serde(rename = "8bitmime")]
    EightBitMime,
}

/// RET: how much of a failed message its bounce returns (RFC 3461 §4.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ret {
    /// `FULL`.
    Full,
    /// `HDRS`.
    Headers,
}

/// The client that sent a message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Client {
    /// The address of the connection, or the one that a trusted proxy named.
    pub address: IpAddr,
    /// The name in EHLO or HELO, printable.
    pub helo_name: String,
    /// The TLS session, if there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<TlsInfo>,
}

/// Facts about a TLS session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct TlsInfo {
    /// `TLSv1.3`, `TLSv1.2`.
    pub version: String,
    /// Cipher suite, by its IANA name.
    pub cipher: String,
}

impl TlsInfo {
    /// Both sides can derive data that is bound to this session (RFC 9266 §4.2).
    #[must_use]
    pub fn has_channel_binding(&self) -> bool {
        self.version == "TLSv1.3"
    }
}

impl fmt::Display for TlsInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.version, self.cipher)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fakes::assert_golden;
    use crate::mail::{Destination, Via};

    /// An envelope in which every field differs from its default.
    fn full_envelope() -> Envelope {
        let mailbox = |raw: &str| Mailbox::parse(raw).unwrap();
        let destinations = [
            (Destination::Mailbox(mailbox("ana@here.example")), Notify::Never),
            (
                Destination::Program {
                    command: vec!["/usr/bin/filter".to_owned(), "two words".to_owned()],
                    alias_address: mailbox("list@here.example"),
                },
                Notify::When { success: true, failure: true, delay: false },
            ),
            (
                Destination::Via {
                    mailbox: mailbox("bö@bücher.example"),
                    via: Via::parse("relay.example:587 192.0.2.1 tls=verified login=relay1").unwrap(),
                },
                Notify::Unspecified,
            ),
        ];
        let recipients = destinations.map(|(destination, notify)| Recipient {
            destination,
            notify,
            orcpt: Some("rfc822;list+40here.example".to_owned()),
            ..Recipient::for_mailbox(mailbox("list@here.example"))
        });
        let at = Timestamp::from_millis(1_795_408_663_042);
        Envelope {
            queued_at: Some(Timestamp::from_millis(1_795_408_663_050)),
            added_fields: vec![
                AddedField::new("Received", ["by mx.here.example (postrider)", "id 1;", &at.to_rfc5322()]),
                AddedField::new("From", ["ana@here.example"]),
            ],
            has_no_header: true,
            removed_ranges: vec![(0, 6), (15, 30)],
            body_type: BodyType::EightBitMime,
            has_8bit: true,
            smtputf8: true,
            ret: Some(Ret::Headers),
            envid: Some("q+2B1".to_owned()),
            requiretls: true,
            authenticated_user: Some(mailbox("ana@here.example")),
            client: Some(Client {
                address: "2001:db8::7".parse().unwrap(),
                helo_name: "laptop.there.example".to_owned(),
                tls: Some(TlsInfo {
                    version: "TLSv1.3".to_owned(),
                    cipher: "TLS_AES_128_GCM_SHA256".to_owned(),
                }),
            }),
            ..Envelope::new(
                MessageId::new(at, 7),
                at,
                ReversePath::Mailbox(mailbox("ana@here.example")),
                recipients.to_vec(),
            )
        }
    }

    #[test]
    fn the_stored_form_is_the_one_in_the_golden_file() {
        let envelope = full_envelope();
        let text = serde_json::to_string_pretty(&envelope).unwrap() + "\n";
        assert_golden("envelope.json", &text);
        assert_eq!(serde_json::from_str::<Envelope>(&text).unwrap(), envelope);
    }

    #[test]
    fn an_envelope_with_defaults_is_read_back() {
        let at = Timestamp::from_millis(0);
        let envelope = Envelope::new(MessageId::new(at, 1), at, ReversePath::Null, Vec::new());
        let json = serde_json::to_string(&envelope).unwrap();
        assert_eq!(serde_json::from_str::<Envelope>(&json).unwrap(), envelope);
    }

    #[test]
    fn an_empty_line_follows_the_added_fields_of_a_message_without_a_header() {
        let at = Timestamp::from_millis(0);
        let mut envelope = Envelope::new(MessageId::new(at, 1), at, ReversePath::Null, Vec::new());
        envelope.added_fields = vec![AddedField::new("A", ["b"]), AddedField::new("C", ["d", "e"])];
        assert_eq!(envelope.added_text(), "A: b\r\nC: d\r\n\te\r\n");
        envelope.has_no_header = true;
        assert_eq!(envelope.added_text(), "A: b\r\nC: d\r\n\te\r\n\r\n");
    }

    #[test]
    fn a_report_of_success_is_not_requested_for_each_recipient_of_an_alias() {
        let mailbox = |raw: &str| Mailbox::parse(raw).unwrap();
        let behind = |original: &str, raw: &str| {
            let destination = Destination::Mailbox(mailbox(raw));
            let notify = Notify::When { success: true, failure: false, delay: true };
            Recipient { destination, notify, ..Recipient::for_mailbox(mailbox(original)) }
        };
        let recipients = vec![
            behind("list@here.example", "ana@here.example"),
            behind("list@here.example", "bo@there.example"),
            behind("one@here.example", "cy@there.example"),
        ];
        let at = Timestamp::from_millis(0);
        let envelope = Envelope::new(MessageId::new(at, 1), at, ReversePath::Null, recipients);
        let notify = envelope.recipients.iter().map(|recipient| envelope.effective_notify(recipient));
        let without = Notify::When { success: false, failure: false, delay: true };
        let with = Notify::When { success: true, failure: false, delay: true };
        assert_eq!(notify.collect::<Vec<_>>(), [without, without, with]);
    }
}
