//! Operators' commands on waiting mail, with a clock that the test turns and couriers that follow a script.

use std::time::Duration;

use postrider::mail::{Destination, Domain, MessageId, NextHop, Outcome, Reason};
use postrider::queue::{QueueChange, RecipientState, Selection};

use crate::queue_fixture::{MINUTE, QueueFixture, deferred, failed, only, remove};

const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(86_400);

fn all() -> Selection {
    Selection::default()
}

fn to(who: &str) -> Selection {
    Selection { to: Some(who.parse().unwrap()), ..all() }
}

/// Two messages wait; the first is for `bo`.
fn waiting() -> (QueueFixture, MessageId, MessageId) {
    let mut fixture = QueueFixture::new();
    fixture.remote.set_default_outcome(Some(deferred("busy")));
    let first = fixture.receive("ana@here.example", "bo@there.example");
    let second = fixture.receive("eve@elsewhere.example", "cy@there.example");
    (fixture, first, second)
}

#[test]
fn retry_tries_a_message_now_and_remove_drops_it_without_a_bounce() {
    let (mut fixture, first, second) = waiting();
    assert_eq!(fixture.run_command(only(first), QueueChange::Retry).changed, [first]);
    assert_eq!(fixture.remote.attempts().len(), 3);
    assert_eq!(fixture.run_command(only(second), remove()).changed, [second]);
    let again = fixture.run_command(only(second), QueueChange::Retry);
    assert!(again.refused[0].1.contains("not in the queue"), "{again:?}");
    assert_eq!((fixture.queue_length(), fixture.bounces().len()), (1, 0));
    fixture.remote.set_default_outcome(None);
    assert_eq!(fixture.run_command(all(), QueueChange::Retry).changed, [first]);
    assert_eq!(fixture.queue_length(), 0);
}

#[test]
fn a_held_message_waits_for_its_release_across_restarts() {
    let (mut fixture, first, second) = waiting();
    assert_eq!(fixture.run_command(to("bo@there.example"), QueueChange::Hold).changed, [first]);
    assert_eq!(fixture.run_command(only(first), QueueChange::Hold).changed, [first], "held is held");
    fixture.remote.set_default_outcome(None);
    fixture.run_for(2 * MINUTE);
    assert_eq!(fixture.remote.delivered()[0].envelope.id, second);
    let tried = fixture.run_command(only(first), QueueChange::Retry);
    assert!(tried.refused[0].1.contains("held"), "{tried:?}");

    let mut fixture = fixture.restarted(2);
    fixture.run_for(9 * DAY);
    assert!(fixture.handle.message(&first).unwrap().is_held);
    assert!(fixture.remote.attempts().is_empty() && fixture.bounces().is_empty(), "not even given up");
    let held = Selection { is_held: true, ..all() };
    assert_eq!(fixture.stepped.queue_control().list(&held, 10).len(), 1);
    assert_eq!(fixture.run_command(held, QueueChange::Release).changed, [first]);
    assert_eq!((fixture.queue_length(), fixture.remote.delivered().len()), (0, 1));
    let released = fixture.run_command(all(), QueueChange::Release);
    assert!(released.changed.is_empty() && released.refused.is_empty(), "nothing is left");
}

#[test]
fn one_recipient_is_removed_and_the_others_are_tried() {
    let mut fixture = QueueFixture::new();
    fixture.remote.set_default_outcome(Some(deferred("busy")));
    let id = fixture.receive("ana@here.example", "bo@there.example cy@elsewhere.example");
    let report = QueueChange::Remove { bounce_text: Some("We do not\r\nwrite to Bo.".to_owned()) };
    assert_eq!(fixture.run_command(to("bo@there.example"), report).changed, [id]);
    let states: Vec<_> =
        fixture.handle.message(&id).unwrap().recipients.into_iter().map(|one| one.state).collect();
    assert!(matches!(states[..], [RecipientState::Failed(_), RecipientState::Waiting(_)]), "{states:?}");
    let text = String::from_utf8(fixture.bounces()[0].octets.clone()).unwrap();
    assert!(
        text.contains("Status: 5.7.1\r\n") && text.contains("    We do not\\x0d\\x0awrite to Bo.\r\n"),
        "{text}"
    );
    assert!(!text.contains("cy@elsewhere"), "{text}");
    let mut fixture = fixture.restarted(2);
    fixture.run_for(10 * MINUTE);
    let carried = fixture.remote.attempts();
    assert_eq!(
        carried.iter().map(|one| one.recipient.as_str()).collect::<Vec<_>>(),
        ["cy@elsewhere.example"]
    );
    assert_eq!(fixture.queue_length(), 0);
}

#[test]
fn a_reroute_holds_across_restarts_and_can_be_taken_back() {
    let mut fixture = QueueFixture::new();
    fixture.remote.set_default_outcome(Some(deferred("busy")));
    let id = fixture.receive("ana@here.example", "bo@there.example cy@elsewhere.example");
    let host = NextHop::Name { host: Domain::parse("relay.example").unwrap(), port: 2525 };
    let reroute = |via: &[NextHop]| QueueChange::Reroute { via: via.to_vec() };
    let there = || Selection { destination: Some("there.example".to_owned()), ..all() };
    assert_eq!(fixture.run_command(there(), reroute(std::slice::from_ref(&host))).changed, [id]);
    let ways = |fixture: &QueueFixture| {
        let recipients = fixture.handle.message(&id).unwrap().recipients.into_iter();
        recipients.map(|one| matches!(one.recipient.destination, Destination::Via { .. })).collect::<Vec<_>>()
    };
    assert_eq!(ways(&fixture), [true, false]);

    let mut fixture = fixture.restarted(2);
    fixture.remote.set_default_outcome(Some(deferred("busy")));
    fixture.run_for(10 * MINUTE);
    assert_eq!(ways(&fixture), [true, false]);
    let carried = fixture.remote.attempts();
    let is_rerouted = |to: &str| {
        let one = carried.iter().rfind(|one| one.recipient == to).unwrap();
        let of = one.envelope.recipients.iter().find(|recipient| recipient.to_string() == to).unwrap();
        matches!(of.destination, Destination::Via { .. })
    };
    assert!(is_rerouted("bo@there.example") && !is_rerouted("cy@elsewhere.example"));
    assert_eq!(fixture.run_command(there(), reroute(&[])).changed, [id], "it is still known by its domain");
    assert_eq!(ways(&fixture), [false, false]);
    fixture.remote.set_default_outcome(None);
    fixture.run_for(HOUR * 2);
    assert_eq!(fixture.queue_length(), 0);
}

#[test]
fn a_bounce_that_is_removed_is_not_bounced() {
    let mut fixture = QueueFixture::new();
    fixture.remote.set_default_outcome(Some(deferred("busy")));
    let id = fixture.receive("", "bo@there.example");
    let report = QueueChange::Remove { bounce_text: Some("no".to_owned()) };
    let from_nobody = Selection { from: Some("<>".parse().unwrap()), ..all() };
    assert_eq!(fixture.run_command(from_nobody, report).changed, [id]);
    assert_eq!((fixture.queue_length(), fixture.bounces().len()), (0, 0));
}

#[test]
fn a_change_that_the_disk_refuses_changes_nothing_and_is_reported_as_refused() {
    let (mut fixture, first, _) = waiting();
    fixture.disk.set_full(true);
    for change in [QueueChange::Hold, QueueChange::Remove { bounce_text: Some("no".to_owned()) }] {
        let changed = fixture.run_command(only(first), change);
        assert!(
            changed.changed.is_empty() && changed.refused[0].1.contains("was not changed: "),
            "{changed:?}"
        );
        assert!(!fixture.handle.message(&first).unwrap().is_held);
    }
    assert_eq!(fixture.run_command(only(first), remove()).changed, [first], "a way out of a full disk");
    fixture.disk.set_full(false);
    fixture.remote.set_default_outcome(None);
    fixture.run_for(10 * MINUTE);
    assert_eq!(fixture.remote.delivered().len(), 1);
}

#[test]
fn a_removed_message_stays_removed_when_the_machine_stops() {
    let mut fixture = QueueFixture::new();
    fixture.remote.set_default_outcome(Some(deferred("busy")));
    let id = fixture.receive("ana@here.example", "bo@there.example");
    assert_eq!(fixture.run_command(only(id), remove()).changed, [id]);
    fixture.disk.crash(postrider::fakes::Crash::UnsyncedLost);
    let fixture = fixture.restarted(3);
    assert_eq!(fixture.queue_length(), 0);
}

#[test]
fn a_held_message_stays_held_when_the_machine_stops() {
    let (mut fixture, id, _) = waiting();
    assert_eq!(fixture.run_command(only(id), QueueChange::Hold).changed, [id]);
    fixture.disk.crash(postrider::fakes::Crash::UnsyncedLost);
    let mut fixture = fixture.restarted(3);
    fixture.run_for(DAY);
    assert!(fixture.handle.message(&id).unwrap().is_held);
    assert!(fixture.remote.attempts().iter().all(|one| one.envelope.id != id));
}

#[test]
fn a_message_is_shown_with_its_history_and_its_octets() {
    let mut fixture = QueueFixture::new();
    let attempts = [deferred("busy"), deferred("still busy"), failed("no such mailbox"), deferred("busy")];
    fixture.remote.add_outcomes(attempts);
    let id = fixture.receive("ana@here.example", "bo@there.example cy@elsewhere.example");
    fixture.run_for(2 * MINUTE);
    let operator = fixture.stepped.queue_control();
    let mut changes: Vec<_> = operator
        .detail(&id)
        .unwrap()
        .state_changes
        .into_iter()
        .map(|event| (event.attempt, event.state.reason().unwrap().text.clone()))
        .collect();
    changes.sort();
    let expected = [(1, "busy"), (1, "still busy"), (2, "busy"), (2, "no such mailbox")];
    assert_eq!(changes, expected.map(|(attempt, text)| (attempt, text.to_owned())));
    assert_eq!(operator.content(&id, true).unwrap(), b"Subject: hello\r\n\r\n");
    assert_eq!(operator.content(&id, false).unwrap(), b"Subject: hello\r\n\r\nHello.\r\n");
}

#[test]
fn a_message_whose_file_was_removed_by_hand_is_forgotten() {
    let (mut fixture, first, second) = waiting();
    let name = |id: &MessageId| {
        let names = fixture.disk.file_paths();
        let of =
            |path: &&std::path::PathBuf| path.file_name().unwrap().to_str().unwrap().starts_with(id.as_str());
        names.iter().find(of).unwrap().clone()
    };
    postrider::sys::Disk::remove(&fixture.disk, &name(&first)).unwrap();
    fixture.run_for(2 * MINUTE);
    assert!(fixture.handle.message(&first).is_none());
    assert_eq!(fixture.queue_length(), 1);
    assert!(fixture.handle.message(&second).is_some());
}

#[test]
fn a_long_queue_for_a_destination_that_does_not_answer_is_held_and_released() {
    const COUNT: usize = 300;
    let mut fixture = QueueFixture::new();
    let silent = Reason::new(4, 1, "no answer").with_destination_scope();
    fixture.remote.set_default_outcome(Some(Outcome::Deferred(silent)));
    let senders = ["ana@here.example", "eve@elsewhere.example", "cy@there.example"];
    for sender in senders.iter().cycle().take(COUNT) {
        fixture.receive(sender, "bo@there.example");
    }
    assert_eq!(fixture.remote.attempts().len(), 1, "the others wait for a probe");
    let held = fixture.run_command(all(), QueueChange::Hold);
    assert_eq!((held.changed.len(), held.refused.len()), (COUNT, 0));
    fixture.remote.set_default_outcome(None);
    fixture.run_for(DAY);
    assert_eq!(fixture.remote.attempts().len(), 1, "nothing that is held leaves");
    assert_eq!(fixture.run_command(all(), QueueChange::Release).changed.len(), COUNT);
    assert_eq!((fixture.queue_length(), fixture.remote.delivered().len()), (0, COUNT));
}
