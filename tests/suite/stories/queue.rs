//! The queue with its threads, on a real disk.

use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arc_swap::ArcSwap;
use crossbeam_channel::{Receiver, Sender, unbounded};
use nix::sys::signal::Signal;
use postrider::courier::{Courier, CourierProfile, Delivery};
use postrider::fakes::{WatchedDisk, WithProfile};
use postrider::mail::{Domain, Envelope, Mailbox, MessageId, Outcome, Reason, Recipient, ReversePath};
use postrider::observe::{Metrics, Traces};
use postrider::queue::{
    Couriers, DeliveryParts, GeneratedMail, Handle, OpenError, OpenQueue, PutError, QueueChange, QueueParts,
    Selection, Settings, StopResult, WithoutAliases, open,
};
use postrider::route::Router;
use postrider::sys::{Disk, SystemClock, SystemDisk, SystemRandom};

use crate::queue_fixture::{only, remove};
use crate::test_server::{run_test_alone, wait_for};

const DEADLINE: Duration = Duration::from_secs(30);

/// Delivers when the gate is closed, and sends the id of each delivered message.
struct GatedCourier {
    profile: CourierProfile,
    gate: Option<Receiver<()>>,
    delivered: Sender<MessageId>,
}

impl Courier for GatedCourier {
    fn name(&self) -> &'static str {
        "gated"
    }
    fn profile(&self) -> CourierProfile {
        self.profile
    }
    fn attempt(&self, delivery: &Delivery<'_>) -> Vec<Outcome> {
        if let Some(gate) = &self.gate {
            let _ = gate.recv();
        }
        let _ = self.delivered.send(delivery.envelope.id);
        vec![Outcome::Delivered(Reason::new(0, 0, "taken")); delivery.recipients.len()]
    }
}

fn opened(dir: &Path, disk: Arc<dyn Disk>) -> Result<(Handle, OpenQueue), OpenError> {
    open(QueueParts {
        disk,
        data_dir: dir.to_owned(),
        clock: Arc::new(SystemClock),
        random: Arc::new(SystemRandom),
        metrics: Arc::new(Metrics::default()),
        settings: Settings { segment_octets: 100_000, ..Settings::default() },
    })
}

/// Delivery parts, the ids of delivered messages, and a gate: remote deliveries wait until it is dropped.
fn delivery_parts(handle: &Handle) -> (DeliveryParts, Receiver<MessageId>, Sender<()>) {
    let (sender, delivered) = unbounded();
    let (gate, waiting) = unbounded();
    let courier = |profile, gate| Arc::new(GatedCourier { profile, gate, delivered: sender.clone() });
    let parts = DeliveryParts {
        router: Arc::new(ArcSwap::from_pointee(Router::new([Domain::parse("here.example").unwrap()]))),
        couriers: Couriers {
            local: courier(CourierProfile::MAILBOXES, None),
            program: courier(CourierProfile::PROGRAMS, None),
            smtp: courier(CourierProfile::REMOTE, Some(waiting)),
        },
        generated_mail: GeneratedMail::new(handle.clone(), Arc::new(WithoutAliases)),
        traces: Traces::new(Arc::new(SystemClock)),
        hostname: Domain::parse("mail.here.example").unwrap(),
    };
    (parts, delivered, gate)
}

fn put(handle: &Handle, to: &str) -> Result<MessageId, PutError> {
    put_lines(handle, to, 270)
}

fn put_lines(handle: &Handle, to: &str, lines: usize) -> Result<MessageId, PutError> {
    let mut incoming = handle.begin()?;
    let id = incoming.id();
    incoming.append(&[b"Subject: hello\r\n\r\n".as_slice(), &b"Hello, hello.\r\n".repeat(lines)].concat())?;
    let recipients = vec![Recipient::for_mailbox(Mailbox::parse(to).unwrap())];
    incoming.commit(Envelope::new(id, handle.wall(), ReversePath::Null, recipients))?;
    Ok(id)
}

fn put_from_threads(handle: &Handle, threads: usize, each: usize) -> Vec<MessageId> {
    let ids = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                for _ in 0..each {
                    let id = put(handle, "bo@here.example").unwrap();
                    ids.lock().unwrap().push(id);
                }
            });
        }
    });
    ids.into_inner().unwrap()
}

#[test]
fn sessions_that_put_at_the_same_time_share_a_sync() {
    let dir = tempfile::tempdir().unwrap();
    let counted = Arc::new(AtomicUsize::new(0));
    let syncs = Arc::clone(&counted);
    // Each sync takes a while.
    let disk = WatchedDisk::new(SystemDisk, move |operation, _| {
        if operation == "sync" {
            syncs.fetch_add(1, Ordering::Relaxed);
            std::thread::sleep(Duration::from_millis(2));
        }
        Ok(())
    });
    let (handle, _opened) = opened(dir.path(), Arc::new(disk)).unwrap();
    let before = counted.load(Ordering::Relaxed);
    put_from_threads(&handle, 20, 10);
    let syncs = counted.load(Ordering::Relaxed) - before;
    assert_eq!(handle.count(), 200);
    assert!(syncs < 100, "{syncs} syncs for 200 messages");
}

#[test]
fn every_message_is_delivered_once_and_the_queue_stops_cleanly() {
    let dir = tempfile::tempdir().unwrap();
    let (handle, opened_queue) = opened(dir.path(), Arc::new(SystemDisk)).unwrap();
    let (parts, delivered, _gate) = delivery_parts(&handle);
    let running = opened_queue.start(parts).unwrap();
    let mut ids = put_from_threads(&handle, 8, 50);
    let mut there: Vec<_> = (0..400).map(|_| delivered.recv_timeout(DEADLINE).unwrap()).collect();
    ids.sort();
    there.sort();
    assert_eq!(ids, there);
    assert!(
        matches!(opened(dir.path(), Arc::new(SystemDisk)), Err(OpenError::Busy(_))),
        "one process per spool"
    );
    assert_eq!(running.stop(DEADLINE), StopResult::Clean);
    assert!(delivered.try_recv().is_err());
    assert!(
        matches!(opened(dir.path(), Arc::new(SystemDisk)), Err(OpenError::Busy(_))),
        "a session that still holds the queue could still commit"
    );
    drop(handle);
    // The delivery threads release the lock when they end, a moment after the stop.
    let (handle, opened) = wait_for("the spool to be free", || opened(dir.path(), Arc::new(SystemDisk)).ok());
    assert_eq!(
        (handle.count(), opened.recovered_count()),
        (0, 0),
        "what was noted is known to the next process"
    );
}

#[test]
fn local_delivery_never_waits_for_remote_delivery() {
    let dir = tempfile::tempdir().unwrap();
    let (handle, opened) = opened(dir.path(), Arc::new(SystemDisk)).unwrap();
    let (parts, delivered, gate) = delivery_parts(&handle);
    let running = opened.start(parts).unwrap();
    for n in 0..100 {
        put(&handle, &format!("cy@there{n}.example")).unwrap();
    }
    let id = put(&handle, "bo@here.example").unwrap();
    assert_eq!(delivered.recv_timeout(DEADLINE), Ok(id), "every remote thread is held up");
    drop(gate);
    for _ in 0..100 {
        delivered.recv_timeout(DEADLINE).unwrap();
    }
    assert_eq!(running.stop(DEADLINE), StopResult::Clean);
    assert_eq!(handle.count(), 0);
}

#[test]
fn a_message_is_removed_or_held_while_others_of_its_destination_are_under_way() {
    let dir = tempfile::tempdir().unwrap();
    let (handle, opened_queue) = opened(dir.path(), Arc::new(SystemDisk)).unwrap();
    let (parts, delivered, gate) = delivery_parts(&handle);
    let running = opened_queue.start(parts).unwrap();
    let ids: Vec<_> = (0..20).map(|_| put(&handle, "cy@there.example").unwrap()).collect();
    // At most as many attempts as the concurrency limit begin, and these wait for the gate.
    let (removed, held) = (ids[19], ids[18]);
    let operator = running.queue_control();
    assert_eq!(operator.change(only(removed), remove()).changed, [removed]);
    assert_eq!(operator.change(only(held), QueueChange::Hold).changed, [held]);
    assert!(handle.message(&removed).is_none());
    drop(gate);
    for _ in 0..18 {
        let id = delivered.recv_timeout(DEADLINE).unwrap();
        assert!(id != removed && id != held);
    }
    assert_eq!(running.stop(DEADLINE), StopResult::Clean);
    drop((handle, operator));
    let (handle, _opened) =
        wait_for("the spool to be free", || opened(dir.path(), Arc::new(SystemDisk)).ok());
    assert_eq!(handle.count(), 1);
    assert!(handle.message(&held).unwrap().is_held, "the next process reads it");
}

#[test]
fn a_message_that_is_being_tried_is_changed_when_the_attempt_has_ended() {
    let dir = tempfile::tempdir().unwrap();
    let (handle, opened) = opened(dir.path(), Arc::new(SystemDisk)).unwrap();
    let (parts, delivered, gate) = delivery_parts(&handle);
    let running = opened.start(parts).unwrap();
    let operator = running.queue_control();
    let under_way = put(&handle, "cy@there.example").unwrap();
    wait_for("the attempt", || gate.is_empty().then_some(()));
    let changed = operator.change(only(under_way), QueueChange::Hold);
    // The attempt may not have begun; then the message is held at once.
    let is_held = changed.changed == [under_way];
    assert!(is_held || changed.pending == [under_way], "{changed:?}");
    drop(gate);
    if is_held {
        assert!(handle.message(&under_way).unwrap().is_held);
    } else {
        assert_eq!(delivered.recv_timeout(DEADLINE), Ok(under_way));
        wait_for("the delivery", || handle.message(&under_way).is_none().then_some(()));
        let gone = operator.change(only(under_way), remove());
        assert!(gone.changed.is_empty() && gone.refused[0].1.contains("not in the queue"), "{gone:?}");
    }
    assert_eq!(running.stop(DEADLINE), StopResult::Clean);
}

#[test]
fn a_message_that_a_command_reported_as_removed_is_never_delivered() {
    let dir = tempfile::tempdir().unwrap();
    let (handle, opened) = opened(dir.path(), Arc::new(SystemDisk)).unwrap();
    let (parts, delivered, gate) = delivery_parts(&handle);
    drop(gate);
    let running = opened.start(parts).unwrap();
    let operator = running.queue_control();
    let mut removed = Vec::new();
    std::thread::scope(|scope| {
        let putting = scope.spawn(|| {
            for n in 0..300 {
                put(&handle, &format!("cy@there{}.example", n % 7)).unwrap();
            }
        });
        while !putting.is_finished() {
            removed.extend(operator.change(Selection::default(), remove()).changed);
        }
    });
    assert!(running.stop(DEADLINE) == StopResult::Clean || handle.count() > 0);
    let seen: Vec<_> = delivered.try_iter().collect();
    assert!(removed.iter().all(|id| !seen.contains(id)), "removed and delivered");
}

/// Does not answer for one domain, and delivers to all others.
struct PartlyUnresponsiveCourier {
    gate: Receiver<()>,
    delivered: Sender<MessageId>,
}

impl Courier for PartlyUnresponsiveCourier {
    fn name(&self) -> &'static str {
        "partly-unresponsive"
    }
    fn profile(&self) -> CourierProfile {
        CourierProfile::REMOTE
    }
    fn attempt(&self, delivery: &Delivery<'_>) -> Vec<Outcome> {
        let outcome = if delivery.recipients[0].final_mailbox().domain.as_ascii() == "silent.example" {
            let _ = self.gate.recv();
            Outcome::Deferred(Reason::new(4, 2, "timed out").with_destination_scope())
        } else {
            let _ = self.delivered.send(delivery.envelope.id);
            Outcome::Delivered(Reason::new(0, 0, "taken"))
        };
        vec![outcome; delivery.recipients.len()]
    }
}

#[test]
fn a_destination_that_does_not_answer_delays_no_other() {
    let dir = tempfile::tempdir().unwrap();
    let (handle, opened) = opened(dir.path(), Arc::new(SystemDisk)).unwrap();
    let (sender, delivered) = unbounded();
    let (open, gate) = unbounded();
    let courier = Arc::new(PartlyUnresponsiveCourier { gate, delivered: sender });
    let (mut parts, ..) = delivery_parts(&handle);
    let local = Arc::new(WithProfile(courier.clone(), CourierProfile::MAILBOXES));
    parts.couriers = Couriers { local: local.clone(), program: local, smtp: courier };
    let running = opened.start(parts).unwrap();
    for _ in 0..500 {
        put(&handle, "bo@silent.example").unwrap();
    }
    let mut others = Vec::new();
    for n in 0..50 {
        others.push(put(&handle, &format!("bo@healthy{n}.example")).unwrap());
        others.push(put(&handle, "cy@here.example").unwrap());
    }
    let mut came: Vec<_> = others.iter().map(|_| delivered.recv_timeout(DEADLINE).unwrap()).collect();
    came.sort();
    others.sort();
    assert_eq!(came, others);
    drop(open);
    assert_eq!(running.stop(DEADLINE), StopResult::Clean);
    assert_eq!(handle.count(), 500);
}

/// A panic of the manager ends its process, so this test runs itself as another process.
#[test]
fn a_message_that_makes_the_manager_panic_ends_two_processes_and_not_the_third() {
    const INNER: &str = "POSTRIDER_TEST_PITFALL";
    if let Some(message_file) = std::env::var_os(INNER) {
        return deliver_one_beside(Path::new(&message_file));
    }
    let dir = tempfile::tempdir().unwrap();
    let (handle, opened_queue) = opened(dir.path(), Arc::new(SystemDisk)).unwrap();
    // Too long for the journal, so in a file of its own.
    put_lines(&handle, "bo@here.example", 10_000).unwrap();
    put(&handle, "cy@here.example").unwrap();
    drop((handle, opened_queue));
    let spool = dir.path().join("spool");
    let names = |place: &str| -> Vec<_> {
        std::fs::read_dir(spool.join(place)).unwrap().map(|entry| entry.unwrap().file_name()).collect()
    };
    let waiting = names("waiting");
    let file_name = waiting[0].to_str().unwrap();
    let start = || {
        let name = "a_message_that_makes_the_manager_panic_ends_two_processes_and_not_the_third";
        run_test_alone(module_path!(), name, |command| {
            command.env(INNER, spool.join("waiting").join(file_name)).current_dir(dir.path());
        })
    };
    let (id, _) = file_name.split_once('.').unwrap();
    for times in 1..=2 {
        let ended = start();
        assert_eq!(ended.status.signal(), Some(Signal::SIGABRT as i32), "{ended:?}");
        assert_eq!(
            std::fs::read_to_string(spool.join("crash-loop")).unwrap(),
            format!("{id}\n").repeat(times)
        );
        assert_eq!(names("waiting"), waiting);
    }
    let ended = start();
    assert!(ended.status.success(), "{ended:?}");
    assert_eq!((names("waiting"), names("damaged")), (Vec::new(), waiting));
    assert!(!spool.join("crash-loop").exists());
}

/// Delivers a message while the manager panics over the one in this file, which is in `waiting`.
fn deliver_one_beside(message_file: &Path) {
    let dir = message_file.ancestors().nth(3).unwrap();
    let hidden = message_file.to_owned();
    let disk = WatchedDisk::new(SystemDisk, move |operation, path| {
        assert!((operation, path) != ("open", hidden.as_path()), "a mistake in postrider");
        Ok(())
    });
    let (handle, opened) = opened(dir, Arc::new(disk)).unwrap();
    let (parts, delivered, _gate) = delivery_parts(&handle);
    let running = opened.start(parts).unwrap();
    delivered.recv_timeout(DEADLINE).unwrap();
    assert_eq!(running.stop(DEADLINE), StopResult::Clean);
    assert_eq!(handle.count(), 0);
}
