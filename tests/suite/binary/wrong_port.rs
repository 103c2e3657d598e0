//! Clients that speak something else: turned away at once, and counted.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream};

use crate::peers;
use crate::test_server::{TestServer, WAIT_TIMEOUT};

/// Waits: a client may hear that it is turned away before that is counted.
fn is_counted(house: &TestServer, speaks: &str) -> bool {
    let line = format!("session_non_smtp_client_total{{protocol=\"{speaks}\"}} 1");
    peers::until(&line, || house.monitor_page("/metrics").contains(&line).then_some(true))
}

#[test]
fn who_speaks_http_or_tls_to_a_plain_text_port_is_turned_away_and_counted() {
    let house = TestServer::new_started("");
    let mut client = house.connect();
    client.expect("GET / HTTP/1.1", "502 5.5.2");
    assert_eq!(client.read_reply(), "", "and hangs up");
    assert!(is_counted(&house, "http"));

    // A real handshake: its octets are random, and need not hold a line end.
    let server = format!("127.0.0.1:{}", house.smtp_port);
    let swaks = peers::swaks(["--server", &server, "--tls-on-connect", "--quit-after", "EHLO"]);
    assert!(!swaks.status.success());
    assert!(is_counted(&house, "tls"));
}

#[test]
fn who_speaks_plain_text_to_a_port_of_tls_is_turned_away_and_counted() {
    let house = TestServer::new_started("");
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, house.submissions_port)).unwrap();
    stream.set_read_timeout(Some(WAIT_TIMEOUT)).unwrap();
    stream.write_all(b"EHLO there.example\r\n").unwrap();
    let mut heard = Vec::new();
    // An alert (RFC 8446 §6), and then nothing more.
    let _ = stream.read_to_end(&mut heard);
    assert!(heard.is_empty() || heard.first() == Some(&21), "{heard:?}");
    assert!(is_counted(&house, "plain-text"));
}
