//! What a bounce looks like: golden files, and what text of a peer cannot do in it.

use std::time::Duration;

use super::*;
use crate::fakes::assert_golden;
use crate::mail::{Destination, ReversePath};

const MESSAGE: &[u8] = b"From: ana@here.example\r\nSubject: hello\r\n\r\nHello, Bo.\r\n";

struct Case {
    to: Mailbox,
    envelope: Envelope,
    reason: Reason,
    action: Action,
    original: ReturnedContent,
}

impl Case {
    fn new(from: &str, recipient: &str) -> Self {
        let to = Mailbox::parse(from).unwrap();
        let arrived = Timestamp::from_millis(1_767_225_600_000);
        let recipient = Recipient::for_mailbox(Mailbox::parse(recipient).unwrap());
        let id = MessageId::new(arrived, 1);
        Self {
            envelope: Envelope::new(id, arrived, ReversePath::Mailbox(to.clone()), vec![recipient]),
            to,
            reason: Reason::new(1, 1, "The mailbox does not exist.")
                .with_response("mx.there.example", "550 5.1.1 <bo@there.example>: user unknown"),
            action: Action::Failed,
            original: ReturnedContent::FullMessage(MESSAGE.to_vec()),
        }
    }

    fn write(&self) -> BounceMessage {
        let host = Domain::parse("mail.here.example").unwrap();
        let date = Timestamp::from_millis(1_767_225_660_000);
        let entry = |recipient| BounceRecipient { recipient, action: self.action, reason: &self.reason };
        Bounce {
            from_domain: &self.to.domain,
            hostname: &host,
            id: MessageId::new(date, 2),
            date,
            to: &self.to,
            envelope: &self.envelope,
            recipients: self.envelope.recipients.iter().map(entry).collect(),
            retry_until: date.after(Duration::from_hours(120)),
            returned: self.original.clone(),
        }
        .write()
    }
}

fn assert_golden_bounce(name: &str, written: &BounceMessage) {
    let text = String::from_utf8(written.octets.clone()).unwrap();
    assert_eq!(text.matches('\n').count(), text.matches("\r\n").count());
    assert!(!has_long_line(text.as_bytes()));
    assert_golden(name, &text.replace("\r\n", "\n"));
}

#[test]
fn a_bounce_of_a_failure_is_the_one_in_the_golden_file() {
    let written = Case::new("ana@here.example", "bo@there.example").write();
    assert!(!written.has_8bit && !written.smtputf8);
    assert_golden_bounce("bounce-failed.eml", &written);
}

#[test]
fn a_bounce_of_an_expired_message_is_the_one_in_the_golden_file() {
    let mut case = Case::new("ana@here.example", "list@here.example");
    case.action = Action::Expired;
    case.envelope.envid = Some("QQ+2B1".to_owned());
    let recipient = &mut case.envelope.recipients[0];
    recipient.orcpt = Some("rfc822;list+40here.example".to_owned());
    recipient.destination = Destination::Mailbox(Mailbox::parse("bo@there.example").unwrap());
    case.reason = Reason::new(4, 1, "no answer from mx.there.example within five minutes");
    case.original = ReturnedContent::Headers(b"Subject: hello\r\n\r\n".to_vec());
    assert_golden_bounce("bounce-expired.eml", &case.write());
}

fn accepted_reason() -> Reason {
    Reason::new(0, 0, "accepted").with_response("mx.there.example", "250 2.0.0 Ok: queued as 4c5")
}

#[test]
fn a_bounce_of_a_delay_is_the_one_in_the_golden_file() {
    let mut case = Case::new("ana@here.example", "bo@there.example");
    case.action = Action::Delayed;
    case.reason = Reason::new(2, 2, "refused the recipient")
        .with_response("mx.there.example", "452 4.2.2 <bo@there.example> is over quota");
    case.original =
        ReturnedContent::Headers(b"Subject: hello\r\nMessage-ID: <1@here.example>\r\n\r\n".to_vec());
    assert_golden_bounce("bounce-delayed.eml", &case.write());
}

#[test]
fn a_bounce_of_a_delivery_is_the_one_in_the_golden_file() {
    let mut case = Case::new("ana@there.example", "bo@here.example");
    case.action = Action::Delivered;
    case.reason = Reason::new(0, 0, "in the mailbox");
    case.envelope.recipients[0].orcpt = Some("rfc822;bo@here.example".to_owned());
    case.original = ReturnedContent::Headers(b"Subject: hello\r\n\r\n".to_vec());
    assert_golden_bounce("bounce-delivered.eml", &case.write());
}

#[test]
fn a_bounce_of_a_relay_without_dsn_is_the_one_in_the_golden_file() {
    let mut case = Case::new("ana@here.example", "bo@there.example");
    (case.action, case.reason) = (Action::Relayed, accepted_reason());
    case.original = ReturnedContent::Headers(b"Subject: hello\r\n\r\n".to_vec());
    assert_golden_bounce("bounce-relayed.eml", &case.write());
}

#[test]
fn a_bounce_of_an_expanded_alias_is_the_one_in_the_golden_file() {
    let mut case = Case::new("ana@there.example", "list@here.example");
    (case.action, case.reason) = (Action::Expanded, Reason::new(0, 0, "forwarded to several"));
    // The recipients behind an alias are not disclosed.
    case.envelope.recipients[0].destination =
        Destination::Mailbox(Mailbox::parse("bo@elsewhere.example").unwrap());
    case.original = ReturnedContent::Headers(b"Subject: hello\r\n\r\n".to_vec());
    let written = case.write();
    assert!(!String::from_utf8_lossy(&written.octets).contains("elsewhere"));
    assert_golden_bounce("bounce-expanded.eml", &written);
}

#[test]
fn a_bounce_of_an_unreadable_message_has_two_parts() {
    let mut case = Case::new("ana@here.example", "bo@there.example");
    case.original = ReturnedContent::Unreadable;
    assert_golden_bounce("bounce-unreadable.eml", &case.write());
}

#[test]
fn only_a_valid_message_id_is_referred_to() {
    let head = |field: &str| {
        let mut case = Case::new("ana@here.example", "bo@there.example");
        case.original = ReturnedContent::Headers(format!("{field}\r\n\r\n").into_bytes());
        let text = String::from_utf8(case.write().octets).unwrap();
        text.split_once("\r\n\r\n").unwrap().0.to_owned()
    };
    let answered = head("Message-Id: <a.1@[192.0.2.1]>");
    assert!(answered.contains("\r\nIn-Reply-To: <a.1@[192.0.2.1]>\r\nReferences: <a.1@[192.0.2.1]>\r\n"));
    let long = format!("Message-ID: <{}@x>", "a".repeat(300));
    for field in ["Message-ID: <a b@x>", "Message-ID: <a@x> <b@x>", "Message-ID: <é@x>", "X: <a@x>", &long] {
        let head = head(field);
        assert!(!head.contains("In-Reply-To") && !head.contains("References"), "{field}: {head}");
    }
}

#[test]
fn a_bounce_with_an_address_beyond_ascii_is_the_one_in_the_golden_file() {
    let mut case = Case::new("añña@here.example", "bö@bücher.example");
    case.reason = Reason::new(1, 1, "unbekannt").with_response("mx.bücher.example", "550 5.1.1 wer ist bö?");
    let written = case.write();
    assert!(written.has_8bit && written.smtputf8);
    assert_golden_bounce("bounce-global.eml", &written);
}

#[test]
fn the_diagnostic_code_names_its_source() {
    let silent = Reason::new(1, 2, "the domain there.example does not exist");
    let remote = Reason::new(2, 0, "refused the recipient").with_response("mx.there.example", "450 busy");
    let program = Reason::new(1, 1, "agent ended with exit status 67").with_response("", "no such user");
    for (reason, is_expired, status, mta, diagnostic) in [
        (&silent, false, "5.1.2", None, "x-postrider; the domain there.example does not exist"),
        (&remote, false, "5.2.0", Some("mx.there.example"), "smtp; 450 busy"),
        (&remote, true, "4.4.7", Some("mx.there.example"), "smtp; 450 busy"),
        (&silent, true, "4.4.7", None, "x-postrider; the domain there.example does not exist"),
        (&program, false, "5.1.1", None, "x-program; agent ended with exit status 67: no such user"),
    ] {
        let mut case = Case::new("ana@here.example", "bo@there.example");
        case.reason = reason.clone();
        if is_expired {
            case.action = Action::Expired;
        }
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
fn an_alias_is_named_in_the_text_and_not_as_original_recipient() {
    let mut case = Case::new("ana@here.example", "list@here.example");
    case.envelope.recipients[0].destination =
        Destination::Mailbox(Mailbox::parse("bo@there.example").unwrap());
    let text = String::from_utf8(case.write().octets).unwrap();
    assert!(text.contains("<list@here.example>, on to <bo@there.example>\r\n"), "{text}");
    assert!(text.contains("Final-Recipient: rfc822; bo@there.example\r\n"), "{text}");
    assert!(!text.contains("Original-Recipient"), "{text}");
}

#[test]
fn a_header_beyond_ascii_is_returned_as_message_global_in_a_plain_bounce() {
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
    case.original = ReturnedContent::FullMessage("Subject: grüße\r\n\r\nhi\r\n".into());
    assert_eq!(returned(&case), "Content-Type: message/global|Content-Transfer-Encoding: 8bit");
    case.original = ReturnedContent::Headers("Subject: grüße\r\n\r\n".into());
    assert_eq!(returned(&case), "Content-Type: message/global-headers|Content-Transfer-Encoding: 8bit");
    case.original = ReturnedContent::FullMessage("Subject: hi\r\n\r\ngrüße\r\n".into());
    assert_eq!(returned(&case), "Content-Type: message/rfc822|Content-Transfer-Encoding: 8bit");
    case.original = ReturnedContent::FullMessage(MESSAGE.to_vec());
    assert_eq!(returned(&case), "Content-Type: message/rfc822|");
}

#[test]
fn text_of_a_peer_beyond_ascii_is_escaped_in_the_fields() {
    let mut case = Case::new("ana@here.example", "bo@bücher.example");
    case.reason = Reason::new(1, 1, "unbekannt").with_response("mx.example", "550 für immer");
    let written = case.write();
    assert!(written.has_8bit && !written.smtputf8);
    let text = String::from_utf8(written.octets).unwrap();
    assert!(text.contains("Diagnostic-Code: smtp; 550 f\\xc3\\xbcr immer\r\n"), "{text}");
    assert!(text.contains("said: 550 für immer\r\n"), "{text}");
    assert!(text.contains("Final-Recipient: rfc822; bo@xn--bcher-kva.example\r\n"), "{text}");
}

#[test]
fn no_line_is_too_long_for_any_input() {
    let mut case = Case::new("ana@here.example", "bo@there.example");
    case.reason = Reason::new(1, 1, "no").with_response("mx.example", format!("550 {}", "ü".repeat(3000)));
    case.original =
        ReturnedContent::FullMessage(format!("X: {}\r\n\r\nbody\r\n", "a".repeat(5000)).into_bytes());
    let written = case.write();
    assert!(!has_long_line(&written.octets));
    let text = String::from_utf8(written.octets).unwrap();
    assert!(text.contains("text/rfc822-headers") && !text.contains("\r\nbody"));
}
