//! What the manager does with news that comes in an unusual order.

use std::path::PathBuf;

use super::*;
use crate::fakes::{SeededRandom, SimulatedDisk, TestClock};
use crate::mail::{Domain, Mailbox, Recipient, ReversePath, Timestamp};
use crate::observe::Metrics;
use crate::queue::SpoolParts;
use crate::queue::claims::Grant;

fn manager() -> Manager {
    let clock: Arc<dyn Clock> = Arc::new(TestClock::default());
    let parts = SpoolParts {
        disk: Arc::new(SimulatedDisk::default()),
        data_dir: PathBuf::from("/data"),
        clock: Arc::clone(&clock),
        random: Arc::new(SeededRandom::new(1)),
        metrics: Arc::new(Metrics::default()),
        settings: Settings::default(),
    };
    let (spool, survivors) = Spool::open(&parts).unwrap();
    let router = Router::new([Domain::parse("here.example").unwrap()]);
    let router = Arc::new(ArcSwap::from_pointee(router));
    let random = Arc::new(SeededRandom::new(2));
    Manager::new(Arc::new(spool), clock, random, router, Settings::default(), survivors)
}

#[test]
fn a_message_that_is_claimed_before_its_arrival_is_heard_of_does_not_leave() {
    let mut manager = manager();
    let recipient = Recipient::mailbox(Mailbox::parse("bo@here.example").unwrap());
    let [first, second] = [1, 2].map(|n| {
        let id = MessageId::new(Timestamp::from_millis(0), n);
        let arrived = manager.clock.wall();
        let envelope = Envelope::new(id, arrived, ReversePath::Null, vec![recipient.clone()]);
        manager.spool.put_small(&envelope, b"Subject: hello\r\n\r\n").unwrap();
        envelope
    });
    let (to, grants) = crossbeam_channel::unbounded();
    let (news, heard) = crossbeam_channel::unbounded();
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
