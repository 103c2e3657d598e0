//! Lives of a server, made from a seed.
//!
//! Some messages are promised first, more than the journal keeps, and the process is killed: so the next life
//! begins with a sweep. In the lives that follow sessions, deliveries, operators and reloads act at once, and
//! each ends by a stop, a kill or a power cut; the disk may be full for a while, and may damage a message. The
//! last life has time for all that is left.

use std::io::Read as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use postrider::courier::{Courier, Delivery};
use postrider::fakes::{Crash, SeededRandom, SimulatedDisk, TestClock};
use postrider::mail::{
    Destination, Domain, Envelope, Mailbox, MessageId, NextHop, Outcome, Reason, Recipient, ReversePath,
};
use postrider::observe::{Metrics, Traces};
use postrider::queue::{
    Change, Couriers, Crew, Direct, Handle, Operator, Selection, Settings, SpoolParts, Stopped, open_unlocked,
};
use postrider::route::Router;
use postrider::sys::{
    Clock as _, PlainMutex, Random as _, ScheduleEnd, Scheduler, channel, choice_point, join, spawn,
};

use super::record::Record;
use crate::post_office::{MINUTE, PostOffice};

/// What came of one seed.
pub struct Ran {
    pub steps: u64,
    pub wrong: Option<String>,
    pub trace: Vec<String>,
}

/// A scenario under way.
struct World {
    disk: SimulatedDisk,
    clock: Arc<TestClock>,
    record: Arc<Record>,
    dice: SeededRandom,
    settings: Settings,
    ran: Ran,
}

const LOCAL: [&str; 2] = ["bo@here.example", "cy@here.example"];
const REMOTE: [&str; 2] = ["bo@there.example", "cy@elsewhere.example"];
/// No life takes more choices.
const STEPS_MAX: u64 = 60_000;
const SECOND: Duration = Duration::from_secs(1);

pub fn run(seed: u64) -> Ran {
    let dice = SeededRandom::new(seed);
    let settings = Settings {
        small_octets_max: 1000,
        segment_octets: 1500 + 1500 * dice.below(2),
        segments_max: 1 + usize::try_from(dice.below(2)).unwrap(),
        retry: vec![5 * SECOND, MINUTE],
        deliver_local: 1 + usize::try_from(dice.below(2)).unwrap(),
        deliver_remote: 1,
        ..Settings::default()
    };
    let mut world = World {
        disk: SimulatedDisk::default(),
        clock: Arc::default(),
        record: Arc::default(),
        dice,
        settings,
        ran: Ran { steps: 0, wrong: None, trace: Vec::new() },
    };
    world.promise_some();
    let lives = 1 + world.dice.below(2);
    for life in 1..=usize::try_from(lives).unwrap() {
        world.live(life);
        if world.is_over() {
            return world.ran;
        }
    }
    world.last_life();
    world.is_over();
    world.ran
}

fn mailbox(raw: &str) -> Mailbox {
    Mailbox::parse(raw).unwrap()
}

/// After a reload, there.example is a local domain too.
fn router(is_reloaded: bool) -> Router {
    let domains = if is_reloaded { &["here.example", "there.example"][..] } else { &["here.example"] };
    Router::new(domains.iter().map(|domain| Domain::parse(domain).unwrap()))
}

/// Puts a message unlike any other.
fn put(handle: &Handle, record: &Record, dice: &SeededRandom) {
    let Ok(mut incoming) = handle.begin() else { return };
    let id = incoming.id();
    let lines = [1, 8, 8, 30][usize::try_from(dice.below(4)).unwrap()];
    let letter = format!("Subject: {id}\r\n\r\n{}", format!("line of {id}\r\n").repeat(lines)).into_bytes();
    if letter.chunks(500).try_for_each(|chunk| incoming.append(chunk)).is_err() {
        return;
    }
    let to: Vec<&str> = match dice.below(4) {
        0 => vec![LOCAL[0]],
        1 => vec![REMOTE[0]],
        2 => vec![LOCAL[0], REMOTE[1]],
        _ => vec![LOCAL[0], LOCAL[1], REMOTE[0]],
    };
    let recipients = to.iter().map(|to| Recipient::mailbox(mailbox(to))).collect();
    let from = ReversePath::Mailbox(mailbox("ana@here.example"));
    let envelope = Envelope::new(id, handle.wall(), from, recipients);
    if incoming.commit(envelope).is_ok() {
        record.promised(id, letter, to.into_iter().map(str::to_owned).collect());
    }
}

/// Delivers, defers or fails as its dice say.
struct Hops {
    record: Arc<Record>,
    dice: PlainMutex<SeededRandom>,
    life: usize,
}

impl Courier for Hops {
    fn name(&self) -> &'static str {
        "model"
    }

    fn carry(&self, delivery: &Delivery<'_>) -> Vec<Outcome> {
        let id = delivery.envelope.id;
        choice_point(|| format!("attempt {id}"));
        let mut octets = Vec::new();
        if delivery.message.open().and_then(|mut message| message.read_to_end(&mut octets)).is_err() {
            return vec![Outcome::Deferred(Reason::new(3, 0, "unreadable")); delivery.recipients.len()];
        }
        let is_bounce = delivery.envelope.reverse_path.is_null();
        let is_rerouted = |one: &&Recipient| matches!(one.destination, Destination::Via { .. });
        self.record.attempt_begins(id, &octets, delivery.recipients.iter().all(is_rerouted));
        choice_point(|| format!("carry {id}"));
        let outcomes = delivery.recipients.iter().map(|recipient| {
            let to = recipient.to_string();
            match self.dice.lock().below(8) {
                0..=2 if !is_bounce => Outcome::Deferred(Reason::new(2, 2, "busy")),
                3 if !is_bounce => {
                    self.record.failed(id, to);
                    Outcome::Failed(Reason::new(1, 1, "no such mailbox"))
                }
                _ => {
                    if is_bounce {
                        self.record.bounced(String::from_utf8_lossy(&octets).into_owned());
                    }
                    self.record.delivered(id, to, self.life);
                    Outcome::Delivered(Reason::new(0, 0, "taken"))
                }
            }
        });
        let outcomes = outcomes.collect();
        choice_point(|| format!("carried {id}"));
        outcomes
    }
}

/// Some commands of one operator.
fn operate(operator: &Operator, record: &Record, dice: &SeededRandom) {
    for _ in 0..1 + dice.below(3) {
        let all = record.ids();
        let ids: Vec<MessageId> = match dice.below(3) {
            0 => Vec::new(),
            1 => all.into_iter().filter(|_| dice.below(2) == 0).collect(),
            _ => all.into_iter().rev().filter(|_| dice.below(3) == 0).collect(),
        };
        let host = NextHop::Name { host: Domain::parse("relay.example").unwrap(), port: 25 };
        let change = match dice.below(10) {
            0..=3 => Change::Hold,
            4 | 5 => Change::Release,
            6 => Change::Remove { report: None },
            7 => Change::Remove { report: Some("removed".to_owned()) },
            8 => Change::Reroute { via: vec![host] },
            _ => Change::Retry,
        };
        let number = record.command_begins(change.clone(), &ids);
        let changed = operator.change(Selection { ids, ..Selection::default() }, change);
        record.command_ends(number, &changed);
    }
}

/// The envelope of a promised message that has a file of its own cannot be read any more. Not that of a
/// bounce: whoever is told by it would hear nothing.
fn damage_one(disk: &SimulatedDisk, record: &Record, pick: u64) {
    let promised = record.ids();
    let names = disk.names();
    let waiting = names.iter().filter(|path| path.starts_with("/data/spool/waiting"));
    let files: Vec<(MessageId, usize, &PathBuf)> = waiting
        .filter_map(|path| {
            let (id, octets) = path.file_name()?.to_str()?.split_once('.')?;
            Some((id.parse().ok()?, octets.parse().ok()?, path))
        })
        .filter(|(id, ..)| promised.contains(id))
        .collect();
    let Some((id, octets, path)) = files.get(usize::try_from(pick).unwrap() % files.len().max(1)) else {
        return;
    };
    record.damaged(*id);
    disk.damage(path, *octets);
}

impl World {
    fn below(&self, end: u64) -> u64 {
        self.dice.below(end)
    }

    fn is_over(&mut self) -> bool {
        self.ran.wrong = self.record.wrong();
        self.ran.wrong.is_some()
    }

    /// A process that takes mail and is killed before it delivers any.
    fn promise_some(&self) {
        let office = PostOffice::open(self.disk.clone(), Arc::clone(&self.clock), 1, self.settings.clone());
        let office = office.unwrap();
        for _ in 0..self.below(12) {
            put(&office.handle, &self.record, &self.dice);
        }
        self.disk.crash(Crash::Killed);
        self.record.life_ends(0, false);
    }

    /// A process with all its threads.
    fn live(&mut self, life: usize) {
        let scheduler = Scheduler::new(self.dice.bits());
        let (now, then) = (Arc::clone(&self.clock), Arc::clone(&self.clock));
        scheduler.set_clock(move || now.now(), move |by| then.advance(by));
        scheduler.limit(STEPS_MAX);
        let stopped = Arc::<PlainMutex<Option<Stopped>>>::default();
        let main = self.main(life, &scheduler, &stopped);
        scheduler.spawn("main", main).unwrap();
        self.disturb(&scheduler);
        let end = scheduler.run();
        self.ran.steps += scheduler.steps();
        self.ran.trace.push(format!("life {life}"));
        self.ran.trace.extend(scheduler.trace());
        match end {
            ScheduleEnd::AllOver | ScheduleEnd::Killed => {}
            other => self.record.complain(format!("{other:?}")),
        }
        let is_clean = *stopped.lock() == Some(Stopped::Clean);
        self.record.life_ends(life, is_clean);
        self.disk.crash(match self.below(3) {
            0 => Crash::Killed,
            1 => Crash::Dropped,
            _ => Crash::Torn(self.dice.bits()),
        });
    }

    /// What the main thread of a process does: it starts the queue, takes mail, hears operators, and stops.
    fn main(
        &self,
        life: usize,
        scheduler: &Scheduler,
        stopped: &Arc<PlainMutex<Option<Stopped>>>,
    ) -> impl FnOnce() + Send + 'static {
        let parts = SpoolParts {
            disk: Arc::new(self.disk.clone()),
            data_dir: PathBuf::from("/data"),
            clock: self.clock.clone(),
            random: Arc::new(SeededRandom::new(self.dice.bits())),
            metrics: Arc::new(Metrics::default()),
            settings: self.settings.clone(),
        };
        let (record, clock, disk) = (Arc::clone(&self.record), self.clock.clone(), self.disk.clone());
        let (scheduler, stopped) = (scheduler.clone(), Arc::clone(stopped));
        let seeds: Vec<u64> = (0..8).map(|_| self.dice.bits()).collect();
        let sessions = usize::try_from(self.below(3)).unwrap();
        let operators = usize::try_from(self.below(3)).unwrap();
        let reloads = self.below(3);
        let patience = Duration::from_secs(self.below(40));
        move || {
            // A kill at the start.
            let Ok((handle, opened)) = open_unlocked(parts) else { return };
            let dice = |n: usize| SeededRandom::new(seeds[n]);
            let hops: Arc<dyn Courier> =
                Arc::new(Hops { record: Arc::clone(&record), dice: PlainMutex::new(dice(0)), life });
            let couriers =
                Couriers { local: Arc::clone(&hops), program: Arc::clone(&hops), smtp: Arc::clone(&hops) };
            look_at_all(&record, &handle);
            let routes = Arc::new(ArcSwap::from_pointee(router(false)));
            let crew = Crew {
                router: Arc::clone(&routes),
                couriers,
                own_mail: Arc::new(Direct(handle.clone())),
                traces: Traces::new(clock),
                hostname: Domain::parse("mail.here.example").unwrap(),
            };
            let running = opened.start(crew).unwrap();
            let mut threads = Vec::new();
            for n in 0..sessions {
                let (handle, record, dice) = (handle.clone(), Arc::clone(&record), dice(1 + n));
                let session = move || (0..1 + dice.below(4)).for_each(|_| put(&handle, &record, &dice));
                threads.push(spawn(format!("session-{n}"), session).unwrap());
            }
            for n in 0..operators {
                let (operator, record, dice) = (running.operator(), Arc::clone(&record), dice(4 + n));
                threads.push(
                    spawn(format!("operator-{n}"), move || operate(&operator, &record, &dice)).unwrap(),
                );
            }
            let reload = move || {
                for n in 0..reloads {
                    choice_point(|| "reload".to_owned());
                    routes.store(Arc::new(router(n % 2 == 0)));
                }
            };
            threads.push(spawn("reload", reload).unwrap());
            threads.into_iter().for_each(|thread| drop(join(thread)));
            // Some retries and sweeps.
            let (_never, nothing) = channel::<()>();
            let _ = nothing.recv_timeout(patience);
            *stopped.lock() = Some(running.stop(MINUTE));
            // The process ends, whatever else goes on.
            disk.stop_after(0);
            scheduler.kill();
        }
    }

    /// The disk is full for a while, or damages a message; the process is killed.
    fn disturb(&self, scheduler: &Scheduler) {
        if self.below(3) == 0 {
            let full = self.below(1500);
            let [fills, empties] = [self.disk.clone(), self.disk.clone()];
            scheduler.at(full, move || fills.set_full(true));
            scheduler.at(full + self.below(600), move || empties.set_full(false));
        }
        if self.below(4) == 0 {
            let (disk, record, pick) = (self.disk.clone(), Arc::clone(&self.record), self.below(1000));
            scheduler.at(self.below(2000), move || damage_one(&disk, &record, pick));
        }
        if self.below(2) == 0 {
            let (disk, theirs) = (self.disk.clone(), scheduler.clone());
            scheduler.at(self.below(3000), move || {
                disk.stop_after(0);
                theirs.kill();
            });
        }
    }

    /// Everything that is left leaves.
    fn last_life(&mut self) {
        let office = PostOffice::open(
            self.disk.clone(),
            Arc::clone(&self.clock),
            self.dice.bits(),
            self.settings.clone(),
        );
        let mut office = match office {
            Ok(office) => office,
            Err(e) => return self.record.complain(format!("the spool does not open: {e}")),
        };
        look_at_all(&self.record, &office.handle);
        office.stepped.run();
        office.command(Selection { held: true, ..Selection::default() }, Change::Release);
        let release = self.record.command_begins(Change::Release, &[]);
        self.record.command_ends(release, &postrider::queue::Changed::default());
        office.after(10 * MINUTE);
        if office.waiting() > 0 {
            self.record.complain(format!("{} messages do not leave", office.waiting()));
        }
        for one in office.carried() {
            if one.envelope.reverse_path.is_null() {
                self.record.bounced(String::from_utf8_lossy(&one.octets).into_owned());
            }
            self.record.delivered(one.envelope.id, one.to, usize::MAX);
        }
        self.record.ends();
    }
}

/// What commands have confirmed is true after a start.
fn look_at_all(record: &Record, handle: &Handle) {
    record.life_begins(|id| {
        let view = handle.view(id)?;
        let waiting = view.recipients.iter().filter(|one| !one.state.is_settled());
        let is_rerouted =
            waiting.clone().all(|one| matches!(one.recipient.destination, Destination::Via { .. }));
        Some((view.is_held, is_rerouted))
    });
}
