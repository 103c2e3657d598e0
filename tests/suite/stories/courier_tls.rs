//! TLS in one attempt of the SMTP courier, against peers that follow a script.

use std::path::Path;
use std::time::Duration;

use postrider::fakes::ScriptedConnector;
use postrider::sys::{Clock as _, Connector as _, SystemClock};
use postrider::tls::{SecurityLevel, TlsClient};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use tempfile::TempDir;

use crate::courier_fixture::{
    CourierFixture, DIALOG_QUIT, DIALOG_TO_BO, DIALOG_TO_EHLO, DIALOG_TO_STARTTLS, MX_ONE, MX1, MX2,
    dialog_over_tls, domain, recipient_via, server_config, statuses,
};
use crate::test_server::run_test_alone;

#[test]
fn a_self_signed_certificate_is_tls_unverified() {
    let fixture = CourierFixture::new()
        .with_self_signed_certificate("own", "mx.one.example")
        .with_peer(MX_ONE, &dialog_over_tls("own"));
    assert_eq!(statuses(&fixture.deliver_to(&["bo@one.example"])), ["2.0.0"]);
    fixture.assert_finished();
    assert_eq!(fixture.known_level("one.example"), SecurityLevel::TlsUnverified);
    let metrics = fixture.metrics.to_json();
    assert_eq!(metrics["smtp_out_tls"]["tls-unverified"], 1);
    assert_eq!(metrics["smtp_out_level_check"]["passed"], 1);
    assert_eq!(metrics["smtp_out_attempts"], 1);
}

#[test]
fn a_certificate_from_a_trusted_root_is_tls_verified_if_the_name_is_right() {
    for (host, level) in [
        ("mx.one.example", SecurityLevel::TlsVerified),
        ("mx.other.example", SecurityLevel::TlsUnverified),
        ("one.example", SecurityLevel::TlsUnverified),
    ] {
        let fixture = CourierFixture::new()
            .with_trusted_certificate("good", host)
            .with_peer(MX_ONE, &dialog_over_tls("good"));
        assert_eq!(statuses(&fixture.deliver_to(&["bo@one.example"])), ["2.0.0"]);
        fixture.assert_finished();
        assert_eq!(fixture.known_level("one.example"), level, "{host}");
    }
}

#[test]
fn an_expired_certificate_is_accepted_and_is_tls_unverified() {
    let ca_key = KeyPair::generate().unwrap();
    let mut ca = CertificateParams::default();
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let mut fixture = CourierFixture::new();
    fixture.roots.add(ca.self_signed(&ca_key).unwrap().der().clone()).unwrap();
    let key = KeyPair::generate().unwrap();
    let mut leaf = CertificateParams::new(vec!["mx.one.example".to_owned()]).unwrap();
    leaf.not_before = rcgen::date_time_ymd(2020, 1, 1);
    leaf.not_after = rcgen::date_time_ymd(2021, 1, 1);
    let leaf = leaf.signed_by(&key, &Issuer::new(ca, ca_key)).unwrap();
    fixture.dial.add_certificate("old", server_config(vec![leaf.der().clone()], &key));
    let fixture = fixture.with_peer(MX_ONE, &dialog_over_tls("old"));
    assert_eq!(statuses(&fixture.deliver_to(&["bo@one.example"])), ["2.0.0"]);
    fixture.assert_finished();
    assert_eq!(fixture.known_level("one.example"), SecurityLevel::TlsUnverified);
}

#[test]
fn a_second_connection_is_verified_again() {
    let fixture = CourierFixture::new().with_trusted_certificate("good", "mx.one.example");
    for _ in 0..2 {
        fixture.dial.add_peer(MX_ONE, &dialog_over_tls("good"));
        assert_eq!(statuses(&fixture.deliver_to(&["bo@one.example"])), ["2.0.0"], "the level must not drop");
    }
    fixture.assert_finished();
    assert_eq!(fixture.metrics.to_json()["smtp_out_tls"]["tls-verified"], 2);
}

#[test]
fn a_reply_injected_after_starttls_is_discarded() {
    let script = dialog_over_tls("own").replace("S: 220 go", "S: 220 go|250-mx|250 SIZE 1");
    let fixture = CourierFixture::new()
        .with_self_signed_certificate("own", "mx.one.example")
        .with_peer(MX_ONE, &script);
    assert_eq!(
        statuses(&fixture.deliver_to(&["bo@one.example"])),
        ["2.0.0"],
        "a limit of one octet had no effect"
    );
    fixture.assert_finished();
}

#[test]
#[cfg(feature = "legacy-tls")]
fn a_failed_handshake_is_tried_again_with_the_legacy_library() {
    let fixture = CourierFixture::new()
        .with_trusted_certificate("good", "mx.one.example")
        .with_peer(MX_ONE, &format!("{DIALOG_TO_STARTTLS}\nS: 220 go\n! close"))
        .with_peer(MX_ONE, &dialog_over_tls("good"));
    assert_eq!(statuses(&fixture.deliver_to(&["bo@one.example"])), ["2.0.0"]);
    fixture.assert_finished();
    assert_eq!(
        fixture.known_level("one.example"),
        SecurityLevel::TlsUnverified,
        "the legacy library verifies no certificate"
    );
}

#[test]
#[cfg(feature = "legacy-tls")]
fn plain_text_is_tried_after_the_legacy_library_on_a_connection_of_its_own() {
    let fixture = CourierFixture::new()
        .with_peer(MX_ONE, &format!("{DIALOG_TO_STARTTLS}\nS: 220 go\n! close"))
        .with_peer(MX_ONE, &format!("{DIALOG_TO_STARTTLS}\nS: 220 go\n! garbage"))
        .with_peer(MX_ONE, &DIALOG_TO_BO.replace("S: 250 mx", "S: 250-mx|250 STARTTLS"));
    assert_eq!(statuses(&fixture.deliver_to(&["bo@one.example"])), ["2.0.0"]);
    assert_eq!(fixture.assert_finished().connected.len(), 3);
    assert_eq!(fixture.known_level("one.example"), SecurityLevel::Plain);
}

#[test]
#[cfg(feature = "legacy-tls")]
fn plain_text_is_not_tried_for_a_domain_that_was_seen_with_tls() {
    let broken = format!("{DIALOG_TO_STARTTLS}\nS: 220 go\n! close");
    let fixture = CourierFixture::new()
        .with_known_level("one.example", SecurityLevel::TlsUnverified)
        .with_peer(MX_ONE, &broken)
        .with_peer(MX_ONE, &broken);
    let outcomes = fixture.deliver_to(&["bo@one.example"]);
    assert_eq!(statuses(&outcomes), ["4.7.5"]);
    assert_eq!(fixture.assert_finished().connected.len(), 2);
}

#[test]
fn a_refused_starttls_leads_to_plain_text_if_the_domain_was_never_reached_with_tls() {
    let after_ehlo = DIALOG_TO_BO.split_once("S: 250 mx").unwrap().1;
    for refusal in ["454 4.7.0 not now", "554 5.7.0 not for you"] {
        let fixture = CourierFixture::new()
            .with_peer(MX_ONE, &format!("{DIALOG_TO_STARTTLS}\nS: {refusal}{after_ehlo}"));
        assert_eq!(statuses(&fixture.deliver_to(&["bo@one.example"])), ["2.0.0"], "{refusal}");
        fixture.assert_finished();
        assert_eq!(fixture.known_level("one.example"), SecurityLevel::Plain);
    }
}

#[test]
fn after_a_refused_starttls_the_next_host_is_tried_and_the_failure_is_temporary() {
    let refused = format!("{DIALOG_TO_STARTTLS}\nS: 554 5.7.0 not for you {DIALOG_QUIT}");
    let fixture_with_known_level = || {
        CourierFixture::new()
            .with_self_signed_certificate("own", "mx2.there.example")
            .with_known_level("there.example", SecurityLevel::TlsUnverified)
            .with_peer(MX1, &refused)
    };
    let fixture = fixture_with_known_level().with_peer(MX2, &dialog_over_tls("own"));
    assert_eq!(statuses(&fixture.deliver_to(&["bo@there.example"])), ["2.0.0"]);
    fixture.assert_finished();
    let fixture = fixture_with_known_level().with_peer(MX2, &refused);
    let outcomes = fixture.deliver_to(&["bo@there.example"]);
    assert_eq!(
        outcomes[0].to_string(),
        "4.7.5 there.example was reached at tls-unverified before, and mx2.there.example [192.0.2.2]:25 now \
         refuses STARTTLS (554 5.7.0 not for you); the mail waits. If this change is wanted: postrider peer \
         forget there.example"
    );
    fixture.assert_finished();
}

#[test]
fn a_host_that_closes_after_refusing_starttls_is_skipped() {
    let fixture = CourierFixture::new()
        .with_peer(MX1, &format!("{DIALOG_TO_STARTTLS}\nS: 554 5.7.0 not for you\n! close"))
        .with_peer(MX2, DIALOG_TO_BO);
    assert_eq!(statuses(&fixture.deliver_to(&["bo@there.example"])), ["2.0.0"]);
    fixture.assert_finished();
}

#[test]
fn no_weaker_method_is_tried_for_a_domain_that_was_seen_verified() {
    let fixture = CourierFixture::new()
        .with_known_level("one.example", SecurityLevel::TlsVerified)
        .with_peer(MX_ONE, &format!("{DIALOG_TO_STARTTLS}\nS: 220 go\n! close"));
    let outcomes = fixture.deliver_to(&["bo@one.example"]);
    assert_eq!(statuses(&outcomes), ["4.7.5"]);
    let text = &outcomes[0].reason().text;
    for words in [
        "one.example was reached at tls-verified before",
        "the TLS handshake with mx.one.example [192.0.2.3]:25 now fails",
        "postrider peer forget one.example",
    ] {
        assert!(text.contains(words), "{words} in {text}");
    }
    assert_eq!(fixture.assert_finished().connected.len(), 1);
}

#[test]
fn mail_waits_when_a_host_offers_weaker_tls_than_its_domain_had_before() {
    let fixture = CourierFixture::new()
        .with_known_level("one.example", SecurityLevel::TlsUnverified)
        .with_peer(MX_ONE, &format!("{DIALOG_TO_EHLO} {DIALOG_QUIT}"));
    let outcomes = fixture.deliver_to(&["bo@one.example"]);
    assert_eq!(
        outcomes[0].to_string(),
        "4.7.5 one.example was reached at tls-unverified before, and mx.one.example [192.0.2.3]:25 now offers \
         plain; the mail waits. If this change is wanted: postrider peer forget one.example"
    );
    fixture.assert_finished();
    assert_eq!(fixture.metrics.to_json()["smtp_out_level_check"]["refused"], 1);
}

#[test]
fn a_host_below_the_known_level_is_skipped_for_one_that_reaches_it() {
    let fixture = CourierFixture::new()
        .with_trusted_certificate("good", "mx2.there.example")
        .with_self_signed_certificate("own", "mx1.there.example")
        .with_known_level("there.example", SecurityLevel::TlsVerified)
        .with_peer(
            MX1,
            &format!(
                "{DIALOG_TO_STARTTLS}\nS: 220 go\n! tls own\nC: EHLO here.example\nS: 250 mx {DIALOG_QUIT}"
            ),
        )
        .with_peer(MX2, &dialog_over_tls("good"));
    assert_eq!(statuses(&fixture.deliver_to(&["bo@there.example"])), ["2.0.0"]);
    fixture.assert_finished();
}

#[test]
fn the_level_of_a_named_host_is_its_own_and_not_that_of_the_domains_of_its_mail() {
    let fixture = CourierFixture::new()
        .with_known_level("two.example", SecurityLevel::TlsUnverified)
        .with_known_level("mx1.there.example", SecurityLevel::TlsUnverified)
        .with_peer(MX_ONE, DIALOG_TO_BO);
    let outcomes = fixture.deliver(&[recipient_via("bo@two.example", "mx.one.example")]);
    assert_eq!(statuses(&outcomes), ["2.0.0"], "the level of two.example is about its MX hosts");
    let fixture = fixture.with_peer(MX1, &format!("{DIALOG_TO_EHLO} {DIALOG_QUIT}"));
    let outcomes = fixture.deliver(&[recipient_via("bo@one.example", "mx1.there.example")]);
    assert_eq!(statuses(&outcomes), ["4.7.5"], "the host was reached with TLS before");
    fixture.assert_finished();
}

/// Runs itself in another process, because only a new process can have another `SSL_CERT_FILE`.
#[test]
fn roots_are_read_from_ssl_cert_file() {
    const INNER: &str = "POSTRIDER_TEST_HANDSHAKE";
    if let Some(key) = std::env::var_os(INNER) {
        return assert_verified_by_system_roots(Path::new(&key));
    }
    let folder = TempDir::new().unwrap();
    let ca_key = KeyPair::generate().unwrap();
    let mut ca = CertificateParams::default();
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    std::fs::write(folder.path().join("roots.pem"), ca.self_signed(&ca_key).unwrap().pem()).unwrap();
    std::fs::write(folder.path().join("key.pem"), ca_key.serialize_pem()).unwrap();
    let inner = run_test_alone(module_path!(), "roots_are_read_from_ssl_cert_file", |command| {
        command
            .env("SSL_CERT_FILE", folder.path().join("roots.pem"))
            .env_remove("SSL_CERT_DIR")
            .env(INNER, folder.path().join("key.pem"));
    });
    assert!(inner.status.success(), "{}", String::from_utf8_lossy(&inner.stdout));
}

fn assert_verified_by_system_roots(ca_key: &Path) {
    let ca_key = KeyPair::from_pem(&std::fs::read_to_string(ca_key).unwrap()).unwrap();
    let mut ca = CertificateParams::default();
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    let leaf = CertificateParams::new(vec!["mx.one.example".to_owned()]).unwrap();
    let leaf = leaf.signed_by(&key, &Issuer::new(ca, ca_key)).unwrap();

    let dial = ScriptedConnector::default();
    dial.add_certificate("good", server_config(vec![leaf.der().clone()], &key));
    dial.add_peer(MX_ONE, "! tls good\nS: 220 mx");
    let deadline = SystemClock.now() + Duration::from_secs(60);
    let stream = dial.connect(&MX_ONE.parse().unwrap(), deadline).unwrap();
    let client = TlsClient::with_system_roots();
    assert_eq!(client.root_warnings(), [""; 0]);
    let mut secured = client.handshake(stream, &domain("mx.one.example")).unwrap();
    assert_eq!(secured.level, SecurityLevel::TlsVerified, "{}", secured.level_reason);
    secured.stream.read_exact(&mut [0; 8]).unwrap();
    drop(secured);
    assert_eq!(dial.finish().mismatches, [""; 0]);
}
