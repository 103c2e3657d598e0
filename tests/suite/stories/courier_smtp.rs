//! One attempt of the SMTP courier, against peers that follow a script.

use std::sync::Arc;
use std::time::Duration;

use postrider::courier::smtp::HelloMode;
use postrider::sys::{Clock as _, SystemClock, SystemConnector};

use crate::courier_fixture::{
    CourierFixture, DIALOG_MAIL_TO_DATA, DIALOG_QUIT, DIALOG_TO_BO, DIALOG_TO_EHLO, DIALOG_TO_STARTTLS,
    MESSAGE, MX_ONE, MX1, MX2, TestMessage, dialog_over_tls, recipient_via, statuses,
};

// From host to host.

#[test]
fn a_letter_goes_to_the_first_mx_host_dot_stuffed_and_ends_with_quit() {
    let world = CourierFixture::new().with_peer(MX1, DIALOG_TO_BO);
    let outcomes = world.deliver_to(&["bo@there.example"]);
    assert_eq!(statuses(&outcomes), ["2.0.0"]);
    assert_eq!(
        outcomes[0].reason().to_string(),
        "accepted: mx1.there.example said: 250 2.0.0 queued as 4711"
    );
    let heard = world.assert_finished();
    assert_eq!(heard.messages, [b"Subject: hello\r\n\r\nDear Bo,\r\n..dot\r\n.\r\n"]);
}

#[test]
fn hosts_are_asked_in_order_until_one_answers() {
    let world = CourierFixture::new().with_peer(MX1, "! refuse").with_peer(MX2, DIALOG_TO_BO);
    assert_eq!(statuses(&world.deliver_to(&["bo@there.example"])), ["2.0.0"]);
    let dialled: Vec<_> = world.assert_finished().connected.iter().map(ToString::to_string).collect();
    assert_eq!(dialled, [MX1, MX2]);
}

#[test]
fn when_no_host_can_be_reached_the_reason_says_which_and_why() {
    let world = CourierFixture::new().with_peer(MX1, "! refuse").with_peer(MX2, "! refuse");
    let outcomes = world.deliver_to(&["bo@there.example"]);
    assert_eq!(
        outcomes[0].to_string(),
        "4.4.1 no connection to mx2.there.example [192.0.2.2]:25: connection refused"
    );
    world.assert_finished();
}

#[test]
fn a_5yz_greeting_moves_on_to_the_next_host_and_is_transient_at_the_end() {
    let refusal = format!("S: 554 5.3.2 go away {DIALOG_QUIT}");
    let world = CourierFixture::new().with_peer(MX1, &refusal).with_peer(MX2, DIALOG_TO_BO);
    assert_eq!(statuses(&world.deliver_to(&["bo@there.example"])), ["2.0.0"]);
    world.assert_finished();
    let world = CourierFixture::new().with_peer(MX_ONE, &refusal);
    let outcomes = world.deliver_to(&["bo@one.example"]);
    assert_eq!(outcomes[0].to_string(), "4.3.2 refused the session: mx.one.example said: 554 5.3.2 go away");
    world.assert_finished();
}

#[test]
fn what_a_host_said_before_outweighs_that_the_next_cannot_be_reached() {
    let world = CourierFixture::new()
        .with_peer(MX1, &format!("S: 450 4.3.2 later {DIALOG_QUIT}"))
        .with_peer(MX2, "! refuse");
    assert_eq!(statuses(&world.deliver_to(&["bo@there.example"])), ["4.3.2"]);
    world.assert_finished();
}

#[test]
fn without_mx_the_domain_itself_is_asked_and_a_literal_is_dialled() {
    let world =
        CourierFixture::new().with_peer("192.0.2.4:25", DIALOG_TO_BO).with_peer("192.0.2.9:25", DIALOG_TO_BO);
    assert_eq!(statuses(&world.deliver_to(&["bo@bare.example"])), ["2.0.0"]);
    assert_eq!(statuses(&world.deliver_to(&["bo@[192.0.2.9]"])), ["2.0.0"]);
    world.assert_finished();
}

#[test]
fn dns_decides_when_there_is_nobody_to_ask() {
    let world = CourierFixture::new();
    for (to, status) in [
        ("bo@null.example", "5.1.10"),
        ("bo@nowhere.example", "5.1.2"),
        ("bo@broken.example", "4.4.3"),
        ("bo@hostless.example", "5.4.4"),
        ("bo@maybe.example", "4.4.3"),
    ] {
        assert_eq!(statuses(&world.deliver_to(&[to])), [status], "{to}");
    }
    assert!(world.assert_finished().connected.is_empty());
}

#[test]
fn named_hosts_are_asked_instead_of_mx_hosts() {
    let world =
        CourierFixture::new().with_peer("192.0.2.2:2525", "! refuse").with_peer("192.0.2.9:25", DIALOG_TO_BO);
    let via = recipient_via("bo@null.example", "mx2.there.example:2525 192.0.2.9");
    assert_eq!(statuses(&world.deliver(&[via])), ["2.0.0"]);
    world.assert_finished();
}

#[test]
fn an_attempt_is_back_by_its_deadline_although_a_peer_says_nothing() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut world = CourierFixture::new();
    world.attempt_timeout = Duration::from_millis(300);
    let host = listener.local_addr().unwrap();
    let via = recipient_via("bo@one.example", &format!("{host} {host} {host}"));
    let began = SystemClock.now();
    let outcomes = world.deliver_with_dial(Arc::new(SystemConnector), &[via]);
    assert!(
        SystemClock.now().since(began) < Duration::from_secs(20),
        "the greeting alone may take five minutes"
    );
    assert_eq!(statuses(&outcomes), ["4.4.2"]);
    assert!(outcomes[0].reason().text.contains("broke off at the greeting: timed out"), "{}", outcomes[0]);
}

// What a host says of each recipient.

#[test]
fn one_of_three_recipients_is_refused_and_the_others_get_their_letter() {
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
    let world = CourierFixture::new().with_peer(MX_ONE, &script);
    let outcomes = world.deliver_to(&["bo@one.example", "cy@one.example", "di@one.example"]);
    assert_eq!(statuses(&outcomes), ["2.0.0", "5.1.1", "2.0.0"]);
    assert_eq!(
        outcomes[1].reason().to_string(),
        "refused the recipient: mx.one.example said: 550 5.1.1 no such mailbox"
    );
    world.assert_finished();
}

#[test]
fn a_peer_with_pipelining_hears_the_group_before_it_answers() {
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
    let world = CourierFixture::new().with_peer(MX_ONE, &script);
    let outcomes = world.deliver_to(&["bo@one.example", "cy@one.example"]);
    assert_eq!(statuses(&outcomes), ["4.5.3", "2.0.0"], "552 to RCPT counts as 452");
    world.assert_finished();
}

#[test]
fn when_all_are_refused_a_354_is_answered_by_a_lone_dot() {
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
    let world = CourierFixture::new().with_peer(MX_ONE, &script);
    assert_eq!(statuses(&world.deliver_to(&["bo@one.example"])), ["5.1.1"]);
    world.assert_finished();
}

#[test]
fn a_recipient_put_off_by_one_host_is_not_carried_to_the_next_in_the_same_attempt() {
    let script = format!(
        "{DIALOG_TO_EHLO}
        C: MAIL FROM:<ana@here.example>
        S: 250 ok
        C: RCPT TO:<bo@there.example>
        S: 450 4.2.0 greylisted {DIALOG_QUIT}"
    );
    let world = CourierFixture::new().with_peer(MX1, &script);
    assert_eq!(statuses(&world.deliver_to(&["bo@there.example"])), ["4.2.0"]);
    world.assert_finished();
}

#[test]
fn a_421_or_a_lost_connection_before_the_dot_goes_on_to_the_next_host() {
    // Not after 354: then the dot may be on its way already.
    for end in ["S: 421 4.3.2 shutting down", "! close", "! silence", "S: this is not SMTP"] {
        let script = format!("{DIALOG_TO_EHLO} {DIALOG_MAIL_TO_DATA}\n{end}");
        let world = CourierFixture::new().with_peer(MX1, &script).with_peer(MX2, DIALOG_TO_BO);
        assert_eq!(statuses(&world.deliver_to(&["bo@there.example"])), ["2.0.0"], "{end}");
        world.assert_finished();
    }
}

#[test]
fn a_connection_lost_after_the_dot_is_transient_and_no_other_host_is_asked() {
    for end in ["! close", "! silence"] {
        let world = CourierFixture::new()
            .with_peer(MX1, &format!("{DIALOG_TO_EHLO} {DIALOG_MAIL_TO_DATA}\nS: 354 go\n! message\n{end}"));
        let outcomes = world.deliver_to(&["bo@there.example"]);
        assert_eq!(statuses(&outcomes), ["4.4.2"]);
        assert!(outcomes[0].reason().text.contains("the final dot"), "{}", outcomes[0]);
        world.assert_finished();
    }
}

#[test]
fn a_delivered_letter_stays_delivered_whatever_happens_to_the_goodbye() {
    for end in ["! close", "C: QUIT\n! close", "C: QUIT\n! silence", "C: QUIT\nS: rubbish"] {
        let script =
            format!("{DIALOG_TO_EHLO} {DIALOG_MAIL_TO_DATA}\nS: 354 go\n! message\nS: 250 ok\n{end}");
        let world = CourierFixture::new().with_peer(MX_ONE, &script);
        assert_eq!(statuses(&world.deliver_to(&["bo@one.example"])), ["2.0.0"], "{end}");
        world.assert_finished();
    }
}

#[test]
fn a_5yz_to_the_dot_is_permanent() {
    let script = format!(
        "{DIALOG_TO_EHLO} {DIALOG_MAIL_TO_DATA}\nS: 354 go\n! message\nS: 554 5.6.0 spam {DIALOG_QUIT}"
    );
    let world = CourierFixture::new().with_peer(MX1, &script);
    assert_eq!(statuses(&world.deliver_to(&["bo@there.example"])), ["5.6.0"]);
    world.assert_finished();
}

#[test]
fn a_message_that_cannot_be_read_is_never_ended_with_a_dot() {
    for (claimed, breaks_off) in [(MESSAGE.len() as u64, true), (MESSAGE.len() as u64 + 1, false)] {
        let mut world = CourierFixture::new();
        world.dial.add_peer(MX1, &format!("{DIALOG_TO_EHLO} {DIALOG_MAIL_TO_DATA}\nS: 354 go\n! message"));
        world.message =
            TestMessage { declared_octets: claimed, has_read_error: breaks_off, ..TestMessage::new(MESSAGE) };
        let outcomes = world.deliver_to(&["bo@there.example"]);
        assert_eq!(statuses(&outcomes), ["4.3.0"], "{outcomes:?}");
        let heard = world.dial.finish();
        assert_eq!(heard.messages.len(), 0, "no end was seen");
        assert_eq!(heard.open_connections, 0);
        assert_eq!(heard.connected.len(), 1, "another host could not help");
    }
}

#[test]
fn a_large_message_is_streamed_and_arrives_whole() {
    let mut world = CourierFixture::new().with_peer(MX_ONE, DIALOG_TO_BO);
    let text = format!("Subject: long\r\n\r\n{}", ".line\r\n".repeat(100_000));
    world.message = TestMessage::new(&text);
    assert_eq!(statuses(&world.deliver_to(&["bo@one.example"])), ["2.0.0"]);
    let stuffed = text.replace("\r\n.", "\r\n..") + ".\r\n";
    assert!(world.assert_finished().messages == [stuffed.into_bytes()]);
}

// What a host can take.

#[test]
fn a_message_with_8_bit_octets_fails_at_a_peer_without_8bitmime() {
    let mut world = CourierFixture::new().with_peer(MX_ONE, &format!("{DIALOG_TO_EHLO} {DIALOG_QUIT}"));
    world.envelope.has_8bit = true;
    let outcomes = world.deliver_to(&["bo@one.example"]);
    assert_eq!(statuses(&outcomes), ["5.6.3"]);
    world.assert_finished();
}

#[test]
fn a_local_part_beyond_ascii_needs_smtputf8_and_fails_alone_without_it() {
    let world = CourierFixture::new().with_peer(MX_ONE, DIALOG_TO_BO);
    let outcomes = world.deliver_to(&["δοκιμή@one.example", "bo@one.example"]);
    assert_eq!(statuses(&outcomes), ["5.6.7", "2.0.0"]);
    world.assert_finished();
    let script = format!(
        "S: 220 mx
        C: EHLO here.example
        S: 250-mx|250-8BITMIME|250 SMTPUTF8
        C: MAIL FROM:<ana@here.example> SMTPUTF8
        S: 250 ok
        C: RCPT TO:<δοκιμή@one.example>
        S: 550 5.1.1 no {DIALOG_QUIT}"
    );
    let world = CourierFixture::new().with_peer(MX_ONE, &script);
    assert_eq!(statuses(&world.deliver_to(&["δοκιμή@one.example"])), ["5.1.1"]);
    world.assert_finished();
}

#[test]
fn a_host_that_lacks_an_extension_is_passed_over_for_one_that_has_it() {
    let bare = format!("{DIALOG_TO_EHLO} {DIALOG_QUIT}");
    let able = DIALOG_TO_BO
        .replace("S: 250 mx", "S: 250-mx|250-8BITMIME|250 SMTPUTF8")
        .replace("MAIL FROM:<ana@here.example>", "MAIL FROM:<ana@here.example> BODY=8BITMIME SMTPUTF8");
    for (letter, status) in
        [("Subject: hi\r\n\r\ngrüße\r\n", "5.6.3"), ("Subject: grüße\r\n\r\nhi\r\n", "5.6.7")]
    {
        let world = || {
            let mut world = CourierFixture::new().with_peer(MX1, &bare);
            (world.envelope.has_8bit, world.envelope.smtputf8) = (true, true);
            world.message = TestMessage::new(letter);
            world
        };
        let able = if status == "5.6.3" { able.replace(" SMTPUTF8\n", "\n") } else { able.clone() };
        let one_has_it = world().with_peer(MX2, &able);
        assert_eq!(statuses(&one_has_it.deliver_to(&["bo@there.example"])), ["2.0.0"], "{letter}");
        one_has_it.assert_finished();
        let none_has_it = world().with_peer(MX2, &bare);
        let outcomes = none_has_it.deliver_to(&["bo@there.example"]);
        assert_eq!(statuses(&outcomes), [status], "{letter}");
        assert!(outcomes[0].reason().text.contains("mx2.there.example"), "{}", outcomes[0]);
        none_has_it.assert_finished();
        let nobody_knows = world().with_peer(MX2, "! refuse");
        assert_eq!(statuses(&nobody_knows.deliver_to(&["bo@there.example"])), ["4.4.1"], "{letter}");
        nobody_knows.assert_finished();
    }
}

#[test]
fn a_recipient_that_needs_smtputf8_goes_on_alone_to_the_host_that_has_it() {
    let able = DIALOG_TO_BO
        .replace("S: 250 mx", "S: 250-mx|250-8BITMIME|250 SMTPUTF8")
        .replace("MAIL FROM:<ana@here.example>", "MAIL FROM:<ana@here.example> SMTPUTF8")
        .replace("<bo@*", "<δοκιμή@there.example>");
    let world = CourierFixture::new().with_peer(MX1, DIALOG_TO_BO).with_peer(MX2, &able);
    let outcomes = world.deliver_to(&["δοκιμή@there.example", "bo@there.example"]);
    assert_eq!(statuses(&outcomes), ["2.0.0"; 2]);
    world.assert_finished();
}

#[test]
fn what_a_host_lacks_is_not_asked_for_again_at_its_other_address() {
    for first in ["! refuse", ""] {
        let bare = format!("{DIALOG_TO_EHLO} {DIALOG_QUIT}");
        let mut world = CourierFixture::new();
        world.envelope.has_8bit = true;
        if first.is_empty() {
            world.dial.add_peer("[2001:db8::5]:25", &bare);
        } else {
            world.dial.add_peer("[2001:db8::5]:25", first);
            world.dial.add_peer("192.0.2.5:25", &bare);
        }
        assert_eq!(statuses(&world.deliver_to(&["bo@twice.example"])), ["5.6.3"], "{first}");
        world.assert_finished();
    }
}

#[test]
fn a_domain_beyond_ascii_goes_out_in_a_labels() {
    let world =
        CourierFixture::new().with_peer(MX_ONE, &DIALOG_TO_BO.replace("<bo@*", "<bo@xn--bcher-kva.example>"));
    assert_eq!(statuses(&world.deliver_to(&["bo@bücher.example"])), ["2.0.0"]);
    world.assert_finished();
}

#[test]
fn a_header_in_utf8_needs_smtputf8_and_a_body_does_not() {
    let mut world = CourierFixture::new().with_peer(MX_ONE, &format!("{DIALOG_TO_EHLO} {DIALOG_QUIT}"));
    (world.envelope.smtputf8, world.envelope.has_8bit) = (true, true);
    world.message = TestMessage::new("Subject: grüße\r\n\r\nhi\r\n");
    assert_eq!(statuses(&world.deliver_to(&["bo@one.example"])), ["5.6.7"]);
    world.assert_finished();
    let script = DIALOG_TO_BO
        .replace("S: 250 mx", "S: 250-mx|250 8BITMIME")
        .replace("MAIL FROM:<ana@here.example>", "MAIL FROM:<ana@here.example> BODY=8BITMIME");
    world.dial.add_peer(MX_ONE, &script);
    world.message = TestMessage::new("Subject: hi\r\n\r\ngrüße\r\n");
    assert_eq!(statuses(&world.deliver_to(&["bo@one.example"])), ["2.0.0"]);
    world.assert_finished();
}

// The name in EHLO.

#[test]
fn the_hello_name_is_a_domain_of_ours_or_the_host() {
    use HelloMode::{Hostname, SenderDomain};
    for (mode, sender, name) in [
        (SenderDomain, "ana@here.example", "here.example"),
        (SenderDomain, "ana@bücher.here.example", "xn--bcher-kva.here.example"),
        (SenderDomain, "eve@elsewhere.example", "mail.here.example"),
        (SenderDomain, "root@localhost", "mail.here.example"),
        (SenderDomain, "", "mail.here.example"),
        (Hostname, "ana@here.example", "mail.here.example"),
    ] {
        let mut world = CourierFixture::new().with_sender(sender);
        world.settings.hello_mode = mode;
        world.dial.add_peer(MX_ONE, &format!("S: 220 mx\nC: EHLO {name}\nS: 451 4.3.0 later {DIALOG_QUIT}"));
        assert_eq!(statuses(&world.deliver_to(&["bo@one.example"])), ["4.3.0"], "{sender}");
        world.assert_finished();
    }
}

#[test]
fn the_hello_name_stays_the_same_in_every_retry_of_tls() {
    let broken = format!("{DIALOG_TO_STARTTLS}\nS: 220 go\n! garbage");
    let world = CourierFixture::new()
        .with_self_signed_certificate("own", "mx.one.example")
        .with_peer(MX_ONE, &broken);
    if cfg!(feature = "legacy-tls") {
        world.dial.add_peer(MX_ONE, &broken);
    }
    world.dial.add_peer(MX_ONE, DIALOG_TO_BO);
    assert_eq!(statuses(&world.deliver_to(&["bo@one.example"])), ["2.0.0"]);
    world.assert_finished();
}

#[test]
fn the_trace_tells_the_whole_story() {
    let world = CourierFixture::new()
        .with_self_signed_certificate("own", "mx.one.example")
        .with_peer(MX_ONE, &dialog_over_tls("own"));
    world.deliver_to(&["bo@one.example"]);
    let told: Vec<_> = world.traces.list().remove(0).events.into_iter().map(|event| event.text).collect();
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
        assert!(told.iter().any(|text| text.starts_with(words)), "{words} in {told:#?}");
    }
    world.assert_finished();
}
