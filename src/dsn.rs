//! Delivery status notifications: the octets of a report.
//!
//! Pure: everything comes in as values. A report is a multipart/report (RFC 6522) of three parts:
//! words for a person; the facts for a program (RFC 3464); and the message, or its head. When an
//! address goes beyond ASCII the facts are a message/global-delivery-status with `utf-8` addresses
//! (RFC 6533), and the report needs SMTPUTF8.
//!
//! No line is over 998 octets, and remote words cannot start a line or a part of their own: they
//! were made printable where they came in, and the boundary holds an id that nobody could know
//! when the message was written.

use std::fmt::Write as _;

use crate::mail::{Domain, Envelope, Fields, Mailbox, MessageId, Reason, Recipient, Timestamp};

/// A recipient that failed.
#[derive(Debug, Clone, Copy)]
pub struct Failed<'a> {
    /// Who.
    pub recipient: &'a Recipient,
    /// Why; for one that expired, what was heard last.
    pub reason: &'a Reason,
    /// The lifetime was over: 4.4.7 (RFC 3463 §3.5).
    pub is_expired: bool,
}

/// What of the message is returned: complete lines, stamp included.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Original {
    /// All of it.
    Whole(Vec<u8>),
    /// Its header section.
    Headers(Vec<u8>),
}

/// What a report says.
#[derive(Debug, Clone)]
pub struct Report<'a> {
    /// Domain of the postmaster who sends it.
    pub from_domain: &'a Domain,
    /// Who we are: Reporting-MTA.
    pub hostname: &'a Domain,
    /// For the Message-ID and the boundary; unique, unknown before now.
    pub id: MessageId,
    /// Now.
    pub date: Timestamp,
    /// To whom: the reverse-path of the message.
    pub to: &'a Mailbox,
    /// The message's envelope.
    pub envelope: &'a Envelope,
    /// Who failed, in the envelope's order. Not empty.
    pub recipients: Vec<Failed<'a>>,
    /// What is returned.
    pub original: Original,
}

/// A report, ready to be put.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// Header section and body, CRLF line ends.
    pub octets: Vec<u8>,
    /// There are octets above 127.
    pub has_8bit: bool,
    /// A field of the header section, or a part, goes beyond ASCII in a way that needs SMTPUTF8.
    pub smtputf8: bool,
}

/// RFC 5322 §2.1.1, without the line end.
const LINE_OCTETS_MAX: usize = 998;
/// Where words are folded, if they can be.
const FOLD_OCTETS: usize = 76;

impl Report<'_> {
    /// Writes it.
    #[must_use]
    pub fn write(&self) -> Written {
        let is_global = self.is_global();
        let boundary = format!("=_{}", self.id);
        let words = self.words();
        let facts = self.facts(is_global);
        let (kind, original) = self.returned(is_global);
        let mut body = format!(
            "This is a report about your message, in parts for people and programs.\r\n\r\n--{boundary}\r\n"
        );
        body.push_str("Content-Description: Notification\r\n");
        let charset = if words.is_ascii() { "us-ascii" } else { "utf-8" };
        let _ = write!(body, "Content-Type: text/plain; charset={charset}\r\n");
        body.push_str(&encoding(words.as_bytes()));
        let _ = write!(body, "\r\n{words}\r\n--{boundary}\r\n");
        body.push_str("Content-Description: Delivery report\r\n");
        let status = if is_global { "global-delivery-status" } else { "delivery-status" };
        let _ = write!(body, "Content-Type: message/{status}\r\n");
        body.push_str(&encoding(facts.as_bytes()));
        let _ = write!(body, "\r\n{facts}\r\n--{boundary}\r\n");
        body.push_str("Content-Description: Undelivered message\r\n");
        let _ = write!(body, "Content-Type: {kind}\r\n{}\r\n", encoding(&original));
        let mut body = body.into_bytes();
        body.extend_from_slice(&original);
        body.extend_from_slice(format!("\r\n--{boundary}--\r\n").as_bytes());
        let mut octets = self.head(&boundary, is_global, &encoding(&body)).into_bytes();
        octets.extend_from_slice(&body);
        let has_8bit = !octets.is_ascii();
        Written { octets, has_8bit, smtputf8: is_global }
    }

    /// Somebody's local part goes beyond ASCII; a domain alone has its A-labels.
    fn is_global(&self) -> bool {
        let beyond = |one: &Failed<'_>| {
            one.recipient.final_mailbox().needs_smtputf8() || one.recipient.original.needs_smtputf8()
        };
        self.to.needs_smtputf8() || self.recipients.iter().any(beyond)
    }

    fn head(&self, boundary: &str, is_global: bool, encoding: &str) -> String {
        let domain = self.from_domain.as_ascii();
        let kind = if is_global { "global-delivery-status" } else { "delivery-status" };
        let subject = if self.recipients.iter().all(|one| one.is_expired) {
            "Undelivered mail: given up"
        } else {
            "Undelivered mail: returned to sender"
        };
        format!(
            "Date: {}\r\nFrom: Mail Delivery System <postmaster@{domain}>\r\nTo: <{}>\r\n\
             Subject: {subject}\r\nMessage-ID: <{}@{}>\r\nAuto-Submitted: auto-replied\r\n\
             MIME-Version: 1.0\r\nContent-Type: multipart/report; report-type={kind};\r\n\
             \tboundary=\"{boundary}\"\r\n{encoding}\r\n",
            self.date.to_rfc5322(),
            self.to.to_ascii_domain(),
            self.id,
            self.hostname.as_ascii(),
        )
    }

    /// The part for a person.
    fn words(&self) -> String {
        let mut text = String::new();
        let them = match self.recipients.as_slice() {
            [_] => "this recipient",
            _ => "these recipients",
        };
        paragraph(
            &mut text,
            "",
            &format!(
                "This is the mail system at {}. Your message of {} could not be delivered to {them}, \
                 and we will not try again. If it had other recipients, this is not about them.",
                self.hostname.to_unicode(),
                self.envelope.arrived.to_rfc5322(),
            ),
        );
        for failed in &self.recipients {
            let original = &failed.recipient.original;
            let mut who = format!("<{original}>");
            if original != failed.recipient.final_mailbox() {
                let _ = write!(who, ", on to <{}>", failed.recipient.final_mailbox());
            }
            text.push_str("\r\n");
            paragraph(&mut text, "", &who);
            if failed.is_expired {
                paragraph(&mut text, "    ", "We have tried for as long as we may. The last we heard:");
            }
            paragraph(&mut text, "    ", &failed.reason.text);
            if let Some(remote) = &failed.reason.remote {
                let who = if remote.host.is_empty() { "The program" } else { &remote.host };
                paragraph(&mut text, "    ", &format!("{who} said: {}", remote.said));
            }
        }
        let _ = write!(text, "\r\nOur name for your message: {}\r\n", self.envelope.id);
        text
    }

    /// The part for a program: RFC 3464 §2.
    fn facts(&self, is_global: bool) -> String {
        let mut text = format!("Reporting-MTA: dns; {}\r\n", self.hostname.as_ascii());
        if let Some(envid) = &self.envelope.envid {
            field(&mut text, "Original-Envelope-Id", &ascii(&from_xtext(envid)));
        }
        let _ = write!(text, "Arrival-Date: {}\r\n", self.envelope.arrived.to_rfc5322());
        for failed in &self.recipients {
            text.push_str("\r\n");
            self.facts_of(&mut text, failed, is_global);
        }
        text
    }

    fn facts_of(&self, text: &mut String, failed: &Failed<'_>, is_global: bool) {
        let Failed { recipient, reason, is_expired } = failed;
        let safe = |raw: &str| if is_global { raw.to_owned() } else { ascii(raw) };
        // RFC 3461 §6.3: as the sender wrote it in ORCPT, and only then.
        if let Some((kind, xtext)) = recipient.orcpt.as_deref().and_then(|orcpt| orcpt.split_once(';')) {
            field(text, "Original-Recipient", &format!("{kind}; {}", safe(&from_xtext(xtext))));
        }
        field(text, "Final-Recipient", &address(recipient.final_mailbox()));
        text.push_str("Action: failed\r\n");
        let status = match is_expired {
            true => "4.4.7".to_owned(),
            false => format!("5.{}.{}", reason.subject, reason.detail),
        };
        let _ = write!(text, "Status: {status}\r\n");
        match &reason.remote {
            Some(remote) if !remote.host.is_empty() => {
                field(text, "Remote-MTA", &format!("dns; {}", safe(&remote.host)));
                field(text, "Diagnostic-Code", &format!("smtp; {}", safe(&remote.said)));
            }
            Some(remote) => {
                field(
                    text,
                    "Diagnostic-Code",
                    &format!("x-program; {}: {}", safe(&reason.text), safe(&remote.said)),
                );
            }
            None => field(text, "Diagnostic-Code", &format!("x-postrider; {}", safe(&reason.text))),
        }
        let _ = write!(text, "Last-Attempt-Date: {}\r\n", self.date.to_rfc5322());
    }

    /// The third part, and its type. Never with a line that is too long.
    fn returned(&self, is_global: bool) -> (&'static str, Vec<u8>) {
        let (is_whole, octets) = match &self.original {
            Original::Whole(octets) if has_long_line(octets) => {
                (false, octets.get(..Fields::section_length(octets)).unwrap_or_default())
            }
            Original::Whole(octets) => (true, octets.as_slice()),
            Original::Headers(octets) => (false, octets.as_slice()),
        };
        // RFC 6532 §3.7: a header beyond ASCII is no message/rfc822, whoever it is addressed to.
        let header = octets.get(..Fields::section_length(octets)).unwrap_or_default();
        let is_global = is_global || (self.envelope.smtputf8 && !header.is_ascii());
        let kind = match (is_whole, is_global) {
            (true, false) => "message/rfc822",
            (false, false) => "text/rfc822-headers",
            (true, true) => "message/global",
            (false, true) => "message/global-headers",
        };
        (kind, cut_long_lines(octets))
    }
}

/// `Content-Transfer-Encoding`, if it must be said (RFC 2045 §6.1).
fn encoding(octets: &[u8]) -> String {
    if octets.is_ascii() { String::new() } else { "Content-Transfer-Encoding: 8bit\r\n".to_owned() }
}

/// RFC 3464 §2.3.2, RFC 6533 §3.
fn address(mailbox: &Mailbox) -> String {
    match mailbox.needs_smtputf8() {
        true => format!("utf-8; {mailbox}"),
        false => format!("rfc822; {}", mailbox.to_ascii_domain()),
    }
}

/// ASCII, with what is beyond as `\xHH`: the same notation that remote words come in.
fn ascii(raw: &str) -> String {
    let mut text = String::with_capacity(raw.len());
    for octet in raw.bytes() {
        match octet {
            32..=126 => text.push(char::from(octet)),
            octet => {
                let _ = write!(text, "\\x{octet:02x}");
            }
        }
    }
    text
}

/// RFC 3461 §4. What is not well formed stays as it is; controls never get in.
fn from_xtext(xtext: &str) -> String {
    let mut octets = Vec::with_capacity(xtext.len());
    let mut rest = xtext.as_bytes();
    while let [first, tail @ ..] = rest {
        let hex = tail.get(..2).and_then(|two| std::str::from_utf8(two).ok());
        match hex.and_then(|two| u8::from_str_radix(two, 16).ok()) {
            Some(octet) if *first == b'+' => {
                octets.push(octet);
                rest = tail.get(2..).unwrap_or_default();
            }
            _ => {
                octets.push(*first);
                rest = tail;
            }
        }
    }
    crate::mail::printable(&octets, LINE_OCTETS_MAX / 2)
}

/// A header-like field, folded between words.
fn field(text: &mut String, name: &str, value: &str) {
    let _ = write!(text, "{name}:");
    let mut column = name.len() + 1;
    for word in value.split(' ').filter(|word| !word.is_empty()) {
        for piece in pieces(word) {
            if column + 1 + piece.len() > FOLD_OCTETS && column > name.len() + 1 {
                text.push_str("\r\n");
                column = 0;
            }
            let _ = write!(text, " {piece}");
            column += 1 + piece.len();
        }
    }
    text.push_str("\r\n");
}

/// Words in lines of a width that people like.
fn paragraph(text: &mut String, indent: &str, words: &str) {
    let mut column = 0;
    for word in words.split(' ').filter(|word| !word.is_empty()) {
        for piece in pieces(word) {
            if column > 0 && column + 1 + piece.len() <= FOLD_OCTETS {
                text.push(' ');
                column += 1;
            } else {
                text.push_str(if column == 0 { "" } else { "\r\n" });
                text.push_str(indent);
                column = indent.len();
            }
            text.push_str(piece);
            column += piece.len();
        }
    }
    text.push_str("\r\n");
}

/// A word that is longer than a line may be, in several.
fn pieces(word: &str) -> impl Iterator<Item = &str> {
    let mut rest = word;
    std::iter::from_fn(move || {
        let end = rest.floor_char_boundary(LINE_OCTETS_MAX - 100);
        let (piece, tail) = rest.split_at_checked(end).filter(|(piece, _)| !piece.is_empty())?;
        rest = tail;
        Some(piece)
    })
}

fn has_long_line(octets: &[u8]) -> bool {
    octets.split(|&b| b == b'\n').any(|line| line.strip_suffix(b"\r").unwrap_or(line).len() > LINE_OCTETS_MAX)
}

fn cut_long_lines(octets: &[u8]) -> Vec<u8> {
    if !has_long_line(octets) {
        return octets.to_vec();
    }
    let mut cut = Vec::with_capacity(octets.len());
    for line in octets.split_inclusive(|&b| b == b'\n') {
        let content = line.strip_suffix(b"\r\n").unwrap_or(line);
        cut.extend_from_slice(content.get(..LINE_OCTETS_MAX).unwrap_or(content));
        cut.extend_from_slice(b"\r\n");
    }
    cut
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mail::{Destination, ReversePath};

    const LETTER: &[u8] = b"From: ana@here.example\r\nSubject: hello\r\n\r\nHello, Bo.\r\n";

    struct Case {
        to: Mailbox,
        envelope: Envelope,
        reason: Reason,
        is_expired: bool,
        original: Original,
    }

    impl Case {
        fn new(from: &str, recipient: &str) -> Self {
            let to = Mailbox::parse(from).unwrap();
            let arrived = Timestamp::from_millis(1_767_225_600_000);
            let recipient = Recipient::mailbox(Mailbox::parse(recipient).unwrap());
            let id = MessageId::new(arrived, 1);
            Self {
                envelope: Envelope::new(id, arrived, ReversePath::Mailbox(to.clone()), vec![recipient]),
                to,
                reason: Reason::new(1, 1, "The mailbox does not exist.")
                    .with_remote("mx.there.example", "550 5.1.1 <bo@there.example>: user unknown"),
                is_expired: false,
                original: Original::Whole(LETTER.to_vec()),
            }
        }

        fn write(&self) -> Written {
            let host = Domain::parse("mail.here.example").unwrap();
            let date = Timestamp::from_millis(1_767_225_660_000);
            let failed = |recipient| Failed { recipient, reason: &self.reason, is_expired: self.is_expired };
            Report {
                from_domain: &self.to.domain,
                hostname: &host,
                id: MessageId::new(date, 2),
                date,
                to: &self.to,
                envelope: &self.envelope,
                recipients: self.envelope.recipients.iter().map(failed).collect(),
                original: self.original.clone(),
            }
            .write()
        }
    }

    fn golden(name: &str, written: &Written) {
        let path = format!("{}/testdata/golden/{name}", env!("CARGO_MANIFEST_DIR"));
        let text = String::from_utf8(written.octets.clone()).unwrap();
        assert_eq!(text.matches('\n').count(), text.matches("\r\n").count());
        assert!(!has_long_line(text.as_bytes()));
        let shown = text.replace("\r\n", "\n");
        if std::env::var_os("POSTRIDER_GOLDEN").is_some() {
            #[expect(clippy::disallowed_methods, reason = "writes the golden file itself, when asked")]
            std::fs::write(&path, &shown).unwrap();
        }
        assert_eq!(shown, std::fs::read_to_string(&path).unwrap(), "POSTRIDER_GOLDEN=1 writes {path}");
    }

    #[test]
    fn a_report_of_a_failure_looks_like_this() {
        let written = Case::new("ana@here.example", "bo@there.example").write();
        assert!(!written.has_8bit && !written.smtputf8);
        golden("report-failed.eml", &written);
    }

    #[test]
    fn a_report_of_an_expired_alias_looks_like_this() {
        let mut case = Case::new("ana@here.example", "list@here.example");
        case.is_expired = true;
        case.envelope.envid = Some("QQ+2B1".to_owned());
        let recipient = &mut case.envelope.recipients[0];
        recipient.orcpt = Some("rfc822;list+40here.example".to_owned());
        recipient.destination = Destination::Mailbox(Mailbox::parse("bo@there.example").unwrap());
        case.reason = Reason::new(4, 1, "no answer from mx.there.example within five minutes");
        case.original = Original::Headers(b"Subject: hello\r\n\r\n".to_vec());
        golden("report-expired.eml", &case.write());
    }

    #[test]
    fn a_report_about_an_address_beyond_ascii_looks_like_this() {
        let mut case = Case::new("añña@here.example", "bö@bücher.example");
        case.reason =
            Reason::new(1, 1, "unbekannt").with_remote("mx.bücher.example", "550 5.1.1 wer ist bö?");
        let written = case.write();
        assert!(written.has_8bit && written.smtputf8);
        golden("report-global.eml", &written);
    }

    #[test]
    fn the_facts_say_who_spoke_and_what() {
        let silent = Reason::new(1, 2, "the domain there.example does not exist");
        let remote = Reason::new(2, 0, "refused the recipient").with_remote("mx.there.example", "450 busy");
        let program = Reason::new(1, 1, "agent ended with exit status 67").with_remote("", "no such user");
        for (reason, is_expired, status, mta, diagnostic) in [
            (&silent, false, "5.1.2", None, "x-postrider; the domain there.example does not exist"),
            (&remote, false, "5.2.0", Some("mx.there.example"), "smtp; 450 busy"),
            (&remote, true, "4.4.7", Some("mx.there.example"), "smtp; 450 busy"),
            (&silent, true, "4.4.7", None, "x-postrider; the domain there.example does not exist"),
            (&program, false, "5.1.1", None, "x-program; agent ended with exit status 67: no such user"),
        ] {
            let mut case = Case::new("ana@here.example", "bo@there.example");
            (case.reason, case.is_expired) = (reason.clone(), is_expired);
            let text = String::from_utf8(case.write().octets).unwrap();
            let facts = text.split("Content-Type: message/delivery-status\r\n").nth(1).unwrap();
            let facts = facts.split("\r\n--").next().unwrap().replace("\r\n ", " ");
            let of = |name: &str| {
                facts.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": ")).map(str::to_owned)
            };
            assert_eq!(of("Final-Recipient").unwrap(), "rfc822; bo@there.example");
            assert_eq!(of("Original-Recipient"), None);
            assert_eq!(of("Action").unwrap(), "failed");
            assert_eq!(of("Status").unwrap(), status);
            assert_eq!(of("Remote-MTA"), mta.map(|mta| format!("dns; {mta}")));
            assert_eq!(of("Diagnostic-Code").unwrap(), diagnostic);
        }
    }

    #[test]
    fn an_alias_is_named_in_words_and_never_as_what_the_sender_asked_for() {
        let mut case = Case::new("ana@here.example", "list@here.example");
        case.envelope.recipients[0].destination =
            Destination::Mailbox(Mailbox::parse("bo@there.example").unwrap());
        let text = String::from_utf8(case.write().octets).unwrap();
        assert!(text.contains("<list@here.example>, on to <bo@there.example>\r\n"), "{text}");
        assert!(text.contains("Final-Recipient: rfc822; bo@there.example\r\n"), "{text}");
        assert!(!text.contains("Original-Recipient"), "{text}");
    }

    #[test]
    fn a_header_beyond_ascii_comes_back_as_what_it_is_and_the_report_stays_plain() {
        let mut case = Case::new("ana@here.example", "bo@there.example");
        case.envelope.smtputf8 = true;
        let returned = |case: &Case| {
            let written = case.write();
            assert!(!written.smtputf8);
            let text = String::from_utf8(written.octets).unwrap();
            assert!(text.contains("report-type=delivery-status") && !text.contains("utf-8; "), "{text}");
            let part = text.split("Content-Description: Undelivered message\r\n").nth(1).unwrap();
            part.lines().take(2).collect::<Vec<_>>().join("|")
        };
        case.original = Original::Whole("Subject: grüße\r\n\r\nhi\r\n".into());
        assert_eq!(returned(&case), "Content-Type: message/global|Content-Transfer-Encoding: 8bit");
        case.original = Original::Headers("Subject: grüße\r\n\r\n".into());
        assert_eq!(returned(&case), "Content-Type: message/global-headers|Content-Transfer-Encoding: 8bit");
        case.original = Original::Whole("Subject: hi\r\n\r\ngrüße\r\n".into());
        assert_eq!(returned(&case), "Content-Type: message/rfc822|Content-Transfer-Encoding: 8bit");
        case.original = Original::Whole(LETTER.to_vec());
        assert_eq!(returned(&case), "Content-Type: message/rfc822|");
    }

    #[test]
    fn words_beyond_ascii_do_not_make_the_facts_so() {
        let mut case = Case::new("ana@here.example", "bo@bücher.example");
        case.reason = Reason::new(1, 1, "unbekannt").with_remote("mx.example", "550 für immer");
        let written = case.write();
        assert!(written.has_8bit && !written.smtputf8);
        let text = String::from_utf8(written.octets).unwrap();
        assert!(text.contains("Diagnostic-Code: smtp; 550 f\\xc3\\xbcr immer\r\n"), "{text}");
        assert!(text.contains("said: 550 für immer\r\n"), "{text}");
        assert!(text.contains("Final-Recipient: rfc822; bo@xn--bcher-kva.example\r\n"), "{text}");
    }

    #[test]
    fn no_line_is_too_long_whatever_was_said_or_sent() {
        let mut case = Case::new("ana@here.example", "bo@there.example");
        case.reason = Reason::new(1, 1, "no").with_remote("mx.example", format!("550 {}", "ü".repeat(3000)));
        case.original = Original::Whole(format!("X: {}\r\n\r\nbody\r\n", "a".repeat(5000)).into_bytes());
        let written = case.write();
        assert!(!has_long_line(&written.octets));
        let text = String::from_utf8(written.octets).unwrap();
        assert!(text.contains("text/rfc822-headers") && !text.contains("\r\nbody"));
    }
}
