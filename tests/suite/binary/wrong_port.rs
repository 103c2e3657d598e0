//! Clients that speak another protocol are refused at once, and counted.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream};

use crate::peers;
use crate::test_server::{TestServer, WAIT_TIMEOUT};

/// Waits: the reply may reach the client before the refusal is counted.
fn is_counted(server: &TestServer, speaks: &str) -> bool {
    let line = format!("session_non_smtp_client_total{{protocol=\"{speaks}\"}} 1");
    peers::until(&line, || server.monitor_page("/metrics").contains(&line).then_some(true))
}

#[test]
fn http_or_tls_on_a_plain_text_port_is_refused_and_counted() {
    let server = TestServer::new_started("");
    let mut client = server.connect();
    client.expect("GET / HTTP/1.1", "502 5.5.2");
    assert_eq!(client.read_reply(), "", "and hangs up");
    assert!(is_counted(&server, "http"));

    // A real handshake: its octets are random, and need not hold a line end.
    let address = format!("127.0.0.1:{}", server.smtp_port);
    let swaks = peers::swaks(["--server", &address, "--tls-on-connect", "--quit-after", "EHLO"]);
    assert!(!swaks.status.success());
    assert!(is_counted(&server, "tls"));
}

#[test]
fn plain_text_on_a_tls_port_is_refused_and_counted() {
    let server = TestServer::new_started("");
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, server.submissions_port)).unwrap();
    stream.set_read_timeout(Some(WAIT_TIMEOUT)).unwrap();
    stream.write_all(b"EHLO there.example\r\n").unwrap();
    let mut heard = Vec::new();
    // An alert (RFC 8446 §6), and then nothing more.
    let _ = stream.read_to_end(&mut heard);
    assert!(heard.is_empty() || heard.first() == Some(&21), "{heard:?}");
    assert!(is_counted(&server, "plain-text"));
}
