//! Limits and deadlines of the real program, and of a listener with short settings.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use postrider::inbound::Settings;

use crate::dialogs::on_sockets::{OnSocket, SocketFixture};
use crate::dialogs::parse;
use crate::interop::proxy::{self, brought, brought_saying};
use crate::peers::SmtpSink;
use crate::test_server::{RELAY_FROM_LOOPBACK, SmtpClient, TestServer, WAIT_TIMEOUT, loopback_dns, wait_for};

#[test]
fn new_sessions_are_refused_at_the_limit_and_accepted_when_one_ends() {
    let server = TestServer::new_started("[limits]\nsessions-max = 2\n");
    let enter = || SmtpClient::try_connect(([127, 0, 0, 1], server.smtp_port).into());
    // The connections by which the start was noticed may still be there.
    let (mut one, _two) = (wait_for("a place", || enter().ok()), wait_for("a place", || enter().ok()));
    let refusal = enter().err().unwrap();
    assert!(refusal.starts_with("421 4.3.2 ") && refusal.contains("too many sessions"), "{refusal}");
    assert!(server.monitor_page("/metrics").contains("session_refused_total{limit=\"sessions-max\"} "));
    one.expect("QUIT", "221");
    wait_for("a place", || enter().ok());
}

#[test]
fn recipients_errors_and_waiting_messages_are_counted() {
    let dir = tempfile::tempdir().unwrap();
    let sink = SmtpSink::start_with(dir.path(), &["-r", "RCPT"]);
    let (_dns, toml) = loopback_dns(&["there.example"], sink.port);
    let server = TestServer::new_started(&format!(
        "[limits]\nrecipients-max = 100\nerrors-max = 2\n[queue]\nmessages-max = 1\n{RELAY_FROM_LOOPBACK}{toml}"
    ));
    let mut client = server.connect();
    client.expect("EHLO there.example", "250");
    client.expect("MAIL FROM:<ana@here.example>", "250");
    for number in 0..100 {
        client.expect(&format!("RCPT TO:<bo{number}@there.example>"), "250");
    }
    client.expect("RCPT TO:<one-more@there.example>", "452 4.5.3");
    client.expect("DATA", "354");
    client.expect("Subject: waits\r\n\r\nhello\r\n.", "250");
    client.expect("MAIL FROM:<ana@here.example>", "250");
    client.expect("RCPT TO:<bo@there.example>", "250");
    client.expect("DATA", "354");
    client.expect("Subject: too many\r\n\r\nhello\r\n.", "452 4.3.1");
    client.expect("NONSENSE", "500");
    client.expect("NONSENSE", "500");
    client.expect("NONSENSE", "421 4.7.0");
    assert_eq!(client.read_reply(), "", "and hangs up");
}

#[test]
fn a_silent_client_gets_421_and_is_disconnected() {
    let server = TestServer::new_started("[limits]\ncommand-timeout = \"1s\"\n");
    let mut client = server.connect();
    assert!(client.read_reply().starts_with("421 4.4.2 mx.here.example"));
    assert_eq!(client.read_reply(), "");
}

#[test]
fn the_wait_between_attempts_and_the_lifetime_are_as_configured() {
    let dir = tempfile::tempdir().unwrap();
    let sink = SmtpSink::start_with(dir.path(), &["-r", "RCPT"]);
    let (_dns, toml) = loopback_dns(&["there.example"], sink.port);
    let server = TestServer::new_started(&format!(
        "[queue]\nlifetime = \"4s\"\nretry = [\"1s\"]\n{RELAY_FROM_LOOPBACK}{toml}messages-per-connection-max = 1\n"
    ));
    server.send_message("ana@here.example", "bo@there.example", "never arrives");
    let report = server.wait_for_message("here.example", "ana");
    assert!(report.contains("Status: 4.4.7") && report.contains("bo@there.example"), "{report}");
    assert!(sink.counts().sessions >= 2, "it was tried again before the end: {:?}", sink.counts());
}

/// A client on a listener whose settings are shorter than the configuration allows.
fn meets(adjust: impl FnOnce(&mut Settings), act: impl FnOnce(SmtpClient)) {
    let mut fixture = SocketFixture::new();
    let dialog = parse("limits", "# RFC 5321\npolicy: sender ok\npolicy: recipient ok\n");
    let wire = OnSocket::with(&mut fixture, &dialog, |services| {
        let mut settings = Settings::clone(&services.settings.load());
        adjust(&mut settings);
        services.settings.store(Arc::new(settings));
    });
    act(SmtpClient::connect(wire.address));
}

#[test]
fn a_session_keeps_the_settings_with_which_it_began() {
    let mut fixture = SocketFixture::new();
    let mut settings = None;
    let dialog = parse("limits", "# RFC 5321\n");
    let wire =
        OnSocket::with(&mut fixture, &dialog, |services| settings = Some(Arc::clone(&services.settings)));
    let settings = settings.unwrap();
    let mut first = SmtpClient::connect(wire.address);
    settings.store(Arc::new(Settings { message_octets_max: 4321, ..Settings::clone(&settings.load()) }));
    assert!(first.command("EHLO there.example").contains("SIZE 1000000"));
    let mut second = SmtpClient::connect(wire.address);
    assert!(second.command("EHLO there.example").contains("SIZE 4321"));
}

#[test]
fn a_client_that_is_never_silent_is_disconnected_in_the_end() {
    meets(
        |settings| settings.session_timeout = Duration::from_millis(500),
        |mut client| {
            let end = Instant::now() + WAIT_TIMEOUT;
            let last = loop {
                let reply = client.command("NOOP");
                if !reply.starts_with("250 2.0.0") || Instant::now() > end {
                    break reply;
                }
                // The pace of the client: slow enough that the number of commands does not end the session.
                std::thread::sleep(Duration::from_millis(20));
            };
            assert!(last.starts_with("421 4.4.2 "), "{last}");
        },
    );
}

/// Sends an octet after the other, each well before a deadline, until the server closes the connection with 421.
fn send_slowly_until_closed(client: &mut SmtpClient) {
    let mut writer = client.cloned_stream();
    let sender = std::thread::spawn(move || {
        let end = Instant::now() + WAIT_TIMEOUT;
        // The pace of the client, not a wait for the server.
        while writer.write_all(b"x").is_ok() && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(5));
        }
        Instant::now() < end
    });
    let reply = client.read_reply();
    assert!(reply.starts_with("421 4.4.2 "), "{reply}");
    assert!(sender.join().unwrap(), "the connection was closed");
}

#[test]
fn a_message_sent_octet_by_octet_is_cut_off() {
    meets(
        |settings| settings.message_timeout = Duration::from_millis(500),
        |mut client| {
            client.begin_data("bo@there.example", "ana@here.example");
            send_slowly_until_closed(&mut client);
        },
    );
}

#[test]
fn a_command_sent_octet_by_octet_has_no_more_time_than_another() {
    meets(
        |settings| settings.command_timeout = Duration::from_millis(500),
        |mut client| {
            send_slowly_until_closed(&mut client);
        },
    );
}

#[test]
fn a_handshake_sent_octet_by_octet_is_cut_off() {
    let server = TestServer::new_started("[limits]\ncommand-timeout = \"1s\"\n");
    let mut stream = TcpStream::connect(("127.0.0.1", server.submissions_port)).unwrap();
    // The beginning of a ClientHello that is to be 500 octets long; the pace is the client's.
    stream.write_all(&[22, 3, 1, 1, 244]).unwrap();
    stream.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
    let end = Instant::now() + WAIT_TIMEOUT;
    while !matches!(stream.read(&mut [0]), Ok(0)) && stream.write_all(&[1]).is_ok() {
        assert!(Instant::now() < end, "it is still there");
    }
    wait_for("the log line", || server.log().contains("the handshake failed: timed out").then_some(()));
}

#[test]
fn an_address_over_its_rate_limit_gets_421_and_others_do_not() {
    let server = proxy::server("[limits.address-per-hour]\nconnections = 2\n");
    for _ in 0..2 {
        brought(&server, "192.0.2.1").ok().unwrap().expect("QUIT", "221");
    }
    let refusal = brought(&server, "192.0.2.1").err().unwrap();
    assert!(
        refusal.starts_with("421 4.7.0 mx.here.example closing connection: too many connections"),
        "{refusal}"
    );
    brought(&server, "192.0.2.2").ok().unwrap().expect("QUIT", "221");
    let metrics = server.monitor_page("/metrics");
    let counted = "session_refused_total{limit=\"address-per-hour.connections\"} 1";
    assert!(metrics.contains(counted), "{metrics}");
}

#[test]
fn messages_and_recipients_over_the_hourly_limit_get_450() {
    let server =
        proxy::server("[limits.address-per-hour]\nmessages = 2\nrecipients = 3\nunknown-recipients = 1\n");
    let mut client = brought(&server, "192.0.2.1").ok().unwrap();
    client.expect("EHLO there.example", "250");
    client.expect("MAIL FROM:<bo@there.example>", "250");
    for _ in 0..3 {
        client.expect("RCPT TO:<ana@here.example>", "250");
    }
    let reply = client.expect("RCPT TO:<ana@here.example>", "450 4.7.1 Too many recipients");
    assert!(reply.contains("from your address within an hour"), "{reply}");
    client.expect("RSET", "250");
    client.expect("MAIL FROM:<bo@there.example>", "250");
    client.expect("RSET", "250");
    client.expect("MAIL FROM:<bo@there.example>", "450 4.7.1 Too many messages");

    // A client that guesses recipients learns of one, and of no other.
    let mut guesser = brought(&server, "192.0.2.2").ok().unwrap();
    guesser.expect("EHLO there.example", "250");
    guesser.expect("MAIL FROM:<bo@there.example>", "250");
    guesser.expect("RCPT TO:<nobody@here.example>", "550");
    for name in ["nobody-else", "ana"] {
        guesser
            .expect(&format!("RCPT TO:<{name}@here.example>"), "450 4.7.1 Too many recipients that do not");
    }
    let metrics = server.monitor_page("/metrics");
    for limit in ["messages", "recipients", "unknown-recipients"] {
        let counted = format!("rate_limit_refused_total{{limit=\"address-per-hour.{limit}\"}} ");
        assert!(metrics.contains(&counted), "{counted} in {metrics}");
    }
    // Our own host is not counted.
    let mut ours = brought(&server, "127.0.0.9").ok().unwrap();
    ours.expect("EHLO here.example", "250");
    for _ in 0..4 {
        ours.expect("MAIL FROM:<bo@there.example>", "250");
        ours.expect("RSET", "250");
    }
}

#[test]
fn a_login_is_counted_whatever_its_address() {
    let server = TestServer::new_started("[limits.login-per-hour]\nmessages = 1\n");
    let more = ["--from", "ana@here.example", "--to", "ana@here.example"];
    let send = |port| server.submit_with_swaks(port, "ana@here.example", "secret word", &more);
    assert!(send(server.submission_port).status.success());
    let refused = send(server.submissions_port);
    let said = String::from_utf8_lossy(&refused.stdout).into_owned();
    assert!(said.contains("450 4.7.1 Too many messages from your account"), "{said}");
    assert!(
        server
            .monitor_page("/metrics")
            .contains("rate_limit_refused_total{limit=\"login-per-hour.messages\"} 1")
    );
}

/// The refusal is in the log with its reasons, and in the traces.
fn assert_is_recorded(server: &TestServer, refusal: &str, reasons: &str) {
    let (_, reference) = refusal.trim_end().rsplit_once("(ref ").unwrap();
    let reference = format!("(ref {reference}");
    wait_for("the log line", || {
        let log = server.log();
        log.lines().any(|line| line.contains(&reference) && line.ends_with(reasons)).then_some(())
    });
    wait_for("the trace", || server.monitor_page("/traces").contains(&reference).then_some(()));
}

#[test]
fn a_refusal_is_found_by_its_reference_in_the_log_and_in_the_traces() {
    let server = TestServer::new_started("");
    let mut client = server.connect();
    client.expect("EHLO there.example", "250");
    client.expect("MAIL FROM:<bo@there.example>", "250");
    let refusal = client.expect("RCPT TO:<nobody@here.example>", "550");
    let reasons = "stage=recipient because=\"no account and no alias has this address\"";
    assert_is_recorded(&server, &refusal, reasons);
    let other = client.expect("RCPT TO:<nobody@here.example>", "550");
    assert_ne!(other, refusal, "each has its own");
}

#[test]
fn a_client_that_sends_before_the_greeting_is_refused_and_one_that_waits_is_not() {
    let server = proxy::server("[limits]\ngreeting-delay = \"1s\"\n");
    let refusal = brought_saying(&server, "192.0.2.1", "EHLO there.example\r\n").err().unwrap();
    let text = "554 5.5.1 Wait for the greeting before you send commands (ref ";
    assert!(refusal.starts_with(text), "{refusal}");
    assert_is_recorded(
        &server,
        &refusal,
        "stage=connection because=\"the client did not wait for the greeting\"",
    );
    brought(&server, "192.0.2.1").ok().unwrap().expect("QUIT", "221");
    assert!(server.monitor_page("/metrics").contains("session_early_talker_total 1"));
}

#[test]
fn sessions_of_one_network_leave_room_for_other_networks() {
    let server = proxy::server("[limits]\nsessions-per-address-max = 1\nsessions-per-network-max = 3\n");
    let inside: Vec<_> = (1..4).map(|n| brought(&server, &format!("192.0.2.{n}")).ok().unwrap()).collect();
    let refusal = brought(&server, "192.0.2.9").err().unwrap();
    assert!(refusal.starts_with("421 4.3.2 "), "{refusal}");
    brought(&server, "203.0.113.9").ok().unwrap().expect("QUIT", "221");
    assert!(
        server
            .monitor_page("/metrics")
            .contains("session_refused_total{limit=\"sessions-per-network-max\"} 1")
    );
    drop(inside);
    wait_for("a place", || brought(&server, "192.0.2.9").ok());
}

#[test]
fn a_message_that_is_announced_as_too_big_is_logged_with_its_sender() {
    let server = TestServer::new_started("[limits]\nmessage-size-max = \"64 KiB\"\n");
    let mut client = server.connect();
    client.expect("EHLO there.example", "250");
    client.expect("MAIL FROM:<bo@there.example> SIZE=65537", "552 5.3.4");
    let line = wait_for("the refusal", || {
        server.log().lines().find(|line| line.contains("552 5.3.4")).map(str::to_owned)
    });
    assert!(line.contains("from=<bo@there.example>"), "{line}");
}
