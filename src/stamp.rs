//! Completes a message and puts the header fields of this server on top of it.
//!
//! One step for every message that enters the queue: mail from a client, bounces, and mail that is
//! made on this host. It fills [`Envelope::added_fields`] and leaves the octets of the message
//! alone. The order of the fields, from the top:
//!
//! 1. Received, on every message (RFC 5321 §4.4, RFC 3848, RFC 6531 §4.3, RFC 8314 §4.3).
//! 2. From, Date and Message-ID, as far as the message lacks them (RFC 6409 §8).
//!
//! A caller may put fields of its own above these, as `inbound` does with those of the operator's hook.
//!
//! **A signature** (DKIM, not written yet) is not made here: [`stamp`] has neither the body nor a key, and runs
//! before the fields of the hook are added. Two places can make it, with one common function:
//! `inbound/content.rs`, `Arrival::commit`, after the hook's fields; and `queue/generated_mail.rs`, `put`.

use std::net::IpAddr;

use crate::mail::{AddedField, Client, Domain, Envelope, Mailbox};

/// What the added fields say that the envelope does not.
#[derive(Debug, Clone)]
pub struct StampFacts<'a> {
    /// The name of this server.
    pub hostname: &'a Domain,
    /// The client's name in DNS, confirmed by its address.
    pub reverse_name: Option<&'a Domain>,
    /// The client sent EHLO, not HELO.
    pub is_esmtp: bool,
    /// What the message lacks and is to get.
    pub missing: MissingFields<'a>,
}

/// Header fields that a message lacks. By default it lacks none.
#[derive(Debug, Clone, Default)]
pub struct MissingFields<'a> {
    /// Date (RFC 6409 §8.2).
    pub date: bool,
    /// Message-ID (RFC 6409 §8.3).
    pub message_id: bool,
    /// From, with the mailbox that is known to have sent the message.
    pub from: Option<&'a Mailbox>,
    /// The whole header section: the message is body from its first line.
    pub header: bool,
}

impl<'a> StampFacts<'a> {
    /// The facts about a complete message that was made on this host.
    #[must_use]
    pub fn local(hostname: &'a Domain) -> Self {
        Self { hostname, reverse_name: None, is_esmtp: false, missing: MissingFields::default() }
    }
}

/// Adds the fields of this server to an envelope that has none yet. Its id, arrival time, client, user
/// and SMTPUTF8 flag must be set.
pub fn stamp(envelope: &mut Envelope, facts: &StampFacts<'_>) {
    let mut fields = vec![received_field(envelope, facts)];
    fields.extend(missing_fields(envelope, facts));
    envelope.added_fields = fields;
    envelope.has_no_header = facts.missing.header;
}

/// A line of a header section should have no more characters (RFC 5322 §2.1.1).
const LINE_CHARACTERS_MAX: usize = 78;

/// Received. It names no recipient, so that a blind copy stays blind.
fn received_field(envelope: &Envelope, facts: &StampFacts<'_>) -> AddedField {
    let mut lines = Vec::new();
    let by = format!("by {} (postrider)", facts.hostname.as_ascii());
    match &envelope.client {
        Some(client) => {
            push_client(&mut lines, client, envelope, facts);
            lines.push(by);
            append_folded(&mut lines, &format!("with {}", protocol(client, envelope, facts)));
        }
        None => lines.push(by),
    }
    let id = format!("id {}", envelope.id);
    match envelope.client.as_ref().and_then(|client| client.tls.as_ref()) {
        Some(tls) => lines.extend([id, format!("tls {} ({});", tls.cipher, tls.version)]),
        None => lines.push(id + ";"),
    }
    lines.push(envelope.arrived_at.to_rfc5322());
    AddedField::new("Received", lines.iter().map(String::as_str))
}

/// Where the message comes from, on the first lines of Received.
fn push_client(lines: &mut Vec<String>, client: &Client, envelope: &Envelope, facts: &StampFacts<'_>) {
    let is_authenticated = envelope.authenticated_user.is_some();
    lines.push(format!("from {}", hello_word(client, is_authenticated)));
    // The address of a user of this server is private; the user is known by the login.
    if is_authenticated {
        return;
    }
    let literal = Domain::from(client.address);
    match facts.reverse_name {
        Some(name) => {
            append_folded(lines, &format!("({}", name.as_ascii()));
            append_folded(lines, &format!("{literal})"));
        }
        None => append_folded(lines, &format!("({literal})")),
    }
}

/// Appends the words to the last line if they fit, else they become a line of their own.
fn append_folded(lines: &mut Vec<String>, words: &str) {
    // The tab that begins a folded line may be shown as eight characters.
    let indent = if lines.len() == 1 { "Received: ".len() } else { 8 };
    match lines.last_mut() {
        Some(last) if indent + last.len() + 1 + words.len() <= LINE_CHARACTERS_MAX => {
            last.push(' ');
            last.push_str(words);
        }
        _ => lines.push(words.to_owned()),
    }
}

/// The protocol names of RFC 3848, and of RFC 6531 §4.3 for the UTF8 family.
fn protocol(client: &Client, envelope: &Envelope, facts: &StampFacts<'_>) -> String {
    if !facts.is_esmtp {
        return "SMTP".to_owned();
    }
    let base = if envelope.smtputf8 { "UTF8SMTP" } else { "ESMTP" };
    let s = if client.tls.is_some() { "S" } else { "" };
    let a = if envelope.authenticated_user.is_some() { "A" } else { "" };
    format!("{base}{s}{a}")
}

/// The word after EHLO as it may stand in a structured field: without the characters that could start a
/// comment, a fold or a new field. Programs of users often give the user's address as this word; it
/// is not shown.
fn hello_word(client: &Client, is_authenticated: bool) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':' | '[' | ']');
    let word: String = client.helo_name.chars().take(Domain::OCTETS_MAX).filter(|c| is_plain(*c)).collect();
    let is_address = word.parse::<IpAddr>().is_ok() || word.contains(['[', ':']);
    if word.is_empty() || (is_authenticated && is_address) { "unknown".to_owned() } else { word }
}

/// From, Date and Message-ID, those that are missing.
fn missing_fields(envelope: &Envelope, facts: &StampFacts<'_>) -> Vec<AddedField> {
    let StampFacts { hostname, missing, .. } = facts;
    let mut fields = Vec::new();
    if let Some(mailbox) = missing.from {
        // A domain in U-labels, or a local part beyond ASCII, would make a header that only a peer
        // with SMTPUTF8 can take.
        fields.push(AddedField::new("From", [&*mailbox.to_ascii_domain()]));
    }
    if missing.date {
        fields.push(AddedField::new("Date", [&*envelope.arrived_at.to_rfc5322()]));
    }
    if missing.message_id {
        let message_id = format!("<{}@{}>", envelope.id, hostname.as_ascii());
        fields.push(AddedField::new("Message-ID", [&*message_id]));
    }
    fields
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fakes::assert_golden;
    use crate::mail::{MessageId, ReversePath, Timestamp, TlsInfo};

    fn envelope(client: Client) -> Envelope {
        Envelope { client: Some(client), ..local_envelope() }
    }

    fn local_envelope() -> Envelope {
        let arrived = Timestamp::from_millis(1_795_408_663_042);
        Envelope::new(MessageId::new(arrived, 7), arrived, ReversePath::Null, Vec::new())
    }

    fn client(hello: &str) -> Client {
        Client { address: "192.0.2.7".parse().unwrap(), helo_name: hello.to_owned(), tls: None }
    }

    fn with_tls(hello: &str) -> Client {
        let tls = Some(TlsInfo { version: "TLSv1.3".into(), cipher: "TLS_AES_128_GCM_SHA256".into() });
        Client { tls, ..client(hello) }
    }

    fn user() -> Mailbox {
        Mailbox::parse("ana@bücher.example").unwrap()
    }

    fn hostname() -> Domain {
        Domain::parse("mx.here.example").unwrap()
    }

    fn facts(hostname: &Domain) -> StampFacts<'_> {
        StampFacts { is_esmtp: true, ..StampFacts::local(hostname) }
    }

    fn stamped(mut envelope: Envelope, facts: &StampFacts<'_>) -> String {
        stamp(&mut envelope, facts);
        envelope.added_text()
    }

    #[test]
    fn received_says_from_where_how_and_when() {
        let hostname = hostname();
        let facts = facts(&hostname);
        let reverse = Domain::parse("out-7.there.example").unwrap();
        let long =
            Domain::parse(&format!("{}.there.example", "a-long-label.".repeat(7).trim_end_matches('.')))
                .unwrap();
        let v6 = Client { address: "2001:db8::7".parse().unwrap(), ..client("[IPv6:2001:db8::7]") };
        let tls = with_tls("mail.there.example");
        let utf8 = Envelope { smtputf8: true, ..envelope(tls.clone()) };
        let submission = Envelope { authenticated_user: Some(user()), ..envelope(with_tls("[192.168.7.7]")) };
        let fields = [
            stamped(envelope(client("mail.there.example")), &StampFacts { is_esmtp: false, ..facts.clone() }),
            stamped(envelope(tls), &StampFacts { reverse_name: Some(&reverse), ..facts.clone() }),
            stamped(utf8, &StampFacts { reverse_name: Some(&long), ..facts.clone() }),
            stamped(envelope(v6), &facts),
            stamped(submission, &facts),
            stamped(local_envelope(), &StampFacts::local(&hostname)),
        ];
        assert_golden("received.txt", &fields.concat().replace("\r\n", "\n"));
    }

    #[test]
    fn the_word_after_ehlo_cannot_start_a_field() {
        let hostname = hostname();
        let field = stamped(envelope(client("evil (\r\nX-Injected: yes)")), &facts(&hostname));
        assert!(field.starts_with("Received: from evilX-Injected:yes ([192.0.2.7])\r\n\tby "), "{field}");
    }

    #[test]
    fn received_does_not_show_the_address_of_a_user() {
        let hostname = hostname();
        let reverse_name = Domain::parse("dsl-192-0-2-7.isp.example").unwrap();
        for hello in ["laptop.there.example", "192.0.2.7", "[192.0.2.7]", "[IPv6:::ffff:192.0.2.7]", "::1"] {
            let submission = Envelope { authenticated_user: Some(user()), ..envelope(with_tls(hello)) };
            let facts = StampFacts { reverse_name: Some(&reverse_name), ..facts(&hostname) };
            let field = stamped(submission, &facts);
            assert!(!field.contains("192") && field.contains("with ESMTPSA\r\n"), "{field}");
            assert_eq!(field.contains(hello), hello.starts_with("laptop"), "{field}");
        }
    }

    #[test]
    fn a_message_gets_the_fields_that_it_lacks_and_no_others() {
        let (hostname, ana) = (hostname(), user());
        let missing = MissingFields { date: true, message_id: true, from: Some(&ana), header: true };
        let facts = StampFacts { missing, ..StampFacts::local(&hostname) };
        let mut envelope = local_envelope();
        stamp(&mut envelope, &facts);
        let names = |envelope: &Envelope| -> Vec<String> {
            let fields = envelope.added_fields.iter().map(|field| field.as_str().split(':').next());
            fields.map(|name| name.unwrap_or_default().to_owned()).collect()
        };
        assert_eq!(names(&envelope), ["Received", "From", "Date", "Message-ID"]);
        assert!(envelope.has_no_header);
        let text: String = envelope.added_fields.iter().skip(1).map(AddedField::as_str).collect();
        assert_golden("missing_fields.txt", &text.replace("\r\n", "\n"));
        stamp(&mut envelope, &StampFacts::local(&hostname));
        assert_eq!(names(&envelope), ["Received"]);
        assert!(!envelope.has_no_header);
    }
}
