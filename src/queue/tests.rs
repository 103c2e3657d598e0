//! How the pools of delivery threads are shared, in simulated time.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::Read as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;

use super::manager_event::ManagerEvent;
use super::{
    AttemptJob, Couriers, DeliveryParts, GeneratedMail, Handle, QueueParts, Settings, SteppedQueue,
    WithoutAliases, open_unlocked,
};
use crate::courier::{Courier, CourierProfile, Delivery, DeliveryPool};
use crate::fakes::{Crash, SeededRandom, SimulatedDisk, TestClock, WithProfile};
use crate::mail::{Domain, Envelope, Mailbox, MessageId, Outcome, Reason, Recipient, ReversePath};
use crate::observe::{Metrics, Traces};
use crate::route::Router;
use crate::sys::{Clock, Moment, Mutex};

/// An attempt at a peer that does not answer takes this long.
const UNANSWERED: Duration = Duration::from_secs(300);
const REMOTE: Duration = Duration::from_millis(200);
const LOCAL: Duration = Duration::from_millis(10);

/// The courier for all destinations.
#[derive(Default)]
struct SimulatedDestinations {
    clock: Arc<TestClock>,
    /// Domains that accept connections and do not answer.
    unresponsive_domains: Mutex<BTreeSet<String>>,
    delivered: Mutex<HashMap<MessageId, Moment>>,
    unanswered_attempts: Mutex<BTreeMap<String, usize>>,
    /// Texts of the bounces that were delivered.
    bounces: Mutex<Vec<String>>,
}

impl Courier for SimulatedDestinations {
    fn name(&self) -> &'static str {
        "simulated"
    }

    fn profile(&self) -> CourierProfile {
        CourierProfile::REMOTE
    }

    fn attempt(&self, delivery: &Delivery<'_>) -> Vec<Outcome> {
        let domain = delivery.recipients[0].final_mailbox().domain.as_ascii();
        let outcome = if self.unresponsive_domains.lock().contains(domain) {
            *self.unanswered_attempts.lock().entry(domain.to_owned()).or_default() += 1;
            Outcome::Deferred(Reason::new(4, 2, "timed out").with_destination_scope())
        } else {
            self.delivered.lock().insert(delivery.envelope.id, self.clock.now());
            if delivery.envelope.reverse_path.is_null() {
                let mut text = String::new();
                delivery.message.open().unwrap().read_to_string(&mut text).unwrap();
                self.bounces.lock().push(text);
            }
            Outcome::Delivered(Reason::new(0, 0, "accepted"))
        };
        vec![outcome; delivery.recipients.len()]
    }
}

/// A queue whose delivery threads take simulated time.
struct TestQueue {
    destinations: Arc<SimulatedDestinations>,
    handle: Handle,
    stepped: SteppedQueue,
    /// Attempts under way, by when they end.
    under_way: BTreeMap<(Moment, u64), AttemptJob>,
    jobs: u64,
    put_at: HashMap<MessageId, Moment>,
}

impl TestQueue {
    fn new() -> Self {
        // The simulated disk copies what it syncs: short segments.
        let settings = Settings { segment_octets: 50_000, segments_max: 100, ..Settings::default() };
        Self::open(Arc::default(), SimulatedDisk::default(), settings, 1)
    }

    /// Another process with the same disk and destinations.
    fn open(
        destinations: Arc<SimulatedDestinations>,
        disk: SimulatedDisk,
        settings: Settings,
        seed: u64,
    ) -> Self {
        let (handle, opened) = open_unlocked(QueueParts {
            disk: Arc::new(disk),
            data_dir: PathBuf::from("/data"),
            clock: Arc::clone(&destinations.clock) as Arc<dyn Clock>,
            random: Arc::new(SeededRandom::new(seed)),
            metrics: Arc::new(Metrics::default()),
            settings,
        })
        .unwrap();
        let courier = || Arc::clone(&destinations) as Arc<dyn Courier>;
        let stepped = opened.into_stepped(DeliveryParts {
            router: Arc::new(ArcSwap::from_pointee(Router::new([Domain::parse("here.example").unwrap()]))),
            couriers: Couriers {
                local: Arc::new(WithProfile(courier(), CourierProfile::MAILBOXES)),
                program: Arc::new(WithProfile(courier(), CourierProfile::PROGRAMS)),
                smtp: courier(),
            },
            generated_mail: GeneratedMail::new(handle.clone(), Arc::new(WithoutAliases)),
            traces: Traces::new(Arc::clone(&destinations.clock) as Arc<dyn Clock>),
            hostname: Domain::parse("mail.here.example").unwrap(),
        });
        let (under_way, came) = (BTreeMap::new(), HashMap::new());
        Self { destinations, handle, stepped, under_way, jobs: 0, put_at: came }
    }

    fn put(&mut self, from: &str, to: &str) -> MessageId {
        self.put_with(from, to, |_| {})
    }

    fn put_with(&mut self, from: &str, to: &str, edit: impl FnOnce(&mut Envelope)) -> MessageId {
        let mut incoming = self.handle.begin().unwrap();
        incoming.append(b"Subject: hello\r\n\r\n").unwrap();
        let id = incoming.id();
        let recipients =
            to.split(' ').map(|to| Recipient::for_mailbox(Mailbox::parse(to).unwrap())).collect();
        let from = ReversePath::Mailbox(Mailbox::parse(from).unwrap());
        let mut envelope = Envelope::new(id, self.handle.wall(), from, recipients);
        edit(&mut envelope);
        incoming.commit(envelope).unwrap();
        self.put_at.insert(id, self.destinations.clock.now());
        id
    }

    fn attempt_duration(&self, job: &AttemptJob) -> Duration {
        match job.pool() {
            _ if job.skip_reason.is_some() => Duration::from_millis(1),
            DeliveryPool::Local => LOCAL,
            DeliveryPool::Remote => {
                let domain = job.route.destination.to_string();
                if self.destinations.unresponsive_domains.lock().contains(&domain) {
                    UNANSWERED
                } else {
                    REMOTE
                }
            }
        }
    }

    /// Lets time pass, and runs the attempts.
    fn run(&mut self, time: Duration) {
        let end = self.destinations.clock.now() + time;
        loop {
            let now = self.destinations.clock.now();
            while let Some(job) = self.under_way.first_entry().filter(|entry| entry.key().0 <= now) {
                let job = job.remove();
                let summary = self.stepped.attempt_runner.run(&job);
                self.stepped.manager.handle_event(ManagerEvent::AttemptFinished(job.into_result(summary)));
            }
            while let Ok(event) = self.stepped.events.try_recv() {
                self.stepped.manager.handle_event(event);
            }
            self.stepped.manager.tick();
            for (pool, threads) in [(DeliveryPool::Local, 4), (DeliveryPool::Remote, 16)] {
                while self.under_way.values().filter(|job| job.pool() == pool).count() < threads
                    && let Some(job) = self.stepped.manager.next_job(pool)
                {
                    self.jobs += 1;
                    self.under_way.insert((now + self.attempt_duration(&job), self.jobs), job);
                }
            }
            self.stepped.manager.run_maintenance();
            let next = self.under_way.first_key_value().map(|((end, _), _)| *end);
            let idle =
                self.stepped.manager.time_until_work().map(|idle| now + idle.max(Duration::from_millis(1)));
            let next = next.into_iter().chain(idle).min().unwrap_or(end).min(end);
            if now >= end {
                return;
            }
            self.destinations.clock.advance(next.since(now));
        }
    }

    fn latency(&self, id: MessageId) -> Option<Duration> {
        Some(self.destinations.delivered.lock().get(&id)?.since(*self.put_at.get(&id)?))
    }

    fn set_unresponsive(&self, domain: &str, is_unresponsive: bool) {
        let mut unresponsive = self.destinations.unresponsive_domains.lock();
        if is_unresponsive {
            unresponsive.insert(domain.to_owned())
        } else {
            unresponsive.remove(domain)
        };
    }

    fn unanswered_attempts(&self, domain: &str) -> usize {
        self.destinations.unanswered_attempts.lock().get(domain).copied().unwrap_or(0)
    }
}

/// Mail to fifty healthy destinations and to local users, one of each in every second.
fn put_usual_mail(queue: &mut TestQueue, seconds: usize) -> Vec<MessageId> {
    let mut ids = Vec::new();
    for second in 0..seconds {
        ids.push(queue.put("ana@here.example", &format!("bo@healthy{}.example", second % 50)));
        ids.push(queue.put("ana@here.example", "cy@here.example"));
        queue.run(Duration::from_secs(1));
    }
    ids
}

fn slowest(queue: &TestQueue, ids: &[MessageId]) -> Duration {
    ids.iter().map(|id| queue.latency(*id).unwrap_or(Duration::MAX)).max().unwrap()
}

#[test]
fn thousands_of_messages_to_a_destination_that_does_not_answer_delay_no_other_mail() {
    let mut queue = TestQueue::new();
    queue.set_unresponsive("silent.example", true);
    let backlog: Vec<_> = (0..5000).map(|_| queue.put("list@here.example", "bo@silent.example")).collect();
    let usual = put_usual_mail(&mut queue, 900);
    assert!(slowest(&queue, &usual) <= REMOTE, "{:?}", slowest(&queue, &usual));
    let attempts = queue.unanswered_attempts("silent.example");
    assert!((1..=3).contains(&attempts), "a few probes for all messages, not {attempts}");

    queue.set_unresponsive("silent.example", false);
    let usual = put_usual_mail(&mut queue, 900);
    assert!(slowest(&queue, &usual) <= REMOTE, "{:?}", slowest(&queue, &usual));
    assert!(backlog.iter().all(|id| queue.latency(*id).is_some()), "the destination got its mail");
}

#[test]
fn many_destinations_that_do_not_answer_do_not_occupy_the_pool() {
    let mut queue = TestQueue::new();
    put_usual_mail(&mut queue, 50);
    for n in 0..5000 {
        queue.set_unresponsive(&format!("silent{}.example", n % 40), true);
        queue.put("list@here.example", &format!("bo@silent{}.example", n % 40));
    }
    let usual = put_usual_mail(&mut queue, 900);
    assert!(slowest(&queue, &usual) <= REMOTE, "{:?}", slowest(&queue, &usual));
}

#[test]
fn a_recipient_is_tried_again_at_its_own_time_while_another_does_not_answer() {
    let mut queue = TestQueue::new();
    queue.set_unresponsive("silent.example", true);
    queue.set_unresponsive("greylisting.example", true);
    let id = queue.put("ana@here.example", "bo@silent.example cy@here.example dee@greylisting.example");
    queue.run(UNANSWERED + Duration::from_secs(1));
    queue.set_unresponsive("greylisting.example", false);
    queue.run(Duration::from_secs(70));
    assert_eq!(queue.unanswered_attempts("greylisting.example"), 1);
    // Of the last one: it came with the first retry, and not when the other's attempt was over.
    let latency = queue.latency(id).unwrap();
    assert!(latency > UNANSWERED && latency < UNANSWERED + Duration::from_secs(62), "{latency:?}");
}

#[test]
fn mail_that_waits_for_a_probe_expires_at_its_time() {
    let mut queue = TestQueue::new();
    queue.set_unresponsive("silent.example", true);
    for _ in 0..20 {
        queue.put("ana@here.example", "bo@silent.example");
    }
    queue.run(Duration::from_secs(5 * 24 * 3600 - 3600));
    assert_eq!(queue.handle.count(), 20);
    queue.run(Duration::from_secs(2 * 3600));
    assert_eq!(queue.handle.count(), 0, "given up");
    let attempts = queue.unanswered_attempts("silent.example");
    assert!(attempts < 700, "{attempts} attempts in five days, and not twenty times as many");
}

#[test]
fn processes_that_end_before_an_attempt_does_report_and_give_up_in_time() {
    const LIFE: Duration = Duration::from_secs(47);
    let (destinations, disk) = (Arc::<SimulatedDestinations>::default(), SimulatedDisk::default());
    let settings = Settings {
        lifetime: Duration::from_secs(120),
        delay_warning: Duration::from_secs(30),
        retry_delays: vec![Duration::from_secs(60)],
        segment_octets: 50_000,
        ..Settings::default()
    };
    let open = |seed| TestQueue::open(Arc::clone(&destinations), disk.clone(), settings.clone(), seed);
    destinations.unresponsive_domains.lock().extend((0..30).map(|n| format!("silent{n}.example")));
    let mut queue = open(1);
    for n in 0..300 {
        queue.put_with("ana@here.example", &format!("bo@silent{}.example", n % 30), |envelope| {
            envelope.authenticated_user = Some(Mailbox::parse("ana@here.example").unwrap());
        });
    }
    let count = |what: &str| destinations.bounces.lock().iter().filter(|text| text.contains(what)).count();
    let mut history = Vec::new();
    for seed in 2..8 {
        queue.run(LIFE);
        history.push((count("Action: delayed"), count("Status: 4.4.7")));
        drop(queue);
        disk.crash(Crash::ProcessKilled);
        queue = open(seed);
    }
    // The third process finds what the second was to report, the fifth what the fourth was to give up.
    assert_eq!(history, [(0, 0), (0, 0), (300, 0), (300, 0), (300, 300), (300, 300)]);
    assert_eq!(queue.handle.count(), 0);
    assert!(destinations.unanswered_attempts.lock().is_empty(), "no attempt came to an end");
}
