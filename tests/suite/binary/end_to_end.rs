//! The real binary: listen, encrypt, log in, deliver, reload, stop.

use std::fs;

use crate::peers::{self, SmtpSink};
use crate::test_server::{Signal, SmtpClient, TestServer, wait_for};

/// A name server that says where the next hop is, and the lines of `postrider.toml` for it.
fn remote(port: u16) -> (postrider::fakes::DnsServer, String) {
    let dns = postrider::fakes::DnsServer::start(
        "there.example. MX 10 mx.there.example.\nmx.there.example. A 127.0.0.1\nnull.example. MX 0 .\n",
    );
    let toml = format!("[dns]\nservers = [\"{}\"]\n\n[delivery.smtp]\nport = {port}\n", dns.address);
    (dns, toml)
}

#[test]
fn a_letter_for_a_local_user_is_in_the_maildir_at_once() {
    let house = TestServer::new_started("");
    let reply = house.send_message("bo@there.example", "ana@here.example", "one");
    assert!(reply.starts_with("250 2.0.0 "), "{reply}");
    let letter = house.wait_for_message("here.example", "ana");
    assert!(
        letter
            .starts_with("Return-Path: <bo@there.example>\nDelivered-To: ana@here.example\nReceived: from "),
        "{letter}"
    );
    assert!(letter.ends_with("Subject: one\n\nHello ana@here.example.\n"), "{letter}");
    assert!(house.maildir_messages("here.example", "ana").len() == 1);
}

#[test]
fn nobody_relays_without_a_login() {
    let house = TestServer::new_started("");
    for to in ["x@there.example", "x@[127.0.0.1]", "\"x@there.example\"@elsewhere.example"] {
        let mut client = house.connect();
        client.expect("EHLO there.example", "250");
        client.expect("MAIL FROM:<bo@there.example>", "250");
        client.expect(&format!("RCPT TO:<{to}>"), "550 5.7.1");
        client.expect("RCPT TO:<nobody@here.example>", "550 5.1.1");
    }
}

#[test]
fn localhost_is_ours_with_and_without_a_directory() {
    let house = TestServer::new_started("");
    let mut client = house.connect();
    client.expect("EHLO there.example", "250");
    client.expect("MAIL FROM:<bo@there.example>", "250");
    // Unknown, and not "we do not relay".
    client.expect("RCPT TO:<root@LOCALHOST>", "550 5.1.1");
    house.add_user("root@localhost", "secret word");
    let knows = || {
        let mut client = house.connect();
        client.expect("EHLO there.example", "250");
        client.expect("MAIL FROM:<bo@there.example>", "250");
        client.command("RCPT TO:<root@localhost>").starts_with("250").then_some(client)
    };
    let mut client = wait_for("the user", knows);
    client.expect("DATA", "354");
    client.expect("Subject: cron\r\n\r\nall is well\r\n.", "250");
    assert!(house.wait_for_message("localhost", "root").contains("Delivered-To: root@localhost\n"));
}

#[test]
fn a_domain_is_one_thing_in_all_its_forms() {
    let mut house = TestServer::new("");
    let toml = fs::read_to_string(house.path("postrider.toml")).unwrap();
    let toml = toml.replace("\"mx.here.example\"", "\"mx.bücher.example\"");
    fs::write(house.path("postrider.toml"), toml).unwrap();
    fs::create_dir(house.path("domains/BÜCHER.example")).unwrap();
    house.add_user("jürgen@xn--bcher-kva.example", "secret word");
    house.start();

    let mut client = house.connect();
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
            Some(house.maildir_messages("bücher.example", "jürgen")).filter(|mailbox| mailbox.len() > number)
        };
        let letters = wait_for("the letter", mailbox);
        for letter in letters {
            let letter = String::from_utf8(letter).unwrap();
            let head = "Return-Path: <anna@bücher.example>\nDelivered-To: ";
            assert!(letter.starts_with(head) && letter.contains("@bücher.example\n"), "{letter}");
            assert!(letter.contains("by mx.xn--bcher-kva.example (postrider) with UTF8SMTP"), "{letter}");
        }
    }
    // RFC 6531 §3.5: who has not asked for SMTPUTF8 writes in A-labels.
    client.expect("MAIL FROM:<anna@bücher.example>", "553 5.6.7");
    client.expect("MAIL FROM:<anna@xn--bcher-kva.example>", "250");
    client.expect("RCPT TO:<jürgen@xn--bcher-kva.example>", "553 5.6.7");
}

#[test]
fn a_user_logs_in_over_tls_and_sends_anywhere() {
    let dir = tempfile::tempdir().unwrap();
    let sink = SmtpSink::start(dir.path());
    let (_dns, toml) = remote(sink.port);
    let house = TestServer::new_started(&toml);
    for port in [house.submission_port, house.submissions_port] {
        let mail = ["--from", "ana@here.example", "--to", "bo@there.example"];
        let output = house.submit_with_swaks(port, "ana@here.example", "secret word", &mail);
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
fn a_wrong_password_and_an_unknown_user_hear_the_same() {
    let house = TestServer::new_started("");
    let said = |user: &str| {
        let output = house.submit_with_swaks(house.submission_port, user, "wrong", &["--quit-after", "AUTH"]);
        assert!(!output.status.success());
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        text.lines().find(|line| line.contains("535")).unwrap_or_else(|| panic!("{text}")).to_owned()
    };
    assert_eq!(said("ana@here.example"), said("nobody@here.example"));
}

#[test]
fn a_permanent_failure_comes_back_as_a_report() {
    let dir = tempfile::tempdir().unwrap();
    let sink = SmtpSink::start_with(dir.path(), &["-f", "RCPT"]);
    let (_dns, toml) = remote(sink.port);
    let house = TestServer::new_started(&format!("{toml}\n[relay]\nnetworks = [\"127.0.0.0/8\"]\n"));
    house.send_message("ana@here.example", "bo@there.example", "to be refused");
    let report = house.wait_for_message("here.example", "ana");
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
fn a_null_mx_fails_at_once_and_says_why() {
    let (_dns, toml) = remote(1);
    let house = TestServer::new_started(&format!("{toml}\n[relay]\nnetworks = [\"127.0.0.0/8\"]\n"));
    house.send_message("ana@here.example", "bo@null.example", "nowhere");
    assert!(house.wait_for_message("here.example", "ana").contains("Status: 5.1.10"));
    house.send_message("ana@here.example", "bo@missing.example", "nowhere");
    wait_for("the second report", || {
        (house.maildir_messages("here.example", "ana").len() == 2).then_some(())
    });
}

#[test]
fn a_report_leaves_like_any_message_and_the_null_reverse_path_gets_none() {
    let dir = tempfile::tempdir().unwrap();
    let sink = SmtpSink::start(dir.path());
    let (_dns, toml) = remote(sink.port);
    let mut house = TestServer::new(&toml);
    fs::write(house.path("domains/here.example/aliases"), "broken: | sh -c \"exit 67\"\n").unwrap();
    house.start();
    let is_queue_empty =
        || house.run_to_end(&["queue", "list"]).1.contains("the queue is empty").then_some(());
    house.send_message("", "broken@here.example", "from nobody");
    wait_for("the failure", || house.log().contains("status=5.1.1").then_some(()));
    wait_for("an empty queue", is_queue_empty);
    house.send_message("bo@there.example", "broken@here.example", "from Bo");
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
fn a_report_says_what_dns_said_and_when_time_was_up() {
    let dns = postrider::fakes::DnsServer::start("null.example. MX 0 .\nbroken.example. SERVFAIL\n");
    let house = TestServer::new_started(&format!(
        "[dns]\nservers = [\"{}\"]\n[queue]\nlifetime = \"2s\"\nretry = [\"1s\"]\n[relay]\nnetworks = [\"127.0.0.0/8\"]\n",
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
        house.send_message("ana@here.example", to, "to nobody");
        let letters = wait_for("a report", || {
            Some(house.maildir_messages("here.example", "ana")).filter(|letters| letters.len() > number)
        });
        let texts: Vec<_> = letters.into_iter().map(|octets| String::from_utf8(octets).unwrap()).collect();
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
fn what_goes_beyond_ascii_leaves_in_a_labels_or_comes_back() {
    let dir = tempfile::tempdir().unwrap();
    let sink = SmtpSink::start(dir.path());
    let dns = postrider::fakes::DnsServer::start(
        "bücher.example. MX 10 mx.bücher.example.\nmx.bücher.example. A 127.0.0.1\n",
    );
    let house = TestServer::new_started(&format!(
        "[dns]\nservers = [\"{}\"]\n[delivery.smtp]\nport = {}\n[relay]\nnetworks = [\"127.0.0.0/8\"]\n",
        dns.address, sink.port
    ));
    let mut client = house.connect();
    client.expect("EHLO there.example", "250");
    client.expect("MAIL FROM:<ana@here.example> SMTPUTF8", "250");
    client.expect("RCPT TO:<bo@bücher.example>", "250");
    client.expect("RCPT TO:<δοκιμή@bücher.example>", "250");
    client.expect("DATA", "354");
    client.expect("Subject: names\r\n\r\nhello\r\n.", "250");
    let mails = sink.wait_for_mail(1);
    assert_eq!(mails[0].recipients, ["<bo@xn--bcher-kva.example>"]);
    assert!(!mails[0].mail.contains("SMTPUTF8"), "{}", mails[0].mail);
    let report = house.wait_for_message("here.example", "ana");
    for part in [
        "Content-Type: message/global-delivery-status\n",
        "Final-Recipient: utf-8; δοκιμή@bücher.example\nAction: failed\nStatus: 5.6.7\n",
    ] {
        assert!(report.contains(part), "{part} in {report}");
    }
}

#[test]
fn with_hello_hostname_every_sender_is_introduced_by_the_host() {
    let dir = tempfile::tempdir().unwrap();
    let sink = SmtpSink::start(dir.path());
    let (_dns, toml) = remote(sink.port);
    let house = TestServer::new_started(&format!(
        "{toml}hello = \"hostname\"\n[relay]\nnetworks = [\"127.0.0.0/8\"]\n"
    ));
    for from in ["ana@here.example", "", "eve@elsewhere.example"] {
        house.send_message(from, "bo@there.example", "hello");
    }
    for mail in sink.wait_for_mail(3) {
        assert_eq!(mail.hello, "mx.here.example", "{}", mail.mail);
    }
}

#[test]
fn a_template_says_where_maildirs_are() {
    let house = TestServer::new_started("[delivery.maildir]\npath = \"boxes/%domain%/of-%user%\"\n");
    house.send_message("bo@there.example", "Ana@HERE.example", "elsewhere");
    let new = house.path("boxes/here.example/of-ana/new");
    let letter = wait_for("the letter", || crate::test_server::messages_in(&new).pop());
    assert!(String::from_utf8(letter).unwrap().contains("Subject: elsewhere"));
}

#[test]
fn the_delivery_threads_are_as_many_as_configured_whatever_comes() {
    let (_dns, toml) = remote(1);
    let house = TestServer::new_started(&format!("{toml}\n[queue]\nlocal-threads = 2\nremote-threads = 3\n"));
    for _ in 0..20 {
        house.send_message("bo@there.example", "ana@here.example", "load");
    }
    wait_for("all letters", || (house.maildir_messages("here.example", "ana").len() == 20).then_some(()));
    let names: Vec<String> = fs::read_dir(format!("/proc/{}/task", house.pid()))
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
    let (_dns, toml) = remote(sink.port);
    let house = TestServer::new_started(&format!(
        "{toml}\n[limits]\nmessage-size-max = \"64 MiB\"\n[relay]\nnetworks = [\"127.0.0.0/8\"]\n"
    ));
    let memory_peak = || {
        let status = fs::read_to_string(format!("/proc/{}/status", house.pid())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() * 1024
    };
    let mut client = house.connect();
    let mut hand_in = |octets: usize| {
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
    hand_in(1_000_000);
    sink.wait_for_mail(1);
    let before = memory_peak();
    hand_in(40_000_000);
    sink.wait_for_mail(2);
    wait_for("both letters", || (house.maildir_messages("here.example", "ana").len() == 2).then_some(()));
    let more = memory_peak() - before;
    assert!(more < 8_000_000, "{more} octets more for one message of 40,000,000");
}

#[test]
fn users_aliases_and_domains_are_in_force_soon_after_a_change() {
    let house = TestServer::new_started("");
    house.add_user("bo@here.example", "another word");
    fs::write(house.path("domains/here.example/aliases"), "info: ana, bo\n").unwrap();
    fs::create_dir(house.path("domains/bücher.example")).unwrap();
    house.add_user("ana@xn--bcher-kva.example", "another word");
    let accepts =
        |to: &str| house.send_message("x@there.example", to, "hello").starts_with("250").then_some(());
    let knows = |to: &str| {
        let mut client = house.connect();
        client.command("EHLO there.example");
        client.command("MAIL FROM:<x@there.example>");
        client.command(&format!("RCPT TO:<{to}>")).starts_with("250").then_some(())
    };
    wait_for("the alias", || knows("info@here.example"));
    accepts("info@here.example").unwrap();
    house.wait_for_message("here.example", "bo");
    house.wait_for_message("here.example", "ana");
    wait_for("the domain", || knows("ana@XN--BCHER-KVA.example"));
    accepts("ana@XN--BCHER-KVA.example").unwrap();
    house.wait_for_message("bücher.example", "ana");
}

#[test]
fn a_message_that_is_too_big_is_logged_with_its_sender() {
    let house = TestServer::new_started("[limits]\nmessage-size-max = \"64 KiB\"\n");
    let mut client = house.connect();
    client.begin_data("bo@there.example", "ana@here.example");
    client.expect(&format!("{}.", "too big\r\n".repeat(10_000)), "552 5.3.4");
    client.expect("DATA", "503");
    for line in
        ["client=127.0.0.1 from=<bo@there.example> reply=\"552 5.3.4 ", "client=127.0.0.1 reply=\"503 5.5.1 "]
    {
        wait_for(line, || house.log().contains(line).then_some(()));
    }
}

#[test]
fn a_broken_file_keeps_the_old_one_in_force_and_is_named_in_the_log() {
    let house = TestServer::new_started("");
    fs::write(house.path("domains/here.example/aliases"), "info ana\n").unwrap();
    wait_for("the complaint", || house.log().contains("aliases:1:").then_some(()));
    house.signal(Signal::SIGHUP);
    wait_for("the refusal to reload", || house.log().contains("nothing was changed").then_some(()));
    assert!(house.send_message("x@there.example", "ana@here.example", "still").starts_with("250"));
}

#[test]
fn sighup_says_what_takes_a_restart_and_refuses_a_broken_postrider_toml() {
    let house = TestServer::new_started("");
    let toml = fs::read_to_string(house.path("postrider.toml")).unwrap();
    fs::write(house.path("postrider.toml"), format!("{toml}[limits]\nreceived-max = 50\n")).unwrap();
    house.signal(Signal::SIGHUP);
    let says = "postrider.toml has changed (received-max): restart postrider";
    wait_for("the advice", || house.log().contains(says).then_some(()));

    // Nothing of a reload is done by halves: the new user has to wait for the mended file, too.
    let line = toml.lines().count() + 2;
    fs::write(house.path("postrider.toml"), format!("{toml}[limits]\nreceived-max = \"x\"\n")).unwrap();
    house.signal(Signal::SIGHUP);
    let says = format!("postrider.toml:{line}: limits.received-max: ");
    wait_for("the complaint", || house.log().contains(&says).then_some(()));
    wait_for("the refusal to reload", || house.log().contains("nothing was changed").then_some(()));
    assert!(house.send_message("x@there.example", "ana@here.example", "still").starts_with("250"));
}

#[test]
fn a_server_without_a_certificate_warns_and_offers_no_tls() {
    let mut house = TestServer::new("[relay]\nnetworks = [\"192.0.2.0/24\"]\n");
    fs::remove_dir_all(house.path("certs")).unwrap();
    house.start();
    for says in [
        "there is no certificate in certs/",
        "nobody can send by the submission port",
        "clients in 192.0.2.0/24 may send to anybody without a password",
    ] {
        assert!(house.log().contains(says), "{says} in {}", house.log());
    }
    assert!(!house.connect().expect("EHLO there.example", "250").contains("STARTTLS"));
    let mut client = SmtpClient::connect(([127, 0, 0, 1], house.submission_port).into());
    client.expect("EHLO there.example", "250");
    client.expect("AUTH PLAIN AGFuYQBzZWNyZXQ=", "5");
    client.expect("MAIL FROM:<ana@here.example>", "530 5.7.0");
    // TLS from the first octet cannot be had; the client is not left waiting.
    let swaks = peers::swaks([
        "--server",
        &format!("127.0.0.1:{}", house.submissions_port),
        "--tls-on-connect",
        "--quit-after",
        "EHLO",
    ]);
    assert!(!swaks.status.success());
    assert!(house.send_message("x@there.example", "ana@here.example", "plain").starts_with("250"));
}

#[test]
fn a_certificate_is_chosen_by_the_name_that_the_client_asks_for() {
    let mut house = TestServer::new("");
    let made = rcgen::generate_simple_self_signed(vec!["mail.elsewhere.example".to_owned()]).unwrap();
    fs::create_dir(house.path("certs/elsewhere")).unwrap();
    fs::write(house.path("certs/elsewhere/fullchain.pem"), made.cert.pem()).unwrap();
    fs::write(house.path("certs/elsewhere/privkey.pem"), made.signing_key.serialize_pem()).unwrap();
    house.start();
    let here = fs::read_to_string(house.path("certs/here/fullchain.pem")).unwrap();
    for (name, pem) in [
        ("mail.elsewhere.example", made.cert.pem()),
        ("mx.here.example", here.clone()),
        ("unknown.example", here),
    ] {
        assert!(certificate_served(&house, name).contains(&signature(&pem)), "{name}");
    }
}

/// The end of a certificate: where it begins, those of one maker are alike.
fn signature(pem: &str) -> String {
    let lines: Vec<_> = pem.lines().filter(|line| !line.starts_with('-')).collect();
    lines[lines.len() - 2..].concat()
}

/// What the smtp port shows to a client that asks for `name`.
fn certificate_served(house: &TestServer, name: &str) -> String {
    let output = peers::swaks([
        "--server",
        &format!("127.0.0.1:{}", house.smtp_port),
        "--tls",
        "--tls-sni",
        name,
        "--tls-get-peer-cert",
        "--quit-after",
        "EHLO",
    ]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.lines().map(|line| line.trim_start_matches(['=', ' ', '~', '*'])).collect()
}

#[test]
fn a_renewed_certificate_is_served_after_sighup_or_soon_and_a_broken_one_is_not() {
    let house = TestServer::new_started("");
    let renew = |name: &str| {
        let made = rcgen::generate_simple_self_signed(vec![name.to_owned()]).unwrap();
        fs::write(house.path("certs/here/fullchain.pem"), made.cert.pem()).unwrap();
        fs::write(house.path("certs/here/privkey.pem"), made.signing_key.serialize_pem()).unwrap();
        made.cert.pem()
    };
    let serves = |pem: &str| certificate_served(&house, "x.example").contains(&signature(pem));
    let first = renew("one.example");
    house.signal(Signal::SIGHUP);
    wait_for("the reload", || house.log().contains("as SIGHUP asked").then_some(()));
    assert!(serves(&first));

    let second = renew("two.example");
    wait_for("the look", || serves(&second).then_some(()));

    fs::write(house.path("certs/here/privkey.pem"), "broken").unwrap();
    let says = "certs/here/privkey.pem: ";
    wait_for("the complaint", || house.log().contains(says).then_some(()));
    fs::remove_dir_all(house.path("certs/here")).unwrap();
    wait_for("the other one", || house.log().contains("certs: is empty; put").then_some(()));
    assert!(serves(&second), "what was read before stays in force");
    house.signal(Signal::SIGHUP);
    wait_for("the refusal to reload", || house.log().contains("nothing was changed").then_some(()));
    assert!(serves(&second), "and SIGHUP does not switch TLS off");
}

#[test]
fn sigterm_says_goodbye_to_idle_clients_and_lets_a_message_finish() {
    let mut house = TestServer::new_started("");
    let mut idle = house.connect();
    let mut busy = house.connect();
    busy.begin_data("bo@there.example", "ana@here.example");
    house.signal(Signal::SIGTERM);
    assert!(idle.read_reply().starts_with("421 4.3.2 "));
    assert_eq!(idle.read_reply(), "", "and hangs up");
    let reply = busy.command("Subject: last\r\n\r\nhello\r\n.");
    assert!(reply.starts_with("250 2.0.0 "), "{reply:?}\n{}", house.log());
    assert!(busy.read_reply().starts_with("421 4.3.2 "));
    assert_eq!(house.exit_code(), 0);
    house.start();
    assert!(house.wait_for_message("here.example", "ana").contains("Subject: last"));
}

#[test]
fn a_second_signal_ends_the_wait_for_those_who_are_inside() {
    let mut house = TestServer::new("");
    let toml = fs::read_to_string(house.path("postrider.toml")).unwrap();
    fs::write(house.path("postrider.toml"), toml.replace("grace = \"5s\"", "grace = \"1h\"")).unwrap();
    house.start();
    let mut idle = house.connect();
    let mut busy = house.connect();
    busy.begin_data("bo@there.example", "ana@here.example");
    house.signal(Signal::SIGINT);
    assert!(idle.read_reply().starts_with("421 4.3.2 "));
    busy.send(b"Subject: never finished\r\n");
    assert_eq!(house.stop(), 1, "the second one");
    assert!(house.log().contains("told to stop again"), "{}", house.log());
    assert_eq!(busy.read_reply(), "");
}

#[test]
fn one_address_cannot_keep_the_others_out() {
    let house = TestServer::new_started("[limits]\nsessions-per-address-max = 2\n");
    let enter = || SmtpClient::try_connect(([127, 0, 0, 1], house.smtp_port).into());
    // The connections by which the start was noticed may still be there.
    let (_one, _two) = (wait_for("a place", || enter().ok()), wait_for("a place", || enter().ok()));
    let refusal = enter().err().unwrap();
    assert!(refusal.starts_with("421 4.3.2 ") && refusal.contains("too many sessions"), "{refusal}");
    // Another address of this host is another client.
    let other = greeted_from([127, 0, 0, 2], house.smtp_port);
    assert_eq!(other, "220");
}

/// The code that a client from this address is greeted with.
pub fn greeted_from(from: [u8; 4], port: u16) -> String {
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrIn, bind, connect, socket};
    use std::os::fd::AsRawFd as _;
    let [a, b, c, d] = from;
    let client = socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).unwrap();
    bind(client.as_raw_fd(), &SockaddrIn::new(a, b, c, d, 0)).unwrap();
    connect(client.as_raw_fd(), &SockaddrIn::new(127, 0, 0, 1, port)).unwrap();
    let mut code = [0; 3];
    std::io::Read::read_exact(&mut std::net::TcpStream::from(client), &mut code).unwrap();
    String::from_utf8(code.to_vec()).unwrap()
}

#[test]
fn a_message_that_goes_round_in_circles_is_stopped() {
    let house = TestServer::new_started("[limits]\nreceived-max = 10\n");
    let mut client = house.connect();
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
    let house = TestServer::new_started("[limits]\nmessage-size-max = \"2 MiB\"\n");
    let mut client = house.connect();
    client.expect("EHLO there.example", "250");
    client.expect("MAIL FROM:<bo@there.example> SIZE=2097153", "552 5.3.4");
    for (lines, code) in [(15_000, "250"), (30_000, "552 5.3.4")] {
        client.expect("MAIL FROM:<bo@there.example>", "250");
        client.expect("RCPT TO:<ana@here.example>", "250");
        client.expect("DATA", "354");
        let body = format!("{}\r\n", "x".repeat(98)).repeat(lines);
        client.expect(&format!("Subject: large\r\n\r\n{body}."), code);
    }
    let letter = house.wait_for_message("here.example", "ana");
    assert_eq!(letter.lines().filter(|line| line.len() == 98).count(), 15_000);
}

#[test]
fn the_operator_sees_what_happened() {
    let house = TestServer::new_started("");
    house.send_message("bo@there.example", "ana@here.example", "one");
    house.wait_for_message("here.example", "ana");
    // The letter is in the Maildir a little before it is counted.
    let metrics = wait_for("the outcome", || {
        Some(house.monitor_page("/metrics")).filter(|page| page.contains("result=\"delivered\""))
    });
    assert!(
        metrics.contains("postrider_session_message_total 1") && metrics.ends_with("# EOF\n"),
        "{metrics}"
    );
    let vars: serde_json::Value = serde_json::from_str(&house.monitor_page("/debug/vars")).unwrap();
    assert_eq!(vars["session_message"], 1);
    // What the server does and what the queue does, in both forms.
    for (name, label, value) in [
        ("session_command", "RCPT", 1),
        ("session_reply", "354", 1),
        ("recipient_decision", "local", 1),
        ("queue_put", "", 1),
        ("queue_attempts", "maildir", 1),
        ("queue_outcomes", "delivered", 1),
    ] {
        let found = if label.is_empty() { &vars[name] } else { &vars[name][label] };
        assert_eq!(*found, value, "{name} {label} in {vars:#} {metrics}");
        let line = format!("postrider_{name}_total");
        assert!(
            metrics.lines().any(|l| l.starts_with(&line) && l.ends_with(&format!(" {value}"))),
            "{metrics}"
        );
    }
    assert!(house.monitor_page("/").contains("mx.here.example"));
    // Sessions and attempts, what happened in them and when.
    wait_for("the session's trace", || {
        house.monitor_page("/traces").contains("octets safe on disk").then_some(())
    });
    let sessions = house.monitor_page("/traces?family=session");
    for event in ["EHLO there.example", "MAIL FROM:&lt;bo@there.example&gt;", "250 2.0.0 Queued as "] {
        assert!(sessions.contains(event), "{event} in {sessions}");
    }
    let attempts = wait_for("the attempt's trace", || {
        Some(house.monitor_page("/traces?family=attempt")).filter(|page| page.contains("ana@here.example"))
    });
    assert!(attempts.contains("maildir") && !attempts.contains("EHLO"), "{attempts}");
    let log = wait_for("the log", || Some(house.log()).filter(|log| log.contains("delivered")));
    let id = log.lines().find(|line| line.contains("queued id=")).unwrap().split("id=").nth(1).unwrap();
    let id = id.split(' ').next().unwrap();
    assert!(
        log.lines().any(|line| line.contains("delivered") && line.contains(id)),
        "one id for all lines: {log}"
    );
}

#[test]
fn a_refusal_is_a_log_line_that_says_who_wanted_what() {
    let house = TestServer::new_started("[limits]\nreceived-max = 10\n");
    let mut client = house.connect();
    client.expect("EHLO there.example", "250");
    client.expect("MAIL FROM:<bo@there.example>", "250");
    client.expect("RCPT TO:<nobody@here.example>", "550 5.1.1");
    client.expect("RCPT TO:<eve@elsewhere.example>", "550 5.7.1");
    client.expect("RCPT TO:<ana@here.example>", "250");
    client.expect("NONSENSE", "500");
    client.expect("DATA", "354");
    client.expect(&format!("{}\r\nhello\r\n.", "Received: by x\r\n".repeat(11)), "554 5.4.6");
    let is_ours = |line: &str| line.contains("refused client=") && line.contains("bo@there.example");
    let lines = wait_for("the last refusal", || {
        let lines: Vec<String> = house.log().lines().filter(|l| is_ours(l)).map(str::to_owned).collect();
        lines.last().is_some_and(|line| line.contains("554 5.4.6")).then_some(lines)
    });
    for (line, says) in lines.iter().zip([
        "client=127.0.0.1 from=<bo@there.example> to=<nobody@here.example> reply=\"550 5.1.1 ",
        "client=127.0.0.1 from=<bo@there.example> to=<eve@elsewhere.example> reply=\"550 5.7.1 ",
        "client=127.0.0.1 from=<bo@there.example> reply=\"500 5.5.",
        "client=127.0.0.1 from=<bo@there.example> reply=\"554 5.4.6 ",
    ]) {
        assert!(line.contains(says), "{says} in {line}");
    }
    assert_eq!(lines.len(), 4, "{lines:#?}");
}

#[test]
fn what_waits_is_listed_tried_again_and_removed_by_the_commands() {
    let dir = tempfile::tempdir().unwrap();
    let sink = SmtpSink::start_with(dir.path(), &["-r", "RCPT"]);
    let (_dns, toml) = remote(sink.port);
    let house = TestServer::new_started(&format!("{toml}\n[relay]\nnetworks = [\"127.0.0.0/8\"]\n"));
    house.send_message("ana@here.example", "bo@there.example", "waits");
    let listing = wait_for("a deferral", || {
        let (code, text, error) = house.run_to_end(&["queue", "list"]);
        assert_eq!(code, 0, "{error}");
        text.contains("deferred").then_some(text)
    });
    assert!(listing.contains("bo@there.example") && listing.contains("ana@here.example"), "{listing}");
    let page = house.monitor_page("/queue");
    let dump: serde_json::Value = serde_json::from_str(&house.monitor_page("/queue.json")).unwrap();
    let (_, listed, _) = house.run_to_end(&["queue", "list", "--json"]);
    let listed: serde_json::Value = serde_json::from_str(&listed).unwrap();
    for dump in [dump, listed] {
        let message = &dump["messages"][0];
        assert!(dump["count"] == 1 && message["age-seconds"].is_u64(), "{dump}");
        assert_eq!(message["reverse-path"], "<ana@here.example>");
        assert_eq!(message["recipients"][0]["recipient"], "bo@there.example");
        assert_eq!(message["recipients"][0]["state"], "deferred");
        let reason = message["recipients"][0]["reason"].as_str().unwrap();
        assert!(reason.contains("450") && listing.contains(message["id"].as_str().unwrap()), "{dump}");
        for shown in [message["id"].as_str().unwrap(), "ana@here.example", "bo@there.example", "450"] {
            assert!(page.contains(shown), "{shown} in {page}");
        }
    }
    let id =
        listing.split_whitespace().find(|word| word.parse::<postrider::mail::MessageId>().is_ok()).unwrap();
    let before = sink.counts().sessions;
    assert_eq!(house.run_to_end(&["queue", "retry", id]).0, 0);
    sink.wait_until(|counts| counts.sessions > before);
    let (code, said, error) = house.run_to_end(&["queue", "hold", "--to", "there.example"]);
    assert!(code == 0 && said.contains(id), "{said}{error}");
    wait_for("the hold", || house.run_to_end(&["queue", "list", "--held"]).1.contains(id).then_some(()));
    assert!(house.monitor_page("/queue").contains("held: not tried before it is released"));
    let (_, shown, _) = house.run_to_end(&["queue", "show", id, "--json"]);
    let shown: serde_json::Value = serde_json::from_str(&shown).unwrap();
    assert!(shown["held"] == true && shown["client"] == "127.0.0.1", "{shown}");
    assert!(shown["history"][0]["reason"].as_str().unwrap().contains("450"), "{shown}");
    let (_, message, _) = house.run_to_end(&["queue", "show", id, "--message"]);
    assert!(message.starts_with("Received: ") && message.ends_with("\r\n\r\nHello bo@there.example.\r\n"));
    for wrong in
        [&["queue", "remove"][..], &["queue", "hold", "nonsense"], &["queue", "release", "--from", "@"]]
    {
        assert_ne!(house.run_to_end(wrong).0, 0, "{wrong:?}");
    }
    assert_eq!(house.run_to_end(&["queue", "remove", "--from", "bo@there.example"]).0, 1, "nothing is meant");
    assert_eq!(house.run_to_end(&["queue", "remove", id, "--report=Not today."]).0, 0);
    assert!(!house.run_to_end(&["queue", "list"]).1.contains(id));
    assert!(
        house.wait_for_message("here.example", "ana").contains("Diagnostic-Code: x-postrider; Not today.\n")
    );
}

#[test]
fn a_second_server_on_the_same_data_is_refused() {
    let house = TestServer::new_started("");
    let (code, _, error) = house.run_to_end(&["serve"]);
    assert_eq!(code, 1);
    assert!(error.contains("127.0.0.1") || error.contains("lock"), "{error}");
}
