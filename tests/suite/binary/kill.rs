//! `kill -9` of the real binary at random moments under load: every message that was answered 250 is
//! delivered.
//!
//! `postrider torture` tests delivery to Maildirs. The tests here are about the next hop, and about the
//! stored facts of other domains.

use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

use crossbeam_channel::after;
use postrider::torture::{BacklogTest, LoadGenerator, TortureSetup};

use crate::peers::{Exim, SmtpSink};
use crate::test_server::{RELAY_FROM_LOOPBACK, TestServer, loopback_dns, messages_in, wait_for};

// Takes up to half a minute: twenty kills and starts, then 5,000 messages that wait and are then delivered.
#[test]
fn torture_finds_every_accepted_message_delivers_a_long_queue_and_measures_the_disk() {
    let dir = tempfile::tempdir().unwrap();
    let output =
        TestServer::new("").command().args(["torture", "--rounds", "20"]).arg(dir.path()).output().unwrap();
    let (stdout, stderr) =
        (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    assert!(output.status.success(), "{stdout}{stderr}");
    println!("{stdout}");
    let number = |line: &str, before: &str| -> usize {
        let line = stdout.lines().find(|text| text.starts_with(line)).unwrap();
        let words: Vec<_> = line.split_whitespace().collect();
        let at = words.iter().position(|word| *word == before).unwrap();
        words[at - 1].parse().unwrap()
    };
    assert!(number("killed 20 times", "messages") > 20, "there was load: {stdout}");
    // At most the deliveries that were under way at a kill.
    assert!(number("killed 20 times", "more") <= 20 * 8, "{stdout}");
    let recovery = stdout.lines().find(|line| line.starts_with("with 5000 messages waiting")).unwrap();
    assert!(recovery.contains("all of them delivered, once, in "), "{stdout}");
    assert!(number("syncs", "a") > 0 && stdout.contains("trust: "), "{stdout}");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "nothing is left behind");
}

/// There are fewer messages than hosts, so that all have been tried before the kill.
#[test]
fn a_short_queue_is_tried_again_at_once_after_a_kill() {
    for waiting in [1, 10, 60] {
        let dir = tempfile::tempdir().unwrap();
        let trial = TortureSetup { program: Path::new(env!("CARGO_BIN_EXE_postrider")), dir: dir.path() };
        let recovery = BacklogTest { setup: trial, waiting_messages: waiting }.run().unwrap();
        assert_eq!(recovery.waiting_messages, waiting);
    }
}

#[test]
fn root_does_not_run_torture_where_other_users_may_write() {
    let base = tempfile::tempdir().unwrap();
    let dir = base.path().join("dir");
    std::fs::create_dir(&dir).unwrap();
    std::fs::set_permissions(&dir, std::fs::Permissions::from_mode(0o777)).unwrap();
    if !nix::unistd::Uid::effective().is_root() {
        println!("only root is refused, and this is another user: nothing to see");
        return;
    }
    let refused = || {
        let output = TestServer::new("").command().arg("torture").arg(&dir).output().unwrap();
        assert_eq!(output.status.code(), Some(1));
        assert_eq!(std::fs::read_dir(&dir).unwrap().count(), 0);
        String::from_utf8(output.stderr).unwrap()
    };
    let stdout = refused();
    assert!(
        stdout.contains("because other users may write") && stdout.contains("same file system"),
        "{stdout}"
    );
    std::fs::set_permissions(&dir, std::fs::Permissions::from_mode(0o755)).unwrap();
    std::os::unix::fs::chown(&dir, Some(65534), None).unwrap();
    let stdout = refused();
    assert!(stdout.contains("belongs to user 65534"), "{stdout}");
}

#[test]
fn a_message_that_was_answered_250_reaches_the_next_hop_although_the_server_is_killed() {
    let dir = tempfile::tempdir().unwrap();
    let sink = SmtpSink::start(dir.path());
    let (_dns, toml) = loopback_dns(&["there.example"], sink.port);
    let mut server = TestServer::new_started(&format!("{toml}{RELAY_FROM_LOOPBACK}"));
    let load = LoadGenerator::new(([127, 0, 0, 1], server.smtp_port).into(), "bo@there.example");
    for round in 0..6 {
        let clients = load.start_clients(6).unwrap();
        wait_for("load", || (load.accepted().len() > round).then_some(()));
        // No event is waited for: the moment of the kill is arbitrary.
        let _ = after(Duration::from_millis(15 + 37 * round as u64)).recv();
        server.kill();
        load.stop_clients(clients);
        server.start();
    }
    let accepted = load.accepted();
    wait_for("an empty queue", || {
        server.run_to_end(&["queue", "list"]).1.contains("the queue is empty").then_some(())
    });
    // Messages that were being received at a kill are incomplete.
    let sunk = messages_in(&dir.path().join("smtp-sink"));
    let arrived = sunk.iter().filter_map(|octets| LoadGenerator::parse_number(octets)).collect();
    let lost: Vec<_> = accepted.difference(&arrived).collect();
    assert!(lost.is_empty(), "{lost:?} of {}", accepted.len());
}

#[test]
fn the_tls_level_of_a_domain_outlives_a_kill_and_mail_waits_for_it() {
    let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let exim = Exim::start(dirs[0].path(), 1);
    let plain = SmtpSink::start(dirs[1].path());
    let dns =
        postrider::fakes::DnsServer::start("exim.test. MX 10 mx.exim.test.\nmx.exim.test. A 127.0.0.1\n");
    let port = |port: u16| format!("[delivery.smtp]\nport = {port}\n");
    let relay = "[relay]\nnetworks = [\"127.0.0.0/8\"]\n";
    let mut server = TestServer::new_started(&format!(
        "[dns]\nservers = [\"{}\"]\n{relay}{}",
        dns.address,
        port(exim.port)
    ));
    let queue = |server: &TestServer, words: &str| {
        wait_for(words, || Some(server.run_to_end(&["queue", "list"]).1).filter(|text| text.contains(words)))
    };
    let stored_level = |server: &TestServer| {
        let (code, shown, error) = server.run_to_end(&["peer", "show", "exim.test"]);
        assert_eq!(code, 0, "{error}");
        shown
    };
    server.send_message("ana@here.example", "bo@exim.test", "by TLS");
    exim.wait_for_mail(1);
    queue(&server, "the queue is empty");
    let before = stored_level(&server);
    assert!(before.contains("\"outgoing\": \"tls-unverified\""), "{before}");

    server.kill();
    // The same domain, with a host without TLS.
    let toml = std::fs::read_to_string(server.path("postrider.toml")).unwrap();
    std::fs::write(server.path("postrider.toml"), toml.replace(&port(exim.port), &port(plain.port))).unwrap();
    server.start();
    assert_eq!(stored_level(&server), before);
    server.send_message("ana@here.example", "bo@exim.test", "in plain text");
    let listing = queue(&server, "was reached at tls-unverified before");
    assert_eq!(plain.counts().messages, 0, "nothing went out in plain text");

    let id =
        listing.split_whitespace().find(|word| word.parse::<postrider::mail::MessageId>().is_ok()).unwrap();
    assert_eq!(server.run_to_end(&["peer", "forget", "exim.test"]).0, 0);
    assert_eq!(server.run_to_end(&["queue", "retry", id]).0, 0);
    assert!(String::from_utf8_lossy(&plain.wait_for_mail(1)[0].message).contains("Subject: in plain text"));
}

#[test]
fn mail_for_a_host_that_does_not_answer_is_returned_although_every_process_ends_before_an_attempt() {
    // Accepts connections and does not answer.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    silent.set_nonblocking(true).unwrap();
    let mut server = TestServer::new_started(&format!(
        "[queue]\nlifetime = \"4s\"\nretry = [\"1s\"]\n[relay]\nnetworks = [\"127.0.0.0/8\"]\n\
         [delivery.smtp]\nvia = \"127.0.0.1:{}\"\n",
        silent.local_addr().unwrap().port()
    ));
    server.send_message("ana@here.example", "bo@there.example", "hello");
    let mut kept = Vec::new();
    let mut is_over = false;
    for _ in 0..300 {
        let is_returned = wait_for("another attempt, or the report", || {
            let is_returned = !server.maildir_messages("here.example", "ana").is_empty();
            let attempt = silent.accept().ok();
            let is_tried = attempt.is_some();
            kept.extend(attempt);
            (is_tried || is_returned).then_some(is_returned)
        });
        if is_returned {
            is_over = true;
            break;
        }
        server.kill();
        server.start();
    }
    assert!(is_over, "300 servers did not return it");
    assert!(kept.len() > 1, "tried again while there was time");
    let report = server.wait_for_message("here.example", "ana");
    assert!(report.contains("Status: 4.4.7") && report.contains("bo@there.example"), "{report}");
    wait_for("an empty queue", || {
        server.run_to_end(&["queue", "list"]).1.contains("the queue is empty").then_some(())
    });
}
