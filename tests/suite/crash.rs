//! Stop at every disk operation; find every promised message again.
//!
//! One scenario walks through every state of the table at the head of `queue/spool.rs`: small and
//! large messages, deliveries, deferrals, a message with one recipient settled and one waiting, a
//! failure with its report, segments that fill up and move, retries that settle. It is stopped
//! after every verb of the disk in turn, then the machine crashes in one of three ways, and the
//! next process must deliver whatever was promised, octet by octet, and nothing that is not whole.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use postrider::fakes::{Carried, Crash, SimulatedDisk, TestClock};
use postrider::mail::{Envelope, MessageId};
use postrider::queue::PutError;
use postrider::sys::Disk as _;

use crate::post_office::{MINUTE, PostOffice, deferred, delivered, failed, settings};

/// What clients were told.
#[derive(Default)]
struct Ledger {
    /// Answered 250.
    promised: BTreeMap<MessageId, (Envelope, Vec<u8>)>,
    /// All octets that anybody offered, by subject: what may come out.
    offered: BTreeSet<Vec<u8>>,
}

impl Ledger {
    fn put(&mut self, office: &PostOffice, to: &[&str], octets: usize) {
        let number = self.offered.len();
        let line = format!("line of letter {number}, which can be told from all others\r\n");
        let mut letter = format!("Subject: letter {number}\r\n\r\n").into_bytes();
        letter.extend(line.bytes().cycle().take(octets - octets % line.len()));
        self.offered.insert(letter.clone());
        if let Ok(envelope) = office.put("ana@here.example", to, &letter) {
            self.promised.insert(envelope.id, (envelope, letter));
        }
    }
}

/// Every state of the table. The couriers are told their parts as it goes.
fn scenario(office: &mut PostOffice, ledger: &mut Ledger) {
    let local = "bo@here.example";
    let remote = "cy@there.example";
    ledger.put(office, &[local], 200);
    office.stepped.run();
    office.remote.always(Some(deferred("busy")));
    ledger.put(office, &[remote], 300);
    ledger.put(office, &[remote], 5000);
    ledger.put(office, &[local, remote], 100);
    ledger.put(office, &[local], 4000);
    office.stepped.run();
    office.local.then([failed("no such mailbox")]);
    ledger.put(office, &["nobody@here.example", remote], 100);
    office.stepped.run();
    // Fills segments while nothing leaves: the oldest has to move.
    for _ in 0..8 {
        ledger.put(office, &[local, remote], 900);
    }
    office.clock.advance(Duration::from_secs(2));
    office.stepped.run();
    office.remote.then([delivered(), deferred("busy"), failed("gone"), delivered()]);
    office.after(2 * MINUTE);
    ledger.put(office, &[local], 500);
    office.remote.always(None);
    office.after(10 * MINUTE);
    ledger.put(office, &[remote], 500);
    ledger.put(office, &[remote], 3000);
}

fn carried(office: &PostOffice) -> Vec<Carried> {
    office.local.carried().into_iter().chain(office.remote.carried()).collect()
}

/// What is not as it should be after all is done; nothing if all is well.
fn complaint(ledger: &Ledger, all: &[Carried]) -> Option<String> {
    let reports = all.iter().filter(|one| one.envelope.reverse_path.is_null());
    let reports: Vec<_> = reports.map(|one| String::from_utf8_lossy(&one.octets)).collect();
    for (id, (envelope, _)) in &ledger.promised {
        let told = format!("Our name for your message: {id}");
        for recipient in &envelope.recipients {
            let name = recipient.to_string();
            let has = |class: char| {
                let mut theirs = all.iter().filter(|one| one.envelope.id == *id && one.to == name);
                theirs.any(|one| one.outcome.status().starts_with(class))
            };
            // Delivered; or failed, and the sender was told so.
            let is_told = || reports.iter().any(|text| text.contains(&told) && text.contains(&name));
            let is_settled = has('2') || (has('5') && is_told());
            if !is_settled {
                return Some(format!("{id} to {recipient} is lost"));
            }
        }
    }
    for one in all.iter().filter(|one| !one.envelope.reverse_path.is_null()) {
        let id = one.envelope.id;
        if !ledger.offered.contains(&one.octets) {
            return Some(format!("{id} came out with octets that nobody put in"));
        }
        if let Some((envelope, octets)) = ledger.promised.get(&id)
            && (*envelope != one.envelope || *octets != one.octets)
        {
            return Some(format!("{id} came out changed"));
        }
    }
    None
}

/// Stops the scenario after `n` verbs, crashes, goes on. The complaint, and the verbs done.
fn stopped_after(n: usize, crash: Crash, prepare: impl Fn(&SimulatedDisk)) -> (Option<String>, Vec<Carried>) {
    let disk = SimulatedDisk::default();
    prepare(&disk);
    let clock = Arc::<TestClock>::default();
    let mut office = PostOffice::open(disk, clock, 1, settings()).unwrap();
    office.disk.stop_after(n);
    let mut ledger = Ledger::default();
    scenario(&mut office, &mut ledger);
    let mut all = carried(&office);
    office.disk.crash(crash);
    let mut office = match PostOffice::open(office.disk, office.clock, 2, settings()) {
        Ok(office) => office,
        Err(e) => return (Some(format!("the spool does not open: {e}")), all),
    };
    office.stepped.run();
    office.after(200 * MINUTE);
    all.extend(carried(&office));
    let complaint = match office.waiting() {
        0 => complaint(&ledger, &all),
        left => Some(format!("{left} messages do not leave")),
    };
    (complaint.map(|text| format!("stopped after {n}, {crash:?}: {text}")), all)
}

fn verbs_of_the_scenario() -> usize {
    let mut office = PostOffice::new();
    let before = office.disk.verbs().len();
    let mut ledger = Ledger::default();
    scenario(&mut office, &mut ledger);
    let verbs = office.disk.verbs();
    for verb in ["create", "append", "sync", "rename", "sync_dir", "remove"] {
        assert!(verbs.contains(&verb), "the scenario has no {verb}");
    }
    verbs.len() - before
}

#[test]
fn no_promise_is_lost_wherever_the_machine_stops() {
    let verbs = verbs_of_the_scenario();
    assert!(verbs > 100, "{verbs}");
    for n in 0..=verbs {
        for crash in [Crash::Killed, Crash::Dropped, Crash::Torn(n as u64), Crash::Torn(!(n as u64))] {
            let (complaint, _) = stopped_after(n, crash, |_| {});
            assert_eq!(complaint, None);
        }
    }
}

#[test]
fn a_disk_that_forgets_is_found_out() {
    // The same test, on a program that leaves out its syncs: it must fail, or it proves nothing.
    let verbs = verbs_of_the_scenario();
    for verb in ["sync", "sync_dir"] {
        let lost = (0..=verbs).find_map(|n| stopped_after(n, Crash::Dropped, |disk| disk.ignore(verb)).0);
        assert!(lost.is_some(), "{verb}");
    }
}

#[test]
fn after_a_kill_nobody_is_delivered_to_again_but_who_was_being_delivered_to() {
    let verbs = verbs_of_the_scenario();
    let start = PostOffice::new().disk.verbs().len();
    for n in 0..=verbs {
        let (_, all) = stopped_after(n, Crash::Killed, |_| {});
        let mut first = BTreeMap::new();
        for one in all.iter().filter(|one| one.outcome.status().starts_with('2')) {
            let Some(before) = first.insert((one.envelope.id, one.to.clone()), one.verbs) else { continue };
            // Here the disk stops and the couriers go on, as no real machine does: what they carry
            // then is carried again. Apart from that, only what was not yet written down.
            assert!(before + RECORDING_VERBS > start + n, "stopped after {n}: {} twice", one.envelope.id);
        }
    }
}

/// Verbs from a delivery to its record, at most: a new segment, a sync for `moved`, a removal.
const RECORDING_VERBS: usize = 6;

#[test]
fn one_failing_operation_loses_nothing_and_needs_no_restart() {
    let verbs = verbs_of_the_scenario();
    let kinds = [io::ErrorKind::StorageFull, io::ErrorKind::ReadOnlyFilesystem, io::ErrorKind::Other];
    for n in 0..=verbs {
        let kind = kinds[n % kinds.len()];
        let mut office = PostOffice::new();
        office.disk.fail_after(n, kind);
        let mut ledger = Ledger::default();
        scenario(&mut office, &mut ledger);
        office.after(200 * MINUTE);
        assert_eq!(office.waiting(), 0, "{kind} at {n}");
        assert_eq!(complaint(&ledger, &carried(&office)), None, "{kind} at {n}");
        let offered = ledger.offered.len();
        assert!(ledger.promised.len() + 1 >= offered, "{kind} at {n}: one error refuses one message");

        let mut all = carried(&office);
        office.disk.crash(Crash::Torn(n as u64));
        let mut office = office.restarted(2);
        office.stepped.run();
        office.after(200 * MINUTE);
        all.extend(carried(&office));
        assert_eq!(complaint(&ledger, &all), None, "{kind} at {n}, then a crash");
    }
}

#[test]
fn a_sync_that_fails_refuses_everybody_who_waited_and_nobody_else() {
    let mut office = PostOffice::new();
    office.stepped.run();
    office.put("ana@here.example", &["bo@here.example"], b"Subject: one\r\n\r\n").unwrap();
    office.disk.fail_after(1, io::ErrorKind::Other);
    let refused = office.put("ana@here.example", &["bo@here.example"], b"Subject: two\r\n\r\n");
    assert!(matches!(refused, Err(PutError::Io(_))), "{refused:?}");
    office.put("ana@here.example", &["bo@here.example"], b"Subject: three\r\n\r\n").unwrap();
    office.disk.crash(Crash::Killed);
    let mut office = office.restarted(2);
    office.stepped.run();
    let mut subjects: Vec<_> = office.local.delivered().into_iter().map(|one| one.octets).collect();
    subjects.sort();
    assert_eq!(subjects, [&b"Subject: one\r\n\r\n"[..], b"Subject: three\r\n\r\n"]);
}

#[test]
fn a_disk_that_refuses_to_sync_for_long_does_not_fill_up_with_segments() {
    let mut office = PostOffice::new();
    office.stepped.run();
    office.put("ana@here.example", &["bo@here.example"], b"Subject: one\r\n\r\n").unwrap();
    let segments = |office: &PostOffice| {
        office.disk.names().iter().filter(|path| path.extension().is_some_and(|e| e == "journal")).count()
    };
    for n in 0..50 {
        // The first has a segment to write to, the others need a new one, and its name synced.
        office.disk.fail_after(if n == 0 { 1 } else { 4 }, io::ErrorKind::Other);
        let refused = office.put("ana@here.example", &["bo@here.example"], b"Subject: two\r\n\r\n");
        assert!(matches!(refused, Err(PutError::Io(_))), "{n}: {refused:?}");
        assert!(segments(&office) <= 2, "{n}: {}", segments(&office));
    }
    office.put("ana@here.example", &["bo@here.example"], b"Subject: three\r\n\r\n").unwrap();
    office.disk.crash(Crash::Dropped);
    let mut office = office.restarted(2);
    office.stepped.run();
    let mut subjects: Vec<_> = office.local.delivered().into_iter().map(|one| one.octets).collect();
    subjects.sort();
    assert_eq!(subjects, [&b"Subject: one\r\n\r\n"[..], b"Subject: three\r\n\r\n"]);
}

#[test]
fn damage_costs_one_message_is_set_aside_and_shown() {
    let office = PostOffice::new();
    for n in 0..3 {
        let letter = format!("Subject: {n}\r\n\r\n");
        office.put("ana@here.example", &["bo@here.example"], letter.as_bytes()).unwrap();
    }
    let segment = office.disk.names().into_iter().find(|path| path.extension().is_some()).unwrap();
    let octets = office.disk.octets(&segment).unwrap();
    let middle = octets.windows(10).position(|window| window == b"Subject: 1").unwrap();
    office.disk.damage(&segment, middle);
    let mut office = office.restarted(2);
    office.stepped.run();
    assert_eq!(office.local.delivered().len(), 2);
    assert_eq!(office.metrics.counter("queue_damaged", "").value(), 1);
    let aside = office.disk.names().into_iter().find(|path| path.starts_with("/data/spool/damaged")).unwrap();
    assert!(office.disk.octets(&aside).unwrap().windows(4).any(|window| window == b"ana@"));
}

#[test]
fn a_damaged_file_that_waits_is_set_aside_and_the_others_go_on() {
    let mut office = PostOffice::new();
    office.remote.always(Some(deferred("busy")));
    office.receive("ana@here.example", "bo@there.example");
    office.receive("ana@here.example", "bo@there.example");
    let waiting = Path::new("/data/spool/waiting");
    let path = office.disk.names().into_iter().find(|path| path.starts_with(waiting)).unwrap();
    office.disk.damage(&path, 26 + 30);
    office.remote.always(None);
    office.after(2 * MINUTE);
    assert_eq!((office.waiting(), office.remote.delivered().len()), (0, 1));
    assert!(office.disk.names().iter().any(|path| path.starts_with("/data/spool/damaged")));
}

#[test]
fn a_spool_of_a_later_version_is_refused_with_a_sentence() {
    let office = PostOffice::new();
    office.disk.damage(Path::new("/data/spool/version"), 0);
    let error = PostOffice::open(office.disk, office.clock, 2, settings()).err().unwrap();
    assert!(error.to_string().contains("later version"), "{error}");
}

#[test]
fn a_parcel_that_is_gone_does_not_rise_again_from_the_journal() {
    let mut office = PostOffice::new();
    office.remote.then([deferred("busy")]);
    office.receive("ana@here.example", "bo@there.example");
    office.after(2 * MINUTE);
    assert_eq!((office.waiting(), office.remote.delivered().len()), (0, 1));
    // The file system gets round to the removal; to the journal's last page it does not.
    office.disk.sync_dir(Path::new("/data/spool/waiting")).unwrap();
    office.disk.crash(Crash::Dropped);
    let mut office = office.restarted(2);
    office.after(10 * MINUTE);
    assert!(office.remote.carried().is_empty());
}

#[test]
fn what_was_settled_in_a_segment_stays_settled_when_segments_go() {
    for seed in 0..40 {
        let mut office = PostOffice::new();
        let letter = vec![b'x'; 990];
        let put = |office: &PostOffice| {
            for _ in 0..3 {
                office.put("ana@here.example", &["bo@here.example"], &letter).unwrap();
            }
        };
        // Messages in one segment, what became of them in the next, and a third to write to.
        put(&office);
        put(&office);
        office.stepped.run();
        put(&office);
        put(&office);
        office.after(Duration::from_secs(3));
        assert_eq!(office.waiting(), 0);
        let gone = office.local.delivered().len();
        assert_eq!(gone, 12);
        // The notes of the last ones are not synced; those of the first are.
        office.disk.crash(Crash::Torn(seed));
        let mut office = office.restarted(2);
        office.stepped.run();
        assert!(office.local.carried().len() <= 6, "{seed}: {} again", office.local.carried().len());
    }
}

#[test]
fn what_must_wait_can_be_read_with_ordinary_tools() {
    let mut office = PostOffice::new();
    office.remote.always(Some(deferred("busy")));
    let id = office.receive("ana@here.example", "bo@there.example");
    let path = format!("/data/spool/waiting/{id}.26");
    let text = String::from_utf8(office.disk.octets(Path::new(&path)).unwrap()).unwrap();
    assert!(text.starts_with("Subject: hello\r\n\r\nHello.\r\n"), "the octets come first, as they go out");
    let lines: Vec<_> = text[26..].lines().map(|line| line.split_once(' ').unwrap().1).collect();
    assert!(lines[0].starts_with("{\"version\":1,") && lines[0].contains("bo@there.example"), "{lines:?}");
    assert!(lines[1].contains("\"attempts\":1") && lines[1].contains("busy"), "{lines:?}");
    office.after(2 * MINUTE);
    let later = String::from_utf8(office.disk.octets(Path::new(&path)).unwrap()).unwrap();
    assert!(later.starts_with(&text), "a retry adds, and rewrites nothing");
}
