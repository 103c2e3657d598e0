//! The server's TLS as clients and the operator meet it: versions, tickets, and the end of a
//! certificate.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use openssl::ssl::{SslConnector, SslMethod, SslSessionCacheMode, SslVerifyMode, SslVersion};

use crate::house::{House, PATIENCE, wait_for};

/// Shakes hands on the submissions port in one version of TLS and talks a little; how many sessions the
/// server gave to come back with.
fn shakes_hands(house: &House, version: SslVersion) -> Result<usize, String> {
    let mut connector = SslConnector::builder(SslMethod::tls_client()).unwrap();
    connector.set_verify(SslVerifyMode::NONE);
    // OpenSSL itself would not speak the old versions otherwise.
    connector.set_cipher_list("DEFAULT:@SECLEVEL=0").unwrap();
    connector.set_min_proto_version(Some(version)).unwrap();
    connector.set_max_proto_version(Some(version)).unwrap();
    connector.set_session_cache_mode(SslSessionCacheMode::CLIENT);
    let given = Arc::new(AtomicUsize::new(0));
    connector.set_new_session_callback({
        let given = Arc::clone(&given);
        move |_, _| {
            given.fetch_add(1, Ordering::SeqCst);
        }
    });
    let stream = TcpStream::connect(("127.0.0.1", house.submissions)).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut stream =
        connector.build().connect("mx.here.example", stream).map_err(|error| error.to_string())?;
    // A ticket would come before the last octet of what follows.
    stream.write_all(b"QUIT\r\n").unwrap();
    let mut said = String::new();
    let _ = stream.read_to_string(&mut said);
    assert!(said.starts_with("220 ") && said.contains("\r\n221 "), "{said}");
    Ok(given.load(Ordering::SeqCst))
}

#[test]
fn only_tls_1_2_and_1_3_are_spoken_and_nobody_is_given_a_ticket() {
    let house = House::started("");
    for version in [SslVersion::TLS1_2, SslVersion::TLS1_3] {
        assert_eq!(shakes_hands(&house, version), Ok(0), "{version:?}");
    }
    for version in [SslVersion::TLS1, SslVersion::TLS1_1] {
        let refusal = shakes_hands(&house, version).unwrap_err();
        assert!(refusal.contains(" alert "), "it is the server that refuses {version:?}: {refusal}");
    }
}

/// Gives the house a certificate that ends so many days from now, which may be in the past.
fn give_certificate(house: &House, days: i64) {
    let seconds = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
    let end = i64::try_from(seconds).unwrap() + days * 86_400 + 3600;
    let mut params = rcgen::CertificateParams::new(vec!["mx.here.example".to_owned()]).unwrap();
    params.not_before = rcgen::date_time_ymd(2020, 1, 1);
    let end = Duration::from_secs(end.try_into().unwrap());
    params.not_after = rcgen::date_time_ymd(1970, 1, 1) + end;
    let key = rcgen::KeyPair::generate().unwrap();
    let made = params.self_signed(&key).unwrap();
    fs::write(house.path("certs/here/fullchain.pem"), made.pem()).unwrap();
    fs::write(house.path("certs/here/privkey.pem"), key.serialize_pem()).unwrap();
}

#[test]
fn a_certificate_that_ends_soon_is_said_and_shown_until_it_is_renewed() {
    let mut house = House::new("");
    give_certificate(&house, 5);
    let words = "the certificate in certs/here ends in 5 days (";
    assert!(house.run(&["check"]).2.contains(&format!("warning: {words}")));
    house.start();
    assert_eq!(house.log().matches(words).count(), 1, "{}", house.log());
    let seconds = || -> u64 {
        let metrics = house.page("/metrics");
        let line = metrics.lines().find(|line| line.starts_with("postrider_tls_certificate_expiry_seconds "));
        line.unwrap().rsplit(' ').next().unwrap().parse().unwrap()
    };
    assert!((5 * 86_400..5 * 86_400 + 3601).contains(&seconds()));
    assert!(house.page("/").contains("<a class=\"tile bad\" href=\"/\"><b>5 d "), "{}", house.page("/"));
    give_certificate(&house, 60);
    wait_for("the renewed one", || (seconds() > 59 * 86_400).then_some(()));
    assert!(house.page("/").contains("<a class=\"tile\" href=\"/\"><b>60 d "), "{}", house.page("/"));
    assert_eq!(house.log().matches("the certificate in certs/here").count(), 1, "nothing more to say");
    give_certificate(&house, -1);
    wait_for("the complaint", || {
        house.log().contains("the certificate in certs/here has ended: ").then_some(())
    });
    assert_eq!(seconds(), 0);
}
