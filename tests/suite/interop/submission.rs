//! Mail of our users, submitted by real clients: completed, private, and from the user's own addresses.

use std::fs;

use crate::peers;
use crate::test_server::{TestServer, wait_for};

/// The number of fields with this name in the header section.
fn fields(delivered: &str, name: &str) -> usize {
    let (header, _) = delivered.split_once("\n\n").unwrap();
    let start = format!("{}:", name.to_ascii_lowercase());
    header.lines().filter(|line| line.to_ascii_lowercase().starts_with(&start)).count()
}

/// Ana sends exactly this message to herself and Bo. Returns the message in Bo's mailbox.
fn submitted(server: &TestServer, message: &str) -> String {
    let before = server.maildir_messages("here.example", "bo").len();
    let data = peers::swaks_data(server.dir.path(), message);
    let mail = ["--from", "ana@here.example", "--to", "ana@here.example,bo@here.example", "--data", &data];
    let output = server.submit_with_swaks(server.submission_port, "ana@here.example", "secret word", &mail);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    let all_delivered = wait_for("the delivered", || {
        Some(server.maildir_messages("here.example", "bo"))
            .filter(|all_delivered| all_delivered.len() > before)
    });
    let all_delivered = all_delivered.into_iter().map(|octets| String::from_utf8(octets).unwrap());
    let subject = message.lines().next().unwrap();
    all_delivered.into_iter().find(|delivered| delivered.contains(subject)).unwrap()
}

fn server(more: &str) -> TestServer {
    let server = TestServer::new(more);
    server.add_user("bo@here.example", "another word");
    server
}

#[test]
fn a_submission_without_date_and_message_id_arrives_with_one_of_each() {
    let mut server = server("");
    server.start();
    let bare = submitted(&server, "Subject: bare\n\nHello.\n");
    for name in ["Date", "Message-ID", "From", "Return-Path", "Received", "Delivered-To"] {
        assert_eq!(fields(&bare, name), 1, "{name} in {bare}");
    }
    assert!(bare.contains("\nFrom: ana@here.example\n") && bare.contains("@mx.here.example>\n"), "{bare}");

    let whole = "Subject: whole\nDate: Mon, 23 Nov 2026 04:37:43 +0000\nFrom: Ana <ana@here.example>\n\
                 Message-Id: <1@laptop.example>\n\nDate: in the body\n";
    let arrived = submitted(&server, whole);
    assert!(arrived.ends_with(whole), "what was there is not touched: {arrived}");
    for name in ["Date", "Message-ID", "From"] {
        assert_eq!(fields(&arrived, name), 1, "{name} in {arrived}");
    }
}

#[test]
fn bcc_and_return_path_and_the_users_address_are_not_in_the_message() {
    let mut server = server("");
    server.start();
    let message = "Subject: secret\nReturn-Path: <eve@there.example>\nTo: ana@here.example\nBcc: bo@here.example,\n\
                   \tcy@there.example\nFrom: ana@here.example\n\nBcc: said in the body\n";
    let delivered = submitted(&server, message);
    assert!(!delivered.contains("cy@there.example") && fields(&delivered, "Bcc") == 0, "{delivered}");
    assert!(
        delivered.starts_with("Return-Path: <ana@here.example>\n") && !delivered.contains("eve@"),
        "{delivered}"
    );
    assert!(!delivered.contains("127.0.0.1") && !delivered.contains("for <"), "{delivered}");
    assert!(delivered.ends_with("From: ana@here.example\n\nBcc: said in the body\n"), "{delivered}");
}

#[test]
fn a_text_without_a_header_is_all_body() {
    let mut server = server("");
    server.start();
    let delivered = submitted(&server, "Hello Bo, how are you?\nSubject: no\n");
    let (header, body) = delivered.split_once("\n\n").unwrap();
    assert!(
        header.contains("Message-ID: <") && body.starts_with("Hello Bo, how are you?\nSubject: no\n"),
        "{delivered}"
    );
}

#[test]
fn mail_of_a_named_network_is_a_submission_and_other_mail_is_not() {
    for (networks, count) in [("127.0.0.0/8", 1), ("192.0.2.0/24", 0)] {
        let server = TestServer::new_started(&format!("[relay]\nnetworks = [\"{networks}\"]\n"));
        server.send_message("bo@there.example", "ana@here.example", "from a machine");
        let delivered = server.wait_for_message("here.example", "ana");
        for name in ["Date", "Message-ID", "From"] {
            assert_eq!(fields(&delivered, name), count, "{networks}: {name} in {delivered}");
        }
        assert!(
            delivered.contains("Received: from there.example ([127.0.0.1])\n\tby mx.here.example"),
            "{delivered}"
        );
    }
}

/// Ana submits a message for Bo. Returns the transcript.
fn try_as_ana(server: &TestServer, reverse_path: &str, message: &str) -> String {
    let data = peers::swaks_data(server.dir.path(), message);
    let mail = ["--from", reverse_path, "--to", "bo@here.example", "--data", &data];
    let output = server.submit_with_swaks(server.submission_port, "ana@here.example", "secret word", &mail);
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn a_user_sends_from_addresses_that_lead_to_the_user_and_from_no_others() {
    let mut server = server("");
    fs::write(server.path("domains/here.example/aliases"), "info: ana, bo\nboss: bo\n").unwrap();
    fs::write(server.path("domains/here.example/senders"), "ana: *@club.example, press@there.example\n")
        .unwrap();
    server.start();
    for (reverse_path, from, says) in [
        ("ana@here.example", "Ana <ana@here.example>", "250 2.0.0"),
        ("ANA@Here.Example", "ANA@HERE.example", "250 2.0.0"),
        ("info@here.example", "\"The office, of Ana\" <info@here.example> (and Bo)", "250 2.0.0"),
        ("ana@here.example", "ana@here.example, info@here.example", "250 2.0.0"),
        ("chair@club.example", "chair@club.example", "250 2.0.0"),
        ("ana@here.example", "press@there.example", "250 2.0.0"),
        ("<>", "ana@here.example", "250 2.0.0"),
        (
            "boss@here.example",
            "ana@here.example",
            "550 5.7.1 You have logged in as ana@here.example and may not",
        ),
        ("bo@here.example", "ana@here.example", "550 5.7.1"),
        ("ana@there.example", "ana@here.example", "550 5.7.1"),
        ("ana@host", "ana@here.example", "550 5.1.8"),
        (
            "ana@here.example",
            "Boss <boss@here.example>",
            "550 5.7.1 You have logged in as ana@here.example and may not",
        ),
        ("ana@here.example", "ana@here.example, eve@there.example", "550 5.7.1"),
        (
            "ana@here.example",
            "boss@here.example <ana@here.example>",
            "554 5.6.0 It is not clear that From names you",
        ),
        ("<>", "boss@here.example", "550 5.7.1"),
        ("ana@here.example", "ana@here.example\nSender: boss@here.example", "550 5.7.1"),
        ("ana@here.example", "ana@here.example\nFrom: boss@here.example", "554 5.6.0"),
        ("ana@here.example", "nobody:;", "554 5.6.0"),
        ("ana@here.example", &format!("{} <ana@here.example>", "x".repeat(9000)), "554 5.6.0"),
    ] {
        let message = format!("From: {from}\nSubject: names\n\nHello.\n");
        let transcript = try_as_ana(&server, reverse_path, &message);
        assert!(transcript.contains(says), "{reverse_path} and {from}: {transcript}");
    }
}

#[test]
fn the_senders_file_is_read_again_and_a_broken_one_is_not_in_force() {
    let mut server = server("");
    server.start();
    let message = "From: boss@there.example\nSubject: names\n\nHello.\n";
    let may = || try_as_ana(&server, "boss@there.example", message).contains("250 2.0.0");
    assert!(!may());
    fs::write(server.path("domains/here.example/senders"), "*: *@there.example\n").unwrap();
    wait_for("the new file to be in force", || may().then_some(()));
    fs::write(server.path("domains/here.example/senders"), "ana\n").unwrap();
    wait_for("the complaint", || server.log().contains("senders:1: there is no colon").then_some(()));
    assert!(may());
    assert!(server.run_to_end(&["check"]).2.contains("senders:1: there is no colon"));
}

#[test]
fn with_sender_any_users_send_from_any_address() {
    let mut server = server("[submission]\nsender = \"any\"\n");
    server.start();
    let message = "From: boss@there.example <who> knows\nSubject: names\n\nHello.\n";
    assert!(try_as_ana(&server, "boss@there.example", message).contains("250 2.0.0"));
}

#[test]
fn clients_without_a_login_may_send_from_any_address_and_incomplete_domains_are_refused() {
    let server = TestServer::new_started("[relay]\nnetworks = [\"127.0.0.0/8\"]\n");
    let mut client = server.connect();
    client.begin_data("eve@there.example", "ana@here.example");
    client.expect("From: boss@here.example\r\n\r\nHello.\r\n.", "250 2.0.0");
    client.expect("MAIL FROM:<eve@there.example>", "250");
    client.expect("RCPT TO:<bo@there>", "550 5.1.2");
}

#[test]
fn a_from_field_after_a_malformed_line_is_not_overlooked() {
    let mut server = server("");
    server.start();
    let message = "Subject: pay\nFrom: ana@here.example\nno field\nFrom: boss@here.example\n\nNow.\n";
    let data = peers::swaks_data(server.dir.path(), message);
    let mail = ["--from", "ana@here.example", "--to", "bo@here.example", "--data", &data];
    let output = server.submit_with_swaks(server.submission_port, "ana@here.example", "secret word", &mail);
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.contains("554 5.6.0 A line of the header is neither a field nor empty"), "{said}");
}

#[test]
fn all_spellings_of_a_user_name_share_one_rate_limit() {
    let mut server = server("[limits.login-per-hour]\nmessages = 2\n");
    server.start();
    let mail = ["--from", "ana@here.example", "--to", "bo@here.example"];
    let replies = ["ana@here.example", "ANA@here.example", "Ana@HERE.example"].map(|user| {
        let output = server.submit_with_swaks(server.submission_port, user, "secret word", &mail);
        String::from_utf8_lossy(&output.stdout).into_owned()
    });
    assert!(replies[1].contains("250 2.0.0"), "{}", replies[1]);
    assert!(replies[2].contains("450 4.7.1 Too many messages from your account"), "{}", replies[2]);
}
