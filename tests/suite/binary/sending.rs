//! Mail for other hosts: who may send it, how it leaves, and which bounces come back.

use std::fs;

use postrider::fakes::DnsServer;

use crate::peers::SmtpSink;
use crate::test_server::{RELAY_FROM_LOOPBACK, TestServer, loopback_dns, wait_for};

#[test]
fn a_user_logs_in_over_tls_and_sends_anywhere() {
    let dir = tempfile::tempdir().unwrap();
    let sink = SmtpSink::start(dir.path());
    let (_dns, toml) = loopback_dns(&["there.example"], sink.port);
    let server = TestServer::new_started(&toml);
    for port in [server.submission_port, server.submissions_port] {
        let mail = ["--from", "ana@here.example", "--to", "bo@there.example"];
        let output = server.submit_with_swaks(port, "ana@here.example", "secret word", &mail);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    }
    for mail in sink.wait_for_mail(2) {
        assert!(mail.mail.contains("<ana@here.example>"), "{}", mail.mail);
        assert_eq!(mail.hello, "here.example", "the sender's domain is one of ours");
        let text = String::from_utf8(mail.message).unwrap();
        assert!(
            text.contains("with ESMTPSA") && !text.contains("127.0.0.1"),
            "where a user sits is not told: {text}"
        );
    }
}

#[test]
fn a_wrong_password_and_an_unknown_user_get_the_same_reply() {
    let server = TestServer::new_started("");
    let said = |user: &str| {
        let output =
            server.submit_with_swaks(server.submission_port, user, "wrong", &["--quit-after", "AUTH"]);
        assert!(!output.status.success());
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let reply = text.lines().find(|line| line.contains("535")).unwrap_or_else(|| panic!("{text}"));
        reply.split_once(" (ref ").unwrap().0.to_owned()
    };
    assert_eq!(said("ana@here.example"), said("nobody@here.example"));
}

#[test]
fn a_permanent_failure_causes_a_bounce() {
    let dir = tempfile::tempdir().unwrap();
    let sink = SmtpSink::start_with(dir.path(), &["-f", "RCPT"]);
    let (_dns, toml) = loopback_dns(&["there.example"], sink.port);
    let server = TestServer::new_started(&format!("{toml}\n{RELAY_FROM_LOOPBACK}"));
    server.send_message("ana@here.example", "bo@there.example", "to be refused");
    let report = server.wait_for_message("here.example", "ana");
    for part in [
        "Return-Path: <>\n",
        "multipart/report",
        "Final-Recipient: rfc822; bo@there.example",
        "Action: failed",
        "Status: 5.3.0",
        "Remote-MTA: dns; mx.there.example",
        "Diagnostic-Code: smtp; 500 5.3.0 ",
        "Auto-Submitted: auto-replied",
        "Subject: to be refused",
    ] {
        assert!(report.contains(part), "{part} in {report}");
    }
}

#[test]
fn a_null_mx_fails_at_once_with_its_reason() {
    let (_dns, toml) = loopback_dns(&["there.example"], 1);
    let server = TestServer::new_started(&format!("{toml}\n{RELAY_FROM_LOOPBACK}"));
    server.send_message("ana@here.example", "bo@null.example", "nowhere");
    assert!(server.wait_for_message("here.example", "ana").contains("Status: 5.1.10"));
    server.send_message("ana@here.example", "bo@missing.example", "nowhere");
    wait_for("the second report", || {
        (server.maildir_messages("here.example", "ana").len() == 2).then_some(())
    });
}

#[test]
fn a_bounce_leaves_like_any_message_and_the_null_reverse_path_gets_none() {
    let dir = tempfile::tempdir().unwrap();
    let sink = SmtpSink::start(dir.path());
    let (_dns, toml) = loopback_dns(&["there.example"], sink.port);
    let mut server = TestServer::new(&toml);
    fs::write(server.path("domains/here.example/aliases"), "broken: | sh -c \"exit 67\"\n").unwrap();
    server.start();
    let is_queue_empty =
        || server.run_to_end(&["queue", "list"]).1.contains("the queue is empty").then_some(());
    server.send_message("", "broken@here.example", "from nobody");
    wait_for("the failure", || server.log().contains("status=5.1.1").then_some(()));
    wait_for("an empty queue", is_queue_empty);
    server.send_message("bo@there.example", "broken@here.example", "from Bo");
    let mails = sink.wait_for_mail(1);
    assert_eq!(mails[0].mail.split(' ').next(), Some("<>"), "{}", mails[0].mail);
    assert_eq!(
        (mails[0].hello.as_str(), &mails[0].recipients[..]),
        ("mx.here.example", &["<bo@there.example> NOTIFY=NEVER".to_owned()][..])
    );
    let text = String::from_utf8(mails[0].message.clone()).unwrap();
    for part in [
        "From: Mail Delivery System <postmaster@mx.here.example>\n",
        "Content-Type: multipart/report; report-type=delivery-status;",
        "Subject: from Bo\n",
    ] {
        assert!(text.contains(part), "{part} in {text}");
    }
    wait_for("an empty queue", is_queue_empty);
    assert_eq!(sink.counts().messages, 1);
}

#[test]
fn a_bounce_has_the_dns_failure_or_the_end_of_the_lifetime_as_its_reason() {
    let dns = DnsServer::start("null.example. MX 0 .\nbroken.example. SERVFAIL\n");
    let server = TestServer::new_started(&format!(
        "[dns]\nservers = [\"{}\"]\n[queue]\nlifetime = \"2s\"\nretry = [\"1s\"]\n{RELAY_FROM_LOOPBACK}",
        dns.address
    ));
    for (number, (to, status, subject)) in [
        ("bo@null.example", "5.1.10", "returned to sender"),
        ("bo@missing.example", "5.1.2", "returned to sender"),
        ("bo@broken.example", "4.4.7", "given up"),
    ]
    .into_iter()
    .enumerate()
    {
        server.send_message("ana@here.example", to, "to nobody");
        let messages = wait_for("a report", || {
            Some(server.maildir_messages("here.example", "ana")).filter(|messages| messages.len() > number)
        });
        let texts: Vec<_> = messages.into_iter().map(|octets| String::from_utf8(octets).unwrap()).collect();
        let about = format!("Final-Recipient: rfc822; {to}\n");
        let report = texts.iter().find(|text| text.contains(&about)).unwrap_or_else(|| panic!("{texts:#?}"));
        for part in [
            "Return-Path: <>\n".to_owned(),
            format!("Subject: Undelivered mail: {subject}\n"),
            format!("Action: failed\nStatus: {status}\nDiagnostic-Code: x-postrider; "),
        ] {
            assert!(report.contains(&part), "{part} in {report}");
        }
        assert!(!report.contains("Remote-MTA:"), "nobody was spoken to: {report}");
    }
}

#[test]
fn addresses_beyond_ascii_are_sent_in_a_labels_or_bounced() {
    let dir = tempfile::tempdir().unwrap();
    let sink = SmtpSink::start(dir.path());
    let (_dns, toml) = loopback_dns(&["bücher.example"], sink.port);
    let server = TestServer::new_started(&format!("{toml}{RELAY_FROM_LOOPBACK}"));
    let mut client = server.connect();
    client.expect("EHLO there.example", "250");
    client.expect("MAIL FROM:<ana@here.example> SMTPUTF8", "250");
    client.expect("RCPT TO:<bo@bücher.example>", "250");
    client.expect("RCPT TO:<δοκιμή@bücher.example>", "250");
    client.expect("DATA", "354");
    client.expect("Subject: names\r\n\r\nhello\r\n.", "250");
    let mails = sink.wait_for_mail(1);
    assert_eq!(mails[0].recipients, ["<bo@xn--bcher-kva.example>"]);
    assert!(!mails[0].mail.contains("SMTPUTF8"), "{}", mails[0].mail);
    let report = server.wait_for_message("here.example", "ana");
    for part in [
        "Content-Type: message/global-delivery-status\n",
        "Final-Recipient: utf-8; δοκιμή@bücher.example\nAction: failed\nStatus: 5.6.7\n",
    ] {
        assert!(report.contains(part), "{part} in {report}");
    }
}

#[test]
fn with_hello_hostname_the_hello_name_is_the_host_for_every_sender() {
    let dir = tempfile::tempdir().unwrap();
    let sink = SmtpSink::start(dir.path());
    let (_dns, toml) = loopback_dns(&["there.example"], sink.port);
    let server = TestServer::new_started(&format!("{toml}hello = \"hostname\"\n{RELAY_FROM_LOOPBACK}"));
    for from in ["ana@here.example", "", "eve@elsewhere.example"] {
        server.send_message(from, "bo@there.example", "hello");
    }
    for mail in sink.wait_for_mail(3) {
        assert_eq!(mail.hello, "mx.here.example", "{}", mail.mail);
    }
}
