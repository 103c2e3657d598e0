//! The processes of a server, made from a seed.
//!
//! The first process accepts more messages than the journal keeps, and is killed, so that the next one begins
//! with a sweep. In the following processes sessions, deliveries, operators and reloads run at the same time.
//! Each ends with a stop, a kill or a power cut; the disk may be full for a while, and may damage a message.
//! The last process delivers everything that is left.

use std::io::Read as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use postrider::courier::{Courier, CourierProfile, Delivery};
use postrider::fakes::{Crash, SeededRandom, SimulatedDisk, TestClock, WithProfile};
use postrider::mail::{
    Destination, Domain, Envelope, MessageId, NextHop, Outcome, Reason, Recipient, ReversePath,
};
use postrider::observe::{Metrics, Traces};
use postrider::queue::{
    Couriers, DeliveryParts, GeneratedMail, Handle, QueueChange, QueueControl, QueueParts, Selection,
    Settings, StopResult, WithoutAliases, open_unlocked,
};
use postrider::route::Router;
use postrider::sys::{
    Clock as _, PlainMutex, Random as _, ScheduleEnd, Scheduler, channel, join, scheduling_point, spawn,
};

use super::invariants::InvariantChecker;
use crate::queue_fixture::{MINUTE, QueueFixture, mailbox};

/// The result of one seed.
pub struct ScheduleResult {
    pub steps: u64,
    pub violation: Option<String>,
    pub trace: Vec<String>,
}

/// A scenario under way.
struct Scenario {
    disk: SimulatedDisk,
    clock: Arc<TestClock>,
    checker: Arc<InvariantChecker>,
    random: SeededRandom,
    settings: Settings,
    result: ScheduleResult,
}

const LOCAL_ADDRESSES: [&str; 2] = ["bo@here.example", "cy@here.example"];
const REMOTE_ADDRESSES: [&str; 2] = ["bo@there.example", "cy@elsewhere.example"];
/// A process takes at most so many choices.
const STEPS_MAX: u64 = 60_000;
const SECOND: Duration = Duration::from_secs(1);

pub fn run(seed: u64) -> ScheduleResult {
    let random = SeededRandom::new(seed);
    let settings = Settings {
        journal_message_octets_max: 1000,
        segment_octets: 1500 + 1500 * random.below(2),
        segments_max: 1 + usize::try_from(random.below(2)).unwrap(),
        retry_delays: vec![5 * SECOND, MINUTE],
        local_threads: 1 + usize::try_from(random.below(2)).unwrap(),
        remote_threads: 1,
        ..Settings::default()
    };
    let mut scenario = Scenario {
        disk: SimulatedDisk::default(),
        clock: Arc::default(),
        checker: Arc::default(),
        random,
        settings,
        result: ScheduleResult { steps: 0, violation: None, trace: Vec::new() },
    };
    scenario.accept_and_kill();
    let processes = 1 + scenario.random.below(2);
    for process_number in 1..=usize::try_from(processes).unwrap() {
        scenario.run_process(process_number);
        if scenario.has_violation() {
            return scenario.result;
        }
    }
    scenario.run_last_process();
    scenario.has_violation();
    scenario.result
}

/// After a reload, there.example is local too.
fn router(is_reloaded: bool) -> Router {
    let domains = if is_reloaded { &["here.example", "there.example"][..] } else { &["here.example"] };
    Router::new(domains.iter().map(|domain| Domain::parse(domain).unwrap()))
}

/// Puts a message whose content is unique.
fn put_message(handle: &Handle, checker: &InvariantChecker, random: &SeededRandom) {
    let Ok(mut incoming) = handle.begin() else { return };
    let id = incoming.id();
    let lines = [1, 8, 8, 30][usize::try_from(random.below(4)).unwrap()];
    let message = format!("Subject: {id}\r\n\r\n{}", format!("line of {id}\r\n").repeat(lines)).into_bytes();
    if message.chunks(500).try_for_each(|chunk| incoming.append(chunk)).is_err() {
        return;
    }
    let to: Vec<&str> = match random.below(4) {
        0 => vec![LOCAL_ADDRESSES[0]],
        1 => vec![REMOTE_ADDRESSES[0]],
        2 => vec![LOCAL_ADDRESSES[0], REMOTE_ADDRESSES[1]],
        _ => vec![LOCAL_ADDRESSES[0], LOCAL_ADDRESSES[1], REMOTE_ADDRESSES[0]],
    };
    let recipients = to.iter().map(|to| Recipient::for_mailbox(mailbox(to))).collect();
    let from = ReversePath::Mailbox(mailbox("ana@here.example"));
    let envelope = Envelope::new(id, handle.wall(), from, recipients);
    if incoming.commit(envelope).is_ok() {
        checker.accepted(id, message, to.into_iter().map(str::to_owned).collect());
    }
}

/// Delivers, defers or fails at random.
struct RandomCourier {
    checker: Arc<InvariantChecker>,
    random: PlainMutex<SeededRandom>,
    process_number: usize,
}

impl Courier for RandomCourier {
    fn name(&self) -> &'static str {
        "model"
    }

    fn profile(&self) -> CourierProfile {
        CourierProfile::REMOTE
    }

    fn attempt(&self, delivery: &Delivery<'_>) -> Vec<Outcome> {
        let id = delivery.envelope.id;
        scheduling_point(|| format!("attempt {id}"));
        let mut octets = Vec::new();
        if delivery.message.open().and_then(|mut message| message.read_to_end(&mut octets)).is_err() {
            return vec![Outcome::Deferred(Reason::new(3, 0, "unreadable")); delivery.recipients.len()];
        }
        let is_bounce = delivery.envelope.reverse_path.is_null();
        let is_rerouted = |one: &&Recipient| matches!(one.destination, Destination::Via { .. });
        self.checker.attempt_started(id, &octets, delivery.recipients.iter().all(is_rerouted));
        scheduling_point(|| format!("carry {id}"));
        let outcomes = delivery.recipients.iter().map(|recipient| {
            let to = recipient.to_string();
            match self.random.lock().below(8) {
                0..=2 if !is_bounce => Outcome::Deferred(Reason::new(2, 2, "busy")),
                3 if !is_bounce => {
                    self.checker.failed(id, to);
                    Outcome::Failed(Reason::new(1, 1, "no such mailbox"))
                }
                _ => {
                    if is_bounce {
                        self.checker.bounced(String::from_utf8_lossy(&octets).into_owned());
                    }
                    self.checker.delivered(id, to, self.process_number);
                    Outcome::Delivered(Reason::new(0, 0, "taken"))
                }
            }
        });
        let outcomes = outcomes.collect();
        scheduling_point(|| format!("carried {id}"));
        outcomes
    }
}

/// Some commands of one operator.
fn run_operator_commands(operator: &QueueControl, checker: &InvariantChecker, random: &SeededRandom) {
    for _ in 0..1 + random.below(3) {
        let all = checker.accepted_ids();
        let ids: Vec<MessageId> = match random.below(3) {
            0 => Vec::new(),
            1 => all.into_iter().filter(|_| random.below(2) == 0).collect(),
            _ => all.into_iter().rev().filter(|_| random.below(3) == 0).collect(),
        };
        let host = NextHop::Name { host: Domain::parse("relay.example").unwrap(), port: 25 };
        let change = match random.below(10) {
            0..=3 => QueueChange::Hold,
            4 | 5 => QueueChange::Release,
            6 => QueueChange::Remove { bounce_text: None },
            7 => QueueChange::Remove { bounce_text: Some("removed".to_owned()) },
            8 => QueueChange::Reroute { via: vec![host] },
            _ => QueueChange::Retry,
        };
        let number = checker.command_started(change.clone(), &ids);
        let changed = operator.change(Selection { ids, ..Selection::default() }, change);
        checker.command_finished(number, &changed);
    }
}

/// Damages the envelope of an accepted message that has a file of its own. Not that of a bounce, because a
/// sender would not get it.
fn damage_message(disk: &SimulatedDisk, checker: &InvariantChecker, pick: u64) {
    let accepted = checker.accepted_ids();
    let names = disk.file_paths();
    let waiting = names.iter().filter(|path| path.starts_with("/data/spool/waiting"));
    let files: Vec<(MessageId, usize, &PathBuf)> = waiting
        .filter_map(|path| {
            let (id, octets) = path.file_name()?.to_str()?.split_once('.')?;
            Some((id.parse().ok()?, octets.parse().ok()?, path))
        })
        .filter(|(id, ..)| accepted.contains(id))
        .collect();
    let Some((id, octets, path)) = files.get(usize::try_from(pick).unwrap() % files.len().max(1)) else {
        return;
    };
    checker.damaged(*id);
    disk.damage(path, *octets);
}

impl Scenario {
    fn random_below(&self, end: u64) -> u64 {
        self.random.below(end)
    }

    fn has_violation(&mut self) -> bool {
        self.result.violation = self.checker.violation();
        self.result.violation.is_some()
    }

    /// A process that accepts mail and is killed before it delivers any.
    fn accept_and_kill(&self) {
        let fixture =
            QueueFixture::open(self.disk.clone(), Arc::clone(&self.clock), 1, self.settings.clone());
        let fixture = fixture.unwrap();
        for _ in 0..self.random_below(12) {
            put_message(&fixture.handle, &self.checker, &self.random);
        }
        self.disk.crash(Crash::ProcessKilled);
        self.checker.process_ended(0, false);
    }

    /// A process with all its threads.
    fn run_process(&mut self, process_number: usize) {
        let scheduler = Scheduler::new(self.random.bits());
        let (now, then) = (Arc::clone(&self.clock), Arc::clone(&self.clock));
        scheduler.set_clock(move || now.now(), move |by| then.advance(by));
        scheduler.set_steps_max(STEPS_MAX);
        let stopped = Arc::<PlainMutex<Option<StopResult>>>::default();
        let main = self.main_thread(process_number, &scheduler, &stopped);
        scheduler.spawn("main", main).unwrap();
        self.schedule_faults(&scheduler);
        let end = scheduler.run();
        self.result.steps += scheduler.steps();
        self.result.trace.push(format!("process {process_number}"));
        self.result.trace.extend(scheduler.trace());
        match end {
            ScheduleEnd::AllFinished | ScheduleEnd::Killed => {}
            other => self.checker.report_violation(format!("{other:?}")),
        }
        let is_clean = *stopped.lock() == Some(StopResult::Clean);
        self.checker.process_ended(process_number, is_clean);
        self.disk.crash(match self.random_below(3) {
            0 => Crash::ProcessKilled,
            1 => Crash::UnsyncedLost,
            _ => Crash::UnsyncedTorn(self.random.bits()),
        });
    }

    /// The main thread of a process: it starts the queue, accepts mail, runs commands, and stops.
    fn main_thread(
        &self,
        process_number: usize,
        scheduler: &Scheduler,
        stopped: &Arc<PlainMutex<Option<StopResult>>>,
    ) -> impl FnOnce() + Send + 'static {
        let parts = QueueParts {
            disk: Arc::new(self.disk.clone()),
            data_dir: PathBuf::from("/data"),
            clock: self.clock.clone(),
            random: Arc::new(SeededRandom::new(self.random.bits())),
            metrics: Arc::new(Metrics::default()),
            settings: self.settings.clone(),
        };
        let (checker, clock, disk) = (Arc::clone(&self.checker), self.clock.clone(), self.disk.clone());
        let (scheduler, stopped) = (scheduler.clone(), Arc::clone(stopped));
        let seeds: Vec<u64> = (0..8).map(|_| self.random.bits()).collect();
        let sessions = usize::try_from(self.random_below(3)).unwrap();
        let operators = usize::try_from(self.random_below(3)).unwrap();
        let reloads = self.random_below(3);
        let patience = Duration::from_secs(self.random_below(40));
        move || {
            // The process was killed at the start.
            let Ok((handle, opened)) = open_unlocked(parts) else { return };
            let random = |n: usize| SeededRandom::new(seeds[n]);
            let courier: Arc<dyn Courier> = Arc::new(RandomCourier {
                checker: Arc::clone(&checker),
                random: PlainMutex::new(random(0)),
                process_number,
            });
            let local = Arc::new(WithProfile(Arc::clone(&courier), CourierProfile::MAILBOXES));
            let couriers = Couriers { local: local.clone(), program: local, smtp: Arc::clone(&courier) };
            check_restored_queue(&checker, &handle);
            let routes = Arc::new(ArcSwap::from_pointee(router(false)));
            let parts = DeliveryParts {
                router: Arc::clone(&routes),
                couriers,
                generated_mail: GeneratedMail::new(handle.clone(), Arc::new(WithoutAliases)),
                traces: Traces::new(clock),
                hostname: Domain::parse("mail.here.example").unwrap(),
            };
            let running = opened.start(parts).unwrap();
            let mut threads = Vec::new();
            for n in 0..sessions {
                let (handle, checker, random) = (handle.clone(), Arc::clone(&checker), random(1 + n));
                let session =
                    move || (0..1 + random.below(4)).for_each(|_| put_message(&handle, &checker, &random));
                threads.push(spawn(format!("session-{n}"), session).unwrap());
            }
            for n in 0..operators {
                let (operator, checker, random) =
                    (running.queue_control(), Arc::clone(&checker), random(4 + n));
                threads.push(
                    spawn(format!("operator-{n}"), move || {
                        run_operator_commands(&operator, &checker, &random)
                    })
                    .unwrap(),
                );
            }
            let reload = move || {
                for n in 0..reloads {
                    scheduling_point(|| "reload".to_owned());
                    routes.store(Arc::new(router(n % 2 == 0)));
                }
            };
            threads.push(spawn("reload", reload).unwrap());
            threads.into_iter().for_each(|thread| drop(join(thread)));
            // Time for some retries and sweeps.
            let (_never, nothing) = channel::<()>();
            let _ = nothing.recv_timeout(patience);
            *stopped.lock() = Some(running.stop(MINUTE));
            // The process ends, whatever its other threads do.
            disk.stop_after(0);
            scheduler.kill();
        }
    }

    /// The disk is full for a while, or damages a message; the process is killed.
    fn schedule_faults(&self, scheduler: &Scheduler) {
        if self.random_below(3) == 0 {
            let full = self.random_below(1500);
            let [fills, empties] = [self.disk.clone(), self.disk.clone()];
            scheduler.at_step(full, move || fills.set_full(true));
            scheduler.at_step(full + self.random_below(600), move || empties.set_full(false));
        }
        if self.random_below(4) == 0 {
            let (disk, checker, pick) =
                (self.disk.clone(), Arc::clone(&self.checker), self.random_below(1000));
            scheduler.at_step(self.random_below(2000), move || damage_message(&disk, &checker, pick));
        }
        if self.random_below(2) == 0 {
            let (disk, theirs) = (self.disk.clone(), scheduler.clone());
            scheduler.at_step(self.random_below(3000), move || {
                disk.stop_after(0);
                theirs.kill();
            });
        }
    }

    /// Delivers everything that is left.
    fn run_last_process(&mut self) {
        let fixture = QueueFixture::open(
            self.disk.clone(),
            Arc::clone(&self.clock),
            self.random.bits(),
            self.settings.clone(),
        );
        let mut fixture = match fixture {
            Ok(fixture) => fixture,
            Err(e) => return self.checker.report_violation(format!("the spool does not open: {e}")),
        };
        check_restored_queue(&self.checker, &fixture.handle);
        fixture.stepped.run();
        fixture.run_command(Selection { is_held: true, ..Selection::default() }, QueueChange::Release);
        let release = self.checker.command_started(QueueChange::Release, &[]);
        self.checker.command_finished(release, &postrider::queue::ChangeResult::default());
        fixture.run_for(10 * MINUTE);
        if fixture.queue_length() > 0 {
            self.checker.report_violation(format!("{} messages do not leave", fixture.queue_length()));
        }
        for one in fixture.attempts() {
            if one.envelope.reverse_path.is_null() {
                self.checker.bounced(String::from_utf8_lossy(&one.octets).into_owned());
            }
            self.checker.delivered(one.envelope.id, one.recipient, usize::MAX);
        }
        self.checker.assert_all_settled();
    }
}

/// Checks after a start that confirmed changes hold.
fn check_restored_queue(checker: &InvariantChecker, handle: &Handle) {
    checker.process_started(|id| {
        let view = handle.message(id)?;
        let waiting = view.recipients.iter().filter(|one| !one.state.is_settled());
        let is_rerouted =
            waiting.clone().all(|one| matches!(one.recipient.destination, Destination::Via { .. }));
        Some((view.is_held, is_rerouted))
    });
}
