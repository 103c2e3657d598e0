//! Connections of the SMTP courier that carry more than one message, against peers that follow a script.

use std::sync::Arc;
use std::time::Duration;

use postrider::courier::Courier as _;
use postrider::fakes::TestClock;
use postrider::tls::SecurityLevel;

use crate::courier_fixture::{
    CourierFixture, DIALOG_QUIT, DIALOG_TO_EHLO, DIALOG_TRANSACTION, MX_ONE, MX1, MX2, domain, statuses,
};

const MORE: bool = true;

#[test]
fn several_messages_follow_each_other_on_one_connection() {
    let fixture = CourierFixture::new().with_peer(
        MX_ONE,
        &format!("{DIALOG_TO_EHLO}{DIALOG_TRANSACTION}{DIALOG_TRANSACTION}{DIALOG_TRANSACTION}{DIALOG_QUIT}"),
    );
    let courier = fixture.courier();
    for more in [MORE, MORE, !MORE] {
        assert_eq!(statuses(&fixture.deliver_with_courier(&courier, "bo@one.example", more)), ["2.0.0"]);
    }
    drop(courier);
    assert_eq!(fixture.assert_finished().messages.len(), 3);
}

#[test]
fn two_domains_at_one_host_share_a_connection() {
    let fixture = CourierFixture::new()
        .with_peer(MX_ONE, &format!("{DIALOG_TO_EHLO}{DIALOG_TRANSACTION}{DIALOG_TRANSACTION}{DIALOG_QUIT}"));
    let courier = fixture.courier();
    assert_eq!(statuses(&fixture.deliver_with_courier(&courier, "bo@one.example", MORE)), ["2.0.0"]);
    assert_eq!(statuses(&fixture.deliver_with_courier(&courier, "bo@two.example", MORE)), ["2.0.0"]);
    drop(courier);
    fixture.assert_finished();
}

#[test]
fn after_a_refused_recipient_the_connection_is_used_for_the_next_message() {
    let refused = "
        C: MAIL FROM:<ana@here.example>
        S: 250 ok
        C: RCPT TO:<bo@*
        S: 550 5.1.1 no
        C: RSET
        S: 250 ok";
    let fixture = CourierFixture::new()
        .with_peer(MX_ONE, &format!("{DIALOG_TO_EHLO}{refused}{DIALOG_TRANSACTION}{DIALOG_QUIT}"));
    let courier = fixture.courier();
    assert_eq!(statuses(&fixture.deliver_with_courier(&courier, "bo@one.example", MORE)), ["5.1.1"]);
    assert_eq!(statuses(&fixture.deliver_with_courier(&courier, "bo@one.example", !MORE)), ["2.0.0"]);
    drop(courier);
    fixture.assert_finished();
}

#[test]
fn a_pooled_connection_that_the_peer_has_closed_is_replaced_and_no_message_is_lost_or_doubled() {
    for end in ["! close", "S: 421 4.4.2 idle for too long\n! close"] {
        let fixture = CourierFixture::new()
            .with_peer(MX_ONE, &format!("{DIALOG_TO_EHLO}{DIALOG_TRANSACTION}\n{end}"))
            .with_peer(MX_ONE, &format!("{DIALOG_TO_EHLO}{DIALOG_TRANSACTION}{DIALOG_QUIT}"));
        let courier = fixture.courier();
        assert_eq!(statuses(&fixture.deliver_with_courier(&courier, "bo@one.example", MORE)), ["2.0.0"]);
        assert_eq!(
            statuses(&fixture.deliver_with_courier(&courier, "bo@one.example", !MORE)),
            ["2.0.0"],
            "{end}"
        );
        drop(courier);
        assert_eq!(fixture.assert_finished().messages.len(), 2);
    }
}

#[test]
fn a_kept_connection_that_breaks_after_the_dot_is_not_replaced() {
    let lost = DIALOG_TRANSACTION.trim_end().strip_suffix("S: 250 2.0.0 queued as 4711").unwrap();
    let fixture = CourierFixture::new()
        .with_peer(MX_ONE, &format!("{DIALOG_TO_EHLO}{DIALOG_TRANSACTION}{lost}! close"));
    let courier = fixture.courier();
    assert_eq!(statuses(&fixture.deliver_with_courier(&courier, "bo@one.example", MORE)), ["2.0.0"]);
    assert_eq!(statuses(&fixture.deliver_with_courier(&courier, "bo@one.example", !MORE)), ["4.4.2"]);
    drop(courier);
    fixture.assert_finished();
}

#[test]
fn a_connection_carries_no_more_messages_than_the_limit() {
    let mut fixture = CourierFixture::new();
    fixture.settings.messages_per_connection_max = 2;
    let two = format!("{DIALOG_TO_EHLO}{DIALOG_TRANSACTION}{DIALOG_TRANSACTION}{DIALOG_QUIT}");
    let fixture = fixture.with_peer(MX_ONE, &two).with_peer(MX_ONE, &two);
    let courier = fixture.courier();
    for _ in 0..4 {
        assert_eq!(statuses(&fixture.deliver_with_courier(&courier, "bo@one.example", MORE)), ["2.0.0"]);
    }
    drop(courier);
    fixture.assert_finished();
}

#[test]
fn a_connection_that_is_idle_for_too_long_is_closed() {
    let mut fixture = CourierFixture::new();
    let clock = Arc::<TestClock>::default();
    fixture.clock = clock.clone();
    let one = format!("{DIALOG_TO_EHLO}{DIALOG_TRANSACTION}{DIALOG_QUIT}");
    let fixture = fixture.with_peer(MX_ONE, &one).with_peer(MX_ONE, &one);
    let courier = fixture.courier();
    for _ in 0..2 {
        assert_eq!(statuses(&fixture.deliver_with_courier(&courier, "bo@one.example", MORE)), ["2.0.0"]);
        clock.advance(Duration::from_secs(5));
    }
    drop(courier);
    fixture.assert_finished();
}

#[test]
fn a_pooled_connection_must_meet_the_demand_of_each_domain() {
    let fixture = CourierFixture::new()
        .with_known_level("two.example", SecurityLevel::TlsUnverified)
        .with_peer(MX_ONE, &format!("{DIALOG_TO_EHLO}{DIALOG_TRANSACTION}{DIALOG_QUIT}"));
    let courier = fixture.courier();
    assert_eq!(statuses(&fixture.deliver_with_courier(&courier, "bo@one.example", MORE)), ["2.0.0"]);
    assert_eq!(
        statuses(&fixture.deliver_with_courier(&courier, "bo@two.example", MORE)),
        ["4.7.5"],
        "plain text"
    );
    drop(courier);
    fixture.assert_finished();
}

#[test]
fn a_connection_whose_starttls_was_refused_is_not_pooled() {
    let refused = "
        S: 220 mx
        C: EHLO here.example
        S: 250-mx|250 STARTTLS
        C: STARTTLS
        S: 454 4.7.0 not now";
    let one = format!("{refused}{DIALOG_TRANSACTION}{DIALOG_QUIT}");
    let fixture = CourierFixture::new().with_peer(MX_ONE, &one).with_peer(MX_ONE, &one);
    let courier = fixture.courier();
    for _ in 0..2 {
        assert_eq!(statuses(&fixture.deliver_with_courier(&courier, "bo@one.example", MORE)), ["2.0.0"]);
    }
    drop(courier);
    fixture.assert_finished();
}

#[test]
fn recipients_beyond_the_limits_of_a_peer_are_split_over_transactions_and_connections() {
    let limited = DIALOG_TO_EHLO.replace("250 mx", "250-mx|250 LIMITS RCPTMAX=1 MAILMAX=2");
    let fixture = CourierFixture::new()
        .with_peer(MX_ONE, &format!("{limited}{DIALOG_TRANSACTION}{DIALOG_TRANSACTION}{DIALOG_QUIT}"))
        .with_peer(MX_ONE, &format!("{limited}{DIALOG_TRANSACTION}{DIALOG_QUIT}"));
    assert_eq!(
        statuses(&fixture.deliver_to(&["bo@one.example", "bo@two.example", "bo@one.example"])),
        ["2.0.0", "2.0.0", "2.0.0"]
    );
    assert_eq!(fixture.assert_finished().messages.len(), 3);
}

#[test]
fn a_host_that_did_not_answer_is_not_tried_for_a_while() {
    let fixture = CourierFixture::new()
        .with_peer(MX1, "! refuse")
        .with_peer(MX2, &format!("{DIALOG_TO_EHLO}{DIALOG_TRANSACTION}{DIALOG_QUIT}"))
        .with_peer(MX2, &format!("{DIALOG_TO_EHLO}{DIALOG_TRANSACTION}{DIALOG_QUIT}"))
        .with_peer(MX1, &format!("{DIALOG_TO_EHLO}{DIALOG_TRANSACTION}{DIALOG_QUIT}"));
    let courier = fixture.courier();
    for _ in 0..2 {
        assert_eq!(statuses(&fixture.deliver_with_courier(&courier, "bo@there.example", !MORE)), ["2.0.0"]);
    }
    courier.forget_host_failures();
    assert_eq!(statuses(&fixture.deliver_with_courier(&courier, "bo@there.example", !MORE)), ["2.0.0"]);
    drop(courier);
    let connected: Vec<_> = fixture.assert_finished().connected.iter().map(ToString::to_string).collect();
    assert_eq!(connected, [MX1, MX2, MX2, MX1], "until an operator forgets the failures");
}

#[test]
fn a_host_that_is_one_of_the_mx_hosts_skips_itself_and_the_less_preferred_ones() {
    let mut fixture = CourierFixture::new();
    fixture.settings.listen_addresses = vec!["192.0.2.2:25".parse().unwrap()];
    let fixture = fixture.with_peer(MX1, "! refuse");
    let outcomes = fixture.deliver_to(&["bo@there.example"]);
    assert_eq!(statuses(&outcomes), ["4.4.1"], "a better host may be back later");
    fixture.assert_finished();

    let mut fixture = CourierFixture::new();
    fixture.settings.listen_addresses = vec!["192.0.2.1:25".parse().unwrap()];
    let outcomes = fixture.deliver_to(&["bo@there.example"]);
    assert_eq!(
        outcomes[0].to_string(),
        "5.4.6 mail for there.example loops back to myself: no better MX host is left"
    );
    fixture.assert_finished();

    let mut fixture = CourierFixture::new();
    fixture.settings.hostname = domain("mx.one.example");
    fixture.settings.listen_addresses = vec!["0.0.0.0:25".parse().unwrap()];
    assert_eq!(statuses(&fixture.deliver_to(&["bo@one.example"])), ["5.4.6"], "by its name");
    assert_eq!(statuses(&fixture.deliver_to(&["bo@loop.example"])), ["5.4.6"], "by an address of this host");
    fixture.settings.listen_addresses = vec!["0.0.0.0:2525".parse().unwrap()];
    let fixture = fixture.with_peer("127.0.0.1:25", "! refuse");
    assert_eq!(
        statuses(&fixture.deliver_to(&["bo@loop.example"])),
        ["4.4.1"],
        "another port is another server"
    );
    fixture.assert_finished();
}
