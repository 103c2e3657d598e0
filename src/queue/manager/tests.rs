//! What the manager does with news that comes in an unusual order.

use std::path::PathBuf;

use super::*;
use crate::fakes::{SeededRandom, SimulatedDisk, TestClock};
use crate::mail::{Domain, Mailbox, Recipient, ReversePath, Timestamp};
use crate::observe::Metrics;
use crate::queue::SpoolParts;
use crate::queue::attempt::Carried;
use crate::queue::claims::Grant;

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
        settings: settings.clone(),
    };
    let (spool, leases, survivors) = Spool::open(&parts).unwrap();
    let router = Router::new([Domain::parse("here.example").unwrap()]);
    let router = Arc::new(ArcSwap::from_pointee(router));
    let random = Arc::new(SeededRandom::new(2));
    Manager::new(Arc::new(spool), clock, random, router, settings, (leases, survivors))
}

/// Puts a message of about `octets` for a mailbox of this host.
fn put(manager: &Manager, n: u64, octets: usize) -> Envelope {
    let recipient = Recipient::mailbox(Mailbox::parse("bo@here.example").unwrap());
    let id = MessageId::new(Timestamp::from_millis(0), n);
    let envelope = Envelope::new(id, manager.clock.wall(), ReversePath::Null, vec![recipient]);
    let text = format!("Subject: hello\r\n\r\n{}\r\n", "x".repeat(octets));
    manager.spool.put_small(&envelope, text.as_bytes()).unwrap();
    envelope
}

#[test]
fn a_sweep_does_not_move_a_message_that_a_command_has() {
    let (disk, clock) = (SimulatedDisk::default(), Arc::<TestClock>::default());
    let settings = Settings { segment_octets: 3000, segments_max: 1, ..Settings::default() };
    let mut manager = manager_on(disk.clone(), Arc::clone(&clock), settings);
    let ids: Vec<_> = (0..12).map(|n| put(&manager, n, 900).id).collect();
    // The manager has read the messages from disk, and keeps none of them in memory.
    for id in &ids {
        manager.entries.insert(*id, Entry::new());
    }
    let has_file = |id: &MessageId| {
        let name = format!("/data/spool/waiting/{id}.");
        disk.names().iter().any(|path| path.to_string_lossy().starts_with(&name))
    };
    let (to, grants) = crate::sys::channel();
    let (news, heard) = crate::sys::channel();
    manager.hear(News::Claim { id: ids[0], to, news });
    let Ok(Grant::Yours(claim)) = grants.try_recv() else { panic!("it is not granted") };
    for _ in 0..3 {
        clock.advance(Duration::from_secs(20));
        manager.clear_up();
    }
    assert!(has_file(&ids[1]) && !has_file(&ids[0]));
    drop(claim);
    manager.hear(heard.try_recv().unwrap());
    clock.advance(Duration::from_secs(20));
    manager.clear_up();
    assert!(has_file(&ids[0]));
}

#[test]
fn the_manager_does_not_wait_for_an_outcome_that_is_being_written() {
    let (disk, clock) = (SimulatedDisk::default(), Arc::<TestClock>::default());
    let mut manager = manager_on(disk, Arc::clone(&clock), Settings::default());
    let to = ["bo@there.example", "cy@elsewhere.example"];
    let recipients = to.map(|raw| Recipient::mailbox(Mailbox::parse(raw).unwrap())).to_vec();
    let id = MessageId::new(Timestamp::from_millis(0), 1);
    let envelope = Envelope::new(id, manager.clock.wall(), ReversePath::Null, recipients);
    manager.spool.put_small(&envelope, b"Subject: hello\r\n\r\n").unwrap();
    let since = manager.clock.now();
    manager.hear(News::Put { id, envelope: Arc::new(envelope), since });
    manager.tick();
    let [first, second] = [1, 2].map(|_| manager.next_job(Lane::Remote).unwrap());

    // The outcome of the first is being synced; the second comes back and is due again meanwhile.
    let (active, recipients) = (Arc::clone(&first.active), second.recipients.clone());
    let lease = active.lease.lock();
    let due = Some(clock.now() + Duration::from_secs(60));
    manager.hear(News::Done(second.over(Carried { due, contact: Some(Contact::Answered) })));
    clock.advance(Duration::from_secs(61));
    manager.tick();
    assert_eq!(manager.next_job(Lane::Remote).unwrap().recipients, recipients);
    manager.clear_up();
    drop(lease);
}

#[test]
fn a_message_that_is_claimed_before_its_arrival_is_heard_of_does_not_leave() {
    let mut manager = manager();
    let [first, second] = [1, 2].map(|n| put(&manager, n, 10));
    let (to, grants) = crate::sys::channel();
    let (news, heard) = crate::sys::channel();
    manager.hear(News::Claim { id: first.id, to: to.clone(), news: news.clone() });
    assert!(grants.is_empty());
    for envelope in [&first, &second] {
        let since = manager.clock.now();
        manager.hear(News::Put { id: envelope.id, envelope: Arc::new(envelope.clone()), since });
    }
    manager.hear(News::Claim { id: first.id, to, news });
    manager.tick();
    let job = manager.next_job(Lane::Local).unwrap();
    assert_eq!(job.active.envelope.id, second.id);
    assert!(manager.next_job(Lane::Local).is_none());
    let Ok(Grant::Yours(claim)) = grants.try_recv() else { panic!("it is not granted") };
    assert!(matches!(grants.try_recv(), Ok(Grant::Taken(_))), "one command at a time");
    drop(claim);
    manager.hear(heard.try_recv().unwrap());
    manager.tick();
    assert_eq!(manager.next_job(Lane::Local).unwrap().active.envelope.id, first.id);
}
