//! `kill -9` of the real binary at random moments under load: what was answered 250 is delivered.

use std::collections::{HashMap, HashSet};
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::house::{House, PATIENCE, messages_in, wait_for};
use crate::peers::{Exim, SmtpSink};

const ROUNDS: usize = 12;
const CLIENTS: usize = 6;

/// Hands in messages for `to` until the server is gone; every subject that was answered 250 is
/// promised.
fn hand_in(
    port: u16,
    to: &str,
    next: &AtomicUsize,
    promised: &Mutex<HashSet<String>>,
    stop: &AtomicBool,
) -> Option<()> {
    let stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).ok()?;
    let mut reader = BufReader::new(stream);
    let mut say = |text: &str, code: &str| -> Option<()> {
        if !text.is_empty() {
            reader.get_mut().write_all(text.as_bytes()).ok()?;
        }
        let mut line = String::new();
        loop {
            line.clear();
            if reader.read_line(&mut line).ok()? == 0 {
                return None;
            }
            if line.as_bytes().get(3) != Some(&b'-') {
                return line.starts_with(code).then_some(());
            }
        }
    };
    say("", "220")?;
    say("EHLO there.example\r\n", "250")?;
    while !stop.load(Ordering::Relaxed) {
        let number = next.fetch_add(1, Ordering::Relaxed);
        let subject = format!("number-{number}");
        // Every seventh is large: it has a file of its own from the beginning.
        let body = "y".repeat(70).repeat(if number.is_multiple_of(7) { 3000 } else { 20 });
        let body = body.as_bytes().chunks(70).map(|line| String::from_utf8(line.to_vec()).unwrap() + "\r\n");
        say("MAIL FROM:<bo@there.example>\r\n", "250")?;
        say(&format!("RCPT TO:<{to}>\r\n"), "250")?;
        say("DATA\r\n", "354")?;
        say(&format!("Subject: {subject}\r\n\r\n{}.\r\n", body.collect::<String>()), "250")?;
        promised.lock().unwrap().insert(subject);
    }
    Some(())
}

/// Load for `to`, and a blow in the middle of it, again and again: what was promised.
fn under_blows(house: &mut House, to: &'static str, rounds: usize) -> HashSet<String> {
    let promised = Arc::new(Mutex::new(HashSet::new()));
    let next = Arc::new(AtomicUsize::new(0));
    for round in 0..rounds {
        let stop = Arc::new(AtomicBool::new(false));
        let before = promised.lock().unwrap().len();
        let clients: Vec<_> = (0..CLIENTS)
            .map(|_| {
                let (port, next, promised, stop) =
                    (house.smtp, Arc::clone(&next), Arc::clone(&promised), Arc::clone(&stop));
                std::thread::spawn(move || {
                    while !stop.load(Ordering::Relaxed) {
                        if hand_in(port, to, &next, &promised, &stop).is_none() {
                            return;
                        }
                    }
                })
            })
            .collect();
        wait_for("load", || (promised.lock().unwrap().len() > before).then_some(()));
        // Not an event that is waited for: the moment of the blow is meant to be arbitrary.
        std::thread::sleep(Duration::from_millis(15 + 37 * round as u64));
        house.kill();
        stop.store(true, Ordering::Relaxed);
        clients.into_iter().for_each(|client| client.join().unwrap());
        house.start();
    }
    promised.lock().unwrap().clone()
}

#[test]
fn what_was_answered_250_is_delivered_though_the_server_was_killed() {
    let mut house = House::started("");
    let promised = under_blows(&mut house, "ana@here.example", ROUNDS);
    let delivered = wait_for("every promised message", || {
        let mut delivered: HashMap<String, usize> = HashMap::new();
        for letter in house.mailbox("here.example", "ana") {
            let text = String::from_utf8(letter).unwrap();
            let subject = text.split("\nSubject: ").nth(1).unwrap().lines().next().unwrap().to_owned();
            *delivered.entry(subject).or_default() += 1;
        }
        promised.iter().all(|subject| delivered.contains_key(subject)).then_some(delivered)
    });
    let twice = delivered.values().filter(|count| **count > 1).count();
    println!("{} promised, {} delivered, {twice} of them more than once", promised.len(), delivered.len());
    assert!(twice <= ROUNDS * 8, "at most what was under way at a blow is delivered twice: {twice}");
    assert_eq!(std::fs::read_dir(house.path("data/spool/damaged")).map_or(0, Iterator::count), 0);
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
    let mut house =
        House::started(&format!("[dns]\nservers = [\"{}\"]\n{relay}{}", dns.address, port(exim.port)));
    let queue = |house: &House, words: &str| {
        wait_for(words, || Some(house.run(&["queue", "list"]).1).filter(|text| text.contains(words)))
    };
    let known = |house: &House| {
        let (code, shown, error) = house.run(&["domain", "show", "exim.test"]);
        assert_eq!(code, 0, "{error}");
        shown
    };
    house.send("ana@here.example", "bo@exim.test", "by TLS");
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
    house.send("ana@here.example", "bo@exim.test", "in plain text");
    let listing = queue(&house, "was reached at tls-unverified before");
    assert_eq!(plain.counts().messages, 0, "nothing went out in plain text");

    let id =
        listing.split_whitespace().find(|word| word.parse::<postrider::mail::MessageId>().is_ok()).unwrap();
    assert_eq!(house.run(&["domain", "forget", "exim.test"]).0, 0);
    assert_eq!(house.run(&["queue", "retry", id]).0, 0);
    assert!(String::from_utf8_lossy(&plain.wait_for_mail(1)[0].message).contains("Subject: in plain text"));
}

#[test]
fn what_was_answered_250_reaches_the_next_hop_though_the_server_was_killed() {
    let dir = tempfile::tempdir().unwrap();
    let sink = SmtpSink::start(dir.path());
    let dns = postrider::fakes::DnsServer::start(
        "there.example. MX 10 mx.there.example.\nmx.there.example. A 127.0.0.1\n",
    );
    let mut house = House::started(&format!(
        "[dns]\nservers = [\"{}\"]\n[delivery.smtp]\nport = {}\n[relay]\nnetworks = [\"127.0.0.0/8\"]\n",
        dns.address, sink.port
    ));
    let promised = under_blows(&mut house, "bo@there.example", ROUNDS / 2);
    wait_for("an empty queue", || {
        house.run(&["queue", "list"]).1.contains("the queue is empty").then_some(())
    });
    // As they are: what was under way at a blow is there in part.
    let arrived: HashSet<String> = messages_in(&dir.path().join("smtp-sink"))
        .into_iter()
        .filter_map(|octets| {
            let text = String::from_utf8_lossy(&octets).into_owned();
            let subject = text.split("\nSubject: ").nth(1)?.lines().next()?.to_owned();
            text.ends_with("y\n\n").then_some(subject)
        })
        .collect();
    let lost: Vec<_> = promised.difference(&arrived).collect();
    assert!(lost.is_empty(), "{lost:?} of {}", promised.len());
}
