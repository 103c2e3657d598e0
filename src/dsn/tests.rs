//! What a report looks like: golden files, and what remote words may not do in it.

use std::time::Duration;

use super::*;
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

fn assert_golden(name: &str, written: &BounceMessage) {
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
    assert_golden("report-failed.eml", &written);
}

#[test]
fn a_report_of_an_expired_alias_looks_like_this() {
    let mut case = Case::new("ana@here.example", "list@here.example");
    case.action = Action::Expired;
    case.envelope.envid = Some("QQ+2B1".to_owned());
    let recipient = &mut case.envelope.recipients[0];
    recipient.orcpt = Some("rfc822;list+40here.example".to_owned());
    recipient.destination = Destination::Mailbox(Mailbox::parse("bo@there.example").unwrap());
    case.reason = Reason::new(4, 1, "no answer from mx.there.example within five minutes");
    case.original = ReturnedContent::Headers(b"Subject: hello\r\n\r\n".to_vec());
    assert_golden("report-expired.eml", &case.write());
}

fn accepted_reason() -> Reason {
    Reason::new(0, 0, "accepted").with_response("mx.there.example", "250 2.0.0 Ok: queued as 4c5")
}

#[test]
fn a_report_of_a_delay_looks_like_this() {
    let mut case = Case::new("ana@here.example", "bo@there.example");
    case.action = Action::Delayed;
    case.reason = Reason::new(2, 2, "refused the recipient")
        .with_response("mx.there.example", "452 4.2.2 <bo@there.example> is over quota");
    case.original =
        ReturnedContent::Headers(b"Subject: hello\r\nMessage-ID: <1@here.example>\r\n\r\n".to_vec());
    assert_golden("report-delayed.eml", &case.write());
}

#[test]
fn a_report_of_a_delivery_looks_like_this() {
    let mut case = Case::new("ana@there.example", "bo@here.example");
    case.action = Action::Delivered;
    case.reason = Reason::new(0, 0, "in the mailbox");
    case.envelope.recipients[0].orcpt = Some("rfc822;bo@here.example".to_owned());
    case.original = ReturnedContent::Headers(b"Subject: hello\r\n\r\n".to_vec());
    assert_golden("report-delivered.eml", &case.write());
}

#[test]
fn a_report_of_a_relay_that_reports_no_further_looks_like_this() {
    let mut case = Case::new("ana@here.example", "bo@there.example");
    (case.action, case.reason) = (Action::Relayed, accepted_reason());
    case.original = ReturnedContent::Headers(b"Subject: hello\r\n\r\n".to_vec());
    assert_golden("report-relayed.eml", &case.write());
}

#[test]
fn a_report_of_an_alias_that_leads_to_several_looks_like_this() {
    let mut case = Case::new("ana@there.example", "list@here.example");
    (case.action, case.reason) = (Action::Expanded, Reason::new(0, 0, "forwarded to several"));
    // Who is behind it is nobody's business.
    case.envelope.recipients[0].destination =
        Destination::Mailbox(Mailbox::parse("bo@elsewhere.example").unwrap());
    case.original = ReturnedContent::Headers(b"Subject: hello\r\n\r\n".to_vec());
    let written = case.write();
    assert!(!String::from_utf8_lossy(&written.octets).contains("elsewhere"));
    assert_golden("report-expanded.eml", &written);
}

#[test]
fn a_report_without_a_readable_message_has_two_parts_and_says_so() {
    let mut case = Case::new("ana@here.example", "bo@there.example");
    case.original = ReturnedContent::Unreadable;
    assert_golden("report-unreadable.eml", &case.write());
}

#[test]
fn only_a_message_id_that_is_one_is_answered_to() {
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
fn a_report_about_an_address_beyond_ascii_looks_like_this() {
    let mut case = Case::new("añña@here.example", "bö@bücher.example");
    case.reason = Reason::new(1, 1, "unbekannt").with_response("mx.bücher.example", "550 5.1.1 wer ist bö?");
    let written = case.write();
    assert!(written.has_8bit && written.smtputf8);
    assert_golden("report-global.eml", &written);
}

#[test]
fn the_facts_say_who_spoke_and_what() {
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
fn words_beyond_ascii_do_not_make_the_facts_so() {
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
fn no_line_is_too_long_whatever_was_said_or_sent() {
    let mut case = Case::new("ana@here.example", "bo@there.example");
    case.reason = Reason::new(1, 1, "no").with_response("mx.example", format!("550 {}", "ü".repeat(3000)));
    case.original =
        ReturnedContent::FullMessage(format!("X: {}\r\n\r\nbody\r\n", "a".repeat(5000)).into_bytes());
    let written = case.write();
    assert!(!has_long_line(&written.octets));
    let text = String::from_utf8(written.octets).unwrap();
    assert!(text.contains("text/rfc822-headers") && !text.contains("\r\nbody"));
}
