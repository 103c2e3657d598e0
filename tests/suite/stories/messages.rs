//! What happens to messages in the queue, with a clock that the test turns and couriers that follow a script.

use std::time::Duration;

use postrider::fakes::Crash;
use postrider::mail::{Notify, Outcome, Reason, Timestamp};
use postrider::queue::{PutError, QueueChange, QueuedMessage, RecipientState, Selection, Settings};
use postrider::sys::Clock as _;

use crate::queue_fixture::{MINUTE, QueueFixture, deferred, delivered, failed, settings};

#[test]
fn a_message_is_delivered_at_once_and_leaves_nothing_on_disk() {
    let mut fixture = QueueFixture::new();
    // After a start the reserve is made and the age clock is saved.
    fixture.stepped.run();
    let before = fixture.disk.operation_count("sync");
    fixture.receive("ana@there.example", "bo@here.example");
    assert_eq!(fixture.queue_length(), 0);
    assert_eq!(fixture.local.delivered()[0].octets, b"Subject: hello\r\n\r\nHello.\r\n");
    assert_eq!(fixture.disk.operation_count("sync") - before, 1, "one sync to accept the message");
}

#[test]
fn a_full_mailbox_gets_its_message_when_it_has_room() {
    let mut fixture = QueueFixture::new();
    fixture.local.add_outcomes([deferred("mailbox full"), delivered()]);
    fixture.receive("ana@there.example", "bo@here.example");
    assert_eq!(fixture.queue_length(), 1, "put off is not lost");

    fixture.run_for(MINUTE / 2);
    assert_eq!(fixture.queue_length(), 1, "nothing happens before its time");

    fixture.run_for(MINUTE);
    assert_eq!(fixture.queue_length(), 0);
    assert!(fixture.bounces().is_empty(), "no bounce is sent");
}

#[test]
fn a_recipient_that_fails_is_bounced_while_another_still_waits() {
    let mut fixture = QueueFixture::new();
    fixture.remote.set_default_outcome(Some(deferred("busy")));
    fixture.local.add_outcomes([failed("no such mailbox")]);
    fixture.receive("ana@here.example", "nobody@here.example bo@there.example");
    assert_eq!(fixture.queue_length(), 1);
    let reports = fixture.bounces();
    assert_eq!(reports.len(), 1);
    assert_eq!(reports[0].recipient, "ana@here.example");
    let text = String::from_utf8(reports[0].octets.clone()).unwrap();
    assert!(text.contains("Final-Recipient: rfc822; nobody@here.example\r\n"), "{text}");
    assert!(text.contains("Status: 5.1.1\r\n") && !text.contains("bo@there.example"), "{text}");
    assert!(text.contains("From: Mail Delivery System <postmaster@here.example>\r\n"), "{text}");

    fixture.remote.set_default_outcome(None);
    fixture.run_for(2 * MINUTE);
    assert_eq!(fixture.queue_length(), 0);
    assert_eq!(fixture.bounces().len(), 1, "one per cause");
}

#[test]
fn a_message_that_waits_for_five_days_is_given_up_and_bounced() {
    let mut fixture = QueueFixture::new();
    fixture.remote.set_default_outcome(Some(deferred("no answer")));
    fixture.receive("ana@here.example", "bo@there.example");
    fixture.run_for(Duration::from_secs(5 * 24 * 3600 - 600));
    assert_eq!(fixture.queue_length(), 1);
    fixture.run_for(MINUTE * 11);
    assert_eq!(fixture.queue_length(), 0);
    let text = String::from_utf8(fixture.bounces()[0].octets.clone()).unwrap();
    assert!(text.contains("Status: 4.4.7\r\n") && text.contains("no answer"), "{text}");
}

#[test]
fn a_bounce_that_fails_is_not_bounced() {
    let mut fixture = QueueFixture::new();
    fixture.remote.set_default_outcome(Some(failed("no such mailbox")));
    fixture.receive("", "bo@there.example");
    assert_eq!(fixture.queue_length(), 0);
    assert!(fixture.bounces().is_empty());
    // A bounce that fails is dropped.
    fixture.receive("ana@there.example", "bo@there.example");
    assert_eq!(fixture.queue_length(), 0);
    assert_eq!(fixture.remote.attempts().len(), 3);
}

#[test]
fn a_sender_that_wants_no_bounce_gets_none() {
    let mut fixture = QueueFixture::new();
    fixture.remote.set_default_outcome(Some(failed("no")));
    let mut incoming = fixture.handle.begin().unwrap();
    incoming.append(b"Subject: x\r\n\r\n").unwrap();
    let mut envelope = fixture.put("ana@here.example", &["bo@here.example"], b"\r\n").unwrap();
    envelope.recipients[0] = postrider::mail::Recipient {
        notify: Notify::Never,
        ..postrider::mail::Recipient::for_mailbox(crate::queue_fixture::mailbox("bo@there.example"))
    };
    incoming.commit(envelope).unwrap();
    fixture.stepped.run();
    assert_eq!((fixture.queue_length(), fixture.bounces().len()), (0, 0));
}

#[test]
fn a_jump_of_the_clock_expires_no_message() {
    let mut fixture = QueueFixture::new();
    fixture.remote.set_default_outcome(Some(deferred("busy")));
    fixture.receive("ana@here.example", "bo@there.example");
    fixture.clock.set_wall_time(fixture.clock.wall_time().after(YEARS));
    fixture.run_for(10 * MINUTE);
    assert_eq!(fixture.queue_length(), 1, "forward, while we run");

    fixture.disk.crash(Crash::ProcessKilled);
    fixture.clock.set_wall_time(Timestamp::from_millis(0));
    let mut fixture = fixture.restarted(2);
    fixture.remote.set_default_outcome(Some(deferred("busy")));
    fixture.run_for(60 * MINUTE);
    assert_eq!(fixture.queue_length(), 1, "back, across a restart");
    assert!(!fixture.remote.attempts().is_empty(), "and it is tried when it is due");

    fixture.disk.crash(Crash::ProcessKilled);
    fixture.clock.set_wall_time(Timestamp::from_millis(0).after(YEARS));
    let mut fixture = fixture.restarted(3);
    fixture.remote.set_default_outcome(Some(deferred("busy")));
    fixture.run_for(10 * MINUTE);
    assert_eq!(fixture.queue_length(), 1, "forward, across a restart");
    assert!(fixture.bounces().is_empty());
}

const YEARS: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);

/// The only message, as `queue list` shows it.
fn view(fixture: &QueueFixture) -> QueuedMessage {
    fixture.stepped.queue_control().list(&Selection::default(), 1).remove(0)
}

/// Sets the wall clock, by years.
fn jump(fixture: &QueueFixture, is_forward: bool) {
    let millis = i64::try_from(YEARS.as_millis()).unwrap() * if is_forward { 1 } else { -1 };
    fixture.clock.set_wall_time(Timestamp::from_millis(fixture.clock.wall_time().as_millis() + millis));
}

#[test]
fn an_age_is_the_true_wait_however_and_whenever_the_wall_clock_is_set() {
    for case in 0..32 {
        let [is_forward, is_reboot, before, between, after] = [0, 1, 2, 3, 4].map(|bit| case >> bit & 1 == 1);
        let mut fixture = QueueFixture::new();
        fixture.remote.set_default_outcome(Some(deferred("busy")));
        fixture.receive("ana@here.example", "bo@there.example");
        fixture.run_for(3 * HOUR);
        if before {
            jump(&fixture, is_forward);
        }
        fixture.run_for(2 * HOUR);
        assert_eq!(view(&fixture).age, 5 * HOUR, "{case}");

        fixture.disk.crash(Crash::ProcessKilled);
        match is_reboot {
            true => fixture.clock.reboot(HOUR),
            false => fixture.clock.advance(HOUR),
        }
        if between {
            jump(&fixture, is_forward);
        }
        let mut fixture = fixture.restarted(2);
        fixture.remote.set_default_outcome(Some(deferred("busy")));
        if after {
            jump(&fixture, !is_forward);
        }
        let seen = view(&fixture);
        // After a boot only the wall clock shows how long the host was down: a wrong one may take away the
        // time since the last save, or add a day.
        let (least, most) = match (is_reboot && between, is_forward) {
            (true, true) => (6 * HOUR, 6 * HOUR + DAY),
            (true, false) => (4 * HOUR - MINUTE, 6 * HOUR),
            (false, _) => (6 * HOUR, 6 * HOUR),
        };
        assert!((least..=most).contains(&seen.age), "{case}: {:?}", seen.age);
        assert!(seen.due.is_none_or(|due| due > fixture.clock.wall_time()), "{case}: {:?}", seen.due);

        fixture.run_for(4 * DAY - 7 * HOUR);
        assert_eq!((fixture.queue_length(), fixture.bounces().len()), (1, 0), "{case}: not given up early");
        fixture.run_for(DAY + 3 * HOUR);
        assert_eq!((fixture.queue_length(), fixture.bounces().len()), (0, 1), "{case}: given up in time");
    }
}

#[test]
fn restarts_do_not_keep_mail_beyond_its_lifetime() {
    let settings = Settings {
        lifetime: 2 * MINUTE,
        delay_warning: MINUTE,
        retry_delays: vec![MINUTE, 5 * MINUTE],
        ..settings()
    };
    for is_silent in [false, true] {
        let no = || match is_silent {
            true => Outcome::Deferred(Reason::new(4, 1, "no connection").with_destination_scope()),
            false => deferred("busy"),
        };
        let mut fixture = QueueFixture::with_settings(settings.clone());
        fixture.remote.set_default_outcome(Some(no()));
        let login = Some(crate::queue_fixture::mailbox("ana@here.example"));
        for n in 0..200 {
            let to = format!("bo@there{}.example", n % 20);
            let put =
                fixture.put_with("ana@here.example", &[to.as_str()], b"Subject: x\r\n\r\n", |envelope| {
                    envelope.authenticated_user.clone_from(&login);
                });
            put.unwrap();
        }
        let mut reports = Vec::new();
        let mut waiting = Vec::new();
        for seed in 2..8 {
            fixture.run_for(Duration::from_secs(47));
            waiting.push(fixture.queue_length());
            reports.extend(fixture.bounces().into_iter().map(|one| String::from_utf8(one.octets).unwrap()));
            fixture.disk.crash(Crash::ProcessKilled);
            fixture = QueueFixture::open(fixture.disk.clone(), fixture.clock.clone(), seed, settings.clone())
                .unwrap();
            fixture.remote.set_default_outcome(Some(no()));
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
fn a_message_whose_lifetime_ended_while_the_server_was_down_is_attempted_once_more() {
    let mut fixture = QueueFixture::new();
    fixture.remote.set_default_outcome(Some(deferred("busy")));
    fixture.receive("ana@here.example", "bo@there.example");
    fixture.disk.crash(Crash::ProcessKilled);
    fixture.clock.advance(6 * DAY);
    let mut fixture = fixture.restarted(2);
    let seen = view(&fixture);
    assert_eq!((seen.age, seen.due), (6 * DAY, None), "it is due now");
    fixture.run_for(MINUTE);
    assert_eq!(
        (fixture.queue_length(), fixture.remote.delivered().len(), fixture.bounces().len()),
        (0, 1, 0)
    );
}

#[test]
fn an_operator_can_retry_a_message_that_was_to_be_given_up() {
    let mut fixture = QueueFixture::new();
    fixture.remote.set_default_outcome(Some(deferred("busy")));
    fixture.receive("ana@here.example", "bo@there.example");
    assert_eq!(fixture.run_command(Selection::default(), QueueChange::Hold).changed.len(), 1);
    for seed in 2..4 {
        fixture.disk.crash(Crash::ProcessKilled);
        fixture.clock.advance(6 * DAY);
        fixture = fixture.restarted(seed);
    }
    assert_eq!(fixture.run_command(Selection::default(), QueueChange::Release).changed.len(), 1);
    assert_eq!((fixture.queue_length(), fixture.remote.delivered().len()), (0, 1));
}

#[test]
fn an_attempt_that_panics_is_repeated_later() {
    let mut fixture = QueueFixture::new();
    fixture.remote.add_panic();
    fixture.receive("ana@here.example", "bo@there.example");
    assert_eq!(fixture.queue_length(), 1);
    assert_eq!(fixture.metrics.counter("queue_attempt_panics", "").value(), 1);
    fixture.run_for(2 * MINUTE);
    assert_eq!(fixture.queue_length(), 0);
    assert_eq!(fixture.remote.delivered().len(), 1);
}

#[test]
fn recipients_of_one_domain_are_tried_in_one_attempt_and_again_in_one() {
    let mut fixture = QueueFixture::new();
    fixture.remote.add_outcomes([deferred("busy"), delivered(), deferred("busy")]);
    fixture.receive("ana@here.example", "a@there.example b@there.example c@elsewhere.example");
    let view = fixture.stepped.queue_control().list(&Selection::default(), 1).remove(0);
    let waiting = view.recipients.iter().filter(|one| !one.state.is_settled()).count();
    assert_eq!((view.attempts, waiting), (1, 2));
    assert!(
        matches!(&view.recipients[0].state, RecipientState::Waiting(Some(reason)) | RecipientState::Delivered(reason)
        if !reason.text.is_empty())
    );
    fixture.run_for(2 * MINUTE);
    assert_eq!(fixture.queue_length(), 0);
    assert_eq!(fixture.remote.delivered().len(), 3, "none twice");
}

#[test]
fn a_full_queue_accepts_bounces_and_nothing_else() {
    let mut fixture = QueueFixture::with_settings(Settings { messages_max: 1, ..settings() });
    fixture.remote.add_outcomes([deferred("busy"), failed("gone")]);
    fixture.receive("ana@here.example", "bo@there.example");
    assert_eq!(fixture.put("ana@here.example", &["bo@there.example"], b"\r\n"), Err(PutError::Full));
    fixture.run_for(2 * MINUTE);
    assert_eq!(fixture.bounces().len(), 1);
    assert!(fixture.put("ana@here.example", &["bo@there.example"], b"\r\n").is_ok());
}

#[test]
fn a_full_disk_refuses_new_mail_until_there_is_room() {
    let mut fixture = QueueFixture::new();
    fixture.remote.add_outcomes([deferred("busy")]);
    fixture.receive("ana@here.example", "bo@there.example");
    fixture.disk.set_full(true);
    for octets in [10, 5000] {
        let message = vec![b'x'; octets];
        assert_eq!(fixture.put("ana@here.example", &["bo@here.example"], &message), Err(PutError::Full));
    }
    fixture.remote.add_outcomes([failed("gone")]);
    fixture.run_for(2 * MINUTE);
    assert_eq!(fixture.queue_length(), 1, "its bounce cannot be queued, so it waits");
    fixture.disk.set_full(false);
    fixture.remote.add_outcomes([failed("gone")]);
    fixture.run_for(10 * MINUTE);
    assert_eq!((fixture.queue_length(), fixture.bounces().len()), (0, 1));
}

#[test]
fn settled_messages_are_removed_from_a_full_disk() {
    let mut fixture = QueueFixture::new();
    fixture.remote.add_outcomes([deferred("busy"), deferred("busy"), deferred("busy")]);
    for _ in 0..3 {
        fixture.receive("ana@here.example", "bo@there.example");
    }
    fixture.put("ana@there.example", &["bo@here.example"], b"Subject: hello\r\n\r\n").unwrap();
    fixture.disk.set_full(true);
    fixture.run_for(10 * MINUTE);
    assert_eq!(
        (fixture.queue_length(), fixture.remote.delivered().len(), fixture.local.delivered().len()),
        (0, 3, 1)
    );
    let waiting = std::path::Path::new("/data/spool/waiting");
    assert!(
        !fixture.disk.file_paths().iter().any(|path| path.starts_with(waiting)),
        "the way out of a full disk"
    );
}

#[test]
fn after_a_stop_no_attempt_begins_and_the_next_process_goes_on() {
    let mut fixture = QueueFixture::new();
    fixture.handle.stop();
    assert!(matches!(fixture.handle.begin(), Err(PutError::Stopping)));
    let mut incoming = fixture.handle.begin_generated().unwrap();
    incoming.append(b"\r\n").unwrap();
    let envelope = postrider::mail::Envelope::new(
        incoming.id(),
        fixture.clock.wall_time(),
        postrider::mail::ReversePath::Null,
        vec![postrider::mail::Recipient::for_mailbox(crate::queue_fixture::mailbox("bo@here.example"))],
    );
    incoming.commit(envelope).unwrap();
    fixture.stepped.run();
    assert!(fixture.local.attempts().is_empty());
    let mut fixture = fixture.restarted(2);
    fixture.stepped.run();
    assert_eq!((fixture.queue_length(), fixture.local.delivered().len()), (0, 1));
}

#[test]
fn a_message_that_is_dropped_before_its_commit_leaves_nothing_on_disk() {
    let fixture = QueueFixture::new();
    let before = fixture.disk.file_paths().len();
    for octets in [10, 5000] {
        let mut incoming = fixture.handle.begin().unwrap();
        incoming.append(&vec![b'x'; octets]).unwrap();
    }
    assert_eq!((fixture.queue_length(), fixture.disk.file_paths().len()), (0, before));
}

#[test]
fn an_outcome_that_the_disk_refuses_is_kept_in_memory() {
    let mut fixture = QueueFixture::new();
    fixture.remote.add_outcomes([deferred("busy"), deferred("busy")]);
    fixture.receive("ana@here.example", "a@there.example b@there.example");
    fixture.disk.set_full(true);
    fixture.remote.add_outcomes([delivered()]);
    fixture.remote.set_default_outcome(Some(deferred("busy")));
    fixture.run_for(20 * MINUTE);
    fixture.disk.set_full(false);
    fixture.remote.set_default_outcome(None);
    fixture.run_for(200 * MINUTE);
    assert_eq!(fixture.queue_length(), 0);
    assert_eq!(fixture.remote.delivered().len(), 2, "none twice, though the first could not be noted");
}

#[test]
fn a_restart_with_many_waiting_messages_opens_none_of_them() {
    let mut fixture = QueueFixture::new();
    fixture.remote.set_default_outcome(Some(deferred("busy")));
    for _ in 0..5000 {
        fixture.put("ana@here.example", &["bo@there.example"], b"Subject: hello\r\n\r\n").unwrap();
    }
    fixture.run_for(Duration::from_secs(3)); // and old segments go
    let before = fixture.disk.open_count();
    let mut fixture = fixture.restarted(2);
    fixture.stepped.run();
    assert_eq!(fixture.queue_length(), 5000);
    let opened = fixture.disk.open_count() - before;
    assert!(opened < 20, "{opened} files opened: none is due");
    fixture.run_for(2 * MINUTE);
    assert_eq!(fixture.queue_length(), 0);
}

#[test]
fn mail_that_came_due_while_the_server_was_down_is_tried_one_by_one_and_new_mail_at_once() {
    let mut fixture = QueueFixture::new();
    fixture.remote.set_default_outcome(Some(deferred("busy")));
    for n in 0..1000 {
        fixture.receive("ana@here.example", &format!("bo@there{n}.example"));
    }
    fixture.put("ana@here.example", &["cy@here.example"], b"Subject: new\r\n\r\n").unwrap();
    fixture.clock.advance(10 * MINUTE);
    let mut fixture = fixture.restarted(2);
    fixture.stepped.run();
    assert_eq!((fixture.local.delivered().len(), fixture.remote.delivered().len()), (1, 0));
    fixture.run_for(Duration::from_secs(1));
    let soon = fixture.remote.delivered().len();
    assert!((100..=300).contains(&soon), "{soon} in a second");
    fixture.run_for(Duration::from_secs(5));
    assert_eq!(fixture.queue_length(), 0);
}

#[test]
fn a_message_to_many_local_users_is_delivered_in_batches_of_a_few() {
    let mut fixture = QueueFixture::new();
    let users: Vec<_> = (0..100).map(|n| format!("user{n}@here.example")).collect();
    fixture.receive("ana@there.example", &users.join(" "));
    assert_eq!((fixture.queue_length(), fixture.local.delivered().len()), (0, 100));
    let attempts = fixture.metrics.counter_family("queue_attempts", "", "courier").value("scripted");
    assert_eq!(attempts, 7);
}
