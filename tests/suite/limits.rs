//! Ceilings and deadlines, as a client meets them.

use std::io::Write as _;
use std::time::{Duration, Instant};

use crate::dialogs::parse;
use crate::dialogs_on_sockets::{OnSocket, Workshop};
use crate::house::{Client, House, PATIENCE, wait_for};
use crate::peers::SmtpSink;

#[test]
fn the_house_can_be_full_and_empties_again() {
    let house = House::started("[limits]\nsessions-max = 2\n");
    let enter = || Client::try_connect(([127, 0, 0, 1], house.smtp).into());
    // The connections by which the start was noticed may still be there.
    let (mut one, _two) = (wait_for("a place", || enter().ok()), wait_for("a place", || enter().ok()));
    let refusal = enter().err().unwrap();
    assert!(refusal.starts_with("421 4.3.2 ") && refusal.contains("too many sessions"), "{refusal}");
    assert!(house.page("/metrics").contains("session_refused_total{limit=\"sessions-max\"} "));
    one.expect("QUIT", "221");
    wait_for("a place", || enter().ok());
}

#[test]
fn recipients_errors_and_waiting_messages_are_counted() {
    let dir = tempfile::tempdir().unwrap();
    let sink = SmtpSink::start_with(dir.path(), &["-r", "RCPT"]);
    let dns = postrider::fakes::DnsServer::start(
        "there.example. MX 10 mx.there.example.\nmx.there.example. A 127.0.0.1\n",
    );
    let house = House::started(&format!(
        "[limits]\nrecipients-max = 100\nerrors-max = 2\n[queue]\nmessages-max = 1\n\
         [relay]\nnetworks = [\"127.0.0.0/8\"]\n[dns]\nservers = [\"{}\"]\n[delivery.smtp]\nport = {}\n",
        dns.address, sink.port
    ));
    let mut client = house.client();
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
    assert_eq!(client.reply(), "", "and hangs up");
}

#[test]
fn a_client_that_is_silent_is_told_so_and_let_go() {
    let house = House::started("[limits]\ncommand-timeout = \"1s\"\n");
    let mut client = house.client();
    assert!(client.reply().starts_with("421 4.4.2 mx.here.example"));
    assert_eq!(client.reply(), "");
}

#[test]
fn the_wait_between_attempts_and_the_lifetime_are_as_configured() {
    let dir = tempfile::tempdir().unwrap();
    let sink = SmtpSink::start_with(dir.path(), &["-r", "RCPT"]);
    let dns = postrider::fakes::DnsServer::start(
        "there.example. MX 10 mx.there.example.\nmx.there.example. A 127.0.0.1\n",
    );
    let house = House::started(&format!(
        "[queue]\nlifetime = \"4s\"\nretry = [\"1s\"]\n\
         [relay]\nnetworks = [\"127.0.0.0/8\"]\n[dns]\nservers = [\"{}\"]\n[delivery.smtp]\nport = {}\n",
        dns.address, sink.port
    ));
    house.send("ana@here.example", "bo@there.example", "never arrives");
    let report = house.letter("here.example", "ana");
    assert!(report.contains("Status: 4.4.7") && report.contains("bo@there.example"), "{report}");
    assert!(sink.counts().sessions >= 2, "it was tried again before the end: {:?}", sink.counts());
}

/// A client on a listener whose settings are shorter than the configuration allows.
fn meets(adjust: impl FnOnce(&mut postrider::inbound::Settings), act: impl FnOnce(Client)) {
    let mut workshop = Workshop::new();
    let dialog = parse("limits", "# RFC 5321\npolicy: sender ok\npolicy: recipient ok\n");
    let wire = OnSocket::with(&mut workshop, &dialog, |services| adjust(&mut services.settings));
    act(Client::connect(wire.address));
}

#[test]
fn a_client_that_is_never_silent_cannot_stay_for_ever() {
    meets(
        |settings| settings.session_timeout = Duration::from_millis(500),
        |mut client| {
            let end = Instant::now() + PATIENCE;
            let last = loop {
                let reply = client.say("NOOP");
                if !reply.starts_with("250 2.0.0") || Instant::now() > end {
                    break reply;
                }
                // The pace of the client: slow enough that it is not the number of commands that ends it.
                std::thread::sleep(Duration::from_millis(20));
            };
            assert!(last.starts_with("421 4.4.2 "), "{last}");
        },
    );
}

#[test]
fn a_message_that_dribbles_in_cannot_take_for_ever() {
    meets(
        |settings| settings.message_timeout = Duration::from_millis(500),
        |mut client| {
            client.begin("bo@there.example", "ana@here.example");
            let mut writer = client.writer();
            let dribble = std::thread::spawn(move || {
                let end = Instant::now() + PATIENCE;
                // The pace of the client, not a wait: each octet comes well within its own deadline.
                while writer.write_all(b"x").is_ok() && Instant::now() < end {
                    std::thread::sleep(Duration::from_millis(5));
                }
                Instant::now() < end
            });
            let reply = client.reply();
            assert!(reply.starts_with("421 4.4.2 "), "{reply}");
            assert!(dribble.join().unwrap(), "the connection was closed");
        },
    );
}
