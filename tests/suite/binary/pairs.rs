//! Two actors on the same mail, in the real program: commands, deliveries, kills, stops, a full disk.
//!
//! The concurrency model of the queue tries the same pairs in many orders. The tests here use processes, signals and a
//! file system, in whatever order occurs.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::Duration;

use crossbeam_channel::after;
use postrider::torture::LoadGenerator;

use crate::test_server::{Signal, SmtpClient, TestServer, wait_for};

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
    fn new(server: &TestServer) -> Self {
        let dir = server.path("deliveries");
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

    /// From now on most deliveries are deferred again.
    fn close(&self) {
        fs::remove_file(self.0.join("open")).unwrap();
    }

    /// The number of deliveries to each recipient.
    fn counts(&self) -> BTreeMap<String, usize> {
        let mut counts = BTreeMap::new();
        self.lines("delivered").into_iter().for_each(|to| *counts.entry(to).or_default() += 1);
        counts
    }

    /// Waits until every program of a killed server has ended.
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
fn server_with_program(count: usize) -> (TestServer, Deliveries) {
    let server = TestServer::new("");
    let deliveries = Deliveries::new(&server);
    let path = server.path("postrider.toml");
    let toml = fs::read_to_string(&path).unwrap() + &Deliveries::toml(&deliveries.0);
    fs::write(path, toml).unwrap();
    let aliases: String = (0..count).map(|number| format!("n{number}: ana\n")).collect();
    fs::write(server.path("domains/here.example/aliases"), aliases).unwrap();
    (server, deliveries)
}

/// Submits one message. Returns its id if the reply was 250.
fn submit(client: &mut SmtpClient, number: usize) -> Option<String> {
    client.expect("MAIL FROM:<bo@there.example>", "250");
    client.expect(&format!("RCPT TO:<n{number}@here.example>"), "250");
    client.expect("DATA", "354");
    let reply = client.command(&format!("Subject: {number}\r\n\r\nhello\r\n."));
    reply.strip_prefix("250 2.0.0 Queued as ").map(|id| id.trim_end().to_owned())
}

/// The changes that an operator's commands have confirmed.
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
    server: &TestServer,
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
        let (_, said, complaints) = server.run_to_end(&arguments);
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
fn commands_deliveries_and_kills_agree_on_every_message() {
    // Forty for each round, and the last ones are for the delivery program alone.
    const MESSAGES: usize = 140;
    let (mut server, deliveries) = server_with_program(MESSAGES);
    server.start();
    let mut client = server.connect();
    client.expect("EHLO there.example", "250");
    let ids: Vec<_> =
        (0..MESSAGES).map(|number| (number, submit(&mut client, number).expect("250"))).collect();
    drop(client);
    let confirmed = Mutex::new(Confirmed::default());
    // The two shells meet at the messages that both have, from opposite ends.
    let rounds: [(&[&str], &[&str]); 3] = [
        (&["hold"], &["remove"]),
        (&["reroute", "--via", "127.0.0.1:1"], &["hold"]),
        (&["remove", "--bounce=gone"], &["reroute", "--via", "127.0.0.1:1"]),
    ];
    for (round, (first, second)) in rounds.into_iter().enumerate() {
        let mine = &ids[round * 40..(round + 1) * 40];
        let there: Vec<_> = mine[..30].to_vec();
        let back: Vec<_> = mine[10..].iter().rev().cloned().collect();
        let pid = server.pid();
        std::thread::scope(|scope| {
            let shells = [(&there, first), (&back, second)].map(|(ids, words)| {
                let (server, deliveries, confirmed) = (&server, &deliveries, &confirmed);
                scope.spawn(move || shell(server, deliveries, ids, words, confirmed))
            });
            // Each shell waits for attempts under way, and the kill comes at an arbitrary moment.
            let _ = after(Duration::from_millis(300 + 400 * round as u64)).recv();
            nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid.cast_signed()), Signal::SIGKILL).unwrap();
            shells.into_iter().for_each(|shell| shell.join().unwrap());
        });
        server.kill();
        deliveries.wait_for_orphans();
        server.start();
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
    // Messages that were not removed continue when they are released.
    server.run_to_end(&["queue", "reroute", "all", "--direct"]);
    server.run_to_end(&["queue", "release", "all"]);
    wait_for("an empty queue", || {
        server.run_to_end(&["queue", "list"]).1.contains("the queue is empty").then_some(())
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
fn stops_at_random_moments_under_load_lose_no_message_and_repeat_no_delivery() {
    let mut server = TestServer::new_started("");
    let load = LoadGenerator::new(([127, 0, 0, 1], server.smtp_port).into(), "ana@here.example");
    for round in 0..6 {
        let before = load.accepted().len();
        let clients = load.start_clients(6).unwrap();
        wait_for("load", || (load.accepted().len() > before).then_some(()));
        // The moment of the stop is meant to be arbitrary.
        let _ = after(Duration::from_millis(10 + 53 * round)).recv();
        assert_eq!(server.stop(), 0, "{}", server.log());
        load.stop_clients(clients);
        server.start();
    }
    let accepted = load.accepted();
    wait_for("an empty queue", || {
        server.run_to_end(&["queue", "list"]).1.contains("the queue is empty").then_some(())
    });
    let mut arrived: BTreeMap<usize, usize> = BTreeMap::new();
    for octets in server.maildir_messages("here.example", "ana") {
        *arrived.entry(LoadGenerator::parse_number(&octets).expect("a whole message")).or_default() += 1;
    }
    let lost: Vec<_> = accepted.iter().filter(|number| !arrived.contains_key(number)).collect();
    assert!(lost.is_empty(), "{lost:?} of {}", accepted.len());
    let log = server.log();
    let (clean, unclean) =
        (log.matches("nothing was under way").count(), log.matches("stopped with work under way").count());
    assert_eq!(clean + unclean, 6, "{log}");
    let twice: Vec<_> = arrived.iter().filter(|(_, count)| **count > 1).collect();
    assert!(unclean > 0 || twice.is_empty(), "{twice:?} arrived twice, though nothing was under way");
}

/// A small file system in memory, in a mount namespace that a process of ours keeps open.
struct SmallDisk {
    keeper: Child,
    at: PathBuf,
}

impl SmallDisk {
    /// Mounts one of so many KiB at `at`. Nothing if this user may not: that takes root, or namespaces of
    /// ordinary users.
    fn mount(at: &Path, kib: usize) -> Option<Self> {
        fs::create_dir_all(at).unwrap();
        let namespaces: &[&str] = if nix::unistd::Uid::effective().is_root() { &["-m"] } else { &["-Urm"] };
        let mut keeper = Command::new("unshare")
            .args(namespaces)
            .args([
                "sh",
                "-c",
                "mount -t tmpfs -o size=$1k,mode=0700 tmpfs \"$0\" && echo ready && exec sleep 600",
            ])
            .arg(at)
            .arg(kib.to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .ok()?;
        let mut said = [0; 6];
        if keeper.stdout.take().unwrap().read_exact(&mut said).is_err() {
            keeper.wait().unwrap();
            return None;
        }
        Some(Self { keeper, at: at.to_owned() })
    }

    /// The same path, as seen from outside.
    fn seen(&self, below: &str) -> PathBuf {
        let root = PathBuf::from(format!("/proc/{}/root", self.keeper.id()));
        root.join(self.at.strip_prefix("/").unwrap()).join(below)
    }

    /// Makes a command that runs `command` where the file system is mounted.
    fn inside(&self, command: &Command) -> Command {
        let mut inside = Command::new("nsenter");
        let own = |name: &str| fs::metadata(format!("/proc/self/ns/{name}")).unwrap().ino();
        let theirs =
            |name: &str| fs::metadata(format!("/proc/{}/ns/{name}", self.keeper.id())).unwrap().ino();
        if own("user") != theirs("user") {
            inside.args(["-U", "--preserve-credentials"]);
        }
        inside.args(["-m", "-t", &self.keeper.id().to_string()]).arg(command.get_program());
        inside.args(command.get_args()).current_dir(command.get_current_dir().unwrap());
        inside
    }

    /// Takes all the room that is left.
    fn fill(&self) {
        let mut file = fs::OpenOptions::new().create(true).append(true).open(self.seen("filler")).unwrap();
        while file.write_all(&[b'x'; 4096]).is_ok() {}
    }

    fn empty(&self) {
        fs::remove_file(self.seen("filler")).unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = self.keeper.kill();
        let _ = self.keeper.wait();
    }
}

#[test]
fn a_disk_that_is_full_repeatedly_loses_no_message_and_causes_no_second_delivery() {
    const ROUNDS: usize = 3;
    // Notes of half of them need several pages, and the last page of the journal has room for some.
    const EACH: usize = 120;
    let (mut server, deliveries) = server_with_program(ROUNDS * EACH);
    let Some(disk) = SmallDisk::mount(&server.path("data"), 32 * 1024) else {
        assert!(std::env::var_os("CI").is_none(), "this test needs a mount namespace: run it as root");
        println!("not tried: this user may not mount a small file system in a namespace");
        return;
    };
    let start = |server: &mut TestServer| {
        let mut command = disk.inside(&server.command());
        let log = fs::OpenOptions::new().create(true).append(true).open(server.path("log")).unwrap();
        command.arg("serve").stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        server.start_with(&mut command);
    };
    let ask = |server: &TestServer, words: &[&str]| {
        let output = disk.inside(&server.command()).arg("queue").args(words).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    start(&mut server);
    let mut accepted = BTreeSet::new();
    for round in 0..ROUNDS {
        let mut refused = 0;
        let mut client = server.connect();
        client.expect("EHLO there.example", "250");
        for number in round * EACH..(round + 1) * EACH {
            // Half of them come while there is room, and are delivered while there is none to note it.
            if number % EACH == EACH / 2 {
                disk.fill();
                deliveries.open();
                ask(&server, &["retry", "all"]);
            } else if number % EACH > EACH / 2 {
                // A message that has left makes room.
                disk.fill();
            }
            if let Some(id) = submit_or_be_refused(&mut client, number) {
                accepted.insert(number);
                if number % 4 == 0 {
                    ask(&server, &[["hold", "retry"][number % 8 / 4], &id]);
                }
            } else {
                refused += 1;
            }
        }
        assert!(refused > 0, "the disk was full");
        wait_for("deliveries", || {
            let counts = deliveries.counts();
            let mut all = (round * EACH..round * EACH + EACH / 2).filter(|number| number % 4 != 0);
            all.all(|number| counts.contains_key(&format!("n{number}@here.example"))).then_some(())
        });
        ask(&server, &["hold", "all"]);
        disk.empty();
        deliveries.close();
        ask(&server, &["release", "all"]);
        let before = server.log().matches("nothing was under way").count();
        assert_eq!(server.stop(), 0, "{}", server.log());
        let is_clean = server.log().matches("nothing was under way").count() > before;
        assert!(is_clean, "the grace is longer than any delivery:\n{}", server.log());
        start(&mut server);
    }
    deliveries.open();
    wait_for("an empty queue", || {
        ask(&server, &["release", "all"]);
        ask(&server, &["list"]).contains("the queue is empty").then_some(())
    });
    let counts = deliveries.counts();
    let lost: Vec<_> =
        accepted.iter().filter(|number| !counts.contains_key(&format!("n{number}@here.example"))).collect();
    assert!(lost.is_empty(), "{lost:?} of {}", accepted.len());
    let twice: Vec<_> = counts.iter().filter(|(_, count)| **count > 1).collect();
    assert!(twice.is_empty(), "{twice:?} were delivered to twice");
}

/// As `submit`, with a disk that may be full: 452 or 451 at any point is an answer.
fn submit_or_be_refused(client: &mut SmtpClient, number: usize) -> Option<String> {
    let lines = ["MAIL FROM:<bo@there.example>", &format!("RCPT TO:<n{number}@here.example>"), "DATA"];
    for line in lines {
        let reply = client.command(line);
        if reply.starts_with("45") {
            client.expect("RSET", "250");
            return None;
        }
        assert!(reply.starts_with("250 ") || reply.starts_with("354 "), "{line} was answered {reply}");
    }
    let reply = client.command(&format!("Subject: {number}\r\n\r\nhello\r\n."));
    assert!(reply.starts_with("250 ") || reply.starts_with("45"), "{reply}");
    reply.strip_prefix("250 2.0.0 Queued as ").map(|id| id.trim_end().to_owned())
}
