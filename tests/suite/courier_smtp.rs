//! One attempt of the SMTP courier, against peers that follow a script.

use std::sync::Arc;
use std::time::Duration;

use postrider::courier::smtp::HelloMode;
use postrider::sys::{Clock as _, SystemClock, SystemDial};

use crate::courier_world::{
    BO_TO_DATA, GOODBYE, GREETING, LETTER, LETTER_TO_BO, Letter, MX1, MX2, ONE, TO_STARTTLS, World,
    encrypted, statuses, via,
};

// From host to host.

#[test]
fn a_letter_goes_to_the_first_mx_host_dot_stuffed_and_ends_with_quit() {
    let world = World::new().peer(MX1, LETTER_TO_BO);
    let outcomes = world.to(&["bo@there.example"]);
    assert_eq!(statuses(&outcomes), ["2.0.0"]);
    assert_eq!(
        outcomes[0].reason().to_string(),
        "accepted: mx1.there.example said: 250 2.0.0 queued as 4711"
    );
    let heard = world.over();
    assert_eq!(heard.messages, [b"Subject: hello\r\n\r\nDear Bo,\r\n..dot\r\n.\r\n"]);
}

#[test]
fn hosts_are_asked_in_order_until_one_answers() {
    let world = World::new().peer(MX1, "! refuse").peer(MX2, LETTER_TO_BO);
    assert_eq!(statuses(&world.to(&["bo@there.example"])), ["2.0.0"]);
    let dialled: Vec<_> = world.over().dialled.iter().map(ToString::to_string).collect();
    assert_eq!(dialled, [MX1, MX2]);
}

#[test]
fn when_no_host_can_be_reached_the_reason_says_which_and_why() {
    let world = World::new().peer(MX1, "! refuse").peer(MX2, "! refuse");
    let outcomes = world.to(&["bo@there.example"]);
    assert_eq!(
        outcomes[0].to_string(),
        "4.4.1 no connection to mx2.there.example [192.0.2.2]:25: connection refused"
    );
    world.over();
}

#[test]
fn a_5yz_greeting_moves_on_to_the_next_host_and_is_transient_at_the_end() {
    let refusal = format!("S: 554 5.3.2 go away {GOODBYE}");
    let world = World::new().peer(MX1, &refusal).peer(MX2, LETTER_TO_BO);
    assert_eq!(statuses(&world.to(&["bo@there.example"])), ["2.0.0"]);
    world.over();
    let world = World::new().peer(ONE, &refusal);
    let outcomes = world.to(&["bo@one.example"]);
    assert_eq!(outcomes[0].to_string(), "4.3.2 refused the session: mx.one.example said: 554 5.3.2 go away");
    world.over();
}

#[test]
fn what_a_host_said_before_outweighs_that_the_next_cannot_be_reached() {
    let world = World::new().peer(MX1, &format!("S: 450 4.3.2 later {GOODBYE}")).peer(MX2, "! refuse");
    assert_eq!(statuses(&world.to(&["bo@there.example"])), ["4.3.2"]);
    world.over();
}

#[test]
fn without_mx_the_domain_itself_is_asked_and_a_literal_is_dialled() {
    let world = World::new().peer("192.0.2.4:25", LETTER_TO_BO).peer("192.0.2.9:25", LETTER_TO_BO);
    assert_eq!(statuses(&world.to(&["bo@bare.example"])), ["2.0.0"]);
    assert_eq!(statuses(&world.to(&["bo@[192.0.2.9]"])), ["2.0.0"]);
    world.over();
}

#[test]
fn dns_decides_when_there_is_nobody_to_ask() {
    let world = World::new();
    for (to, status) in [
        ("bo@null.example", "5.1.10"),
        ("bo@nowhere.example", "5.1.2"),
        ("bo@broken.example", "4.4.3"),
        ("bo@hostless.example", "5.4.4"),
        ("bo@maybe.example", "4.4.3"),
    ] {
        assert_eq!(statuses(&world.to(&[to])), [status], "{to}");
    }
    assert!(world.over().dialled.is_empty());
}

#[test]
fn named_hosts_are_asked_instead_of_mx_hosts() {
    let world = World::new().peer("192.0.2.2:2525", "! refuse").peer("192.0.2.9:25", LETTER_TO_BO);
    let via = via("bo@null.example", "mx2.there.example:2525 192.0.2.9");
    assert_eq!(statuses(&world.carry(&[via])), ["2.0.0"]);
    world.over();
}

#[test]
fn an_attempt_is_back_by_its_deadline_although_a_peer_says_nothing() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut world = World::new();
    world.patience = Duration::from_millis(300);
    let host = listener.local_addr().unwrap();
    let via = via("bo@one.example", &format!("{host} {host} {host}"));
    let began = SystemClock.now();
    let outcomes = world.carry_by(Arc::new(SystemDial), &[via]);
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
        "{GREETING}
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
        S: 250 2.0.0 ok {GOODBYE}"
    );
    let world = World::new().peer(ONE, &script);
    let outcomes = world.to(&["bo@one.example", "cy@one.example", "di@one.example"]);
    assert_eq!(statuses(&outcomes), ["2.0.0", "5.1.1", "2.0.0"]);
    assert_eq!(
        outcomes[1].reason().to_string(),
        "refused the recipient: mx.one.example said: 550 5.1.1 no such mailbox"
    );
    world.over();
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
        S: 250 2.0.0 ok {GOODBYE}",
        LETTER.len()
    );
    let world = World::new().peer(ONE, &script);
    let outcomes = world.to(&["bo@one.example", "cy@one.example"]);
    assert_eq!(statuses(&outcomes), ["4.5.3", "2.0.0"], "552 to RCPT counts as 452");
    world.over();
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
        S: 250 ok {GOODBYE}"
    );
    let world = World::new().peer(ONE, &script);
    assert_eq!(statuses(&world.to(&["bo@one.example"])), ["5.1.1"]);
    world.over();
}

#[test]
fn a_recipient_put_off_by_one_host_is_not_carried_to_the_next_in_the_same_attempt() {
    let script = format!(
        "{GREETING}
        C: MAIL FROM:<ana@here.example>
        S: 250 ok
        C: RCPT TO:<bo@there.example>
        S: 450 4.2.0 greylisted {GOODBYE}"
    );
    let world = World::new().peer(MX1, &script);
    assert_eq!(statuses(&world.to(&["bo@there.example"])), ["4.2.0"]);
    world.over();
}

#[test]
fn a_421_or_a_lost_connection_before_the_dot_goes_on_to_the_next_host() {
    // Not after 354: then the dot may be on its way already.
    for end in ["S: 421 4.3.2 shutting down", "! close", "! silence", "S: this is not SMTP"] {
        let script = format!("{GREETING} {BO_TO_DATA}\n{end}");
        let world = World::new().peer(MX1, &script).peer(MX2, LETTER_TO_BO);
        assert_eq!(statuses(&world.to(&["bo@there.example"])), ["2.0.0"], "{end}");
        world.over();
    }
}

#[test]
fn a_connection_lost_after_the_dot_is_transient_and_no_other_host_is_asked() {
    for end in ["! close", "! silence"] {
        let world = World::new().peer(MX1, &format!("{GREETING} {BO_TO_DATA}\nS: 354 go\n! message\n{end}"));
        let outcomes = world.to(&["bo@there.example"]);
        assert_eq!(statuses(&outcomes), ["4.4.2"]);
        assert!(outcomes[0].reason().text.contains("the final dot"), "{}", outcomes[0]);
        world.over();
    }
}

#[test]
fn a_delivered_letter_stays_delivered_whatever_happens_to_the_goodbye() {
    for end in ["! close", "C: QUIT\n! close", "C: QUIT\n! silence", "C: QUIT\nS: rubbish"] {
        let script = format!("{GREETING} {BO_TO_DATA}\nS: 354 go\n! message\nS: 250 ok\n{end}");
        let world = World::new().peer(ONE, &script);
        assert_eq!(statuses(&world.to(&["bo@one.example"])), ["2.0.0"], "{end}");
        world.over();
    }
}

#[test]
fn a_5yz_to_the_dot_is_permanent() {
    let script = format!("{GREETING} {BO_TO_DATA}\nS: 354 go\n! message\nS: 554 5.6.0 spam {GOODBYE}");
    let world = World::new().peer(MX1, &script);
    assert_eq!(statuses(&world.to(&["bo@there.example"])), ["5.6.0"]);
    world.over();
}

#[test]
fn a_message_that_cannot_be_read_is_never_ended_with_a_dot() {
    for (claimed, breaks_off) in [(LETTER.len() as u64, true), (LETTER.len() as u64 + 1, false)] {
        let mut world = World::new();
        world.dial.peer(MX1, &format!("{GREETING} {BO_TO_DATA}\nS: 354 go\n! message"));
        world.letter = Letter { claimed, breaks_off, ..Letter::new(LETTER) };
        let outcomes = world.to(&["bo@there.example"]);
        assert_eq!(statuses(&outcomes), ["4.3.0"], "{outcomes:?}");
        let heard = world.dial.finish();
        assert_eq!(heard.messages.len(), 0, "no end was seen");
        assert_eq!(heard.open, 0);
        assert_eq!(heard.dialled.len(), 1, "another host could not help");
    }
}

#[test]
fn a_large_message_is_streamed_and_arrives_whole() {
    let mut world = World::new().peer(ONE, LETTER_TO_BO);
    let text = format!("Subject: long\r\n\r\n{}", ".line\r\n".repeat(100_000));
    world.letter = Letter::new(&text);
    assert_eq!(statuses(&world.to(&["bo@one.example"])), ["2.0.0"]);
    let stuffed = text.replace("\r\n.", "\r\n..") + ".\r\n";
    assert!(world.over().messages == [stuffed.into_bytes()]);
}

// What a host can take.

#[test]
fn a_message_with_8_bit_octets_fails_at_a_peer_without_8bitmime() {
    let mut world = World::new().peer(ONE, &format!("{GREETING} {GOODBYE}"));
    world.envelope.has_8bit = true;
    let outcomes = world.to(&["bo@one.example"]);
    assert_eq!(statuses(&outcomes), ["5.6.3"]);
    world.over();
}

#[test]
fn a_local_part_beyond_ascii_needs_smtputf8_and_fails_alone_without_it() {
    let world = World::new().peer(ONE, LETTER_TO_BO);
    let outcomes = world.to(&["δοκιμή@one.example", "bo@one.example"]);
    assert_eq!(statuses(&outcomes), ["5.6.7", "2.0.0"]);
    world.over();
    let script = format!(
        "S: 220 mx
        C: EHLO here.example
        S: 250-mx|250-8BITMIME|250 SMTPUTF8
        C: MAIL FROM:<ana@here.example> SMTPUTF8
        S: 250 ok
        C: RCPT TO:<δοκιμή@one.example>
        S: 550 5.1.1 no {GOODBYE}"
    );
    let world = World::new().peer(ONE, &script);
    assert_eq!(statuses(&world.to(&["δοκιμή@one.example"])), ["5.1.1"]);
    world.over();
}

#[test]
fn a_host_that_lacks_an_extension_is_passed_over_for_one_that_has_it() {
    let bare = format!("{GREETING} {GOODBYE}");
    let able = LETTER_TO_BO
        .replace("S: 250 mx", "S: 250-mx|250-8BITMIME|250 SMTPUTF8")
        .replace("MAIL FROM:<ana@here.example>", "MAIL FROM:<ana@here.example> BODY=8BITMIME SMTPUTF8");
    for (letter, status) in
        [("Subject: hi\r\n\r\ngrüße\r\n", "5.6.3"), ("Subject: grüße\r\n\r\nhi\r\n", "5.6.7")]
    {
        let world = || {
            let mut world = World::new().peer(MX1, &bare);
            (world.envelope.has_8bit, world.envelope.smtputf8) = (true, true);
            world.letter = Letter::new(letter);
            world
        };
        let able = if status == "5.6.3" { able.replace(" SMTPUTF8\n", "\n") } else { able.clone() };
        let one_has_it = world().peer(MX2, &able);
        assert_eq!(statuses(&one_has_it.to(&["bo@there.example"])), ["2.0.0"], "{letter}");
        one_has_it.over();
        let none_has_it = world().peer(MX2, &bare);
        let outcomes = none_has_it.to(&["bo@there.example"]);
        assert_eq!(statuses(&outcomes), [status], "{letter}");
        assert!(outcomes[0].reason().text.contains("mx2.there.example"), "{}", outcomes[0]);
        none_has_it.over();
        let nobody_knows = world().peer(MX2, "! refuse");
        assert_eq!(statuses(&nobody_knows.to(&["bo@there.example"])), ["4.4.1"], "{letter}");
        nobody_knows.over();
    }
}

#[test]
fn a_recipient_that_needs_smtputf8_goes_on_alone_to_the_host_that_has_it() {
    let able = LETTER_TO_BO
        .replace("S: 250 mx", "S: 250-mx|250-8BITMIME|250 SMTPUTF8")
        .replace("MAIL FROM:<ana@here.example>", "MAIL FROM:<ana@here.example> SMTPUTF8")
        .replace("<bo@*", "<δοκιμή@there.example>");
    let world = World::new().peer(MX1, LETTER_TO_BO).peer(MX2, &able);
    let outcomes = world.to(&["δοκιμή@there.example", "bo@there.example"]);
    assert_eq!(statuses(&outcomes), ["2.0.0"; 2]);
    world.over();
}

#[test]
fn what_a_host_lacks_is_not_asked_for_again_at_its_other_address() {
    for first in ["! refuse", ""] {
        let bare = format!("{GREETING} {GOODBYE}");
        let mut world = World::new();
        world.envelope.has_8bit = true;
        if first.is_empty() {
            world.dial.peer("[2001:db8::5]:25", &bare);
        } else {
            world.dial.peer("[2001:db8::5]:25", first);
            world.dial.peer("192.0.2.5:25", &bare);
        }
        assert_eq!(statuses(&world.to(&["bo@twice.example"])), ["5.6.3"], "{first}");
        world.over();
    }
}

#[test]
fn a_domain_beyond_ascii_goes_out_in_a_labels() {
    let world = World::new().peer(ONE, &LETTER_TO_BO.replace("<bo@*", "<bo@xn--bcher-kva.example>"));
    assert_eq!(statuses(&world.to(&["bo@bücher.example"])), ["2.0.0"]);
    world.over();
}

#[test]
fn a_header_in_utf8_needs_smtputf8_and_a_body_does_not() {
    let mut world = World::new().peer(ONE, &format!("{GREETING} {GOODBYE}"));
    (world.envelope.smtputf8, world.envelope.has_8bit) = (true, true);
    world.letter = Letter::new("Subject: grüße\r\n\r\nhi\r\n");
    assert_eq!(statuses(&world.to(&["bo@one.example"])), ["5.6.7"]);
    world.over();
    let script = LETTER_TO_BO
        .replace("S: 250 mx", "S: 250-mx|250 8BITMIME")
        .replace("MAIL FROM:<ana@here.example>", "MAIL FROM:<ana@here.example> BODY=8BITMIME");
    world.dial.peer(ONE, &script);
    world.letter = Letter::new("Subject: hi\r\n\r\ngrüße\r\n");
    assert_eq!(statuses(&world.to(&["bo@one.example"])), ["2.0.0"]);
    world.over();
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
        let mut world = World::new().from(sender);
        world.settings.hello = mode;
        world.dial.peer(ONE, &format!("S: 220 mx\nC: EHLO {name}\nS: 451 4.3.0 later {GOODBYE}"));
        assert_eq!(statuses(&world.to(&["bo@one.example"])), ["4.3.0"], "{sender}");
        world.over();
    }
}

#[test]
fn the_hello_name_stays_the_same_in_every_retry_of_tls() {
    let broken = format!("{TO_STARTTLS}\nS: 220 go\n! garbage");
    let world = World::new().self_signed("own", "mx.one.example").peer(ONE, &broken);
    if cfg!(feature = "legacy-tls") {
        world.dial.peer(ONE, &broken);
    }
    world.dial.peer(ONE, LETTER_TO_BO);
    assert_eq!(statuses(&world.to(&["bo@one.example"])), ["2.0.0"]);
    world.over();
}

#[test]
fn the_trace_tells_the_whole_story() {
    let world = World::new().self_signed("own", "mx.one.example").peer(ONE, &encrypted("own"));
    world.to(&["bo@one.example"]);
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
    world.over();
}
