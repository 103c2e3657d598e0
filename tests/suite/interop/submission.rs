//! Mail from our users, with the real binary: completed, kept private, and in nobody else's name.

use std::fs;

use crate::peers;
use crate::test_server::{TestServer, wait_for};

/// How often a field of this name stands in the header section.
fn fields(letter: &str, name: &str) -> usize {
    let (header, _) = letter.split_once("\n\n").unwrap();
    let start = format!("{}:", name.to_ascii_lowercase());
    header.lines().filter(|line| line.to_ascii_lowercase().starts_with(&start)).count()
}

/// Ana sends this message, exactly, to herself and Bo; what arrives at Bo's.
fn submitted(house: &TestServer, message: &str) -> String {
    let before = house.maildir_messages("here.example", "bo").len();
    let data = peers::swaks_data(house.dir.path(), message);
    let mail = ["--from", "ana@here.example", "--to", "ana@here.example,bo@here.example", "--data", &data];
    let output = house.submit_with_swaks(house.submission_port, "ana@here.example", "secret word", &mail);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    let letters = wait_for("the letter", || {
        Some(house.maildir_messages("here.example", "bo")).filter(|letters| letters.len() > before)
    });
    let letters = letters.into_iter().map(|octets| String::from_utf8(octets).unwrap());
    let subject = message.lines().next().unwrap();
    letters.into_iter().find(|letter| letter.contains(subject)).unwrap()
}

fn house(more: &str) -> TestServer {
    let house = TestServer::new(more);
    house.add_user("bo@here.example", "another word");
    house
}

#[test]
fn a_submission_without_date_and_message_id_arrives_with_one_of_each() {
    let mut house = house("");
    house.start();
    let bare = submitted(&house, "Subject: bare\n\nHello.\n");
    for name in ["Date", "Message-ID", "From", "Return-Path", "Received", "Delivered-To"] {
        assert_eq!(fields(&bare, name), 1, "{name} in {bare}");
    }
    assert!(bare.contains("\nFrom: ana@here.example\n") && bare.contains("@mx.here.example>\n"), "{bare}");

    let whole = "Subject: whole\nDate: Mon, 23 Nov 2026 04:37:43 +0000\nFrom: Ana <ana@here.example>\n\
                 Message-Id: <1@laptop.example>\n\nDate: in the body\n";
    let arrived = submitted(&house, whole);
    assert!(arrived.ends_with(whole), "what was there is not touched: {arrived}");
    for name in ["Date", "Message-ID", "From"] {
        assert_eq!(fields(&arrived, name), 1, "{name} in {arrived}");
    }
}

#[test]
fn nobody_reads_a_blind_copy_a_stale_return_path_or_where_the_user_sits() {
    let mut house = house("");
    house.start();
    let message = "Subject: secret\nReturn-Path: <eve@there.example>\nTo: ana@here.example\nBcc: bo@here.example,\n\
                   \tcy@there.example\nFrom: ana@here.example\n\nBcc: said in the body\n";
    let letter = submitted(&house, message);
    assert!(!letter.contains("cy@there.example") && fields(&letter, "Bcc") == 0, "{letter}");
    assert!(letter.starts_with("Return-Path: <ana@here.example>\n") && !letter.contains("eve@"), "{letter}");
    assert!(!letter.contains("127.0.0.1") && !letter.contains("for <"), "{letter}");
    assert!(letter.ends_with("From: ana@here.example\n\nBcc: said in the body\n"), "{letter}");
}

#[test]
fn a_text_without_a_header_is_all_body() {
    let mut house = house("");
    house.start();
    let letter = submitted(&house, "Hello Bo, how are you?\nSubject: no\n");
    let (header, body) = letter.split_once("\n\n").unwrap();
    assert!(
        header.contains("Message-ID: <") && body.starts_with("Hello Bo, how are you?\nSubject: no\n"),
        "{letter}"
    );
}

#[test]
fn a_named_network_submits_and_everybody_else_relays() {
    for (networks, count) in [("127.0.0.0/8", 1), ("192.0.2.0/24", 0)] {
        let house = TestServer::new_started(&format!("[relay]\nnetworks = [\"{networks}\"]\n"));
        house.send_message("bo@there.example", "ana@here.example", "from a machine");
        let letter = house.wait_for_message("here.example", "ana");
        for name in ["Date", "Message-ID", "From"] {
            assert_eq!(fields(&letter, name), count, "{networks}: {name} in {letter}");
        }
        assert!(
            letter.contains("Received: from there.example ([127.0.0.1])\n\tby mx.here.example"),
            "{letter}"
        );
    }
}

/// Ana hands in a message for Bo; the transcript.
fn try_as_ana(house: &TestServer, reverse_path: &str, message: &str) -> String {
    let data = peers::swaks_data(house.dir.path(), message);
    let mail = ["--from", reverse_path, "--to", "bo@here.example", "--data", &data];
    let output = house.submit_with_swaks(house.submission_port, "ana@here.example", "secret word", &mail);
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn a_user_writes_in_names_that_lead_to_them_and_in_no_others() {
    let mut house = house("");
    fs::write(house.path("domains/here.example/aliases"), "info: ana, bo\nboss: bo\n").unwrap();
    fs::write(house.path("domains/here.example/senders"), "ana: *@club.example, press@there.example\n")
        .unwrap();
    house.start();
    for (reverse_path, from, says) in [
        ("ana@here.example", "Ana <ana@here.example>", "250 2.0.0"),
        ("ANA@Here.Example", "ANA@HERE.example", "250 2.0.0"),
        ("info@here.example", "\"The desk, of Ana\" <info@here.example> (and Bo)", "250 2.0.0"),
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
        let transcript = try_as_ana(&house, reverse_path, &message);
        assert!(transcript.contains(says), "{reverse_path} and {from}: {transcript}");
    }
}

#[test]
fn the_senders_file_is_read_again_and_a_broken_one_is_not_in_force() {
    let mut house = house("");
    house.start();
    let message = "From: boss@there.example\nSubject: names\n\nHello.\n";
    let may = || try_as_ana(&house, "boss@there.example", message).contains("250 2.0.0");
    assert!(!may());
    fs::write(house.path("domains/here.example/senders"), "*: *@there.example\n").unwrap();
    wait_for("the new file to be in force", || may().then_some(()));
    fs::write(house.path("domains/here.example/senders"), "ana\n").unwrap();
    wait_for("the complaint", || house.log().contains("senders:1: there is no colon").then_some(()));
    assert!(may());
    assert!(house.run_to_end(&["check"]).2.contains("senders:1: there is no colon"));
}

#[test]
fn with_sender_any_the_login_alone_counts() {
    let mut house = house("[submission]\nsender = \"any\"\n");
    house.start();
    let message = "From: boss@there.example <who> knows\nSubject: names\n\nHello.\n";
    assert!(try_as_ana(&house, "boss@there.example", message).contains("250 2.0.0"));
}

#[test]
fn who_has_not_logged_in_is_not_bound_and_half_a_domain_is_refused() {
    let house = TestServer::new_started("[relay]\nnetworks = [\"127.0.0.0/8\"]\n");
    let mut client = house.connect();
    client.begin_data("eve@there.example", "ana@here.example");
    client.expect("From: boss@here.example\r\n\r\nHello.\r\n.", "250 2.0.0");
    client.expect("MAIL FROM:<eve@there.example>", "250");
    client.expect("RCPT TO:<bo@there>", "550 5.1.2");
}

#[test]
fn nothing_is_hidden_behind_a_line_that_is_no_field() {
    let mut house = house("");
    house.start();
    let message = "Subject: pay\nFrom: ana@here.example\nno field\nFrom: boss@here.example\n\nNow.\n";
    let data = peers::swaks_data(house.dir.path(), message);
    let mail = ["--from", "ana@here.example", "--to", "bo@here.example", "--data", &data];
    let output = house.submit_with_swaks(house.submission_port, "ana@here.example", "secret word", &mail);
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.contains("554 5.6.0 A line of the header is neither a field nor empty"), "{said}");
}

#[test]
fn however_users_write_their_names_they_are_one_user() {
    let mut house = house("[limits.login-per-hour]\nmessages = 2\n");
    house.start();
    let mail = ["--from", "ana@here.example", "--to", "bo@here.example"];
    let replies = ["ana@here.example", "ANA@here.example", "Ana@HERE.example"].map(|user| {
        let output = house.submit_with_swaks(house.submission_port, user, "secret word", &mail);
        String::from_utf8_lossy(&output.stdout).into_owned()
    });
    assert!(replies[1].contains("250 2.0.0"), "{}", replies[1]);
    assert!(replies[2].contains("450 4.7.1 Too many messages from your account"), "{}", replies[2]);
}
