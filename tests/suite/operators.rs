//! What a person does to mail that waits: with a clock that the test turns and couriers that follow
//! a script.

use std::time::Duration;

use postrider::mail::{Destination, Domain, MessageId, NextHop, Outcome, Reason};
use postrider::queue::{Change, Selection, State};

use crate::post_office::{MINUTE, PostOffice, deferred, failed};

const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(86_400);

fn only(id: MessageId) -> Selection {
    Selection { ids: vec![id], ..Selection::default() }
}

fn all() -> Selection {
    Selection::default()
}

fn to(who: &str) -> Selection {
    Selection { to: Some(who.parse().unwrap()), ..all() }
}

fn remove() -> Change {
    Change::Remove { report: None }
}

/// Two letters wait, the first for `bo`.
fn waiting() -> (PostOffice, MessageId, MessageId) {
    let mut office = PostOffice::new();
    office.remote.always(Some(deferred("busy")));
    let first = office.receive("ana@here.example", "bo@there.example");
    let second = office.receive("eve@elsewhere.example", "cy@there.example");
    (office, first, second)
}

#[test]
fn retry_tries_now_and_remove_forgets_without_a_word() {
    let (mut office, first, second) = waiting();
    assert_eq!(office.command(only(first), Change::Retry).done, [first]);
    assert_eq!(office.remote.carried().len(), 3);
    assert_eq!(office.command(only(second), remove()).done, [second]);
    let again = office.command(only(second), Change::Retry);
    assert!(again.refused[0].1.contains("not in the queue"), "{again:?}");
    assert_eq!((office.waiting(), office.reports().len()), (1, 0));
    office.remote.always(None);
    assert_eq!(office.command(all(), Change::Retry).done, [first]);
    assert_eq!(office.waiting(), 0);
}

#[test]
fn what_is_held_waits_for_its_release_through_restarts() {
    let (mut office, first, second) = waiting();
    assert_eq!(office.command(to("bo@there.example"), Change::Hold).done, [first]);
    assert_eq!(office.command(only(first), Change::Hold).done, [first], "held is held");
    office.remote.always(None);
    office.after(2 * MINUTE);
    assert_eq!(office.remote.delivered()[0].envelope.id, second);
    let tried = office.command(only(first), Change::Retry);
    assert!(tried.refused[0].1.contains("held"), "{tried:?}");

    let mut office = office.restarted(2);
    office.after(9 * DAY);
    assert!(office.handle.view(&first).unwrap().is_held);
    assert!(office.remote.carried().is_empty() && office.reports().is_empty(), "not even given up");
    let held = Selection { held: true, ..all() };
    assert_eq!(office.stepped.operator().list(&held, 10).len(), 1);
    assert_eq!(office.command(held, Change::Release).done, [first]);
    assert_eq!((office.waiting(), office.remote.delivered().len()), (0, 1));
    let released = office.command(all(), Change::Release);
    assert!(released.done.is_empty() && released.refused.is_empty(), "nothing is left");
}

#[test]
fn one_recipient_is_removed_and_the_others_go_on() {
    let mut office = PostOffice::new();
    office.remote.always(Some(deferred("busy")));
    let id = office.receive("ana@here.example", "bo@there.example cy@elsewhere.example");
    let report = Change::Remove { report: Some("We do not\r\nwrite to Bo.".to_owned()) };
    assert_eq!(office.command(to("bo@there.example"), report).done, [id]);
    let states: Vec<_> =
        office.handle.view(&id).unwrap().recipients.into_iter().map(|one| one.state).collect();
    assert!(matches!(states[..], [State::Failed(_), State::Waiting(_)]), "{states:?}");
    let text = String::from_utf8(office.reports()[0].octets.clone()).unwrap();
    assert!(
        text.contains("Status: 5.7.1\r\n") && text.contains("    We do not\\x0d\\x0awrite to Bo.\r\n"),
        "{text}"
    );
    assert!(!text.contains("cy@elsewhere"), "{text}");
    let mut office = office.restarted(2);
    office.after(10 * MINUTE);
    let carried = office.remote.carried();
    assert_eq!(carried.iter().map(|one| one.to.as_str()).collect::<Vec<_>>(), ["cy@elsewhere.example"]);
    assert_eq!(office.waiting(), 0);
}

#[test]
fn a_recipient_goes_another_way_through_restarts_and_back_again() {
    let mut office = PostOffice::new();
    office.remote.always(Some(deferred("busy")));
    let id = office.receive("ana@here.example", "bo@there.example cy@elsewhere.example");
    let host = NextHop::Name { host: Domain::parse("relay.example").unwrap(), port: 2525 };
    let reroute = |via: &[NextHop]| Change::Reroute { via: via.to_vec() };
    let there = || Selection { destination: Some("there.example".to_owned()), ..all() };
    assert_eq!(office.command(there(), reroute(std::slice::from_ref(&host))).done, [id]);
    let ways = |office: &PostOffice| {
        let recipients = office.handle.view(&id).unwrap().recipients.into_iter();
        recipients.map(|one| matches!(one.recipient.destination, Destination::Via { .. })).collect::<Vec<_>>()
    };
    assert_eq!(ways(&office), [true, false]);

    let mut office = office.restarted(2);
    office.remote.always(Some(deferred("busy")));
    office.after(10 * MINUTE);
    assert_eq!(ways(&office), [true, false]);
    let carried = office.remote.carried();
    let is_rerouted = |to: &str| {
        let one = carried.iter().rfind(|one| one.to == to).unwrap();
        let of = one.envelope.recipients.iter().find(|recipient| recipient.to_string() == to).unwrap();
        matches!(of.destination, Destination::Via { .. })
    };
    assert!(is_rerouted("bo@there.example") && !is_rerouted("cy@elsewhere.example"));
    assert_eq!(office.command(there(), reroute(&[])).done, [id], "it is still known by its domain");
    assert_eq!(ways(&office), [false, false]);
    office.remote.always(None);
    office.after(HOUR * 2);
    assert_eq!(office.waiting(), 0);
}

#[test]
fn nobody_is_told_of_a_removed_report() {
    let mut office = PostOffice::new();
    office.remote.always(Some(deferred("busy")));
    let id = office.receive("", "bo@there.example");
    let report = Change::Remove { report: Some("no".to_owned()) };
    let from_nobody = Selection { from: Some("<>".parse().unwrap()), ..all() };
    assert_eq!(office.command(from_nobody, report).done, [id]);
    assert_eq!((office.waiting(), office.reports().len()), (0, 0));
}

#[test]
fn a_change_that_the_disk_refuses_changes_nothing_and_says_so() {
    let (mut office, first, _) = waiting();
    office.disk.set_full(true);
    for change in [Change::Hold, Change::Remove { report: Some("no".to_owned()) }] {
        let changed = office.command(only(first), change);
        assert!(changed.done.is_empty() && changed.refused[0].1.contains("as it was"), "{changed:?}");
        assert!(!office.handle.view(&first).unwrap().is_held);
    }
    assert_eq!(office.command(only(first), remove()).done, [first], "a way out of a full disk");
    office.disk.set_full(false);
    office.remote.always(None);
    office.after(10 * MINUTE);
    assert_eq!(office.remote.delivered().len(), 1);
}

#[test]
fn what_was_removed_stays_so_when_the_machine_stops() {
    let mut office = PostOffice::new();
    office.remote.always(Some(deferred("busy")));
    let id = office.receive("ana@here.example", "bo@there.example");
    assert_eq!(office.command(only(id), remove()).done, [id]);
    office.disk.crash(postrider::fakes::Crash::Dropped);
    let office = office.restarted(3);
    assert_eq!(office.waiting(), 0);
}

#[test]
fn a_hold_stays_when_the_machine_stops() {
    let (mut office, id, _) = waiting();
    assert_eq!(office.command(only(id), Change::Hold).done, [id]);
    office.disk.crash(postrider::fakes::Crash::Dropped);
    let mut office = office.restarted(3);
    office.after(DAY);
    assert!(office.handle.view(&id).unwrap().is_held);
    assert!(office.remote.carried().iter().all(|one| one.envelope.id != id));
}

#[test]
fn a_message_is_shown_with_its_history_and_its_octets() {
    let mut office = PostOffice::new();
    let attempts = [deferred("busy"), deferred("still busy"), failed("no such mailbox"), deferred("busy")];
    office.remote.then(attempts);
    let id = office.receive("ana@here.example", "bo@there.example cy@elsewhere.example");
    office.after(2 * MINUTE);
    let operator = office.stepped.operator();
    let mut told: Vec<_> = operator
        .detail(&id)
        .unwrap()
        .history
        .into_iter()
        .map(|event| (event.attempt, event.state.reason().unwrap().text.clone()))
        .collect();
    told.sort();
    let expected = [(1, "busy"), (1, "still busy"), (2, "busy"), (2, "no such mailbox")];
    assert_eq!(told, expected.map(|(attempt, text)| (attempt, text.to_owned())));
    assert_eq!(operator.octets(&id, true).unwrap(), b"Subject: hello\r\n\r\n");
    assert_eq!(operator.octets(&id, false).unwrap(), b"Subject: hello\r\n\r\nHello.\r\n");
}

#[test]
fn a_message_whose_file_somebody_removed_is_forgotten_when_that_is_noticed() {
    let (mut office, first, second) = waiting();
    let name = |id: &MessageId| {
        let names = office.disk.names();
        let of =
            |path: &&std::path::PathBuf| path.file_name().unwrap().to_str().unwrap().starts_with(id.as_str());
        names.iter().find(of).unwrap().clone()
    };
    postrider::sys::Disk::remove(&office.disk, &name(&first)).unwrap();
    office.after(2 * MINUTE);
    assert!(office.handle.view(&first).is_none());
    assert_eq!(office.waiting(), 1);
    assert!(office.handle.view(&second).is_some());
}

#[test]
fn a_long_line_for_a_silent_destination_is_held_and_released() {
    const COUNT: usize = 300;
    let mut office = PostOffice::new();
    let silent = Reason::new(4, 1, "no answer").of_destination();
    office.remote.always(Some(Outcome::Deferred(silent)));
    let senders = ["ana@here.example", "eve@elsewhere.example", "cy@there.example"];
    for sender in senders.iter().cycle().take(COUNT) {
        office.receive(sender, "bo@there.example");
    }
    assert_eq!(office.remote.carried().len(), 1, "the others wait for a probe");
    let held = office.command(all(), Change::Hold);
    assert_eq!((held.done.len(), held.refused.len()), (COUNT, 0));
    office.remote.always(None);
    office.after(DAY);
    assert_eq!(office.remote.carried().len(), 1, "nothing that is held leaves");
    assert_eq!(office.command(all(), Change::Release).done.len(), COUNT);
    assert_eq!((office.waiting(), office.remote.delivered().len()), (0, COUNT));
}
