//! One attempt of the SMTP courier, against peers that follow a script.

use std::sync::Arc;
use std::time::Duration;

use postrider::courier::smtp::HelloMode;
use postrider::sys::{Clock as _, SystemClock, SystemConnector};

use crate::courier_fixture::{
    CourierFixture, DIALOG_MAIL_TO_DATA, DIALOG_QUIT, DIALOG_TO_BO, DIALOG_TO_EHLO, DIALOG_TO_STARTTLS,
    MESSAGE, MX_ONE, MX1, MX2, TestMessage, dialog_over_tls, recipient_via, statuses,
};

// The order of hosts.

#[test]
fn a_message_goes_dot_stuffed_to_the_first_mx_host_and_the_session_ends_with_quit() {
    let fixture = CourierFixture::new().with_peer(MX1, DIALOG_TO_BO);
    let outcomes = fixture.deliver_to(&["bo@there.example"]);
    assert_eq!(statuses(&outcomes), ["2.0.0"]);
    assert_eq!(
        outcomes[0].reason().to_string(),
        "accepted: mx1.there.example said: 250 2.0.0 queued as 4711"
    );
    let log = fixture.assert_finished();
    assert_eq!(log.messages, [b"Subject: hello\r\n\r\nDear Bo,\r\n..dot\r\n.\r\n"]);
}

#[test]
fn hosts_are_tried_in_order_until_one_answers() {
    let fixture = CourierFixture::new().with_peer(MX1, "! refuse").with_peer(MX2, DIALOG_TO_BO);
    assert_eq!(statuses(&fixture.deliver_to(&["bo@there.example"])), ["2.0.0"]);
    let connected: Vec<_> = fixture.assert_finished().connected.iter().map(ToString::to_string).collect();
    assert_eq!(connected, [MX1, MX2]);
}

#[test]
fn if_no_host_can_be_reached_the_reason_names_the_host_and_the_cause() {
    let fixture = CourierFixture::new().with_peer(MX1, "! refuse").with_peer(MX2, "! refuse");
    let outcomes = fixture.deliver_to(&["bo@there.example"]);
    assert_eq!(
        outcomes[0].to_string(),
        "4.4.1 no connection to mx2.there.example [192.0.2.2]:25: connection refused"
    );
    fixture.assert_finished();
}

#[test]
fn after_a_5yz_greeting_the_next_host_is_tried_and_the_failure_is_temporary() {
    let refusal = format!("S: 554 5.3.2 go away {DIALOG_QUIT}");
    let fixture = CourierFixture::new().with_peer(MX1, &refusal).with_peer(MX2, DIALOG_TO_BO);
    assert_eq!(statuses(&fixture.deliver_to(&["bo@there.example"])), ["2.0.0"]);
    fixture.assert_finished();
    let fixture = CourierFixture::new().with_peer(MX_ONE, &refusal);
    let outcomes = fixture.deliver_to(&["bo@one.example"]);
    assert_eq!(outcomes[0].to_string(), "4.3.2 refused the session: mx.one.example said: 554 5.3.2 go away");
    fixture.assert_finished();
}

#[test]
fn the_reply_of_a_host_counts_more_than_a_failed_connection_to_the_next() {
    let fixture = CourierFixture::new()
        .with_peer(MX1, &format!("S: 450 4.3.2 later {DIALOG_QUIT}"))
        .with_peer(MX2, "! refuse");
    assert_eq!(statuses(&fixture.deliver_to(&["bo@there.example"])), ["4.3.2"]);
    fixture.assert_finished();
}

#[test]
fn without_mx_the_domain_itself_is_tried_and_a_literal_is_connected_to() {
    let fixture =
        CourierFixture::new().with_peer("192.0.2.4:25", DIALOG_TO_BO).with_peer("192.0.2.9:25", DIALOG_TO_BO);
    assert_eq!(statuses(&fixture.deliver_to(&["bo@bare.example"])), ["2.0.0"]);
    assert_eq!(statuses(&fixture.deliver_to(&["bo@[192.0.2.9]"])), ["2.0.0"]);
    fixture.assert_finished();
}

#[test]
fn without_a_host_the_answer_of_dns_decides() {
    let fixture = CourierFixture::new();
    for (to, status) in [
        ("bo@null.example", "5.1.10"),
        ("bo@nowhere.example", "5.1.2"),
        ("bo@broken.example", "4.4.3"),
        ("bo@hostless.example", "5.4.4"),
        ("bo@maybe.example", "4.4.3"),
    ] {
        assert_eq!(statuses(&fixture.deliver_to(&[to])), [status], "{to}");
    }
    assert!(fixture.assert_finished().connected.is_empty());
}

#[test]
fn named_hosts_are_tried_instead_of_mx_hosts() {
    let fixture =
        CourierFixture::new().with_peer("192.0.2.2:2525", "! refuse").with_peer("192.0.2.9:25", DIALOG_TO_BO);
    let via = recipient_via("bo@null.example", "mx2.there.example:2525 192.0.2.9");
    assert_eq!(statuses(&fixture.deliver(&[via])), ["2.0.0"]);
    fixture.assert_finished();
}

#[test]
fn an_attempt_ends_by_its_deadline_although_a_peer_is_silent() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut fixture = CourierFixture::new();
    fixture.attempt_timeout = Duration::from_millis(300);
    let host = listener.local_addr().unwrap();
    let via = recipient_via("bo@one.example", &format!("{host} {host} {host}"));
    let began = SystemClock.now();
    let outcomes = fixture.deliver_with_dial(Arc::new(SystemConnector), &[via]);
    assert!(
        SystemClock.now().since(began) < Duration::from_secs(20),
        "the greeting alone may take five minutes"
    );
    assert_eq!(statuses(&outcomes), ["4.4.2"]);
    assert!(outcomes[0].reason().text.contains("broke off at the greeting: timed out"), "{}", outcomes[0]);
}

// The answers about each recipient.

#[test]
fn one_of_three_recipients_is_refused_and_the_others_get_the_message() {
    let script = format!(
        "{DIALOG_TO_EHLO}
        C: MAIL FROM:<ana@here.example>
        S: 250 ok
        C: RCPT TO:<bo@one.example>
        S: 250 ok
        C: RCPT TO:<cy@one.example>
        S: 550 5.1.1 no such mailbox
        C: RCPT TO:<di@one.example>
        S: 250 ok
        C: DATA
        S: 354 go
        ! message
        S: 250 2.0.0 ok {DIALOG_QUIT}"
    );
    let fixture = CourierFixture::new().with_peer(MX_ONE, &script);
    let outcomes = fixture.deliver_to(&["bo@one.example", "cy@one.example", "di@one.example"]);
    assert_eq!(statuses(&outcomes), ["2.0.0", "5.1.1", "2.0.0"]);
    assert_eq!(
        outcomes[1].reason().to_string(),
        "refused the recipient: mx.one.example said: 550 5.1.1 no such mailbox"
    );
    fixture.assert_finished();
}

#[test]
fn a_peer_with_pipelining_gets_the_group_before_it_answers() {
    let script = format!(
        "S: 220 mx
        C: EHLO here.example
        S: 250-mx|250-PIPELINING|250 SIZE 1000
        C: MAIL FROM:<ana@here.example> SIZE={}
        C: RCPT TO:<bo@one.example>
        C: RCPT TO:<cy@one.example>
        C: DATA
        S: 250 ok|552 5.5.3 too many|250 ok|354 go
        ! message
        S: 250 2.0.0 ok {DIALOG_QUIT}",
        MESSAGE.len()
    );
    let fixture = CourierFixture::new().with_peer(MX_ONE, &script);
    let outcomes = fixture.deliver_to(&["bo@one.example", "cy@one.example"]);
    assert_eq!(statuses(&outcomes), ["4.5.3", "2.0.0"], "552 to RCPT counts as 452");
    fixture.assert_finished();
}

#[test]
fn a_354_is_answered_by_a_dot_alone_if_all_recipients_were_refused() {
    let script = format!(
        "S: 220 mx
        C: EHLO here.example
        S: 250-mx|250 PIPELINING
        C: MAIL FROM:<ana@here.example>
        C: RCPT TO:<bo@one.example>
        C: DATA
        S: 250 ok|550 5.1.1 no|354 go
        C: .
        S: 250 ok {DIALOG_QUIT}"
    );
    let fixture = CourierFixture::new().with_peer(MX_ONE, &script);
    assert_eq!(statuses(&fixture.deliver_to(&["bo@one.example"])), ["5.1.1"]);
    fixture.assert_finished();
}

#[test]
fn a_recipient_deferred_by_one_host_is_not_tried_at_the_next_in_the_same_attempt() {
    let script = format!(
        "{DIALOG_TO_EHLO}
        C: MAIL FROM:<ana@here.example>
        S: 250 ok
        C: RCPT TO:<bo@there.example>
        S: 450 4.2.0 greylisted {DIALOG_QUIT}"
    );
    let fixture = CourierFixture::new().with_peer(MX1, &script);
    assert_eq!(statuses(&fixture.deliver_to(&["bo@there.example"])), ["4.2.0"]);
    fixture.assert_finished();
}

#[test]
fn after_a_421_or_a_lost_connection_before_the_dot_the_next_host_is_tried() {
    // Not after 354: then the dot may be on its way already.
    for end in ["S: 421 4.3.2 shutting down", "! close", "! silence", "S: this is not SMTP"] {
        let script = format!("{DIALOG_TO_EHLO} {DIALOG_MAIL_TO_DATA}\n{end}");
        let fixture = CourierFixture::new().with_peer(MX1, &script).with_peer(MX2, DIALOG_TO_BO);
        assert_eq!(statuses(&fixture.deliver_to(&["bo@there.example"])), ["2.0.0"], "{end}");
        fixture.assert_finished();
    }
}

#[test]
fn a_connection_lost_after_the_dot_is_transient_and_no_other_host_is_tried() {
    for end in ["! close", "! silence"] {
        let fixture = CourierFixture::new()
            .with_peer(MX1, &format!("{DIALOG_TO_EHLO} {DIALOG_MAIL_TO_DATA}\nS: 354 go\n! message\n{end}"));
        let outcomes = fixture.deliver_to(&["bo@there.example"]);
        assert_eq!(statuses(&outcomes), ["4.4.2"]);
        assert!(outcomes[0].reason().text.contains("the final dot"), "{}", outcomes[0]);
        fixture.assert_finished();
    }
}

#[test]
fn a_delivered_message_stays_delivered_whatever_follows_the_reply() {
    for end in ["! close", "C: QUIT\n! close", "C: QUIT\n! silence", "C: QUIT\nS: rubbish"] {
        let script =
            format!("{DIALOG_TO_EHLO} {DIALOG_MAIL_TO_DATA}\nS: 354 go\n! message\nS: 250 ok\n{end}");
        let fixture = CourierFixture::new().with_peer(MX_ONE, &script);
        assert_eq!(statuses(&fixture.deliver_to(&["bo@one.example"])), ["2.0.0"], "{end}");
        fixture.assert_finished();
    }
}

#[test]
fn a_5yz_reply_to_the_message_is_permanent() {
    let script = format!(
        "{DIALOG_TO_EHLO} {DIALOG_MAIL_TO_DATA}\nS: 354 go\n! message\nS: 554 5.6.0 spam {DIALOG_QUIT}"
    );
    let fixture = CourierFixture::new().with_peer(MX1, &script);
    assert_eq!(statuses(&fixture.deliver_to(&["bo@there.example"])), ["5.6.0"]);
    fixture.assert_finished();
}

#[test]
fn a_message_that_cannot_be_read_is_never_ended_with_a_dot() {
    for (declared_octets, has_read_error) in [(MESSAGE.len() as u64, true), (MESSAGE.len() as u64 + 1, false)]
    {
        let mut fixture = CourierFixture::new();
        fixture.dial.add_peer(MX1, &format!("{DIALOG_TO_EHLO} {DIALOG_MAIL_TO_DATA}\nS: 354 go\n! message"));
        fixture.message = TestMessage { declared_octets, has_read_error, ..TestMessage::new(MESSAGE) };
        let outcomes = fixture.deliver_to(&["bo@there.example"]);
        assert_eq!(statuses(&outcomes), ["4.3.0"], "{outcomes:?}");
        let log = fixture.dial.finish();
        assert_eq!(log.messages.len(), 0, "no message was ended");
        assert_eq!(log.open_connections, 0);
        assert_eq!(log.connected.len(), 1, "another host could not help");
    }
}

#[test]
fn a_large_message_is_streamed_and_arrives_whole() {
    let mut fixture = CourierFixture::new().with_peer(MX_ONE, DIALOG_TO_BO);
    let text = format!("Subject: long\r\n\r\n{}", ".line\r\n".repeat(100_000));
    fixture.message = TestMessage::new(&text);
    assert_eq!(statuses(&fixture.deliver_to(&["bo@one.example"])), ["2.0.0"]);
    let stuffed = text.replace("\r\n.", "\r\n..") + ".\r\n";
    assert!(fixture.assert_finished().messages == [stuffed.into_bytes()]);
}

// Extensions that a message needs.

#[test]
fn a_message_with_8_bit_octets_fails_at_a_peer_without_8bitmime() {
    let mut fixture = CourierFixture::new().with_peer(MX_ONE, &format!("{DIALOG_TO_EHLO} {DIALOG_QUIT}"));
    fixture.envelope.has_8bit = true;
    let outcomes = fixture.deliver_to(&["bo@one.example"]);
    assert_eq!(statuses(&outcomes), ["5.6.3"]);
    fixture.assert_finished();
}

#[test]
fn a_local_part_beyond_ascii_needs_smtputf8_and_fails_alone_without_it() {
    let fixture = CourierFixture::new().with_peer(MX_ONE, DIALOG_TO_BO);
    let outcomes = fixture.deliver_to(&["δοκιμή@one.example", "bo@one.example"]);
    assert_eq!(statuses(&outcomes), ["5.6.7", "2.0.0"]);
    fixture.assert_finished();
    let script = format!(
        "S: 220 mx
        C: EHLO here.example
        S: 250-mx|250-8BITMIME|250 SMTPUTF8
        C: MAIL FROM:<ana@here.example> SMTPUTF8
        S: 250 ok
        C: RCPT TO:<δοκιμή@one.example>
        S: 550 5.1.1 no {DIALOG_QUIT}"
    );
    let fixture = CourierFixture::new().with_peer(MX_ONE, &script);
    assert_eq!(statuses(&fixture.deliver_to(&["δοκιμή@one.example"])), ["5.1.1"]);
    fixture.assert_finished();
}

#[test]
fn a_host_that_lacks_an_extension_is_skipped_for_one_that_has_it() {
    let bare = format!("{DIALOG_TO_EHLO} {DIALOG_QUIT}");
    let able = DIALOG_TO_BO
        .replace("S: 250 mx", "S: 250-mx|250-8BITMIME|250 SMTPUTF8")
        .replace("MAIL FROM:<ana@here.example>", "MAIL FROM:<ana@here.example> BODY=8BITMIME SMTPUTF8");
    for (message, status) in
        [("Subject: hi\r\n\r\ngrüße\r\n", "5.6.3"), ("Subject: grüße\r\n\r\nhi\r\n", "5.6.7")]
    {
        let fixture = || {
            let mut fixture = CourierFixture::new().with_peer(MX1, &bare);
            (fixture.envelope.has_8bit, fixture.envelope.smtputf8) = (true, true);
            fixture.message = TestMessage::new(message);
            fixture
        };
        let able = if status == "5.6.3" { able.replace(" SMTPUTF8\n", "\n") } else { able.clone() };
        let one_has_it = fixture().with_peer(MX2, &able);
        assert_eq!(statuses(&one_has_it.deliver_to(&["bo@there.example"])), ["2.0.0"], "{message}");
        one_has_it.assert_finished();
        let none_has_it = fixture().with_peer(MX2, &bare);
        let outcomes = none_has_it.deliver_to(&["bo@there.example"]);
        assert_eq!(statuses(&outcomes), [status], "{message}");
        assert!(outcomes[0].reason().text.contains("mx2.there.example"), "{}", outcomes[0]);
        none_has_it.assert_finished();
        let no_other_answers = fixture().with_peer(MX2, "! refuse");
        assert_eq!(statuses(&no_other_answers.deliver_to(&["bo@there.example"])), ["4.4.1"], "{message}");
        no_other_answers.assert_finished();
    }
}

#[test]
fn a_recipient_that_needs_smtputf8_goes_alone_to_the_host_that_offers_it() {
    let able = DIALOG_TO_BO
        .replace("S: 250 mx", "S: 250-mx|250-8BITMIME|250 SMTPUTF8")
        .replace("MAIL FROM:<ana@here.example>", "MAIL FROM:<ana@here.example> SMTPUTF8")
        .replace("<bo@*", "<δοκιμή@there.example>");
    let fixture = CourierFixture::new().with_peer(MX1, DIALOG_TO_BO).with_peer(MX2, &able);
    let outcomes = fixture.deliver_to(&["δοκιμή@there.example", "bo@there.example"]);
    assert_eq!(statuses(&outcomes), ["2.0.0"; 2]);
    fixture.assert_finished();
}

#[test]
fn a_host_that_lacks_an_extension_is_not_tried_at_its_other_address() {
    for first in ["! refuse", ""] {
        let bare = format!("{DIALOG_TO_EHLO} {DIALOG_QUIT}");
        let mut fixture = CourierFixture::new();
        fixture.envelope.has_8bit = true;
        if first.is_empty() {
            fixture.dial.add_peer("[2001:db8::5]:25", &bare);
        } else {
            fixture.dial.add_peer("[2001:db8::5]:25", first);
            fixture.dial.add_peer("192.0.2.5:25", &bare);
        }
        assert_eq!(statuses(&fixture.deliver_to(&["bo@twice.example"])), ["5.6.3"], "{first}");
        fixture.assert_finished();
    }
}

#[test]
fn a_domain_beyond_ascii_is_sent_in_a_labels() {
    let fixture =
        CourierFixture::new().with_peer(MX_ONE, &DIALOG_TO_BO.replace("<bo@*", "<bo@xn--bcher-kva.example>"));
    assert_eq!(statuses(&fixture.deliver_to(&["bo@bücher.example"])), ["2.0.0"]);
    fixture.assert_finished();
}

#[test]
fn a_header_in_utf8_needs_smtputf8_and_a_body_does_not() {
    let mut fixture = CourierFixture::new().with_peer(MX_ONE, &format!("{DIALOG_TO_EHLO} {DIALOG_QUIT}"));
    (fixture.envelope.smtputf8, fixture.envelope.has_8bit) = (true, true);
    fixture.message = TestMessage::new("Subject: grüße\r\n\r\nhi\r\n");
    assert_eq!(statuses(&fixture.deliver_to(&["bo@one.example"])), ["5.6.7"]);
    fixture.assert_finished();
    let script = DIALOG_TO_BO
        .replace("S: 250 mx", "S: 250-mx|250 8BITMIME")
        .replace("MAIL FROM:<ana@here.example>", "MAIL FROM:<ana@here.example> BODY=8BITMIME");
    fixture.dial.add_peer(MX_ONE, &script);
    fixture.message = TestMessage::new("Subject: hi\r\n\r\ngrüße\r\n");
    assert_eq!(statuses(&fixture.deliver_to(&["bo@one.example"])), ["2.0.0"]);
    fixture.assert_finished();
}

// The name in EHLO.

#[test]
fn the_hello_name_is_a_local_domain_or_the_host() {
    use HelloMode::{Hostname, SenderDomain};
    for (mode, sender, name) in [
        (SenderDomain, "ana@here.example", "here.example"),
        (SenderDomain, "ana@bücher.here.example", "xn--bcher-kva.here.example"),
        (SenderDomain, "eve@elsewhere.example", "mail.here.example"),
        (SenderDomain, "root@localhost", "mail.here.example"),
        (SenderDomain, "", "mail.here.example"),
        (Hostname, "ana@here.example", "mail.here.example"),
    ] {
        let mut fixture = CourierFixture::new().with_sender(sender);
        fixture.settings.hello_mode = mode;
        fixture
            .dial
            .add_peer(MX_ONE, &format!("S: 220 mx\nC: EHLO {name}\nS: 451 4.3.0 later {DIALOG_QUIT}"));
        assert_eq!(statuses(&fixture.deliver_to(&["bo@one.example"])), ["4.3.0"], "{sender}");
        fixture.assert_finished();
    }
}

#[test]
fn the_hello_name_stays_the_same_in_every_retry_of_tls() {
    let broken = format!("{DIALOG_TO_STARTTLS}\nS: 220 go\n! garbage");
    let fixture = CourierFixture::new()
        .with_self_signed_certificate("own", "mx.one.example")
        .with_peer(MX_ONE, &broken);
    if cfg!(feature = "legacy-tls") {
        fixture.dial.add_peer(MX_ONE, &broken);
    }
    fixture.dial.add_peer(MX_ONE, DIALOG_TO_BO);
    assert_eq!(statuses(&fixture.deliver_to(&["bo@one.example"])), ["2.0.0"]);
    fixture.assert_finished();
}

#[test]
fn the_trace_has_every_step_of_the_attempt() {
    let fixture = CourierFixture::new()
        .with_self_signed_certificate("own", "mx.one.example")
        .with_peer(MX_ONE, &dialog_over_tls("own"));
    fixture.deliver_to(&["bo@one.example"]);
    let trace: Vec<_> = fixture.traces.list().remove(0).events.into_iter().map(|event| event.text).collect();
    for words in [
        "hosts of one.example: mx.one.example",
        "connecting to mx.one.example [192.0.2.3]:25",
        "< 220 mx",
        "> STARTTLS",
        "TLSv1.3 TLS_AES_256_GCM_SHA384; tls-unverified: ",
        "> MAIL FROM:<ana@here.example>",
        "< 250 2.0.0 queued as 4711",
        "> QUIT",
    ] {
        assert!(trace.iter().any(|text| text.starts_with(words)), "{words} in {trace:#?}");
    }
    fixture.assert_finished();
}
