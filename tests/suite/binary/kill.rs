//! `kill -9` of the real binary at random moments under load: what was answered 250 is delivered.
//!
//! To Maildirs by the command that operators have for it; to the next hop, and what is remembered of
//! it, here.

use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

use crossbeam_channel::after;
use postrider::torture::{BacklogTest, LoadGenerator, TortureSetup};

use crate::peers::{Exim, SmtpSink};
use crate::test_server::{RELAY_FROM_LOOPBACK, TestServer, loopback_dns, messages_in, wait_for};

// Takes up to half a minute: twenty kills and starts, then 5,000 messages that wait and are delivered.
#[test]
fn torture_finds_every_promised_message_bears_a_long_queue_and_says_what_the_disk_is_worth() {
    let dir = tempfile::tempdir().unwrap();
    let output =
        TestServer::new("").command().args(["torture", "--rounds", "20"]).arg(dir.path()).output().unwrap();
    let (said, wrong) =
        (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    assert!(output.status.success(), "{said}{wrong}");
    println!("{said}");
    let number = |line: &str, before: &str| -> usize {
        let line = said.lines().find(|text| text.starts_with(line)).unwrap();
        let words: Vec<_> = line.split_whitespace().collect();
        let at = words.iter().position(|word| *word == before).unwrap();
        words[at - 1].parse().unwrap()
    };
    assert!(number("killed 20 times", "messages") > 20, "there was load: {said}");
    // At most what was under way at a blow.
    assert!(number("killed 20 times", "more") <= 20 * 8, "{said}");
    let recovery = said.lines().find(|line| line.starts_with("with 5000 messages waiting")).unwrap();
    assert!(recovery.contains("all of them delivered, once, in "), "{said}");
    assert!(number("syncs", "a") > 0 && said.contains("trust: "), "{said}");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "nothing is left behind");
}

/// Fewer messages than hosts: all of them have been tried when the blow comes.
#[test]
fn a_queue_that_is_short_is_tried_again_at_once_after_a_blow_too() {
    for waiting in [1, 10, 60] {
        let dir = tempfile::tempdir().unwrap();
        let trial = TortureSetup { program: Path::new(env!("CARGO_BIN_EXE_postrider")), dir: dir.path() };
        let recovery = BacklogTest { setup: trial, waiting_messages: waiting }.run().unwrap();
        assert_eq!(recovery.waiting_messages, waiting);
    }
}

#[test]
fn root_does_not_run_torture_where_others_may_write() {
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
    let said = refused();
    assert!(said.contains("because other users may write") && said.contains("same file system"), "{said}");
    std::fs::set_permissions(&dir, std::fs::Permissions::from_mode(0o755)).unwrap();
    std::os::unix::fs::chown(&dir, Some(65534), None).unwrap();
    let said = refused();
    assert!(said.contains("belongs to user 65534"), "{said}");
}

#[test]
fn what_was_answered_250_reaches_the_next_hop_though_the_server_was_killed() {
    let dir = tempfile::tempdir().unwrap();
    let sink = SmtpSink::start(dir.path());
    let (_dns, toml) = loopback_dns(&["there.example"], sink.port);
    let mut house = TestServer::new_started(&format!("{toml}{RELAY_FROM_LOOPBACK}"));
    let load = LoadGenerator::new(([127, 0, 0, 1], house.smtp_port).into(), "bo@there.example");
    for round in 0..6 {
        let clients = load.start_clients(6).unwrap();
        wait_for("load", || (load.accepted().len() > round).then_some(()));
        // Not an event that is waited for: the moment of the blow is meant to be arbitrary.
        let _ = after(Duration::from_millis(15 + 37 * round as u64)).recv();
        house.kill();
        load.stop_clients(clients);
        house.start();
    }
    let promised = load.accepted();
    wait_for("an empty queue", || {
        house.run_to_end(&["queue", "list"]).1.contains("the queue is empty").then_some(())
    });
    // As they are: what was under way at a blow is there in part.
    let sunk = messages_in(&dir.path().join("smtp-sink"));
    let arrived = sunk.iter().filter_map(|octets| LoadGenerator::parse_number(octets)).collect();
    let lost: Vec<_> = promised.difference(&arrived).collect();
    assert!(lost.is_empty(), "{lost:?} of {}", promised.len());
}

#[test]
fn the_level_that_a_domain_was_reached_at_outlives_a_kill_and_mail_waits_for_it() {
    let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let exim = Exim::start(dirs[0].path(), 1);
    let plain = SmtpSink::start(dirs[1].path());
    let dns =
        postrider::fakes::DnsServer::start("exim.test. MX 10 mx.exim.test.\nmx.exim.test. A 127.0.0.1\n");
    let port = |port: u16| format!("[delivery.smtp]\nport = {port}\n");
    let relay = "[relay]\nnetworks = [\"127.0.0.0/8\"]\n";
    let mut house = TestServer::new_started(&format!(
        "[dns]\nservers = [\"{}\"]\n{relay}{}",
        dns.address,
        port(exim.port)
    ));
    let queue = |house: &TestServer, words: &str| {
        wait_for(words, || Some(house.run_to_end(&["queue", "list"]).1).filter(|text| text.contains(words)))
    };
    let known = |house: &TestServer| {
        let (code, shown, error) = house.run_to_end(&["domain", "show", "exim.test"]);
        assert_eq!(code, 0, "{error}");
        shown
    };
    house.send_message("ana@here.example", "bo@exim.test", "by TLS");
    exim.wait_for_mail(1);
    queue(&house, "the queue is empty");
    let before = known(&house);
    assert!(before.contains("\"outgoing\": \"tls-unverified\""), "{before}");

    house.kill();
    // The same domain, and a host without TLS.
    let toml = std::fs::read_to_string(house.path("postrider.toml")).unwrap();
    std::fs::write(house.path("postrider.toml"), toml.replace(&port(exim.port), &port(plain.port))).unwrap();
    house.start();
    assert_eq!(known(&house), before);
    house.send_message("ana@here.example", "bo@exim.test", "in plain text");
    let listing = queue(&house, "was reached at tls-unverified before");
    assert_eq!(plain.counts().messages, 0, "nothing went out in plain text");

    let id =
        listing.split_whitespace().find(|word| word.parse::<postrider::mail::MessageId>().is_ok()).unwrap();
    assert_eq!(house.run_to_end(&["domain", "forget", "exim.test"]).0, 0);
    assert_eq!(house.run_to_end(&["queue", "retry", id]).0, 0);
    assert!(String::from_utf8_lossy(&plain.wait_for_mail(1)[0].message).contains("Subject: in plain text"));
}

#[test]
fn mail_for_a_silent_host_is_returned_though_no_server_lives_as_long_as_an_attempt() {
    // Takes connections and says nothing.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    silent.set_nonblocking(true).unwrap();
    let mut house = TestServer::new_started(&format!(
        "[queue]\nlifetime = \"4s\"\nretry = [\"1s\"]\n[relay]\nnetworks = [\"127.0.0.0/8\"]\n\
         [delivery.smtp]\nvia = \"127.0.0.1:{}\"\n",
        silent.local_addr().unwrap().port()
    ));
    house.send_message("ana@here.example", "bo@there.example", "hello");
    let mut kept = Vec::new();
    let mut is_over = false;
    for _ in 0..300 {
        let is_returned = wait_for("another attempt, or the report", || {
            let is_returned = !house.maildir_messages("here.example", "ana").is_empty();
            let attempt = silent.accept().ok();
            let is_tried = attempt.is_some();
            kept.extend(attempt);
            (is_tried || is_returned).then_some(is_returned)
        });
        if is_returned {
            is_over = true;
            break;
        }
        house.kill();
        house.start();
    }
    assert!(is_over, "300 servers did not return it");
    assert!(kept.len() > 1, "tried again while there was time");
    let report = house.wait_for_message("here.example", "ana");
    assert!(report.contains("Status: 4.4.7") && report.contains("bo@there.example"), "{report}");
    wait_for("an empty queue", || {
        house.run_to_end(&["queue", "list"]).1.contains("the queue is empty").then_some(())
    });
}
