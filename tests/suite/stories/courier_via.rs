//! One attempt by way of hosts that the operator names: the demanded level of TLS, and logging in.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use postrider::courier::smtp::Credentials;
use postrider::mail::Via;
use postrider::tls::SecurityLevel;

use crate::courier_fixture::{CourierFixture, DIALOG_MAIL_TO_QUIT, recipient_via, statuses};

const RELAY: &str = "192.0.2.1:587";

/// Up to the second EHLO, with this certificate and these offers.
fn by_tls(certificate: &str, offers: &str) -> String {
    format!(
        "S: 220 mx
        C: EHLO here.example
        S: 250-mx|250-AUTH PLAIN|250 STARTTLS
        C: STARTTLS
        S: 220 go
        ! tls {certificate}
        C: EHLO here.example
        S: 250-mx|250 {offers}"
    )
}

/// A fixture with the credentials `relay1`, and a host with the trusted certificate `good`.
fn relay_fixture() -> CourierFixture {
    let mut fixture = CourierFixture::new()
        .with_trusted_certificate("good", "mx1.there.example")
        .with_self_signed_certificate("own", "mx1.there.example");
    let [name, user, password] = ["relay1", "ana", "secret word"].map(str::to_owned);
    fixture.logins.insert(name.clone(), Credentials { name, user, password });
    fixture
}

fn base64(text: &str) -> String {
    STANDARD.encode(text)
}

fn plain() -> String {
    format!("C: AUTH PLAIN {}", base64("\0ana\0secret word"))
}

fn trace_text(fixture: &CourierFixture) -> String {
    let events = fixture.traces.list().remove(0).events;
    events.into_iter().map(|event| event.text + "\n").collect()
}

#[test]
fn the_courier_logs_in_by_plain_over_verified_tls_and_the_password_is_stored_nowhere() {
    let script = format!(
        "{}\n{}\nS: 235 2.7.0 welcome\n{DIALOG_MAIL_TO_QUIT}",
        by_tls("good", "AUTH LOGIN PLAIN"),
        plain()
    );
    let fixture = relay_fixture().with_peer(RELAY, &script);
    let to = recipient_via("bo@one.example", "mx1.there.example:587 login=relay1");
    assert_eq!(statuses(&fixture.deliver(&[to])), ["2.0.0"]);
    fixture.assert_finished();
    let trace = trace_text(&fixture);
    assert!(trace.contains("> what is needed to log in") && trace.contains("< 235"), "{trace}");
    for secret in ["secret", &base64("\0ana\0secret word")] {
        assert!(!trace.contains(secret), "{trace}");
    }
    assert_eq!(fixture.known_level("mx1.there.example"), SecurityLevel::TlsVerified);
    assert_eq!(
        fixture.known_level("one.example"),
        SecurityLevel::Plain,
        "no level was learned for the domain"
    );
}

#[test]
fn a_host_that_offers_login_only_gets_user_and_password_apart() {
    let script = format!(
        "{}\nC: AUTH LOGIN\nS: 334 VXNlcm5hbWU6\nC: {}\nS: 334 UGFzc3dvcmQ6\nC: {}\nS: 235 ok\n{DIALOG_MAIL_TO_QUIT}",
        by_tls("good", "AUTH CRAM-MD5 LOGIN"),
        base64("ana"),
        base64("secret word")
    );
    let fixture = relay_fixture().with_peer(RELAY, &script);
    assert_eq!(
        statuses(&fixture.deliver(&[recipient_via("bo@one.example", "mx1.there.example:587 login=relay1")])),
        ["2.0.0"]
    );
    fixture.assert_finished();
    assert!(!trace_text(&fixture).contains(&base64("secret word")));
}

#[test]
fn no_password_goes_to_a_host_below_the_level_that_the_operator_demands() {
    let quit = "C: QUIT\nS: 221 bye";
    let in_plain_text = format!("S: 220 mx\nC: EHLO here.example\nS: 250-mx|250 AUTH PLAIN\n{quit}");
    let with_own = format!("{}\n{quit}", by_tls("own", "AUTH PLAIN"));
    for (terms, script) in [
        ("login=relay1", &in_plain_text),
        ("tls=required login=relay1", &in_plain_text),
        ("tls=required", &in_plain_text),
        ("login=relay1", &with_own),
        ("tls=verified", &with_own),
    ] {
        let fixture = relay_fixture().with_peer(RELAY, script);
        let outcomes =
            fixture.deliver(&[recipient_via("bo@one.example", &format!("mx1.there.example:587 {terms}"))]);
        assert_eq!(statuses(&outcomes), ["4.7.5"], "{terms}");
        assert!(outcomes[0].reason().text.contains("the configuration requires "), "{}", outcomes[0]);
        fixture.assert_finished();
    }
    let script = format!("{}\n{}\nS: 235 ok\n{DIALOG_MAIL_TO_QUIT}", by_tls("own", "AUTH PLAIN"), plain());
    let fixture = relay_fixture().with_peer(RELAY, &script);
    let to = recipient_via("bo@one.example", "mx1.there.example:587 tls=required login=relay1");
    assert_eq!(
        statuses(&fixture.deliver(&[to])),
        ["2.0.0"],
        "an unverified certificate is enough for tls=required"
    );
    fixture.assert_finished();
}

#[test]
fn a_failed_handshake_does_not_weaken_the_operators_demand() {
    let refuses = "S: 220 mx\nC: EHLO here.example\nS: 250-mx|250 STARTTLS\nC: STARTTLS\nS: 454 4.7.0 not now\nC: QUIT\nS: 221 bye";
    let fixture = relay_fixture().with_peer(RELAY, refuses);
    let to = recipient_via("bo@one.example", "mx1.there.example:587 tls=required");
    assert_eq!(statuses(&fixture.deliver(&[to])), ["4.7.5"]);
    fixture.assert_finished();
    let breaks = "S: 220 mx\nC: EHLO here.example\nS: 250-mx|250 STARTTLS\nC: STARTTLS\nS: 220 go\n! close";
    let fixture = relay_fixture().with_peer(RELAY, breaks);
    let to = recipient_via("bo@one.example", "mx1.there.example:587 tls=verified");
    let outcomes = fixture.deliver(&[to]);
    assert_eq!(statuses(&outcomes), ["4.7.5"]);
    assert!(outcomes[0].reason().text.contains("TLS handshake"), "{}", outcomes[0]);
    fixture.assert_finished();
}

#[test]
fn mail_waits_if_a_login_fails_and_the_reason_says_why() {
    let quit = "C: QUIT\nS: 221 bye";
    for (script, says) in [
        (
            format!("{}\n{}\nS: 535 5.7.8 wrong password\n{quit}", by_tls("good", "AUTH PLAIN"), plain()),
            "relay1",
        ),
        (
            format!("{}\n{quit}", by_tls("good", "AUTH CRAM-MD5")),
            "needs PLAIN or LOGIN, and mx1.there.example",
        ),
        (format!("{}\n{quit}", by_tls("good", "SIZE")), "offers no login at all"),
    ] {
        let fixture = relay_fixture().with_peer(RELAY, &script);
        let outcomes =
            fixture.deliver(&[recipient_via("bo@one.example", "mx1.there.example:587 login=relay1")]);
        assert!(
            outcomes[0].status().starts_with('4') && outcomes[0].to_string().contains(says),
            "{}",
            outcomes[0]
        );
        fixture.assert_finished();
    }
    let fixture = relay_fixture();
    let outcomes = fixture.deliver(&[recipient_via("bo@one.example", "mx1.there.example:587 login=relay2")]);
    assert_eq!(statuses(&outcomes), ["4.3.5"]);
    assert!(outcomes[0].reason().text.contains("credentials.toml has no login relay2"), "{}", outcomes[0]);
    fixture.assert_finished();
}

#[test]
fn another_host_of_the_list_is_tried_if_the_first_refuses_the_login() {
    let refused =
        format!("{}\n{}\nS: 454 4.7.0 later\nC: QUIT\nS: 221 bye", by_tls("good", "AUTH PLAIN"), plain());
    let taken = format!("{}\n{}\nS: 235 ok\n{DIALOG_MAIL_TO_QUIT}", by_tls("good", "AUTH PLAIN"), plain());
    let fixture = relay_fixture().with_peer(RELAY, &refused).with_peer("192.0.2.1:2525", &taken);
    let to = recipient_via("bo@one.example", "mx1.there.example:587 mx1.there.example:2525 login=relay1");
    assert_eq!(statuses(&fixture.deliver(&[to])), ["2.0.0"]);
    fixture.assert_finished();
}

#[test]
fn on_port_465_tls_comes_before_the_greeting() {
    let script = format!(
        "! tls good\nS: 220 mx\nC: EHLO here.example\nS: 250-mx|250-STARTTLS|250 AUTH PLAIN\n{}\nS: 235 ok\n{DIALOG_MAIL_TO_QUIT}",
        plain()
    );
    let fixture = relay_fixture().with_peer("192.0.2.1:465", &script);
    assert_eq!(
        statuses(&fixture.deliver(&[recipient_via("bo@one.example", "mx1.there.example:465 login=relay1")])),
        ["2.0.0"]
    );
    fixture.assert_finished();
}

#[test]
fn all_mail_for_other_domains_can_be_sent_through_one_host() {
    let mut fixture = relay_fixture().with_peer(
        "192.0.2.1:25",
        &format!("S: 220 mx\nC: EHLO here.example\nS: 250 mx\n{DIALOG_MAIL_TO_QUIT}"),
    );
    fixture.settings.via = Some(Via::parse("mx1.there.example").unwrap());
    assert_eq!(
        statuses(&fixture.deliver_to(&["bo@null.example"])),
        ["2.0.0"],
        "the MX records of the domain are not looked up"
    );
    fixture.assert_finished();
}
