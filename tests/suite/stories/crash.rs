//! Stops at every disk operation, after which every accepted message is found again.
//!
//! The scenario and the stops are those of `postrider::torture`, which an operator can run too. Here they
//! also run with faulty programs and disks, and single cases have tests of their own.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::time::Duration;

use postrider::fakes::Crash;
use postrider::queue::{PutError, QueueChange, Settings};
use postrider::sys::Disk as _;
use postrider::torture::{
    SentMail, crash_plans, find_delivery_fault, run_crash_test, run_scenario, run_with_crashes,
};

use crate::queue_fixture::{MINUTE, QueueFixture, deferred, only, settings};

fn operations_of_the_scenario() -> usize {
    let mut fixture = QueueFixture::new();
    let before = fixture.disk.operations().len();
    let mut sent_mail = SentMail::default();
    run_scenario(&mut fixture, &mut sent_mail);
    let operations = fixture.disk.operations();
    for operation in ["create", "append", "write", "sync", "rename", "sync_dir", "remove"] {
        assert!(operations.contains(&operation), "the scenario has no {operation}");
    }
    operations.len() - before
}

// Takes a minute in a debug build: thousands of crashes, each with a day before it and one after it.
#[test]
fn no_accepted_message_is_lost_wherever_the_machine_stops() {
    let stops = run_crash_test().unwrap();
    assert!(stops.operations > 100 && stops.crashes > 4 * stops.operations, "{stops:?}");
}

/// Kinds of syncs without which no accepted message is lost, and what they are for.
const HARMLESS: &[(&str, &str)] = &[
    ("sync waiting", "one of two recipients is settled: without it, that recipient gets the message twice"),
    ("sync journal at the start", "a settled message stays settled: without it, delivered twice"),
    ("sync_dir journal (gone names)", "segments are removed in order: without it, delivered twice"),
    ("sync spool", "the age clock: without it, ages follow the wall clock once"),
    ("sync_dir spool (new names)", "the age clock: without it, the file before this one counts"),
    ("sync_dir spool (new names) at the start", "the version file, which the next start writes again"),
];

// Takes a quarter of a minute in a debug build: some syncs are missed only at the last of a thousand stops.
#[test]
fn the_test_finds_a_program_that_leaves_out_any_one_sync() {
    // The same test with faulty programs: it must fail, or it proves nothing.
    let operations = operations_of_the_scenario();
    let kinds = {
        let mut fixture = QueueFixture::new();
        run_scenario(&mut fixture, &mut SentMail::default());
        fixture.disk.crash(Crash::ProcessKilled);
        fixture.restarted(2).disk.sync_kinds()
    };
    let is_harmless = |kind: &str| HARMLESS.iter().any(|(harmless, _)| *harmless == kind);
    // The stops that find most and cost least come first. A kill alone finds no missing sync.
    let mut ways: Vec<_> = (0..=operations).flat_map(crash_plans).collect();
    ways.retain(|stops| !matches!(stops[..], [(_, Crash::ProcessKilled)]));
    ways.sort_by_key(|stops| match stops[..] {
        [(_, Crash::UnsyncedLost)] => 0,
        [_] => 1,
        _ => 2,
    });
    for kind in kinds.iter().filter(|kind| !kind.contains("(nothing)") && !is_harmless(kind)) {
        let complaint =
            ways.iter().find_map(|stops| run_with_crashes(stops, |disk| disk.ignore_sync(kind)).0);
        assert!(complaint.is_some(), "{kind}: no test fails without it");
    }
    for (kind, _) in HARMLESS {
        assert!(kinds.contains(*kind), "{kind} is not there any more");
    }
}

/// Runs a story without a sync, and returns how often a recipient gets a message again after a restart.
fn deliveries_after_restart(left_out: Option<&str>, story: impl Fn(&mut QueueFixture)) -> usize {
    let mut fixture = QueueFixture::new();
    if let Some(kind) = left_out {
        fixture.disk.ignore_sync(kind);
    }
    story(&mut fixture);
    let mut fixture = fixture.restarted(3);
    fixture.run_for(2 * MINUTE);
    fixture.local.attempts().len()
}

#[test]
fn one_settled_recipient_of_two_stays_settled_after_a_power_cut() {
    let story = |fixture: &mut QueueFixture| {
        fixture.remote.set_default_outcome(Some(deferred("busy")));
        let message = b"Subject: large\r\n\r\n".repeat(100);
        fixture.put("ana@here.example", &["bo@here.example", "cy@there.example"], &message).unwrap();
        fixture.stepped.run();
        fixture.disk.crash(Crash::UnsyncedLost);
    };
    assert_eq!(
        (deliveries_after_restart(None, story), deliveries_after_restart(Some("sync waiting"), story)),
        (0, 1)
    );
}

#[test]
fn a_message_that_a_killed_process_settled_stays_settled_after_a_power_cut() {
    let story = |fixture: &mut QueueFixture| {
        fixture.receive("ana@here.example", "bo@here.example");
        fixture.disk.crash(Crash::ProcessKilled);
        // The next process finds nothing to do.
        drop(QueueFixture::open(fixture.disk.clone(), fixture.clock.clone(), 2, settings()).unwrap());
        fixture.disk.crash(Crash::UnsyncedLost);
    };
    assert_eq!(
        (
            deliveries_after_restart(None, story),
            deliveries_after_restart(Some("sync journal at the start"), story)
        ),
        (0, 1)
    );
}

#[test]
fn after_a_kill_only_deliveries_under_way_are_repeated() {
    let operations = operations_of_the_scenario();
    let start = QueueFixture::new().disk.operations().len();
    for n in 0..=operations {
        let (_, all) = run_with_crashes(&[(n, Crash::ProcessKilled)], |_| {});
        let mut first = BTreeMap::new();
        for one in all.iter().filter(|one| one.outcome.status().starts_with('2')) {
            let Some(before) = first.insert((one.envelope.id, one.recipient.clone()), one.disk_operations)
            else {
                continue;
            };
            // Unlike on a real machine, here the disk stops and the couriers go on: their later deliveries
            // are repeated, and apart from these only deliveries that were not recorded yet.
            assert!(
                before + RECORDING_OPERATIONS > start + n,
                "stopped after {n}: {} twice",
                one.envelope.id
            );
        }
    }
}

/// Disk operations from a delivery to its record, at most: a new segment, a sync for `moved`, a removal.
const RECORDING_OPERATIONS: usize = 6;

#[test]
fn one_failing_disk_operation_loses_no_message_and_needs_no_restart() {
    let operations = operations_of_the_scenario();
    let kinds = [io::ErrorKind::StorageFull, io::ErrorKind::ReadOnlyFilesystem, io::ErrorKind::Other];
    for n in 0..=operations {
        let kind = kinds[n % kinds.len()];
        let mut fixture = QueueFixture::new();
        fixture.disk.fail_after(n, kind);
        let mut sent_mail = SentMail::default();
        run_scenario(&mut fixture, &mut sent_mail);
        fixture.stepped.run();
        fixture.run_for(200 * MINUTE);
        assert_eq!(fixture.queue_length(), 0, "{kind} at {n}");
        assert_eq!(find_delivery_fault(&sent_mail, &fixture.attempts()), None, "{kind} at {n}");
        // If a note finds the disk full, no mail is accepted until there is another reserve.
        let is_one_refused = sent_mail.accepted.len() + 1 >= sent_mail.offered_octets.len();
        assert!(
            is_one_refused || kind == io::ErrorKind::StorageFull,
            "{kind} at {n}: one error, one refusal"
        );
        assert!(!fixture.handle.is_disk_full(), "{kind} at {n}");

        let mut all = fixture.attempts();
        fixture.disk.crash(Crash::UnsyncedTorn(n as u64));
        let mut fixture = fixture.restarted(2);
        fixture.stepped.run();
        fixture.run_for(200 * MINUTE);
        all.extend(fixture.attempts());
        assert_eq!(find_delivery_fault(&sent_mail, &all), None, "{kind} at {n}, then a crash");
    }
}

#[test]
fn a_failed_sync_refuses_exactly_the_messages_that_waited_for_it() {
    let mut fixture = QueueFixture::new();
    fixture.stepped.run();
    fixture.put("ana@here.example", &["bo@here.example"], b"Subject: one\r\n\r\n").unwrap();
    fixture.disk.fail_after(1, io::ErrorKind::Other);
    let refused = fixture.put("ana@here.example", &["bo@here.example"], b"Subject: two\r\n\r\n");
    assert!(matches!(refused, Err(PutError::Io(_))), "{refused:?}");
    fixture.put("ana@here.example", &["bo@here.example"], b"Subject: three\r\n\r\n").unwrap();
    fixture.disk.crash(Crash::ProcessKilled);
    let mut fixture = fixture.restarted(2);
    fixture.stepped.run();
    let mut subjects: Vec<_> = fixture.local.delivered().into_iter().map(|one| one.octets).collect();
    subjects.sort();
    assert_eq!(subjects, [&b"Subject: one\r\n\r\n"[..], b"Subject: three\r\n\r\n"]);
}

#[test]
fn while_a_disk_refuses_to_sync_it_does_not_fill_up_with_segments() {
    let mut fixture = QueueFixture::new();
    fixture.stepped.run();
    fixture.put("ana@here.example", &["bo@here.example"], b"Subject: one\r\n\r\n").unwrap();
    let segments = |fixture: &QueueFixture| {
        fixture
            .disk
            .file_paths()
            .iter()
            .filter(|path| path.extension().is_some_and(|e| e == "journal"))
            .count()
    };
    for n in 0..50 {
        // There is a segment for the first message; each of the others needs a new one, and a sync of its
        // name.
        fixture.disk.fail_after(if n == 0 { 1 } else { 4 }, io::ErrorKind::Other);
        let refused = fixture.put("ana@here.example", &["bo@here.example"], b"Subject: two\r\n\r\n");
        assert!(matches!(refused, Err(PutError::Io(_))), "{n}: {refused:?}");
        assert!(segments(&fixture) <= 2, "{n}: {}", segments(&fixture));
    }
    fixture.put("ana@here.example", &["bo@here.example"], b"Subject: three\r\n\r\n").unwrap();
    fixture.disk.crash(Crash::UnsyncedLost);
    let mut fixture = fixture.restarted(2);
    fixture.stepped.run();
    let mut subjects: Vec<_> = fixture.local.delivered().into_iter().map(|one| one.octets).collect();
    subjects.sort();
    assert_eq!(subjects, [&b"Subject: one\r\n\r\n"[..], b"Subject: three\r\n\r\n"]);
}

/// A queue with a hundred messages: most are small and for one mailbox, some have a file of their own, and
/// some have another recipient that must wait.
fn hundred_waiting() -> QueueFixture {
    let fixture = QueueFixture::with_settings(Settings { segment_octets: 20_000, ..settings() });
    fixture.remote.set_default_outcome(Some(deferred("busy")));
    for n in 0..100 {
        let octets = if n % 10 == 0 { 2000 } else { 100 };
        let message = format!("Subject: {n}\r\n\r\n{}\r\n", "x".repeat(octets));
        let to: &[&str] =
            if n % 7 == 0 { &["bo@here.example", "cy@there.example"] } else { &["bo@here.example"] };
        fixture.put("ana@here.example", to, message.as_bytes()).unwrap();
    }
    fixture
}

#[test]
fn no_delivery_is_repeated_if_a_full_disk_has_room_again_before_the_stop() {
    let operations = {
        let mut fixture = hundred_waiting();
        let before = fixture.disk.operations().len();
        fixture.stepped.run();
        fixture.disk.operations().len() - before
    };
    assert!(operations > 150, "{operations}");
    for n in 0..=operations {
        let mut fixture = hundred_waiting();
        fixture.disk.set_full_after(n);
        fixture.stepped.run();
        let mut delivered = fixture.local.delivered();
        assert_eq!(delivered.len(), 100, "full after {n}");
        fixture.disk.set_full(false);
        fixture.stepped.stop().unwrap();
        fixture.disk.crash(Crash::UnsyncedLost);
        let mut fixture = fixture.restarted(2);
        fixture.run_for(10 * MINUTE);
        delivered.extend(fixture.local.delivered());
        assert_eq!(delivered.len(), 100, "full after {n}: some are delivered to again");
        assert_eq!(fixture.queue_length(), 0, "full after {n}");
    }
}

#[test]
fn a_stop_reports_that_a_full_disk_refuses_outcomes() {
    let mut fixture = hundred_waiting();
    // Not even the reserve can be made.
    fixture.disk.fail_after(0, io::ErrorKind::Other);
    fixture.disk.set_full_after(0);
    fixture.stepped.run();
    assert!(fixture.stepped.stop().is_err());
    fixture.disk.set_full(false);
    fixture.stepped.stop().unwrap();
}

#[test]
fn no_message_is_accepted_while_the_reserve_is_used() {
    let mut fixture = QueueFixture::new();
    // The reserve is made.
    fixture.stepped.run();
    fixture.put("ana@here.example", &["bo@here.example"], b"Subject: one\r\n\r\n").unwrap();
    fixture.disk.set_full(true);
    assert!(!fixture.handle.is_disk_full(), "no write has failed yet");
    fixture.stepped.run();
    let refused = fixture.put("ana@here.example", &["bo@here.example"], b"Subject: new\r\n\r\n");
    assert_eq!(refused.err(), Some(PutError::Full));
    assert!(fixture.handle.is_disk_full());
    fixture.run_for(MINUTE);
    assert!(fixture.handle.is_disk_full());
    fixture.disk.set_full(false);
    fixture.run_for(MINUTE);
    assert!(!fixture.handle.is_disk_full());
    fixture.put("ana@here.example", &["bo@here.example"], b"Subject: new\r\n\r\n").unwrap();
    // The next start reads the notes in the reserve.
    let delivered = fixture.local.delivered().len();
    fixture.disk.crash(Crash::ProcessKilled);
    let mut fixture = fixture.restarted(2);
    fixture.run_for(MINUTE);
    assert_eq!((delivered, fixture.local.delivered().len()), (1, 1));
}

#[test]
fn a_message_is_accepted_only_if_the_data_directory_is_where_its_path_leads() {
    let data = Path::new("/data");
    for octets in [200, 5000] {
        for is_removed in [false, true] {
            let mut refused = 0;
            for n in 0..12 {
                let fixture = QueueFixture::new();
                fixture.put("ana@here.example", &["bo@here.example"], b"Subject: one\r\n\r\n").unwrap();
                if is_removed {
                    fixture.disk.remove_dir_after(n, data);
                } else {
                    fixture.disk.move_dir_after(n, data, Path::new("/moved"));
                }
                let message = format!("Subject: two\r\n\r\n{}\r\n", "two ".repeat(octets / 4));
                if fixture.put("ana@here.example", &["bo@here.example"], message.as_bytes()).is_err() {
                    refused += 1;
                    continue;
                }
                let has_it = |path: &Path| {
                    let octets = fixture.disk.contents(path).unwrap();
                    path.starts_with(data) && octets.windows(12).any(|text| text == b"Subject: two")
                };
                assert!(
                    fixture.disk.file_paths().iter().any(|path| has_it(path)),
                    "{octets} octets, after {n}"
                );
            }
            assert!((2..12).contains(&refused), "{refused} of {octets} octets");
        }
    }
}

#[test]
fn a_message_refused_in_a_moved_data_directory_is_not_found_there_later() {
    for octets in [200, 5000] {
        let mut fixture = QueueFixture::new();
        fixture.put("ana@here.example", &["bo@here.example"], b"Subject: one\r\n\r\n").unwrap();
        fixture.disk.move_dir(Path::new("/data"), Path::new("/moved"));
        let message = format!("Subject: two\r\n\r\n{}\r\n", "two ".repeat(octets / 4));
        let refused = fixture.put("ana@here.example", &["bo@here.example"], message.as_bytes());
        assert!(matches!(refused, Err(PutError::Io(_))), "{refused:?}");
        fixture.stepped.run();
        assert_eq!(fixture.local.delivered().len(), 1, "a message accepted before is still delivered");
        fixture.stepped.stop().unwrap();
        fixture.disk.crash(Crash::UnsyncedLost);
        fixture.disk.move_dir(Path::new("/moved"), Path::new("/data"));
        let mut fixture = fixture.restarted(2);
        fixture.run_for(MINUTE);
        assert!(fixture.local.attempts().is_empty(), "{octets}");
        fixture.put("ana@here.example", &["bo@here.example"], b"Subject: three\r\n\r\n").unwrap();
    }
}

#[test]
fn damage_costs_one_message_which_is_set_aside_and_counted() {
    let fixture = QueueFixture::new();
    for n in 0..3 {
        let message = format!("Subject: {n}\r\n\r\n");
        fixture.put("ana@here.example", &["bo@here.example"], message.as_bytes()).unwrap();
    }
    let segment = fixture.disk.file_paths().into_iter().find(|path| path.extension().is_some()).unwrap();
    let octets = fixture.disk.contents(&segment).unwrap();
    let middle = octets.windows(10).position(|window| window == b"Subject: 1").unwrap();
    fixture.disk.damage(&segment, middle);
    let mut fixture = fixture.restarted(2);
    fixture.stepped.run();
    assert_eq!(fixture.local.delivered().len(), 2);
    assert_eq!(fixture.metrics.counter("queue_damaged_records", "").value(), 1);
    let aside =
        fixture.disk.file_paths().into_iter().find(|path| path.starts_with("/data/spool/damaged")).unwrap();
    assert!(fixture.disk.contents(&aside).unwrap().windows(4).any(|window| window == b"ana@"));
}

#[test]
fn a_segment_that_cannot_be_read_completely_is_kept_and_its_other_messages_are_delivered() {
    let fixture = QueueFixture::with_settings(Settings { segment_octets: 100_000, ..settings() });
    for n in 0..12 {
        let message = format!("Subject: {n}\r\n\r\n{}", "x".repeat(900));
        fixture.put("ana@here.example", &["bo@here.example"], message.as_bytes()).unwrap();
    }
    let segment = fixture.disk.file_paths().into_iter().find(|path| path.extension().is_some()).unwrap();
    let octets = fixture.disk.contents(&segment).unwrap();
    fixture.disk.make_unreadable(&segment, 0);
    let behind = octets[4096..].windows(14).filter(|window| window == b"postrider-2 pu").count();
    assert!((1..12).contains(&behind));
    let mut fixture = fixture.restarted(2);
    fixture.put("ana@here.example", &["bo@here.example"], b"Subject: new\r\n\r\n").unwrap();
    fixture.run_for(2 * MINUTE);
    assert_eq!((fixture.queue_length(), fixture.local.delivered().len()), (0, behind + 1));
    assert!(fixture.metrics.counter("queue_damaged_records", "").value() > 0);
    let kept = Path::new("/data/spool/damaged").join(segment.file_name().unwrap());
    assert_eq!(fixture.disk.contents(&kept), Some(octets));
}

#[test]
fn a_damaged_message_file_is_set_aside_and_the_others_are_delivered() {
    let mut fixture = QueueFixture::new();
    fixture.remote.set_default_outcome(Some(deferred("busy")));
    fixture.receive("ana@here.example", "bo@there.example");
    fixture.receive("ana@here.example", "bo@there.example");
    let waiting = Path::new("/data/spool/waiting");
    let path = fixture.disk.file_paths().into_iter().find(|path| path.starts_with(waiting)).unwrap();
    fixture.disk.damage(&path, 26 + 30);
    fixture.remote.set_default_outcome(None);
    fixture.run_for(2 * MINUTE);
    assert_eq!((fixture.queue_length(), fixture.remote.delivered().len()), (0, 1));
    assert!(fixture.disk.file_paths().iter().any(|path| path.starts_with("/data/spool/damaged")));
}

#[test]
fn a_spool_of_a_later_version_is_refused_with_a_message() {
    let fixture = QueueFixture::new();
    fixture.disk.damage(Path::new("/data/spool/version"), 0);
    let error = QueueFixture::open(fixture.disk.clone(), fixture.clock.clone(), 2, settings()).err().unwrap();
    assert!(error.to_string().contains("later version"), "{error}");
}

#[test]
fn a_spool_of_an_earlier_version_is_refused_with_the_remedy() {
    let fixture = QueueFixture::new();
    let path = Path::new("/data/spool/version");
    fixture.disk.remove(path).unwrap();
    fixture.disk.create(path).unwrap().append(b"1\n").unwrap();
    let error = QueueFixture::open(fixture.disk.clone(), fixture.clock.clone(), 2, settings()).err().unwrap();
    assert!(error.to_string().contains("let that version deliver them"), "{error}");
}

#[test]
fn a_damaged_file_that_was_set_aside_does_not_come_back_as_its_older_copy_in_the_journal() {
    let mut fixture = QueueFixture::new();
    fixture.remote.add_outcomes([deferred("busy")]);
    fixture.receive("ana@here.example", "bo@there.example");
    let waiting = Path::new("/data/spool/waiting");
    let path = fixture.disk.file_paths().into_iter().find(|path| path.starts_with(waiting)).unwrap();
    fixture.disk.damage(&path, 26 + 30);
    fixture.run_for(2 * MINUTE);
    assert_eq!(fixture.queue_length(), 0);
    // The names are on disk; the journal's last page is not, unless it was synced.
    fixture.disk.sync_dir(waiting).unwrap();
    fixture.disk.sync_dir(Path::new("/data/spool/damaged")).unwrap();
    fixture.disk.crash(Crash::UnsyncedLost);
    let mut fixture = fixture.restarted(2);
    fixture.run_for(10 * MINUTE);
    assert!(fixture.remote.attempts().is_empty());
}

#[test]
fn a_hold_that_is_confirmed_outlasts_a_power_cut_even_if_an_earlier_process_had_written_it_without_a_sync() {
    for operation in 0..10 {
        let mut fixture = QueueFixture::new();
        fixture.remote.add_outcomes([deferred("busy")]);
        let id = fixture.receive("ana@here.example", "bo@there.example");
        fixture.disk.fail_after(operation, io::ErrorKind::Other);
        fixture.run_command(only(id), QueueChange::Hold);
        fixture.disk.crash(Crash::ProcessKilled);
        let mut fixture = fixture.restarted(2);
        assert_eq!(fixture.run_command(only(id), QueueChange::Hold).changed, [id], "{operation}");
        fixture.disk.crash(Crash::UnsyncedLost);
        let fixture = fixture.restarted(3);
        assert!(fixture.handle.message(&id).unwrap().is_held, "{operation}");
    }
}

#[test]
fn a_message_whose_file_was_removed_by_hand_does_not_come_back_as_its_older_copy_in_the_journal() {
    let mut fixture = QueueFixture::new();
    fixture.remote.add_outcomes([deferred("busy")]);
    fixture.receive("ana@here.example", "bo@there.example");
    let waiting = Path::new("/data/spool/waiting");
    let path = fixture.disk.file_paths().into_iter().find(|path| path.starts_with(waiting)).unwrap();
    fixture.disk.remove(&path).unwrap();
    fixture.run_for(2 * MINUTE);
    assert_eq!(fixture.queue_length(), 0);
    fixture.disk.sync_dir(waiting).unwrap();
    fixture.disk.crash(Crash::UnsyncedLost);
    let mut fixture = fixture.restarted(2);
    fixture.run_for(10 * MINUTE);
    assert!(fixture.remote.attempts().is_empty());
}

#[test]
fn a_message_whose_file_was_removed_does_not_come_back_from_the_journal() {
    let mut fixture = QueueFixture::new();
    fixture.remote.add_outcomes([deferred("busy")]);
    fixture.receive("ana@here.example", "bo@there.example");
    fixture.run_for(2 * MINUTE);
    assert_eq!((fixture.queue_length(), fixture.remote.delivered().len()), (0, 1));
    // The removal reaches the disk; the last page of the journal does not.
    fixture.disk.sync_dir(Path::new("/data/spool/waiting")).unwrap();
    fixture.disk.crash(Crash::UnsyncedLost);
    let mut fixture = fixture.restarted(2);
    fixture.run_for(10 * MINUTE);
    assert!(fixture.remote.attempts().is_empty());
}

#[test]
fn settled_messages_stay_settled_when_segments_are_removed() {
    let story = |seed: u64| {
        move |fixture: &mut QueueFixture| {
            let message = vec![b'x'; 990];
            let put = |fixture: &QueueFixture| {
                for _ in 0..3 {
                    fixture.put("ana@here.example", &["bo@here.example"], &message).unwrap();
                }
            };
            // The messages are in one segment, their notes in the next, and a third is written to.
            put(fixture);
            put(fixture);
            fixture.stepped.run();
            put(fixture);
            put(fixture);
            fixture.run_for(Duration::from_secs(3));
            assert_eq!((fixture.queue_length(), fixture.local.delivered().len()), (0, 12));
            // The notes of the first messages are synced; those of the last ones are not.
            fixture.disk.crash(Crash::UnsyncedTorn(seed));
        }
    };
    let most = |left_out| (0..40).map(|seed| deliveries_after_restart(left_out, story(seed))).max().unwrap();
    assert!(most(None) <= 6, "{} again", most(None));
    assert!(most(Some("sync_dir journal (gone names)")) > 6, "the test sees what that sync is for");
}

#[test]
fn a_message_file_can_be_read_with_ordinary_tools() {
    let mut fixture = QueueFixture::new();
    fixture.remote.set_default_outcome(Some(deferred("busy")));
    let id = fixture.receive("ana@here.example", "bo@there.example");
    let path = format!("/data/spool/waiting/{id}.26");
    let text = String::from_utf8(fixture.disk.contents(Path::new(&path)).unwrap()).unwrap();
    assert!(text.starts_with("Subject: hello\r\n\r\nHello.\r\n"), "the octets come first, as they go out");
    let lines: Vec<_> = text[26..].lines().map(|line| line.split_once(' ').unwrap().1).collect();
    assert!(lines[0].starts_with("{\"version\":1,") && lines[0].contains("bo@there.example"), "{lines:?}");
    assert!(lines[1].contains("\"attempts\":1") && lines[1].contains("busy"), "{lines:?}");
    fixture.run_for(2 * MINUTE);
    let later = String::from_utf8(fixture.disk.contents(Path::new(&path)).unwrap()).unwrap();
    assert!(later.starts_with(&text), "a retry adds, and rewrites nothing");
}
