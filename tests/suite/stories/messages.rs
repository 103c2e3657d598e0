//! What happens to a letter: with a clock that the test turns and couriers that follow a script.

use std::time::Duration;

use postrider::fakes::Crash;
use postrider::mail::{Notify, Outcome, Reason, Timestamp};
use postrider::queue::{PutError, QueueChange, QueuedMessage, RecipientState, Selection, Settings};
use postrider::sys::Clock as _;

use crate::queue_fixture::{MINUTE, QueueFixture, deferred, delivered, failed, settings};

#[test]
fn a_letter_is_delivered_at_once_and_leaves_nothing_behind() {
    let mut office = QueueFixture::new();
    // A process that has just started keeps room for a full disk, and writes down its clock.
    office.stepped.run();
    let before = office.disk.operation_count("sync");
    office.receive("ana@there.example", "bo@here.example");
    assert_eq!(office.queue_length(), 0);
    assert_eq!(office.local.delivered()[0].octets, b"Subject: hello\r\n\r\nHello.\r\n");
    assert_eq!(office.disk.operation_count("sync") - before, 1, "the promise, and nothing more");
}

#[test]
fn a_full_mailbox_gets_its_letter_once_it_has_been_emptied() {
    let mut office = QueueFixture::new();
    office.local.add_outcomes([deferred("mailbox full"), delivered()]);
    office.receive("ana@there.example", "bo@here.example");
    assert_eq!(office.queue_length(), 1, "put off is not lost");

    office.run_for(MINUTE / 2);
    assert_eq!(office.queue_length(), 1, "nothing happens before its time");

    office.run_for(MINUTE);
    assert_eq!(office.queue_length(), 0);
    assert!(office.bounces().is_empty(), "the sender is told nothing");
}

#[test]
fn a_recipient_that_fails_is_reported_while_another_still_waits() {
    let mut office = QueueFixture::new();
    office.remote.set_default_outcome(Some(deferred("busy")));
    office.local.add_outcomes([failed("no such mailbox")]);
    office.receive("ana@here.example", "nobody@here.example bo@there.example");
    assert_eq!(office.queue_length(), 1);
    let reports = office.bounces();
    assert_eq!(reports.len(), 1);
    assert_eq!(reports[0].recipient, "ana@here.example");
    let text = String::from_utf8(reports[0].octets.clone()).unwrap();
    assert!(text.contains("Final-Recipient: rfc822; nobody@here.example\r\n"), "{text}");
    assert!(text.contains("Status: 5.1.1\r\n") && !text.contains("bo@there.example"), "{text}");
    assert!(text.contains("From: Mail Delivery System <postmaster@here.example>\r\n"), "{text}");

    office.remote.set_default_outcome(None);
    office.run_for(2 * MINUTE);
    assert_eq!(office.queue_length(), 0);
    assert_eq!(office.bounces().len(), 1, "one per cause");
}

#[test]
fn a_letter_that_waits_for_five_days_is_given_up_and_reported() {
    let mut office = QueueFixture::new();
    office.remote.set_default_outcome(Some(deferred("no answer")));
    office.receive("ana@here.example", "bo@there.example");
    office.run_for(Duration::from_secs(5 * 24 * 3600 - 600));
    assert_eq!(office.queue_length(), 1);
    office.run_for(MINUTE * 11);
    assert_eq!(office.queue_length(), 0);
    let text = String::from_utf8(office.bounces()[0].octets.clone()).unwrap();
    assert!(text.contains("Status: 4.4.7\r\n") && text.contains("no answer"), "{text}");
}

#[test]
fn nobody_is_told_of_a_report_that_fails() {
    let mut office = QueueFixture::new();
    office.remote.set_default_outcome(Some(failed("no such mailbox")));
    office.receive("", "bo@there.example");
    assert_eq!(office.queue_length(), 0);
    assert!(office.bounces().is_empty());
    // A report that fails itself ends there.
    office.receive("ana@there.example", "bo@there.example");
    assert_eq!(office.queue_length(), 0);
    assert_eq!(office.remote.attempts().len(), 3);
}

#[test]
fn a_sender_who_wants_no_report_gets_none() {
    let mut office = QueueFixture::new();
    office.remote.set_default_outcome(Some(failed("no")));
    let mut incoming = office.handle.begin().unwrap();
    incoming.append(b"Subject: x\r\n\r\n").unwrap();
    let mut envelope = office.put("ana@here.example", &["bo@here.example"], b"\r\n").unwrap();
    envelope.recipients[0] = postrider::mail::Recipient {
        notify: Notify::Never,
        ..postrider::mail::Recipient::for_mailbox(crate::queue_fixture::mailbox("bo@there.example"))
    };
    incoming.commit(envelope).unwrap();
    office.stepped.run();
    assert_eq!((office.queue_length(), office.bounces().len()), (0, 0));
}

#[test]
fn a_clock_that_jumps_does_not_expire_the_queue() {
    let mut office = QueueFixture::new();
    office.remote.set_default_outcome(Some(deferred("busy")));
    office.receive("ana@here.example", "bo@there.example");
    office.clock.set_wall_time(office.clock.wall_time().after(YEARS));
    office.run_for(10 * MINUTE);
    assert_eq!(office.queue_length(), 1, "forward, while we run");

    office.disk.crash(Crash::ProcessKilled);
    office.clock.set_wall_time(Timestamp::from_millis(0));
    let mut office = office.restarted(2);
    office.remote.set_default_outcome(Some(deferred("busy")));
    office.run_for(60 * MINUTE);
    assert_eq!(office.queue_length(), 1, "back, across a restart");
    assert!(!office.remote.attempts().is_empty(), "and it is tried when it is due");

    office.disk.crash(Crash::ProcessKilled);
    office.clock.set_wall_time(Timestamp::from_millis(0).after(YEARS));
    let mut office = office.restarted(3);
    office.remote.set_default_outcome(Some(deferred("busy")));
    office.run_for(10 * MINUTE);
    assert_eq!(office.queue_length(), 1, "forward, across a restart");
    assert!(office.bounces().is_empty());
}

const YEARS: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);

/// The only message, as `queue list` has it.
fn view(office: &QueueFixture) -> QueuedMessage {
    office.stepped.queue_control().list(&Selection::default(), 1).remove(0)
}

/// The wall clock is set, by years.
fn jump(office: &QueueFixture, is_forward: bool) {
    let millis = i64::try_from(YEARS.as_millis()).unwrap() * if is_forward { 1 } else { -1 };
    office.clock.set_wall_time(Timestamp::from_millis(office.clock.wall_time().as_millis() + millis));
}

#[test]
fn an_age_is_the_true_wait_whatever_the_wall_clock_does_and_whenever() {
    for case in 0..32 {
        let [is_forward, is_reboot, before, between, after] = [0, 1, 2, 3, 4].map(|bit| case >> bit & 1 == 1);
        let mut office = QueueFixture::new();
        office.remote.set_default_outcome(Some(deferred("busy")));
        office.receive("ana@here.example", "bo@there.example");
        office.run_for(3 * HOUR);
        if before {
            jump(&office, is_forward);
        }
        office.run_for(2 * HOUR);
        assert_eq!(view(&office).age, 5 * HOUR, "{case}");

        office.disk.crash(Crash::ProcessKilled);
        match is_reboot {
            true => office.clock.reboot(HOUR),
            false => office.clock.advance(HOUR),
        }
        if between {
            jump(&office, is_forward);
        }
        let mut office = office.restarted(2);
        office.remote.set_default_outcome(Some(deferred("busy")));
        if after {
            jump(&office, !is_forward);
        }
        let seen = view(&office);
        // After a boot only the wall clock knows how long the host was down: a wrong one may take away
        // what was not written down, and may add a day.
        let (least, most) = match (is_reboot && between, is_forward) {
            (true, true) => (6 * HOUR, 6 * HOUR + DAY),
            (true, false) => (4 * HOUR - MINUTE, 6 * HOUR),
            (false, _) => (6 * HOUR, 6 * HOUR),
        };
        assert!((least..=most).contains(&seen.age), "{case}: {:?}", seen.age);
        assert!(seen.due.is_none_or(|due| due > office.clock.wall_time()), "{case}: {:?}", seen.due);

        office.run_for(4 * DAY - 7 * HOUR);
        assert_eq!((office.queue_length(), office.bounces().len()), (1, 0), "{case}: not given up early");
        office.run_for(DAY + 3 * HOUR);
        assert_eq!((office.queue_length(), office.bounces().len()), (0, 1), "{case}: given up in time");
    }
}

#[test]
fn restarts_do_not_keep_mail_beyond_its_lifetime() {
    let settings = Settings {
        lifetime: 2 * MINUTE,
        delay_notice_after: MINUTE,
        retry_delays: vec![MINUTE, 5 * MINUTE],
        ..settings()
    };
    for is_silent in [false, true] {
        let no = || match is_silent {
            true => Outcome::Deferred(Reason::new(4, 1, "no connection").with_destination_scope()),
            false => deferred("busy"),
        };
        let mut office = QueueFixture::with_settings(settings.clone());
        office.remote.set_default_outcome(Some(no()));
        let login = Some(crate::queue_fixture::mailbox("ana@here.example"));
        for n in 0..200 {
            let to = format!("bo@there{}.example", n % 20);
            let put =
                office.put_with("ana@here.example", &[to.as_str()], b"Subject: x\r\n\r\n", |envelope| {
                    envelope.authenticated_user.clone_from(&login);
                });
            put.unwrap();
        }
        let mut reports = Vec::new();
        let mut waiting = Vec::new();
        for seed in 2..8 {
            office.run_for(Duration::from_secs(47));
            waiting.push(office.queue_length());
            reports.extend(office.bounces().into_iter().map(|one| String::from_utf8(one.octets).unwrap()));
            office.disk.crash(Crash::ProcessKilled);
            office = QueueFixture::open(office.disk.clone(), office.clock.clone(), seed, settings.clone())
                .unwrap();
            office.remote.set_default_outcome(Some(no()));
        }
        let count = |what: &str| reports.iter().filter(|text| text.contains(what)).count();
        assert_eq!((waiting[0], waiting[1]), (200, 200), "nothing is given up early");
        assert_eq!(waiting[5], 0, "{waiting:?}");
        assert_eq!(count("Status: 4.4.7"), 200, "{waiting:?}");
        if !is_silent {
            assert_eq!((waiting[2], count("Action: delayed")), (0, 200), "tried in time, and reported");
        }
    }
}

#[test]
fn a_message_whose_lifetime_ended_while_the_server_was_down_is_tried_once_more() {
    let mut office = QueueFixture::new();
    office.remote.set_default_outcome(Some(deferred("busy")));
    office.receive("ana@here.example", "bo@there.example");
    office.disk.crash(Crash::ProcessKilled);
    office.clock.advance(6 * DAY);
    let mut office = office.restarted(2);
    let seen = view(&office);
    assert_eq!((seen.age, seen.due), (6 * DAY, None), "it is due now");
    office.run_for(MINUTE);
    assert_eq!((office.queue_length(), office.remote.delivered().len(), office.bounces().len()), (0, 1, 0));
}

#[test]
fn an_operator_can_have_a_message_tried_that_was_to_be_given_up() {
    let mut office = QueueFixture::new();
    office.remote.set_default_outcome(Some(deferred("busy")));
    office.receive("ana@here.example", "bo@there.example");
    assert_eq!(office.run_command(Selection::default(), QueueChange::Hold).done.len(), 1);
    for seed in 2..4 {
        office.disk.crash(Crash::ProcessKilled);
        office.clock.advance(6 * DAY);
        office = office.restarted(seed);
    }
    assert_eq!(office.run_command(Selection::default(), QueueChange::Release).done.len(), 1);
    assert_eq!((office.queue_length(), office.remote.delivered().len()), (0, 1));
}

#[test]
fn an_attempt_that_panics_is_made_again_later() {
    let mut office = QueueFixture::new();
    office.remote.add_panic();
    office.receive("ana@here.example", "bo@there.example");
    assert_eq!(office.queue_length(), 1);
    assert_eq!(office.metrics.counter("queue_attempt_panics", "").value(), 1);
    office.run_for(2 * MINUTE);
    assert_eq!(office.queue_length(), 0);
    assert_eq!(office.remote.delivered().len(), 1);
}

#[test]
fn recipients_of_one_domain_travel_together_and_are_tried_again_together() {
    let mut office = QueueFixture::new();
    office.remote.add_outcomes([deferred("busy"), delivered(), deferred("busy")]);
    office.receive("ana@here.example", "a@there.example b@there.example c@elsewhere.example");
    let view = office.stepped.queue_control().list(&Selection::default(), 1).remove(0);
    let waiting = view.recipients.iter().filter(|one| !one.state.is_settled()).count();
    assert_eq!((view.attempts, waiting), (1, 2));
    assert!(
        matches!(&view.recipients[0].state, RecipientState::Waiting(Some(reason)) | RecipientState::Delivered(reason)
        if !reason.text.is_empty())
    );
    office.run_for(2 * MINUTE);
    assert_eq!(office.queue_length(), 0);
    assert_eq!(office.remote.delivered().len(), 3, "none twice");
}

#[test]
fn a_full_queue_takes_reports_and_nothing_else() {
    let mut office = QueueFixture::with_settings(Settings { messages_max: 1, ..settings() });
    office.remote.add_outcomes([deferred("busy"), failed("gone")]);
    office.receive("ana@here.example", "bo@there.example");
    assert_eq!(office.put("ana@here.example", &["bo@there.example"], b"\r\n"), Err(PutError::Full));
    office.run_for(2 * MINUTE);
    assert_eq!(office.bounces().len(), 1);
    assert!(office.put("ana@here.example", &["bo@there.example"], b"\r\n").is_ok());
}

#[test]
fn a_full_disk_refuses_new_mail_and_mends_by_itself() {
    let mut office = QueueFixture::new();
    office.remote.add_outcomes([deferred("busy")]);
    office.receive("ana@here.example", "bo@there.example");
    office.disk.set_full(true);
    for octets in [10, 5000] {
        let letter = vec![b'x'; octets];
        assert_eq!(office.put("ana@here.example", &["bo@here.example"], &letter), Err(PutError::Full));
    }
    office.remote.add_outcomes([failed("gone")]);
    office.run_for(2 * MINUTE);
    assert_eq!(office.queue_length(), 1, "its report cannot be put, so it waits");
    office.disk.set_full(false);
    office.remote.add_outcomes([failed("gone")]);
    office.run_for(10 * MINUTE);
    assert_eq!((office.queue_length(), office.bounces().len()), (0, 1));
}

#[test]
fn a_full_disk_does_not_keep_what_is_settled() {
    let mut office = QueueFixture::new();
    office.remote.add_outcomes([deferred("busy"), deferred("busy"), deferred("busy")]);
    for _ in 0..3 {
        office.receive("ana@here.example", "bo@there.example");
    }
    office.put("ana@there.example", &["bo@here.example"], b"Subject: hello\r\n\r\n").unwrap();
    office.disk.set_full(true);
    office.run_for(10 * MINUTE);
    assert_eq!(
        (office.queue_length(), office.remote.delivered().len(), office.local.delivered().len()),
        (0, 3, 1)
    );
    let waiting = std::path::Path::new("/data/spool/waiting");
    assert!(
        !office.disk.file_paths().iter().any(|path| path.starts_with(waiting)),
        "the way out of a full disk"
    );
}

#[test]
fn after_a_stop_nothing_leaves_and_the_next_process_goes_on() {
    let mut office = QueueFixture::new();
    office.handle.stop();
    assert!(matches!(office.handle.begin(), Err(PutError::Stopping)));
    let mut incoming = office.handle.begin_generated().unwrap();
    incoming.append(b"\r\n").unwrap();
    let envelope = postrider::mail::Envelope::new(
        incoming.id(),
        office.clock.wall_time(),
        postrider::mail::ReversePath::Null,
        vec![postrider::mail::Recipient::for_mailbox(crate::queue_fixture::mailbox("bo@here.example"))],
    );
    incoming.commit(envelope).unwrap();
    office.stepped.run();
    assert!(office.local.attempts().is_empty());
    let mut office = office.restarted(2);
    office.stepped.run();
    assert_eq!((office.queue_length(), office.local.delivered().len()), (0, 1));
}

#[test]
fn a_message_that_is_dropped_before_its_commit_leaves_nothing() {
    let office = QueueFixture::new();
    let before = office.disk.file_paths().len();
    for octets in [10, 5000] {
        let mut incoming = office.handle.begin().unwrap();
        incoming.append(&vec![b'x'; octets]).unwrap();
    }
    assert_eq!((office.queue_length(), office.disk.file_paths().len()), (0, before));
}

#[test]
fn an_outcome_that_the_disk_refuses_is_remembered_all_the_same() {
    let mut office = QueueFixture::new();
    office.remote.add_outcomes([deferred("busy"), deferred("busy")]);
    office.receive("ana@here.example", "a@there.example b@there.example");
    office.disk.set_full(true);
    office.remote.add_outcomes([delivered()]);
    office.remote.set_default_outcome(Some(deferred("busy")));
    office.run_for(20 * MINUTE);
    office.disk.set_full(false);
    office.remote.set_default_outcome(None);
    office.run_for(200 * MINUTE);
    assert_eq!(office.queue_length(), 0);
    assert_eq!(office.remote.delivered().len(), 2, "none twice, though the first could not be noted");
}

#[test]
fn a_restart_with_many_waiting_messages_opens_none_of_them() {
    let mut office = QueueFixture::new();
    office.remote.set_default_outcome(Some(deferred("busy")));
    for _ in 0..5000 {
        office.put("ana@here.example", &["bo@there.example"], b"Subject: hello\r\n\r\n").unwrap();
    }
    office.run_for(Duration::from_secs(3)); // and old segments go
    let before = office.disk.open_count();
    let mut office = office.restarted(2);
    office.stepped.run();
    assert_eq!(office.queue_length(), 5000);
    let opened = office.disk.open_count() - before;
    assert!(opened < 20, "{opened} files opened: none is due");
    office.run_for(2 * MINUTE);
    assert_eq!(office.queue_length(), 0);
}

#[test]
fn what_came_due_while_we_were_down_is_tried_one_after_the_other_and_new_mail_at_once() {
    let mut office = QueueFixture::new();
    office.remote.set_default_outcome(Some(deferred("busy")));
    for n in 0..1000 {
        office.receive("ana@here.example", &format!("bo@there{n}.example"));
    }
    office.put("ana@here.example", &["cy@here.example"], b"Subject: new\r\n\r\n").unwrap();
    office.clock.advance(10 * MINUTE);
    let mut office = office.restarted(2);
    office.stepped.run();
    assert_eq!((office.local.delivered().len(), office.remote.delivered().len()), (1, 0));
    office.run_for(Duration::from_secs(1));
    let soon = office.remote.delivered().len();
    assert!((100..=300).contains(&soon), "{soon} in a second");
    office.run_for(Duration::from_secs(5));
    assert_eq!(office.queue_length(), 0);
}

#[test]
fn a_message_to_many_local_users_leaves_in_legs_of_a_few() {
    let mut office = QueueFixture::new();
    let users: Vec<_> = (0..100).map(|n| format!("user{n}@here.example")).collect();
    office.receive("ana@there.example", &users.join(" "));
    assert_eq!((office.queue_length(), office.local.delivered().len()), (0, 100));
    let attempts = office.metrics.counter_family("queue_attempts", "", "courier").value("scripted");
    assert_eq!(attempts, 7);
}
