//! The fields that we put on top of a message: Received on every one (RFC 5321 §4.4, RFC 3848,
//! RFC 6531 §4.3, RFC 8314 §4.3), and what a submission lacks (RFC 6409 §8).

use std::net::IpAddr;

use super::circumstances::Circumstances;
use crate::mail::{Domain, Mailbox, MessageId, Timestamp};

/// The contents of a Received field.
#[derive(Debug, Clone)]
pub(super) struct ReceivedField<'a> {
    /// The client that sent the message.
    pub(super) circumstances: Circumstances<'a>,
    /// The transaction uses SMTPUTF8.
    pub(super) is_smtputf8: bool,
    /// The name of this server.
    pub(super) hostname: &'a Domain,
    /// The id of the message.
    pub(super) id: MessageId,
    /// The time at which the server accepted the message.
    pub(super) arrived: Timestamp,
}

/// A line of a header section should have no more characters (RFC 5322 §2.1.1).
const LINE_CHARACTERS_MAX: usize = 78;

/// The field, folded, with CRLF line ends. Names no recipient: a blind copy stays blind.
#[must_use]
pub(super) fn format_received(field: &ReceivedField<'_>) -> String {
    let ReceivedField { circumstances, hostname, id, arrived, .. } = field;
    let from = format!("Received: from {}", hello_word(field));
    let mut lines = vec![from];
    // The address of a user is private: the login identifies the user.
    if circumstances.login.is_none() {
        let literal = Domain::from(circumstances.address());
        match circumstances.reverse_name() {
            Some(name) => {
                append_folded(&mut lines, &format!("({}", name.as_ascii()));
                append_folded(&mut lines, &format!("{literal})"));
            }
            None => append_folded(&mut lines, &format!("({literal})")),
        }
    }
    lines.push(format!("by {} (postrider)", hostname.as_ascii()));
    append_folded(&mut lines, &format!("with {}", protocol(field)));
    lines.push(format!("id {id}"));
    if let Some(tls) = circumstances.tls {
        lines.push(format!("tls {} ({})", tls.cipher, tls.version));
    }
    format!("{};\r\n\t{}\r\n", lines.join("\r\n\t"), arrived.to_rfc5322())
}

/// Adds to the last line what it has room for, else on a line of its own.
fn append_folded(lines: &mut Vec<String>, words: &str) {
    match lines.last_mut() {
        // The tab that begins a folded line is as wide as the widest reader shows it.
        Some(last) if last.len() + 1 + words.len() + 8 <= LINE_CHARACTERS_MAX => {
            last.push(' ');
            last.push_str(words);
        }
        _ => lines.push(words.to_owned()),
    }
}

/// What a submission lacks.
#[derive(Debug)]
pub(super) struct MissingFields<'a> {
    /// Date (RFC 6409 §8.2).
    pub(super) date: bool,
    /// Message-ID (RFC 6409 §8.3).
    pub(super) message_id: bool,
    /// From, with who is known to have sent it.
    pub(super) from: Option<&'a Mailbox>,
    /// A header section at all: what was sent is body from its first line.
    pub(super) header: bool,
}

/// The missing fields, with CRLF line ends.
#[must_use]
pub(super) fn format_missing_fields(
    lacks: &MissingFields<'_>,
    hostname: &Domain,
    id: MessageId,
    arrived: Timestamp,
) -> String {
    let mut fields = String::new();
    if let Some(mailbox) = lacks.from {
        // A domain in U-labels, or a local part beyond ASCII, would make a header that only a peer
        // with SMTPUTF8 can take.
        fields.push_str(&format!("From: {}\r\n", mailbox.to_ascii_domain()));
    }
    if lacks.date {
        fields.push_str(&format!("Date: {}\r\n", arrived.to_rfc5322()));
    }
    if lacks.message_id {
        fields.push_str(&format!("Message-ID: <{id}@{}>\r\n", hostname.as_ascii()));
    }
    if lacks.header {
        fields.push_str("\r\n");
    }
    fields
}

/// RFC 3848, and RFC 6531 §4.3 for the UTF8 family.
fn protocol(field: &ReceivedField<'_>) -> String {
    let circumstances = &field.circumstances;
    if !circumstances.is_esmtp {
        return "SMTP".to_owned();
    }
    let base = if field.is_smtputf8 { "UTF8SMTP" } else { "ESMTP" };
    let s = if circumstances.tls.is_some() { "S" } else { "" };
    let a = if circumstances.login.is_some() { "A" } else { "" };
    format!("{base}{s}{a}")
}

/// The word after EHLO as it may stand in a structured field: a domain or literal as it is,
/// anything else only with the characters that cannot start a comment, a fold or a new field.
/// A user's program likes to introduce itself by the user's address, which is not told.
fn hello_word(field: &ReceivedField<'_>) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':' | '[' | ']');
    let circumstances = &field.circumstances;
    let word: String =
        circumstances.hello.chars().take(Domain::OCTETS_MAX).filter(|c| is_plain(*c)).collect();
    let is_address = word.parse::<IpAddr>().is_ok() || word.contains(['[', ':']);
    if word.is_empty() || (circumstances.login.is_some() && is_address) { "unknown".to_owned() } else { word }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mail::{SenderFacts, TlsInfo};

    /// Compares with `testdata/golden/NAME`; `POSTRIDER_GOLDEN=1` writes it anew.
    fn golden(name: &str, text: &str) {
        let path = format!("{}/testdata/golden/{name}", env!("CARGO_MANIFEST_DIR"));
        let text = text.replace("\r\n", "\n");
        if std::env::var_os("POSTRIDER_GOLDEN").is_some() {
            #[expect(clippy::disallowed_methods, reason = "writes the golden file itself, when asked")]
            std::fs::write(&path, &text).unwrap();
        }
        assert_eq!(text, std::fs::read_to_string(&path).unwrap(), "{name}");
    }

    fn received_field<'a>(circumstances: Circumstances<'a>, hostname: &'a Domain) -> ReceivedField<'a> {
        let arrived = Timestamp::from_millis(1_795_408_663_042);
        let id = MessageId::new(arrived, 7);
        ReceivedField { circumstances, is_smtputf8: false, hostname, id, arrived }
    }

    fn client(hello: &str) -> Circumstances<'_> {
        let connection = Circumstances::at_connection("192.0.2.7:49152".parse().unwrap());
        Circumstances { hello, is_esmtp: true, ..connection }
    }

    fn reverse_name(name: &str) -> SenderFacts {
        SenderFacts { reverse_name: Some(Domain::parse(name).unwrap()), ..SenderFacts::default() }
    }

    fn tls() -> TlsInfo {
        TlsInfo { version: "TLSv1.3".into(), cipher: "TLS_AES_128_GCM_SHA256".into() }
    }

    fn hostname() -> Domain {
        Domain::parse("mx.here.example").unwrap()
    }

    #[test]
    fn the_received_field_names_the_client_the_protocol_and_the_time() {
        let hostname = hostname();
        let reverse = reverse_name("out-7.there.example");
        let long =
            reverse_name(&format!("{}.there.example", "a-long-label.".repeat(7).trim_end_matches('.')));
        let (tls, user) = (tls(), Mailbox::parse("ana@here.example").unwrap());
        let plain = client("mail.there.example");
        let encrypted = Circumstances { tls: Some(&tls), ..plain };
        let v6 =
            Circumstances { peer: "[2001:db8::7]:49152".parse().unwrap(), ..client("[IPv6:2001:db8::7]") };
        let with_name = |facts| Circumstances { sender: Some(facts), ..encrypted };
        let submission = Circumstances { login: Some(&user), tls: Some(&tls), ..client("[192.168.7.7]") };
        let fields = [
            format_received(&received_field(Circumstances { is_esmtp: false, ..plain }, &hostname)),
            format_received(&received_field(with_name(&reverse), &hostname)),
            format_received(&ReceivedField {
                is_smtputf8: true,
                ..received_field(with_name(&long), &hostname)
            }),
            format_received(&received_field(v6, &hostname)),
            format_received(&received_field(submission, &hostname)),
        ];
        golden("received.txt", &fields.concat());
    }

    #[test]
    fn a_hello_name_cannot_begin_another_field() {
        let hostname = hostname();
        let field = format_received(&received_field(client("evil (\r\nX-Injected: yes)"), &hostname));
        assert!(field.starts_with("Received: from evilX-Injected:yes ([192.0.2.7])\r\n\tby "), "{field}");
    }

    #[test]
    fn the_received_field_of_a_user_has_no_address() {
        let (hostname, tls, user) = (hostname(), tls(), Mailbox::parse("ana@here.example").unwrap());
        for hello in ["laptop.there.example", "192.0.2.7", "[192.0.2.7]", "[IPv6:::ffff:192.0.2.7]", "::1"] {
            let facts = reverse_name("dsl-192-0-2-7.isp.example");
            let circumstances =
                Circumstances { login: Some(&user), tls: Some(&tls), sender: Some(&facts), ..client(hello) };
            let field = format_received(&received_field(circumstances, &hostname));
            assert!(!field.contains("192") && field.contains("with ESMTPSA\r\n"), "{field}");
            assert_eq!(field.contains(hello), hello.starts_with("laptop"), "{field}");
        }
    }

    #[test]
    fn only_missing_fields_are_added_to_a_submission() {
        let arrived = Timestamp::from_millis(1_795_408_663_042);
        let id = MessageId::new(arrived, 7);
        let ana = Mailbox::parse("ana@bücher.example").unwrap();
        let everything = MissingFields { date: true, message_id: true, from: Some(&ana), header: true };
        golden("completion.txt", &format_missing_fields(&everything, &hostname(), id, arrived));
        let nothing = MissingFields { date: false, message_id: false, from: None, header: false };
        assert_eq!(format_missing_fields(&nothing, &hostname(), id, arrived), "");
    }
}
