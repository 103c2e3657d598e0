//! Clients behind a proxy: the PROXY protocol in front of the real server.

use std::fmt::Display;
use std::fs;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use postrider::fakes::DnsServer;

use crate::peers::{self, HaProxy};
use crate::test_server::{SmtpClient, TestServer, WAIT_TIMEOUT, greeted_from, wait_for};

/// A server that accepts proxies at 127.0.0.1.
pub fn server(more: &str) -> TestServer {
    // No name server answers: the names of clients do not matter here.
    server_with_dns("127.0.0.1:1", more)
}

/// The same, with this name server.
fn server_with_dns(name_server: impl Display, more: &str) -> TestServer {
    let dns = format!("[dns]\nservers = [\"{name_server}\"]\n");
    let mut server = TestServer::new(&format!("proxy-from = [\"127.0.0.1\"]\n{more}\n{dns}"));
    let toml = fs::read_to_string(server.path("postrider.toml")).unwrap();
    let marked = [server.smtp_port, server.submissions_port].iter().fold(toml, |toml, port| {
        toml.replace(&format!("[\"127.0.0.1:{port}\"]"), &format!("[\"127.0.0.1:{port} proxy\"]"))
    });
    fs::write(server.path("postrider.toml"), marked).unwrap();
    server.start();
    server
}

/// A client at this address, by a proxy; or the reply instead of a greeting.
pub fn brought(server: &TestServer, from: &str) -> Result<SmtpClient, String> {
    brought_saying(server, from, "")
}

/// The same for a client that sends something before the greeting.
pub fn brought_saying(server: &TestServer, from: &str, said: &str) -> Result<SmtpClient, String> {
    let preface = format!("PROXY TCP4 {from} 198.51.100.1 49153 25\r\n{said}");
    SmtpClient::try_connect_after(([127, 0, 0, 1], server.smtp_port).into(), preface.as_bytes())
}

#[test]
fn the_client_that_a_proxy_names_is_the_client_for_limits_trace_and_log() {
    let server = server("[limits]\nsessions-per-address-max = 1\n");
    let mut client = brought(&server, "192.0.2.77").ok().unwrap();
    let _other = brought(&server, "192.0.2.78").ok().unwrap();
    let refusal = brought(&server, "192.0.2.77").err().unwrap();
    assert!(refusal.starts_with("421 4.3.2 "), "{refusal}");
    client.begin_data("bo@there.example", "ana@here.example");
    client.expect("Subject: by a proxy\r\n\r\nhello\r\n.", "250");
    let message = server.wait_for_message("here.example", "ana");
    assert!(message.contains("[192.0.2.77]") && !message.contains("127.0.0.1"), "{message}");
    assert!(server.log().contains(" client=192.0.2.77"), "{}", server.log());
    let metrics = server.monitor_page("/metrics");
    assert!(metrics.contains("session_proxied_total{result=\"client\"} 3"), "{metrics}");
}

#[test]
fn the_trace_names_the_client_if_its_name_leads_back_to_its_address() {
    let dns = DnsServer::start(
        "77.2.0.192.in-addr.arpa. PTR out.there.example.\nout.there.example. A 192.0.2.77\n\
         78.2.0.192.in-addr.arpa. PTR out.there.example.\n79.2.0.192.in-addr.arpa. SILENT\n",
    );
    let server = server_with_dns(dns.address, "");
    for (number, (address, shown)) in [
        ("192.0.2.77", "Received: from there.example (out.there.example [192.0.2.77])\n"),
        ("192.0.2.78", "Received: from there.example ([192.0.2.78])\n"),
        ("192.0.2.79", "Received: from there.example ([192.0.2.79])\n"),
    ]
    .into_iter()
    .enumerate()
    {
        let mut client = brought(&server, address).ok().unwrap();
        client.begin_data("bo@there.example", "ana@here.example");
        client.expect("Subject: by name\r\n\r\nhello\r\n.", "250");
        let messages = wait_for("the message", || {
            Some(server.maildir_messages("here.example", "ana")).filter(|messages| messages.len() > number)
        });
        let messages = messages.iter().map(|octets| String::from_utf8_lossy(octets));
        assert!(messages.into_iter().any(|message| message.contains(shown)), "{shown}");
    }
}

#[test]
fn a_client_that_is_not_a_proxy_needs_no_preface() {
    let server = server("");
    assert_eq!(greeted_from([127, 0, 0, 2], server.smtp_port), "220");
}

#[test]
fn a_connection_from_a_proxy_without_a_preface_is_dropped_counted_and_logged() {
    let server = server("");
    let lines = ["EHLO there.example\r\n", "PROXY TCP4 192.0.2.7 198.51.100.1 49153\r\n"];
    for line in lines {
        let said = SmtpClient::try_connect_after(([127, 0, 0, 1], server.smtp_port).into(), line.as_bytes());
        assert_eq!(said.err().unwrap(), "", "{line}");
    }
    let log = server.log();
    assert!(log.contains("from the proxy 127.0.0.1:") && log.contains("header is malformed"), "{log}");
    assert!(log.contains("does the proxy send one?"), "{log}");
    assert!(server.monitor_page("/metrics").contains("session_proxied_total{result=\"rejected\"} 2"));
}

#[test]
fn a_preface_sent_octet_by_octet_does_not_hold_a_session() {
    let server = server("");
    let mut stream = TcpStream::connect(("127.0.0.1", server.smtp_port)).unwrap();
    // The pace of the client: each octet comes soon, and the line would take half a minute.
    stream.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
    let (began, mut octet) = (Instant::now(), [0]);
    for sent in b"PROXY TCP4 192.0.2.77 198.51.100.1 49153 25 with more behind it" {
        let _ = stream.write_all(&[*sent]);
        match stream.read(&mut octet) {
            Err(e) if e.kind() == ErrorKind::WouldBlock => assert!(began.elapsed() < WAIT_TIMEOUT),
            ended => {
                assert!(matches!(ended, Ok(0) | Err(_)), "nothing is said");
                break;
            }
        }
    }
    wait_for("the log line", || server.log().contains("was dropped: timed out").then_some(()));
}

#[test]
fn haproxy_names_its_clients_in_both_versions_and_before_tls() {
    let server = server("");
    let proxy = HaProxy::start(server.dir.path(), server.smtp_port, server.submissions_port);
    for (number, port) in [(61, proxy.version_1), (62, proxy.version_2)] {
        let from = format!("127.0.0.{number}");
        let address = format!("127.0.0.1:{port}");
        let sent = peers::swaks(
            [
                ["--server", &address].as_slice(),
                &[
                    "--local-interface",
                    &from,
                    "--from",
                    "bo@there.example",
                    "--to",
                    "ana@here.example",
                    "--tls",
                ],
            ]
            .concat(),
        );
        assert!(sent.status.success(), "{}", String::from_utf8_lossy(&sent.stdout));
        let named = format!("[{from}]");
        wait_for("the message", || {
            let messages = server.maildir_messages("here.example", "ana");
            messages.iter().any(|octets| String::from_utf8_lossy(octets).contains(&named)).then_some(())
        });
        assert!(server.log().contains(&format!(" client={from}")), "{}", server.log());
    }
    let more = ["--local-interface", "127.0.0.63", "--from", "ana@here.example", "--to", "ana@here.example"];
    let tls = ["--tls-on-connect", "--auth", "PLAIN", "--auth-user", "ana@here.example"];
    let address = format!("127.0.0.1:{}", proxy.version_2_tls);
    let login = ["--server", &address, "--auth-password", "secret word"];
    let sent = peers::swaks([login.as_slice(), &tls, &more].concat());
    assert!(sent.status.success(), "{}", String::from_utf8_lossy(&sent.stdout));
    assert!(server.log().contains(" client=127.0.0.63"), "{}", server.log());
    // HAProxy also makes health checks, and names itself as the client.
    wait_for("a check", || server.monitor_page("/metrics").contains("result=\"local\"").then_some(()));
    assert!(!server.log().contains("was dropped"), "{}", server.log());
}
