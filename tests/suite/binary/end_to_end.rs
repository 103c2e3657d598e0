//! From a client to a mailbox of this host: listen, take mail, deliver, stop.

use std::fs;

use crate::peers::SmtpSink;
use crate::test_server::{
    RELAY_FROM_LOOPBACK, Signal, SmtpClient, TestServer, greeted_from, loopback_dns, messages_in, wait_for,
};

#[test]
fn a_message_for_a_local_user_is_in_the_maildir_at_once() {
    let server = TestServer::new_started("");
    let reply = server.send_message("bo@there.example", "ana@here.example", "one");
    assert!(reply.starts_with("250 2.0.0 "), "{reply}");
    let message = server.wait_for_message("here.example", "ana");
    assert!(
        message
            .starts_with("Return-Path: <bo@there.example>\nDelivered-To: ana@here.example\nReceived: from "),
        "{message}"
    );
    assert!(message.ends_with("Subject: one\n\nHello ana@here.example.\n"), "{message}");
    assert!(server.maildir_messages("here.example", "ana").len() == 1);
}

#[test]
fn relaying_needs_a_login() {
    let server = TestServer::new_started("");
    for to in ["x@there.example", "x@[127.0.0.1]", "\"x@there.example\"@elsewhere.example"] {
        let mut client = server.connect();
        client.expect("EHLO there.example", "250");
        client.expect("MAIL FROM:<bo@there.example>", "250");
        client.expect(&format!("RCPT TO:<{to}>"), "550 5.7.1");
        client.expect("RCPT TO:<nobody@here.example>", "550 5.1.1");
    }
}

#[test]
fn localhost_is_a_local_domain_with_and_without_a_directory() {
    let server = TestServer::new_started("");
    let mut client = server.connect();
    client.expect("EHLO there.example", "250");
    client.expect("MAIL FROM:<bo@there.example>", "250");
    // Unknown, and not "we do not relay".
    client.expect("RCPT TO:<root@LOCALHOST>", "550 5.1.1");
    server.add_user("root@localhost", "secret word");
    let knows = || {
        let mut client = server.connect();
        client.expect("EHLO there.example", "250");
        client.expect("MAIL FROM:<bo@there.example>", "250");
        client.command("RCPT TO:<root@localhost>").starts_with("250").then_some(client)
    };
    let mut client = wait_for("the user", knows);
    client.expect("DATA", "354");
    client.expect("Subject: cron\r\n\r\nall is well\r\n.", "250");
    assert!(server.wait_for_message("localhost", "root").contains("Delivered-To: root@localhost\n"));
}

#[test]
fn all_forms_of_a_domain_are_the_same_domain() {
    let mut server = TestServer::new("");
    let toml = fs::read_to_string(server.path("postrider.toml")).unwrap();
    let toml = toml.replace("\"mx.here.example\"", "\"mx.bücher.example\"");
    fs::write(server.path("postrider.toml"), toml).unwrap();
    fs::create_dir(server.path("domains/BÜCHER.example")).unwrap();
    server.add_user("jürgen@xn--bcher-kva.example", "secret word");
    server.start();

    let mut client = server.connect();
    let hello = client.expect("EHLO there.example", "250");
    assert!(hello.starts_with("250-mx.xn--bcher-kva.example\r\n"), "what we say is in A-labels: {hello}");
    assert!(client.command("HELO there.example").starts_with("250 mx.xn--bcher-kva.example\r\n"));
    client.expect("EHLO there.example", "250");
    for (number, (sender, recipient)) in [
        ("anna@bücher.example", "jürgen@bücher.example"),
        ("anna@xn--bcher-kva.example", "jürgen@XN--BCHER-KVA.example"),
        ("anna@BÜCHER.example", "JÜRGEN@Bücher.EXAMPLE"),
    ]
    .into_iter()
    .enumerate()
    {
        client.expect(&format!("MAIL FROM:<{sender}> SMTPUTF8"), "250");
        client.expect(&format!("RCPT TO:<{recipient}>"), "250");
        client.expect("DATA", "354");
        client.expect("Subject: forms\r\n\r\nhello\r\n.", "250");
        let mailbox = || {
            Some(server.maildir_messages("bücher.example", "jürgen")).filter(|mailbox| mailbox.len() > number)
        };
        let messages = wait_for("the message", mailbox);
        for message in messages {
            let message = String::from_utf8(message).unwrap();
            let head = "Return-Path: <anna@bücher.example>\nDelivered-To: ";
            assert!(message.starts_with(head) && message.contains("@bücher.example\n"), "{message}");
            assert!(message.contains("by mx.xn--bcher-kva.example (postrider) with UTF8SMTP"), "{message}");
        }
    }
    // RFC 6531 §3.5: without SMTPUTF8 an address has A-labels.
    client.expect("MAIL FROM:<anna@bücher.example>", "553 5.6.7");
    client.expect("MAIL FROM:<anna@xn--bcher-kva.example>", "250");
    client.expect("RCPT TO:<jürgen@xn--bcher-kva.example>", "553 5.6.7");
}

#[test]
fn the_template_decides_where_maildirs_are() {
    let server = TestServer::new_started("[delivery.maildir]\npath = \"boxes/%domain%/of-%user%\"\n");
    server.send_message("bo@there.example", "Ana@HERE.example", "elsewhere");
    let new = server.path("boxes/here.example/of-ana/new");
    let message = wait_for("the message", || messages_in(&new).pop());
    assert!(String::from_utf8(message).unwrap().contains("Subject: elsewhere"));
}

#[test]
fn the_number_of_delivery_threads_is_as_configured_under_load() {
    let (_dns, toml) = loopback_dns(&["there.example"], 1);
    let server =
        TestServer::new_started(&format!("{toml}\n[queue]\nlocal-threads = 2\nremote-threads = 3\n"));
    for _ in 0..20 {
        server.send_message("bo@there.example", "ana@here.example", "load");
    }
    wait_for("all messages", || (server.maildir_messages("here.example", "ana").len() == 20).then_some(()));
    let names: Vec<String> = fs::read_dir(format!("/proc/{}/task", server.pid()))
        .unwrap()
        .filter_map(|task| fs::read_to_string(task.unwrap().path().join("comm")).ok())
        .filter(|name| name.starts_with("deliver-"))
        .collect();
    assert_eq!(names.len(), 5, "{names:?}");
}

#[test]
fn memory_does_not_grow_with_a_message() {
    let dir = tempfile::tempdir().unwrap();
    let sink = SmtpSink::start(dir.path());
    let (_dns, toml) = loopback_dns(&["there.example"], sink.port);
    let server = TestServer::new_started(&format!(
        "{toml}\n[limits]\nmessage-size-max = \"64 MiB\"\n{RELAY_FROM_LOOPBACK}"
    ));
    let memory_peak = || {
        let status = fs::read_to_string(format!("/proc/{}/status", server.pid())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() * 1024
    };
    let mut client = server.connect();
    let mut submit = |octets: usize| {
        client.command("EHLO there.example");
        client.expect("MAIL FROM:<ana@here.example>", "250");
        client.expect("RCPT TO:<ana@here.example>", "250");
        client.expect("RCPT TO:<bo@there.example>", "250");
        client.expect("DATA", "354");
        client.send(b"Subject: size\r\n\r\n");
        let block = format!("{}\r\n", "x".repeat(70)).repeat(1000);
        for _ in 0..octets / block.len() {
            client.send(block.as_bytes());
        }
        client.expect(".", "250");
    };
    submit(1_000_000);
    sink.wait_for_mail(1);
    let before = memory_peak();
    submit(40_000_000);
    sink.wait_for_mail(2);
    wait_for("both messages", || (server.maildir_messages("here.example", "ana").len() == 2).then_some(()));
    let more = memory_peak() - before;
    assert!(more < 8_000_000, "{more} octets more for one message of 40,000,000");
}

#[test]
fn sigterm_disconnects_idle_clients_with_421_and_lets_a_message_finish() {
    let mut server = TestServer::new_started("");
    let mut idle = server.connect();
    let mut busy = server.connect();
    busy.begin_data("bo@there.example", "ana@here.example");
    server.signal(Signal::SIGTERM);
    assert!(idle.read_reply().starts_with("421 4.3.2 "));
    assert_eq!(idle.read_reply(), "", "and hangs up");
    let reply = busy.command("Subject: last\r\n\r\nhello\r\n.");
    assert!(reply.starts_with("250 2.0.0 "), "{reply:?}\n{}", server.log());
    assert!(busy.read_reply().starts_with("421 4.3.2 "));
    assert_eq!(server.exit_code(), 0);
    server.start();
    assert!(server.wait_for_message("here.example", "ana").contains("Subject: last"));
}

#[test]
fn a_second_signal_ends_the_wait_for_sessions() {
    let mut server = TestServer::new("");
    let toml = fs::read_to_string(server.path("postrider.toml")).unwrap();
    fs::write(server.path("postrider.toml"), toml.replace("grace = \"5s\"", "grace = \"1h\"")).unwrap();
    server.start();
    let mut idle = server.connect();
    let mut busy = server.connect();
    busy.begin_data("bo@there.example", "ana@here.example");
    server.signal(Signal::SIGINT);
    assert!(idle.read_reply().starts_with("421 4.3.2 "));
    busy.send(b"Subject: never finished\r\n");
    assert_eq!(server.stop(), 1, "the second one");
    assert!(server.log().contains("told to stop again"), "{}", server.log());
    assert_eq!(busy.read_reply(), "");
}

#[test]
fn sessions_of_one_address_leave_room_for_other_addresses() {
    let server = TestServer::new_started("[limits]\nsessions-per-address-max = 2\n");
    let enter = || SmtpClient::try_connect(([127, 0, 0, 1], server.smtp_port).into());
    // The connections by which the start was noticed may still be there.
    let (_one, _two) = (wait_for("a place", || enter().ok()), wait_for("a place", || enter().ok()));
    let refusal = enter().err().unwrap();
    assert!(refusal.starts_with("421 4.3.2 ") && refusal.contains("too many sessions"), "{refusal}");
    // Another address of this host is another client.
    let other = greeted_from([127, 0, 0, 2], server.smtp_port);
    assert_eq!(other, "220");
}

#[test]
fn a_message_in_a_loop_is_refused() {
    let server = TestServer::new_started("[limits]\nreceived-max = 10\n");
    let mut client = server.connect();
    client.expect("EHLO there.example", "250");
    for (fields, code) in [(10, "250"), (11, "554 5.4.6")] {
        client.expect("MAIL FROM:<bo@there.example>", "250");
        client.expect("RCPT TO:<ana@here.example>", "250");
        client.expect("DATA", "354");
        client.expect(&format!("{}\r\nhello\r\n.", "Received: by x\r\n".repeat(fields)), code);
    }
}

#[test]
fn a_large_message_is_streamed_and_one_too_large_is_refused() {
    let server = TestServer::new_started("[limits]\nmessage-size-max = \"2 MiB\"\n");
    let mut client = server.connect();
    client.expect("EHLO there.example", "250");
    client.expect("MAIL FROM:<bo@there.example> SIZE=2097153", "552 5.3.4");
    for (lines, code) in [(15_000, "250"), (30_000, "552 5.3.4")] {
        client.expect("MAIL FROM:<bo@there.example>", "250");
        client.expect("RCPT TO:<ana@here.example>", "250");
        client.expect("DATA", "354");
        let body = format!("{}\r\n", "x".repeat(98)).repeat(lines);
        client.expect(&format!("Subject: large\r\n\r\n{body}."), code);
    }
    let message = server.wait_for_message("here.example", "ana");
    assert_eq!(message.lines().filter(|line| line.len() == 98).count(), 15_000);
}

#[test]
fn a_second_server_on_the_same_data_is_refused() {
    let server = TestServer::new_started("");
    let (code, _, error) = server.run_to_end(&["serve"]);
    assert_eq!(code, 1);
    assert!(error.contains("127.0.0.1") || error.contains("lock"), "{error}");
}
