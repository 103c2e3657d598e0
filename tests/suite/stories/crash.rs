//! Stop at every disk operation; find every promised message again.
//!
//! The scenario and the stops are `postrider::torture`'s, which an operator can run too; here they
//! run on programs and disks with faults as well, and single cases have tests of their own.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::time::Duration;

use postrider::fakes::Crash;
use postrider::queue::{PutError, Settings};
use postrider::sys::Disk as _;
use postrider::torture::{
    SentMail, crash_plans, find_delivery_fault, run_crash_test, run_scenario, run_with_crashes,
};

use crate::queue_fixture::{MINUTE, QueueFixture, deferred, settings};

fn verbs_of_the_scenario() -> usize {
    let mut office = QueueFixture::new();
    let before = office.disk.operations().len();
    let mut ledger = SentMail::default();
    run_scenario(&mut office, &mut ledger);
    let verbs = office.disk.operations();
    for verb in ["create", "append", "write", "sync", "rename", "sync_dir", "remove"] {
        assert!(verbs.contains(&verb), "the scenario has no {verb}");
    }
    verbs.len() - before
}

// Takes a minute in a debug build: thousands of crashes, each with a day before it and one after it.
#[test]
fn no_promise_is_lost_wherever_the_machine_stops() {
    let stops = run_crash_test().unwrap();
    assert!(stops.operations > 100 && stops.crashes > 4 * stops.operations, "{stops:?}");
}

/// Kinds of syncs that no promise hangs on, and why they are there.
const HARMLESS: &[(&str, &str)] = &[
    ("sync waiting", "of two recipients, one is settled: without it, that one is delivered to twice"),
    ("sync journal at the start", "what was settled stays settled: without it, delivered twice"),
    ("sync_dir journal (gone names)", "segments go in order: without it, delivered twice"),
    ("sync spool", "the clock for ages: without it, ages go by the wall clock once"),
    ("sync_dir spool (new names)", "the same: without it, by what was written before"),
    ("sync_dir spool (new names) at the start", "the version file, which the next start writes again"),
];

// Takes a quarter of a minute in a debug build: for some syncs only the last of a thousand stops tells.
#[test]
fn a_program_that_leaves_out_any_one_sync_is_found_out() {
    // The same test on programs with a fault: it must fail, or it proves nothing.
    let verbs = verbs_of_the_scenario();
    let kinds = {
        let mut office = QueueFixture::new();
        run_scenario(&mut office, &mut SentMail::default());
        office.disk.crash(Crash::ProcessKilled);
        office.restarted(2).disk.sync_kinds()
    };
    let is_harmless = |kind: &str| HARMLESS.iter().any(|(harmless, _)| *harmless == kind);
    // The stops that find most and cost least come first. A kill alone finds no sync that is left out.
    let mut ways: Vec<_> = (0..=verbs).flat_map(crash_plans).collect();
    ways.retain(|stops| !matches!(stops[..], [(_, Crash::ProcessKilled)]));
    ways.sort_by_key(|stops| match stops[..] {
        [(_, Crash::UnsyncedLost)] => 0,
        [_] => 1,
        _ => 2,
    });
    for kind in kinds.iter().filter(|kind| !kind.contains("(nothing)") && !is_harmless(kind)) {
        let complaint =
            ways.iter().find_map(|stops| run_with_crashes(stops, |disk| disk.ignore_sync(kind)).0);
        assert!(complaint.is_some(), "{kind}: nobody would notice");
    }
    for (kind, _) in HARMLESS {
        assert!(kinds.contains(*kind), "{kind} is not there any more");
    }
}

/// Of the syncs above that keep a recipient from being delivered to twice, each has a story here: how
/// often it is delivered to again when that sync is left out, if it is.
fn again(left_out: Option<&str>, story: impl Fn(&mut QueueFixture)) -> usize {
    let mut office = QueueFixture::new();
    if let Some(kind) = left_out {
        office.disk.ignore_sync(kind);
    }
    story(&mut office);
    let mut office = office.restarted(3);
    office.run_for(2 * MINUTE);
    office.local.attempts().len()
}

#[test]
fn of_two_recipients_the_one_that_is_settled_stays_so_after_a_power_cut() {
    let story = |office: &mut QueueFixture| {
        office.remote.set_default_outcome(Some(deferred("busy")));
        let letter = b"Subject: large\r\n\r\n".repeat(100);
        office.put("ana@here.example", &["bo@here.example", "cy@there.example"], &letter).unwrap();
        office.stepped.run();
        office.disk.crash(Crash::UnsyncedLost);
    };
    assert_eq!((again(None, story), again(Some("sync waiting"), story)), (0, 1));
}

#[test]
fn what_a_killed_process_had_settled_stays_so_after_a_power_cut() {
    let story = |office: &mut QueueFixture| {
        office.receive("ana@here.example", "bo@here.example");
        office.disk.crash(Crash::ProcessKilled);
        // The next process finds nothing to do, and takes that for true.
        drop(QueueFixture::open(office.disk.clone(), office.clock.clone(), 2, settings()).unwrap());
        office.disk.crash(Crash::UnsyncedLost);
    };
    assert_eq!((again(None, story), again(Some("sync journal at the start"), story)), (0, 1));
}

#[test]
fn after_a_kill_nobody_is_delivered_to_again_but_who_was_being_delivered_to() {
    let verbs = verbs_of_the_scenario();
    let start = QueueFixture::new().disk.operations().len();
    for n in 0..=verbs {
        let (_, all) = run_with_crashes(&[(n, Crash::ProcessKilled)], |_| {});
        let mut first = BTreeMap::new();
        for one in all.iter().filter(|one| one.outcome.status().starts_with('2')) {
            let Some(before) = first.insert((one.envelope.id, one.recipient.clone()), one.disk_operations)
            else {
                continue;
            };
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
        let mut office = QueueFixture::new();
        office.disk.fail_after(n, kind);
        let mut ledger = SentMail::default();
        run_scenario(&mut office, &mut ledger);
        office.stepped.run();
        office.run_for(200 * MINUTE);
        assert_eq!(office.queue_length(), 0, "{kind} at {n}");
        assert_eq!(find_delivery_fault(&ledger, &office.attempts()), None, "{kind} at {n}");
        // A note that finds the disk full stops all mail until there is another reserve.
        let is_one_refused = ledger.accepted.len() + 1 >= ledger.offered_octets.len();
        assert!(
            is_one_refused || kind == io::ErrorKind::StorageFull,
            "{kind} at {n}: one error, one refusal"
        );
        assert!(!office.handle.is_disk_full(), "{kind} at {n}");

        let mut all = office.attempts();
        office.disk.crash(Crash::UnsyncedTorn(n as u64));
        let mut office = office.restarted(2);
        office.stepped.run();
        office.run_for(200 * MINUTE);
        all.extend(office.attempts());
        assert_eq!(find_delivery_fault(&ledger, &all), None, "{kind} at {n}, then a crash");
    }
}

#[test]
fn a_sync_that_fails_refuses_everybody_who_waited_and_nobody_else() {
    let mut office = QueueFixture::new();
    office.stepped.run();
    office.put("ana@here.example", &["bo@here.example"], b"Subject: one\r\n\r\n").unwrap();
    office.disk.fail_after(1, io::ErrorKind::Other);
    let refused = office.put("ana@here.example", &["bo@here.example"], b"Subject: two\r\n\r\n");
    assert!(matches!(refused, Err(PutError::Io(_))), "{refused:?}");
    office.put("ana@here.example", &["bo@here.example"], b"Subject: three\r\n\r\n").unwrap();
    office.disk.crash(Crash::ProcessKilled);
    let mut office = office.restarted(2);
    office.stepped.run();
    let mut subjects: Vec<_> = office.local.delivered().into_iter().map(|one| one.octets).collect();
    subjects.sort();
    assert_eq!(subjects, [&b"Subject: one\r\n\r\n"[..], b"Subject: three\r\n\r\n"]);
}

#[test]
fn a_disk_that_refuses_to_sync_for_long_does_not_fill_up_with_segments() {
    let mut office = QueueFixture::new();
    office.stepped.run();
    office.put("ana@here.example", &["bo@here.example"], b"Subject: one\r\n\r\n").unwrap();
    let segments = |office: &QueueFixture| {
        office
            .disk
            .file_paths()
            .iter()
            .filter(|path| path.extension().is_some_and(|e| e == "journal"))
            .count()
    };
    for n in 0..50 {
        // The first has a segment to write to, the others need a new one, and its name synced.
        office.disk.fail_after(if n == 0 { 1 } else { 4 }, io::ErrorKind::Other);
        let refused = office.put("ana@here.example", &["bo@here.example"], b"Subject: two\r\n\r\n");
        assert!(matches!(refused, Err(PutError::Io(_))), "{n}: {refused:?}");
        assert!(segments(&office) <= 2, "{n}: {}", segments(&office));
    }
    office.put("ana@here.example", &["bo@here.example"], b"Subject: three\r\n\r\n").unwrap();
    office.disk.crash(Crash::UnsyncedLost);
    let mut office = office.restarted(2);
    office.stepped.run();
    let mut subjects: Vec<_> = office.local.delivered().into_iter().map(|one| one.octets).collect();
    subjects.sort();
    assert_eq!(subjects, [&b"Subject: one\r\n\r\n"[..], b"Subject: three\r\n\r\n"]);
}

/// A hundred messages wait to be delivered: most are small and for one mailbox, some have a file of their
/// own, some another recipient who has to wait.
fn hundred_waiting() -> QueueFixture {
    let office = QueueFixture::with_settings(Settings { segment_octets: 20_000, ..settings() });
    office.remote.set_default_outcome(Some(deferred("busy")));
    for n in 0..100 {
        let octets = if n % 10 == 0 { 2000 } else { 100 };
        let letter = format!("Subject: {n}\r\n\r\n{}\r\n", "x".repeat(octets));
        let to: &[&str] =
            if n % 7 == 0 { &["bo@here.example", "cy@there.example"] } else { &["bo@here.example"] };
        office.put("ana@here.example", to, letter.as_bytes()).unwrap();
    }
    office
}

#[test]
fn nobody_is_delivered_to_twice_when_a_full_disk_has_room_again_before_the_stop() {
    let verbs = {
        let mut office = hundred_waiting();
        let before = office.disk.operations().len();
        office.stepped.run();
        office.disk.operations().len() - before
    };
    assert!(verbs > 150, "{verbs}");
    for n in 0..=verbs {
        let mut office = hundred_waiting();
        office.disk.set_full_after(n);
        office.stepped.run();
        let mut delivered = office.local.delivered();
        assert_eq!(delivered.len(), 100, "full after {n}");
        office.disk.set_full(false);
        office.stepped.stop().unwrap();
        office.disk.crash(Crash::UnsyncedLost);
        let mut office = office.restarted(2);
        office.run_for(10 * MINUTE);
        delivered.extend(office.local.delivered());
        assert_eq!(delivered.len(), 100, "full after {n}: some are delivered to again");
        assert_eq!(office.queue_length(), 0, "full after {n}");
    }
}

#[test]
fn a_stop_says_that_a_full_disk_refuses_what_is_owed() {
    let mut office = hundred_waiting();
    // Not even the reserve can be had.
    office.disk.fail_after(0, io::ErrorKind::Other);
    office.disk.set_full_after(0);
    office.stepped.run();
    assert!(office.stepped.stop().is_err());
    office.disk.set_full(false);
    office.stepped.stop().unwrap();
}

#[test]
fn no_message_is_taken_while_notes_stand_in_the_reserve() {
    let mut office = QueueFixture::new();
    // The reserve is made.
    office.stepped.run();
    office.put("ana@here.example", &["bo@here.example"], b"Subject: one\r\n\r\n").unwrap();
    office.disk.set_full(true);
    assert!(!office.handle.is_disk_full(), "nobody knows yet");
    office.stepped.run();
    let refused = office.put("ana@here.example", &["bo@here.example"], b"Subject: new\r\n\r\n");
    assert_eq!(refused.err(), Some(PutError::Full));
    assert!(office.handle.is_disk_full());
    office.run_for(MINUTE);
    assert!(office.handle.is_disk_full());
    office.disk.set_full(false);
    office.run_for(MINUTE);
    assert!(!office.handle.is_disk_full());
    office.put("ana@here.example", &["bo@here.example"], b"Subject: new\r\n\r\n").unwrap();
    // Notes that stand in the reserve are read by the next start.
    let delivered = office.local.delivered().len();
    office.disk.crash(Crash::ProcessKilled);
    let mut office = office.restarted(2);
    office.run_for(MINUTE);
    assert_eq!((delivered, office.local.delivered().len()), (1, 1));
}

#[test]
fn a_message_is_promised_only_where_the_path_of_the_data_directory_leads() {
    let data = Path::new("/data");
    for octets in [200, 5000] {
        for is_removed in [false, true] {
            let mut refused = 0;
            for n in 0..12 {
                let office = QueueFixture::new();
                office.put("ana@here.example", &["bo@here.example"], b"Subject: one\r\n\r\n").unwrap();
                if is_removed {
                    office.disk.remove_dir_after(n, data);
                } else {
                    office.disk.move_dir_after(n, data, Path::new("/moved"));
                }
                let letter = format!("Subject: two\r\n\r\n{}\r\n", "two ".repeat(octets / 4));
                if office.put("ana@here.example", &["bo@here.example"], letter.as_bytes()).is_err() {
                    refused += 1;
                    continue;
                }
                let has_it = |path: &Path| {
                    let octets = office.disk.contents(path).unwrap();
                    path.starts_with(data) && octets.windows(12).any(|text| text == b"Subject: two")
                };
                assert!(
                    office.disk.file_paths().iter().any(|path| has_it(path)),
                    "{octets} octets, after {n}"
                );
            }
            assert!((2..12).contains(&refused), "{refused} of {octets} octets");
        }
    }
}

#[test]
fn what_was_refused_in_a_moved_data_directory_does_not_come_to_life_there() {
    for octets in [200, 5000] {
        let mut office = QueueFixture::new();
        office.put("ana@here.example", &["bo@here.example"], b"Subject: one\r\n\r\n").unwrap();
        office.disk.move_dir(Path::new("/data"), Path::new("/moved"));
        let letter = format!("Subject: two\r\n\r\n{}\r\n", "two ".repeat(octets / 4));
        let refused = office.put("ana@here.example", &["bo@here.example"], letter.as_bytes());
        assert!(matches!(refused, Err(PutError::Io(_))), "{refused:?}");
        office.stepped.run();
        assert_eq!(office.local.delivered().len(), 1, "what was promised before is still delivered");
        office.stepped.stop().unwrap();
        office.disk.crash(Crash::UnsyncedLost);
        office.disk.move_dir(Path::new("/moved"), Path::new("/data"));
        let mut office = office.restarted(2);
        office.run_for(MINUTE);
        assert!(office.local.attempts().is_empty(), "{octets}");
        office.put("ana@here.example", &["bo@here.example"], b"Subject: three\r\n\r\n").unwrap();
    }
}

#[test]
fn damage_costs_one_message_is_set_aside_and_shown() {
    let office = QueueFixture::new();
    for n in 0..3 {
        let letter = format!("Subject: {n}\r\n\r\n");
        office.put("ana@here.example", &["bo@here.example"], letter.as_bytes()).unwrap();
    }
    let segment = office.disk.file_paths().into_iter().find(|path| path.extension().is_some()).unwrap();
    let octets = office.disk.contents(&segment).unwrap();
    let middle = octets.windows(10).position(|window| window == b"Subject: 1").unwrap();
    office.disk.damage(&segment, middle);
    let mut office = office.restarted(2);
    office.stepped.run();
    assert_eq!(office.local.delivered().len(), 2);
    assert_eq!(office.metrics.counter("queue_damaged", "").value(), 1);
    let aside =
        office.disk.file_paths().into_iter().find(|path| path.starts_with("/data/spool/damaged")).unwrap();
    assert!(office.disk.contents(&aside).unwrap().windows(4).any(|window| window == b"ana@"));
}

#[test]
fn a_segment_that_cannot_be_read_as_a_whole_stops_nobody_and_is_kept() {
    let office = QueueFixture::with_settings(Settings { segment_octets: 100_000, ..settings() });
    for n in 0..12 {
        let letter = format!("Subject: {n}\r\n\r\n{}", "x".repeat(900));
        office.put("ana@here.example", &["bo@here.example"], letter.as_bytes()).unwrap();
    }
    let segment = office.disk.file_paths().into_iter().find(|path| path.extension().is_some()).unwrap();
    let octets = office.disk.contents(&segment).unwrap();
    office.disk.make_unreadable(&segment, 0);
    let behind = octets[4096..].windows(14).filter(|window| window == b"postrider-2 pu").count();
    assert!((1..12).contains(&behind));
    let mut office = office.restarted(2);
    office.put("ana@here.example", &["bo@here.example"], b"Subject: new\r\n\r\n").unwrap();
    office.run_for(2 * MINUTE);
    assert_eq!((office.queue_length(), office.local.delivered().len()), (0, behind + 1));
    assert!(office.metrics.counter("queue_damaged", "").value() > 0);
    let kept = Path::new("/data/spool/damaged").join(segment.file_name().unwrap());
    assert_eq!(office.disk.contents(&kept), Some(octets));
}

#[test]
fn a_damaged_file_that_waits_is_set_aside_and_the_others_go_on() {
    let mut office = QueueFixture::new();
    office.remote.set_default_outcome(Some(deferred("busy")));
    office.receive("ana@here.example", "bo@there.example");
    office.receive("ana@here.example", "bo@there.example");
    let waiting = Path::new("/data/spool/waiting");
    let path = office.disk.file_paths().into_iter().find(|path| path.starts_with(waiting)).unwrap();
    office.disk.damage(&path, 26 + 30);
    office.remote.set_default_outcome(None);
    office.run_for(2 * MINUTE);
    assert_eq!((office.queue_length(), office.remote.delivered().len()), (0, 1));
    assert!(office.disk.file_paths().iter().any(|path| path.starts_with("/data/spool/damaged")));
}

#[test]
fn a_spool_of_a_later_version_is_refused_with_a_sentence() {
    let office = QueueFixture::new();
    office.disk.damage(Path::new("/data/spool/version"), 0);
    let error = QueueFixture::open(office.disk.clone(), office.clock.clone(), 2, settings()).err().unwrap();
    assert!(error.to_string().contains("later version"), "{error}");
}

#[test]
fn a_damaged_file_that_was_set_aside_does_not_come_back_as_its_older_copy_in_the_journal() {
    let mut office = QueueFixture::new();
    office.remote.add_outcomes([deferred("busy")]);
    office.receive("ana@here.example", "bo@there.example");
    let waiting = Path::new("/data/spool/waiting");
    let path = office.disk.file_paths().into_iter().find(|path| path.starts_with(waiting)).unwrap();
    office.disk.damage(&path, 26 + 30);
    office.run_for(2 * MINUTE);
    assert_eq!(office.queue_length(), 0);
    // The names are on disk; the journal's last page is not, unless it was synced.
    office.disk.sync_dir(waiting).unwrap();
    office.disk.sync_dir(Path::new("/data/spool/damaged")).unwrap();
    office.disk.crash(Crash::UnsyncedLost);
    let mut office = office.restarted(2);
    office.run_for(10 * MINUTE);
    assert!(office.remote.attempts().is_empty());
}

#[test]
fn a_parcel_that_is_gone_does_not_rise_again_from_the_journal() {
    let mut office = QueueFixture::new();
    office.remote.add_outcomes([deferred("busy")]);
    office.receive("ana@here.example", "bo@there.example");
    office.run_for(2 * MINUTE);
    assert_eq!((office.queue_length(), office.remote.delivered().len()), (0, 1));
    // The file system gets round to the removal; to the journal's last page it does not.
    office.disk.sync_dir(Path::new("/data/spool/waiting")).unwrap();
    office.disk.crash(Crash::UnsyncedLost);
    let mut office = office.restarted(2);
    office.run_for(10 * MINUTE);
    assert!(office.remote.attempts().is_empty());
}

#[test]
fn what_was_settled_in_a_segment_stays_settled_when_segments_go() {
    let story = |seed: u64| {
        move |office: &mut QueueFixture| {
            let letter = vec![b'x'; 990];
            let put = |office: &QueueFixture| {
                for _ in 0..3 {
                    office.put("ana@here.example", &["bo@here.example"], &letter).unwrap();
                }
            };
            // Messages in one segment, what became of them in the next, and a third to write to.
            put(office);
            put(office);
            office.stepped.run();
            put(office);
            put(office);
            office.run_for(Duration::from_secs(3));
            assert_eq!((office.queue_length(), office.local.delivered().len()), (0, 12));
            // The notes of the last ones are not synced; those of the first are.
            office.disk.crash(Crash::UnsyncedTorn(seed));
        }
    };
    let most = |left_out| (0..40).map(|seed| again(left_out, story(seed))).max().unwrap();
    assert!(most(None) <= 6, "{} again", most(None));
    assert!(most(Some("sync_dir journal (gone names)")) > 6, "the test sees what that sync is for");
}

#[test]
fn what_must_wait_can_be_read_with_ordinary_tools() {
    let mut office = QueueFixture::new();
    office.remote.set_default_outcome(Some(deferred("busy")));
    let id = office.receive("ana@here.example", "bo@there.example");
    let path = format!("/data/spool/waiting/{id}.26");
    let text = String::from_utf8(office.disk.contents(Path::new(&path)).unwrap()).unwrap();
    assert!(text.starts_with("Subject: hello\r\n\r\nHello.\r\n"), "the octets come first, as they go out");
    let lines: Vec<_> = text[26..].lines().map(|line| line.split_once(' ').unwrap().1).collect();
    assert!(lines[0].starts_with("{\"version\":1,") && lines[0].contains("bo@there.example"), "{lines:?}");
    assert!(lines[1].contains("\"attempts\":1") && lines[1].contains("busy"), "{lines:?}");
    office.run_for(2 * MINUTE);
    let later = String::from_utf8(office.disk.contents(Path::new(&path)).unwrap()).unwrap();
    assert!(later.starts_with(&text), "a retry adds, and rewrites nothing");
}
