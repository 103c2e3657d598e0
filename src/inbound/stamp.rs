//! The Received field that we put on top of every message (RFC 5321 §4.4, RFC 3848, RFC 6531 §3.7.3).

use crate::mail::{Client, Domain, MessageId, Timestamp};

/// What a Received field says.
#[derive(Debug, Clone)]
pub(super) struct Passage<'a> {
    /// Who handed the message over.
    pub(super) client: &'a Client,
    /// A user of ours submitted it.
    pub(super) is_authenticated: bool,
    /// The client said EHLO rather than HELO.
    pub(super) is_extended: bool,
    /// The transaction uses SMTPUTF8.
    pub(super) is_smtputf8: bool,
    /// Us.
    pub(super) hostname: &'a Domain,
    /// Our name for the message.
    pub(super) id: MessageId,
    /// When it was taken.
    pub(super) arrived: Timestamp,
}

/// The field, folded, with CRLF line ends. Names no recipient: a blind copy stays blind.
#[must_use]
pub(super) fn received(passage: &Passage<'_>) -> String {
    let mut field = format!("Received: from {}", hello_word(&passage.client.hello));
    // Where our users sit is nobody's business but theirs; they are known by their login.
    if !passage.is_authenticated {
        field.push_str(&format!(" ({})", Domain::from(passage.client.address)));
    }
    field.push_str(&format!(
        "\r\n\tby {} (postrider) with {}",
        passage.hostname.as_ascii(),
        protocol(passage)
    ));
    if let Some(tls) = &passage.client.tls {
        field.push_str(&format!("\r\n\t(version={} cipher={})", tls.version, tls.cipher));
    }
    field.push_str(&format!("\r\n\tid {};\r\n\t{}\r\n", passage.id, passage.arrived.to_rfc5322()));
    field
}

/// RFC 3848, and RFC 6531 §4.3 for the UTF8 family.
fn protocol(passage: &Passage<'_>) -> String {
    if !passage.is_extended {
        return "SMTP".to_owned();
    }
    let base = if passage.is_smtputf8 { "UTF8SMTP" } else { "ESMTP" };
    let s = if passage.client.tls.is_some() { "S" } else { "" };
    let a = if passage.is_authenticated { "A" } else { "" };
    format!("{base}{s}{a}")
}

/// The word after EHLO as it may stand in a structured field: a domain or literal as it is,
/// anything else only with the characters that cannot start a comment, a fold or a new field.
fn hello_word(hello: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':' | '[' | ']');
    let word: String = hello.chars().take(Domain::OCTETS_MAX).filter(|c| is_plain(*c)).collect();
    if word.is_empty() { "unknown".to_owned() } else { word }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mail::TlsFacts;

    fn passage<'a>(client: &'a Client, hostname: &'a Domain) -> Passage<'a> {
        let arrived = Timestamp::from_millis(1_795_408_663_042);
        Passage {
            client,
            is_authenticated: false,
            is_extended: true,
            is_smtputf8: false,
            hostname,
            id: MessageId::new(arrived, 7),
            arrived,
        }
    }

    fn client(hello: &str) -> Client {
        Client { address: "192.0.2.7".parse().unwrap(), hello: hello.to_owned(), tls: None }
    }

    #[test]
    fn the_field_says_who_how_and_when() {
        let hostname = Domain::parse("mx.here.example").unwrap();
        let tls = Some(TlsFacts { version: "TLSv1.3".into(), cipher: "TLS_AES_128_GCM_SHA256".into() });
        let client = Client { tls, ..client("mail.there.example") };
        let passage = passage(&client, &hostname);
        assert_eq!(
            received(&passage),
            format!(
                "Received: from mail.there.example ([192.0.2.7])\r\n\tby mx.here.example (postrider) with ESMTPS\r\n\
                 \t(version=TLSv1.3 cipher=TLS_AES_128_GCM_SHA256)\r\n\tid {};\r\n\
                 \tMon, 23 Nov 2026 04:37:43 +0000\r\n",
                passage.id
            )
        );
    }

    #[test]
    fn nothing_a_client_says_starts_a_field_of_its_own() {
        let hostname = Domain::parse("mx.here.example").unwrap();
        let client = client("evil (\r\nX-Injected: yes)");
        let field = received(&passage(&client, &hostname));
        assert!(field.starts_with("Received: from evilX-Injected:yes ([192.0.2.7])\r\n\tby "), "{field}");
    }

    #[test]
    fn where_a_user_sits_is_not_told() {
        let hostname = Domain::parse("mx.here.example").unwrap();
        let client = client("laptop");
        let field = received(&Passage { is_authenticated: true, ..passage(&client, &hostname) });
        assert!(!field.contains("192.0.2.7") && field.contains("with ESMTPA"), "{field}");
        assert!(
            received(&Passage { is_extended: false, ..passage(&client, &hostname) })
                .contains("with SMTP\r\n")
        );
        assert!(
            received(&Passage { is_smtputf8: true, ..passage(&client, &hostname) })
                .contains("with UTF8SMTP\r\n")
        );
    }
}
