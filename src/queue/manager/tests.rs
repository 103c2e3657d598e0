//! The manager with events in an unusual order.

use std::path::PathBuf;

use super::*;
use crate::courier::CourierProfile;
use crate::fakes::{ScriptedCourier, SeededRandom, SimulatedDisk, TestClock, WithProfile};
use crate::mail::{Domain, Mailbox, Recipient, ReversePath, Timestamp};
use crate::observe::Metrics;
use crate::queue::attempt_job::AttemptSummary;
use crate::queue::claims::{ClaimReply, ClaimRequest};
use crate::spool::SpoolParts;
use crate::sys::Sender;

fn manager() -> Manager {
    manager_on(SimulatedDisk::default(), Arc::default(), Settings::default())
}

fn manager_on(disk: SimulatedDisk, clock: Arc<TestClock>, settings: Settings) -> Manager {
    let clock: Arc<dyn Clock> = clock;
    let parts = SpoolParts {
        disk: Arc::new(disk),
        data_dir: PathBuf::from("/data"),
        clock: Arc::clone(&clock),
        random: Arc::new(SeededRandom::new(1)),
        metrics: Arc::new(Metrics::default()),
        segment_octets: settings.segment_octets,
    };
    let (spool, leases, recovered) = Spool::open(&parts).unwrap();
    let router = Router::new([Domain::parse("here.example").unwrap()]);
    let local = Arc::new(WithProfile(Arc::<ScriptedCourier>::default(), CourierProfile::MAILBOXES));
    let couriers = Couriers { program: local.clone(), local, smtp: Arc::<ScriptedCourier>::default() };
    let routing = (Arc::new(ArcSwap::from_pointee(router)), couriers);
    let random = Arc::new(SeededRandom::new(2));
    Manager::new(Arc::new(spool), clock, random, routing, settings, (leases, recovered))
}

/// Requests a message for a command.
fn claim(id: MessageId, reply_to: &Sender<ClaimReply>, events: &Sender<ManagerEvent>) -> ManagerEvent {
    let events = events.clone();
    let on_return = Box::new(move |claim| drop(events.send(ManagerEvent::ClaimReturned(claim))));
    ManagerEvent::Claim(id, ClaimRequest { reply_to: reply_to.clone(), on_return })
}

/// Puts a message of about `octets` for a mailbox of this host.
fn put(manager: &Manager, n: u64, octets: usize) -> Envelope {
    let recipient = Recipient::for_mailbox(Mailbox::parse("bo@here.example").unwrap());
    let id = MessageId::new(Timestamp::from_millis(0), n);
    let envelope = Envelope::new(id, manager.clock.wall_time(), ReversePath::Null, vec![recipient]);
    let text = format!("Subject: hello\r\n\r\n{}\r\n", "x".repeat(octets));
    manager.spool.put_in_journal(&envelope, text.as_bytes()).unwrap();
    envelope
}

#[test]
fn a_sweep_does_not_move_a_message_that_is_claimed() {
    let (disk, clock) = (SimulatedDisk::default(), Arc::<TestClock>::default());
    let settings = Settings { segment_octets: 3000, segments_max: 1, ..Settings::default() };
    let mut manager = manager_on(disk.clone(), Arc::clone(&clock), settings);
    let ids: Vec<_> = (0..12).map(|n| put(&manager, n, 900).id).collect();
    // The manager has none of the messages in memory.
    for id in &ids {
        manager.entries.insert(*id, MessageEntry::new());
    }
    let has_file = |id: &MessageId| {
        let name = format!("/data/spool/waiting/{id}.");
        disk.file_paths().iter().any(|path| path.to_string_lossy().starts_with(&name))
    };
    let (reply_to, replies) = crate::sys::channel();
    let (events, received) = crate::sys::channel();
    manager.handle_event(claim(ids[0], &reply_to, &events));
    let Ok(ClaimReply::Granted(granted)) = replies.try_recv() else { panic!("it is not granted") };
    for _ in 0..3 {
        clock.advance(Duration::from_secs(20));
        manager.run_maintenance();
    }
    assert!(has_file(&ids[1]) && !has_file(&ids[0]));
    drop(granted);
    manager.handle_event(received.try_recv().unwrap());
    clock.advance(Duration::from_secs(20));
    manager.run_maintenance();
    assert!(has_file(&ids[0]));
}

#[test]
fn the_manager_does_not_wait_for_an_outcome_that_is_being_written() {
    let (disk, clock) = (SimulatedDisk::default(), Arc::<TestClock>::default());
    let mut manager = manager_on(disk, Arc::clone(&clock), Settings::default());
    let to = ["bo@there.example", "cy@elsewhere.example"];
    let recipients = to.map(|raw| Recipient::for_mailbox(Mailbox::parse(raw).unwrap())).to_vec();
    let id = MessageId::new(Timestamp::from_millis(0), 1);
    let envelope = Envelope::new(id, manager.clock.wall_time(), ReversePath::Null, recipients);
    manager.spool.put_in_journal(&envelope, b"Subject: hello\r\n\r\n").unwrap();
    let since = manager.clock.now();
    manager.handle_event(ManagerEvent::Put { id, envelope: Arc::new(envelope), arrived_at: since });
    manager.tick();
    let [first, second] = [1, 2].map(|_| manager.next_job(DeliveryPool::Remote).unwrap());

    // The outcome of the first is being synced; meanwhile the second ends and is due again.
    let (active, recipients) = (Arc::clone(&first.message), second.recipients.clone());
    let lease = active.lease.lock();
    let due = Some(clock.now() + Duration::from_secs(60));
    manager.handle_event(ManagerEvent::AttemptFinished(
        second.into_result(AttemptSummary { due, contact_result: Some(ContactResult::Answered) }),
    ));
    clock.advance(Duration::from_secs(61));
    manager.tick();
    assert_eq!(manager.next_job(DeliveryPool::Remote).unwrap().recipients, recipients);
    manager.run_maintenance();
    drop(lease);
}

#[test]
fn a_message_that_is_claimed_before_the_event_of_its_put_is_not_attempted() {
    let mut manager = manager();
    let [first, second] = [1, 2].map(|n| put(&manager, n, 10));
    let (reply_to, replies) = crate::sys::channel();
    let (events, received) = crate::sys::channel();
    manager.handle_event(claim(first.id, &reply_to, &events));
    assert!(replies.is_empty());
    for envelope in [&first, &second] {
        let since = manager.clock.now();
        manager.handle_event(ManagerEvent::Put {
            id: envelope.id,
            envelope: Arc::new(envelope.clone()),
            arrived_at: since,
        });
    }
    manager.handle_event(claim(first.id, &reply_to, &events));
    manager.tick();
    let job = manager.next_job(DeliveryPool::Local).unwrap();
    assert_eq!(job.message.envelope.id, second.id);
    assert!(manager.next_job(DeliveryPool::Local).is_none());
    let Ok(ClaimReply::Granted(granted)) = replies.try_recv() else { panic!("it is not granted") };
    assert!(matches!(replies.try_recv(), Ok(ClaimReply::ClaimedByOther(_))), "one command at a time");
    drop(granted);
    manager.handle_event(received.try_recv().unwrap());
    manager.tick();
    assert_eq!(manager.next_job(DeliveryPool::Local).unwrap().message.envelope.id, first.id);
}
