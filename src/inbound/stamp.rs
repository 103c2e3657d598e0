//! The fields that we put on top of a message: Received on every one (RFC 5321 §4.4, RFC 3848,
//! RFC 6531 §4.3, RFC 8314 §4.3), and what a submission lacks (RFC 6409 §8).

use std::net::IpAddr;

use crate::mail::{Client, Domain, Mailbox, MessageId, Timestamp};

/// What a Received field says.
#[derive(Debug, Clone)]
pub(super) struct ReceivedField<'a> {
    /// Who handed the message over.
    pub(super) client: &'a Client,
    /// The client's name in DNS, confirmed by its address.
    pub(super) reverse_name: Option<&'a Domain>,
    /// A user of ours submitted it.
    pub(super) is_authenticated: bool,
    /// The client said EHLO rather than HELO.
    pub(super) is_esmtp: bool,
    /// The transaction uses SMTPUTF8.
    pub(super) is_smtputf8: bool,
    /// Us.
    pub(super) hostname: &'a Domain,
    /// Our name for the message.
    pub(super) id: MessageId,
    /// When it was taken.
    pub(super) arrived: Timestamp,
}

/// A line of a header section should have no more characters (RFC 5322 §2.1.1).
const LINE_CHARACTERS_MAX: usize = 78;

/// The field, folded, with CRLF line ends. Names no recipient: a blind copy stays blind.
#[must_use]
pub(super) fn format_received(passage: &ReceivedField<'_>) -> String {
    let ReceivedField { client, hostname, id, arrived, .. } = passage;
    let from = format!("Received: from {}", hello_word(passage));
    let mut lines = vec![from];
    // Where our users sit is nobody's business but theirs; they are known by their login.
    if !passage.is_authenticated {
        let literal = Domain::from(client.address);
        match passage.reverse_name {
            Some(name) => {
                append_folded(&mut lines, &format!("({}", name.as_ascii()));
                append_folded(&mut lines, &format!("{literal})"));
            }
            None => append_folded(&mut lines, &format!("({literal})")),
        }
    }
    lines.push(format!("by {} (postrider)", hostname.as_ascii()));
    append_folded(&mut lines, &format!("with {}", protocol(passage)));
    lines.push(format!("id {id}"));
    if let Some(tls) = &client.tls {
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
fn protocol(passage: &ReceivedField<'_>) -> String {
    if !passage.is_esmtp {
        return "SMTP".to_owned();
    }
    let base = if passage.is_smtputf8 { "UTF8SMTP" } else { "ESMTP" };
    let s = if passage.client.tls.is_some() { "S" } else { "" };
    let a = if passage.is_authenticated { "A" } else { "" };
    format!("{base}{s}{a}")
}

/// The word after EHLO as it may stand in a structured field: a domain or literal as it is,
/// anything else only with the characters that cannot start a comment, a fold or a new field.
/// A user's program likes to introduce itself by the user's address, which is not told.
fn hello_word(passage: &ReceivedField<'_>) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':' | '[' | ']');
    let hello = &passage.client.helo_name;
    let word: String = hello.chars().take(Domain::OCTETS_MAX).filter(|c| is_plain(*c)).collect();
    let is_address = word.parse::<IpAddr>().is_ok() || word.contains(['[', ':']);
    if word.is_empty() || (passage.is_authenticated && is_address) { "unknown".to_owned() } else { word }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mail::TlsInfo;

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

    fn received_field<'a>(client: &'a Client, hostname: &'a Domain) -> ReceivedField<'a> {
        let arrived = Timestamp::from_millis(1_795_408_663_042);
        ReceivedField {
            client,
            reverse_name: None,
            is_authenticated: false,
            is_esmtp: true,
            is_smtputf8: false,
            hostname,
            id: MessageId::new(arrived, 7),
            arrived,
        }
    }

    fn client(hello: &str) -> Client {
        Client { address: "192.0.2.7".parse().unwrap(), helo_name: hello.to_owned(), tls: None }
    }

    fn with_tls(hello: &str) -> Client {
        let tls = Some(TlsInfo { version: "TLSv1.3".into(), cipher: "TLS_AES_128_GCM_SHA256".into() });
        Client { tls, ..client(hello) }
    }

    fn hostname() -> Domain {
        Domain::parse("mx.here.example").unwrap()
    }

    #[test]
    fn the_field_says_who_how_and_when() {
        let hostname = hostname();
        let reverse = Domain::parse("out-7.there.example").unwrap();
        let long =
            Domain::parse(&format!("{}.there.example", "a-long-label.".repeat(7).trim_end_matches('.')))
                .unwrap();
        let v6 = Client { address: "2001:db8::7".parse().unwrap(), ..client("[IPv6:2001:db8::7]") };
        let (plain, tls) = (client("mail.there.example"), with_tls("mail.there.example"));
        let user = with_tls("[192.168.7.7]");
        let fields = [
            format_received(&ReceivedField { is_esmtp: false, ..received_field(&plain, &hostname) }),
            format_received(&ReceivedField {
                reverse_name: Some(&reverse),
                ..received_field(&tls, &hostname)
            }),
            format_received(&ReceivedField {
                reverse_name: Some(&long),
                is_smtputf8: true,
                ..received_field(&tls, &hostname)
            }),
            format_received(&received_field(&v6, &hostname)),
            format_received(&ReceivedField { is_authenticated: true, ..received_field(&user, &hostname) }),
        ];
        golden("received.txt", &fields.concat());
    }

    #[test]
    fn nothing_a_client_says_starts_a_field_of_its_own() {
        let hostname = hostname();
        let client = client("evil (\r\nX-Injected: yes)");
        let field = format_received(&received_field(&client, &hostname));
        assert!(field.starts_with("Received: from evilX-Injected:yes ([192.0.2.7])\r\n\tby "), "{field}");
    }

    #[test]
    fn where_a_user_sits_is_not_told() {
        let hostname = hostname();
        for hello in ["laptop.there.example", "192.0.2.7", "[192.0.2.7]", "[IPv6:::ffff:192.0.2.7]", "::1"] {
            let client = with_tls(hello);
            let reverse_name = Domain::parse("dsl-192-0-2-7.isp.example").unwrap();
            let field = format_received(&ReceivedField {
                is_authenticated: true,
                reverse_name: Some(&reverse_name),
                ..received_field(&client, &hostname)
            });
            assert!(!field.contains("192") && field.contains("with ESMTPSA\r\n"), "{field}");
            assert_eq!(field.contains(hello), hello.starts_with("laptop"), "{field}");
        }
    }

    #[test]
    fn a_submission_gets_the_fields_that_it_lacks_and_no_others() {
        let arrived = Timestamp::from_millis(1_795_408_663_042);
        let id = MessageId::new(arrived, 7);
        let ana = Mailbox::parse("ana@bücher.example").unwrap();
        let everything = MissingFields { date: true, message_id: true, from: Some(&ana), header: true };
        golden("completion.txt", &format_missing_fields(&everything, &hostname(), id, arrived));
        let nothing = MissingFields { date: false, message_id: false, from: None, header: false };
        assert_eq!(format_missing_fields(&nothing, &hostname(), id, arrived), "");
    }
}
