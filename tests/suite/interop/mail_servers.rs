//! Mail exchanged with other mail programs on loopback: Exim, swaks, smtp-source, smtp-sink, an old OpenSSL
//! server, procmail and maildrop.

use std::collections::HashSet;
use std::path::Path;

use crate::peers::{self, Exim, Load, SmtpSink};
use crate::test_server::{RELAY_FROM_LOOPBACK, TestServer, loopback_dns, messages_in, wait_for};

/// A message with everything that a careless server changes: dots, long lines, 8-bit octets, trailing spaces,
/// an empty last line.
const AWKWARD: &str = "From: ana@here.example\nTo: bo@exim.test\nSubject: awkward =?utf-8?q?gr=C3=BC=C3=9Fe?=\n\
MIME-Version: 1.0\nContent-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: 8bit\n\n\
.\n..\n.hidden\nFrom the start of a line\ngrüße\ttab  \n\n";

fn awkward() -> String {
    format!("{AWKWARD}{}\n\n", "x".repeat(990))
}

fn lf(text: &str) -> Vec<u8> {
    text.as_bytes().to_vec()
}

/// The part of a Maildir file behind the fields that were added on top.
fn behind_our_fields(octets: &[u8]) -> Vec<u8> {
    let text = String::from_utf8(octets.to_vec()).unwrap();
    let at = text.find("From: ana@here.example").unwrap();
    text.as_bytes()[at..].to_vec()
}

#[test]
fn exim_gets_a_message_octet_for_octet_over_tls() {
    let dir = tempfile::tempdir().unwrap();
    let exim = Exim::start(dir.path(), 1);
    let (_dns, toml) = loopback_dns(&["exim.test"], exim.port);
    let server = TestServer::new_started(&format!("{toml}{RELAY_FROM_LOOPBACK}"));
    let message = awkward();
    let data = peers::swaks_data(dir.path(), &message);
    let mail = ["--from", "ana@here.example", "--to", "bo@exim.test", "--data", &data];
    let output = server.submit_with_swaks(server.submission_port, "ana@here.example", "secret word", &mail);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    let mails = exim.wait_for_mail(1);
    let mail = &mails[0];
    assert_eq!(
        (mail.reverse_path.as_str(), mail.forward_path.as_str()),
        ("ana@here.example", "bo@exim.test")
    );
    assert!(mail.trace.contains("with esmtps") && mail.trace.contains("TLS1"), "over TLS: {}", mail.trace);
    assert_eq!(behind_our_fields(&mail.message), lf(&message));
    let (code, shown, error) = server.run_to_end(&["peer", "show", "exim.test"]);
    assert!(code == 0 && shown.contains("tls-unverified"), "{shown}{error}");
}

#[test]
fn exim_sends_us_a_message_octet_for_octet_over_tls() {
    let dir = tempfile::tempdir().unwrap();
    let server = TestServer::new_started("");
    let exim = Exim::start(dir.path(), server.smtp_port);
    let message = awkward();
    let data = peers::swaks_data(dir.path(), &message);
    let exim_address = format!("127.0.0.1:{}", exim.port);
    let output = peers::swaks([
        "--server",
        &exim_address,
        "--from",
        "bo@exim.test",
        "--to",
        "ana@here.example",
        "--data",
        &data,
    ]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    let received = server.wait_for_message("here.example", "ana");
    assert!(received.contains("with ESMTPS"), "{received}");
    assert_eq!(behind_our_fields(received.as_bytes()), lf(&message));
    // Exim uses CHUNKING where it is offered.
    assert!(server.monitor_page("/metrics").contains("session_command_total{verb=\"BDAT\"} 1"));
}

#[test]
#[cfg(feature = "legacy-tls")]
fn a_peer_with_cbc_suites_only_is_reached_by_the_legacy_tls_library() {
    use crate::legacy_tls_server::{LegacyTlsServer, ObservedConnection};
    let peer = LegacyTlsServer::start();
    let (_dns, toml) = loopback_dns(&["old.example"], peer.port);
    let server = TestServer::new_started(&format!("{toml}{RELAY_FROM_LOOPBACK}"));
    server.send_message("ana@here.example", "bo@old.example", "to an old peer");
    let seen = wait_for("the message", || Some(peer.connections()).filter(|seen| seen.len() >= 2));
    let [ObservedConnection::HandshakeFailed, ObservedConnection::Encrypted { version, suite, message }] =
        &seen[..]
    else {
        panic!("{seen:?}")
    };
    assert_eq!((version.as_str(), suite.as_str()), ("TLSv1.2", "ECDHE-ECDSA-AES128-SHA"));
    assert!(message.ends_with("Subject: to an old peer\n\nHello bo@old.example.\n"), "{message}");
    let (code, shown, error) = server.run_to_end(&["peer", "show", "old.example"]);
    assert!(code == 0 && shown.contains("tls-unverified"), "{shown}{error}");
}

#[test]
fn a_bounce_quotes_the_refusal_of_exim() {
    let dir = tempfile::tempdir().unwrap();
    let exim = Exim::start(dir.path(), 1);
    let (_dns, toml) = loopback_dns(&["exim.test"], exim.port);
    let server = TestServer::new_started(&format!("{toml}{RELAY_FROM_LOOPBACK}"));
    server.send_message("ana@here.example", "nobody@exim.test", "to nobody");
    let bounce = server.wait_for_message("here.example", "ana");
    assert!(
        bounce.contains("Diagnostic-Code: smtp; 550") && bounce.contains("Remote-MTA: dns; mx.exim.test"),
        "{bounce}"
    );
}

#[test]
fn hundreds_of_messages_from_smtp_source_arrive_once_each() {
    let server = TestServer::new_started("");
    let load = Load {
        port: server.smtp_port,
        sessions: 20,
        messages: 400,
        octets: 4096,
        reverse_path: "bo@there.example",
        forward_path: "ana@here.example",
    };
    let output = peers::smtp_source(&load);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let messages = wait_for("all messages", || {
        let messages = server.maildir_messages("here.example", "ana");
        (messages.len() >= 400).then_some(messages)
    });
    let ids: HashSet<_> = messages.iter().map(|message| id_of(message)).collect();
    assert_eq!((messages.len(), ids.len()), (400, 400));
}

/// The id in our Received field.
fn id_of(message: &[u8]) -> String {
    let text = String::from_utf8_lossy(message);
    text.split("\n\tid ").nth(1).unwrap().split(';').next().unwrap().to_owned()
}

#[test]
fn hundreds_of_messages_reach_smtp_sink() {
    let dir = tempfile::tempdir().unwrap();
    let sink = SmtpSink::start(dir.path());
    let (_dns, toml) = loopback_dns(&["there.example"], sink.port);
    let server = TestServer::new_started(&format!("{toml}{RELAY_FROM_LOOPBACK}"));
    let load = Load {
        port: server.smtp_port,
        sessions: 20,
        messages: 300,
        octets: 4096,
        reverse_path: "ana@here.example",
        forward_path: "bo@there.example",
    };
    assert!(peers::smtp_source(&load).status.success());
    let mails = sink.wait_for_mail(300);
    let ids: HashSet<_> = mails.iter().map(|mail| id_of(&mail.message)).collect();
    assert_eq!(ids.len(), 300);
    let counts = sink.wait_until(|counts| counts.quits > 0 && counts.quits == counts.sessions);
    assert!(counts.sessions < 150, "connections are reused: {counts:?}");
}

#[test]
fn recipients_of_one_message_at_one_destination_are_sent_in_one_transaction() {
    let dir = tempfile::tempdir().unwrap();
    let sink = SmtpSink::start(dir.path());
    let (_dns, toml) = loopback_dns(&["there.example"], sink.port);
    let server = TestServer::new_started(&format!("{toml}{RELAY_FROM_LOOPBACK}"));
    let mut client = server.connect();
    client.expect("EHLO there.example", "250");
    client.expect("MAIL FROM:<ana@here.example>", "250");
    for n in 0..30 {
        client.expect(&format!("RCPT TO:<user{n}@there.example>"), "250");
    }
    client.expect("DATA", "354");
    client.expect("Subject: many\r\n\r\nhello\r\n.", "250");
    let mails = sink.wait_for_mail(1);
    assert_eq!(mails[0].recipients.len(), 30);
    assert_eq!(sink.counts().messages, 1);
}

/// A configuration that delivers local mail by this command.
fn agent_toml(command: &[String]) -> String {
    let quoted: Vec<_> = command.iter().skip(1).map(|word| format!("{word:?}")).collect();
    format!(
        "[delivery]\nlocal = \"command\"\n[delivery.command]\nprogram = {:?}\narguments = [{}]\n",
        command[0],
        quoted.join(", ")
    )
}

/// Delivers one message by the command that `agent` returns for a Maildir, and checks the Maildir.
fn assert_agent_delivers(agent: impl Fn(&Path) -> Vec<String>) {
    let dir = tempfile::tempdir().unwrap();
    let maildir = dir.path().join("Maildir");
    let server = TestServer::new_started(&agent_toml(&agent(&maildir)));
    server.send_message("bo@there.example", "ana@here.example", "by agent");
    let messages =
        wait_for("the message", || Some(messages_in(&maildir.join("new"))).filter(|found| !found.is_empty()));
    let message = String::from_utf8(messages[0].clone()).unwrap();
    assert!(
        message.contains("Return-Path: <bo@there.example>") && message.contains("Subject: by agent"),
        "{message}"
    );
}

#[test]
fn procmail_delivers_into_a_maildir() {
    assert_agent_delivers(peers::procmail_command);
}

#[test]
fn maildrop_delivers_into_a_maildir() {
    assert_agent_delivers(peers::maildrop_command);
}

#[test]
fn exit_status_75_of_real_agents_keeps_the_mail_and_any_other_bounces_it() {
    let dir = tempfile::tempdir().unwrap();
    let agents = [
        (peers::procmail_exit_command(dir.path(), 75), false),
        (peers::maildrop_exit_command(dir.path(), 75), false),
        (peers::procmail_exit_command(dir.path(), 77), true),
        (peers::maildrop_exit_command(dir.path(), 77), true),
    ];
    for (command, is_final) in agents {
        let server = TestServer::new_started(&agent_toml(&command));
        server.send_message("", "ana@here.example", "by agent");
        let wanted = if is_final { "failed" } else { "deferred" };
        wait_for(wanted, || server.log().contains(wanted).then_some(()));
        let what = if is_final { "an empty queue" } else { "the message in the queue" };
        wait_for(what, || {
            let is_listed = server.run_to_end(&["queue", "list"]).1.contains("ana@here.example");
            (is_listed != is_final).then_some(())
        });
    }
}
