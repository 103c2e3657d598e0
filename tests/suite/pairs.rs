//! Two actors on the same mail, by the real binary: commands, deliveries, kills, stops.
//!
//! The concurrency model of the queue tries the same pairs in every order; here they meet as they happen,
//! with processes and signals.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

use crossbeam_channel::after;
use postrider::torture::Load;

use crate::house::{Client, House, Signal, wait_for};

/// Local mail goes to this program, a shell script. In its folder `$0` it writes the recipient to `began`
/// as its first action, and to `delivered` as its last, and asks to be tried again as long as the file
/// `open` does not exist, except for every fifth recipient.
const PROGRAM: &str = r#"
echo "$ORIGINAL_RECIPIENT" >>"$0/began"
cat >/dev/null
sleep 0.03
case $ORIGINAL_RECIPIENT in
*0@*|*5@*) ;;
*) [ -e "$0/open" ] || exit 75 ;;
esac
echo "$ORIGINAL_RECIPIENT" >>"$0/delivered"
"#;

/// What the delivery program did, kept outside the server's data directory.
struct Deliveries(PathBuf);

impl Deliveries {
    fn new(house: &House) -> Self {
        let dir = house.path("deliveries");
        fs::create_dir(&dir).unwrap();
        Self(dir)
    }

    /// The section of `postrider.toml`.
    fn toml(dir: &Path) -> String {
        format!(
            "[delivery]\nlocal = \"command\"\n[delivery.command]\nprogram = \"sh\"\narguments = [\"-c\", '''{PROGRAM}''', {dir:?}]\n\
             [queue]\nretry = [\"1s\"]\n"
        )
    }

    fn lines(&self, name: &str) -> Vec<String> {
        let text = fs::read_to_string(self.0.join(name)).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    /// From now on every delivery succeeds.
    fn open(&self) {
        fs::write(self.0.join("open"), "").unwrap();
    }

    /// How often each recipient was delivered to.
    fn counts(&self) -> BTreeMap<String, usize> {
        let mut counts = BTreeMap::new();
        self.lines("delivered").into_iter().for_each(|to| *counts.entry(to).or_default() += 1);
        counts
    }

    /// Waits until no program is left of a server that was killed.
    fn wait_for_orphans(&self) {
        let dir = self.0.to_str().unwrap();
        let is_ours = |entry: fs::DirEntry| {
            let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
            line.starts_with(b"sh\0") && String::from_utf8_lossy(&line).contains(dir)
        };
        wait_for("the delivery programs to end", || {
            let mut processes = fs::read_dir("/proc").unwrap().map(Result::unwrap);
            (!processes.any(is_ours)).then_some(())
        });
    }
}

/// A server whose local mail goes to the program, with `count` mailboxes `n0@here.example` and so on.
fn house_with_program(count: usize) -> (House, Deliveries) {
    let house = House::new("");
    let deliveries = Deliveries::new(&house);
    let path = house.path("postrider.toml");
    let toml = fs::read_to_string(&path).unwrap() + &Deliveries::toml(&deliveries.0);
    fs::write(path, toml).unwrap();
    let aliases: String = (0..count).map(|number| format!("n{number}: ana\n")).collect();
    fs::write(house.path("domains/here.example/aliases"), aliases).unwrap();
    (house, deliveries)
}

/// Hands in one message; its id, if the answer was 250.
fn hand_in(client: &mut Client, number: usize) -> Option<String> {
    client.expect("MAIL FROM:<bo@there.example>", "250");
    client.expect(&format!("RCPT TO:<n{number}@here.example>"), "250");
    client.expect("DATA", "354");
    let reply = client.say(&format!("Subject: {number}\r\n\r\nhello\r\n."));
    reply.strip_prefix("250 2.0.0 Queued as ").map(|id| id.trim_end().to_owned())
}

/// What an operator's commands have confirmed.
#[derive(Default)]
struct Confirmed {
    /// Removal: from then on nothing is delivered. The message, and the lines of `began` at that moment.
    removed: BTreeMap<usize, usize>,
    /// Held or rerouted: nothing is delivered here until it is released. As above.
    stopped: BTreeMap<usize, usize>,
    /// Messages that a command named, and those whose removal one asked for. A command whose reply a kill
    /// cut off may have done its work.
    named: BTreeSet<usize>,
    asked_to_remove: BTreeSet<usize>,
}

/// One shell: gives the same command for ten messages at a time, until the server is gone.
fn shell(
    house: &House,
    deliveries: &Deliveries,
    ids: &[(usize, String)],
    words: &[&str],
    confirmed: &Mutex<Confirmed>,
) {
    for some in ids.chunks(10) {
        let numbers = some.iter().map(|(number, _)| *number);
        confirmed.lock().unwrap().named.extend(numbers.clone());
        if words[0] == "remove" {
            confirmed.lock().unwrap().asked_to_remove.extend(numbers);
        }
        let mut arguments = vec!["queue"];
        arguments.extend(words);
        arguments.extend(some.iter().map(|(_, id)| id.as_str()));
        let (_, said, complaints) = house.run(&arguments);
        let lines = deliveries.lines("began").len();
        let mut confirmed = confirmed.lock().unwrap();
        for (number, id) in some {
            let is_said = |words: &str| {
                let line = format!("{id} is {words}");
                said.lines().chain(complaints.lines()).any(|text| text.ends_with(&line))
            };
            if is_said("removed") {
                confirmed.removed.entry(*number).or_insert(lines);
            } else if is_said("held") || is_said("rerouted") {
                confirmed.stopped.entry(*number).or_insert(lines);
            }
        }
    }
}

#[test]
fn two_shells_deliveries_and_kills_agree_on_every_message() {
    // Forty for each round, and the last ones are for the delivery program alone.
    const MESSAGES: usize = 140;
    let (mut house, deliveries) = house_with_program(MESSAGES);
    house.start();
    let mut client = house.client();
    client.expect("EHLO there.example", "250");
    let ids: Vec<_> =
        (0..MESSAGES).map(|number| (number, hand_in(&mut client, number).expect("250"))).collect();
    drop(client);
    let confirmed = Mutex::new(Confirmed::default());
    // The two shells meet at the messages that both have, from opposite ends.
    let rounds: [(&[&str], &[&str]); 3] = [
        (&["hold"], &["remove"]),
        (&["reroute", "--via", "127.0.0.1:1"], &["hold"]),
        (&["remove", "--report=gone"], &["reroute", "--via", "127.0.0.1:1"]),
    ];
    for (round, (first, second)) in rounds.into_iter().enumerate() {
        let mine = &ids[round * 40..(round + 1) * 40];
        let there: Vec<_> = mine[..30].to_vec();
        let back: Vec<_> = mine[10..].iter().rev().cloned().collect();
        let pid = house.pid();
        std::thread::scope(|scope| {
            let shells = [(&there, first), (&back, second)].map(|(ids, words)| {
                let (house, deliveries, confirmed) = (&house, &deliveries, &confirmed);
                scope.spawn(move || shell(house, deliveries, ids, words, confirmed))
            });
            // Each shell waits for attempts under way, and the blow comes at no particular moment.
            let _ = after(Duration::from_millis(300 + 400 * round as u64)).recv();
            nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid.cast_signed()), Signal::SIGKILL).unwrap();
            shells.into_iter().for_each(|shell| shell.join().unwrap());
        });
        house.kill();
        deliveries.wait_for_orphans();
        house.start();
    }

    let confirmed = confirmed.into_inner().unwrap();
    assert!(confirmed.removed.len() + confirmed.stopped.len() > 10, "the shells were in time");
    deliveries.open();
    let is_free = |number: &usize| !confirmed.named.contains(number);
    wait_for("what nobody stopped to be delivered", || {
        let counts = deliveries.counts();
        (0..MESSAGES)
            .filter(is_free)
            .all(|n| counts.contains_key(&format!("n{n}@here.example")))
            .then_some(())
    });
    let began = deliveries.lines("began");
    for (number, lines) in confirmed.removed.iter().chain(&confirmed.stopped) {
        let address = format!("n{number}@here.example");
        assert!(!began[*lines..].contains(&address), "{address} was stopped or removed, and delivered later");
    }
    // What was not removed goes on when it is released.
    house.run(&["queue", "reroute", "all", "--direct"]);
    house.run(&["queue", "release", "all"]);
    wait_for("an empty queue", || {
        house.run(&["queue", "list"]).1.contains("the queue is empty").then_some(())
    });
    let counts = deliveries.counts();
    for number in (0..MESSAGES).filter(|number| !confirmed.asked_to_remove.contains(number)) {
        assert!(counts.contains_key(&format!("n{number}@here.example")), "n{number} is lost");
    }
    let began = deliveries.lines("began");
    for (number, lines) in &confirmed.removed {
        let address = format!("n{number}@here.example");
        assert!(!began[*lines..].contains(&address), "{address} was removed, and is back");
    }
}

#[test]
fn stops_at_random_moments_under_load_lose_nothing_and_deliver_nothing_twice() {
    let mut house = House::started("");
    let load = Load::new(([127, 0, 0, 1], house.smtp).into(), "ana@here.example");
    for round in 0..6 {
        let before = load.promised().len();
        let clients = load.begin(6).unwrap();
        wait_for("load", || (load.promised().len() > before).then_some(()));
        // The moment of the stop is meant to be arbitrary.
        let _ = after(Duration::from_millis(10 + 53 * round)).recv();
        assert_eq!(house.stop(), 0, "{}", house.log());
        load.end(clients);
        house.start();
    }
    let promised = load.promised();
    wait_for("an empty queue", || {
        house.run(&["queue", "list"]).1.contains("the queue is empty").then_some(())
    });
    let mut arrived: BTreeMap<usize, usize> = BTreeMap::new();
    for octets in house.mailbox("here.example", "ana") {
        *arrived.entry(Load::recognise(&octets).expect("a whole letter")).or_default() += 1;
    }
    let lost: Vec<_> = promised.iter().filter(|number| !arrived.contains_key(number)).collect();
    assert!(lost.is_empty(), "{lost:?} of {}", promised.len());
    let log = house.log();
    let (clean, unclean) =
        (log.matches("nothing was under way").count(), log.matches("stopped with work under way").count());
    assert_eq!(clean + unclean, 6, "{log}");
    let twice: Vec<_> = arrived.iter().filter(|(_, count)| **count > 1).collect();
    assert!(unclean > 0 || twice.is_empty(), "{twice:?} arrived twice, though nothing was under way");
}
