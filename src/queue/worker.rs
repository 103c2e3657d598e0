//! The threads of the queue: opening, starting, stopping.
//!
//! A delivery thread takes a job, makes the attempt (`attempt`), and says so to the manager.
//!
//! **Panics.** One in a courier ends the attempt, transiently, and is counted; the thread goes on.
//! One in the manager aborts the process: half a schedule is worse than a restart from the disk.

use std::any::Any;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use arc_swap::ArcSwap;

use super::attempt::{Carriage, Carried};
use super::culprit::Culprits;
use super::destination::Contact;
use super::handle::{Handle, News, Shared};
use super::job::{Active, Job};
use super::manager::Manager;
use super::operator::Operator;
use super::own_mail::OwnMail;
use super::schedule::{Lane, Settings};
use super::spool::{Leases, OpenError, Spool, SpoolParts, Survivor};
use crate::courier::Courier;
use crate::mail::{Domain, printable};
use crate::observe::{Metrics, Traces};
use crate::route::{Carrier, Route, Router};
use crate::sys::{
    FileLock, Moment, Program, Pulse, Receiver, RecvTimeoutError, Sender, catch_panic, channel, join, spawn,
};

/// Who carries.
#[derive(Clone)]
pub struct Couriers {
    /// To mailboxes on this host.
    pub local: Arc<dyn Courier>,
    /// To programs that an alias file names.
    pub program: Arc<dyn Courier>,
    /// To other servers.
    pub smtp: Arc<dyn Courier>,
}

impl Couriers {
    pub(super) fn of(&self, carrier: Carrier) -> &dyn Courier {
        match carrier {
            Carrier::Local => self.local.as_ref(),
            Carrier::Program => self.program.as_ref(),
            Carrier::Smtp => self.smtp.as_ref(),
        }
    }
}

/// What the queue needs to carry mail, beyond the spool.
#[derive(Clone)]
pub struct Crew {
    /// Chooses routes; a reload stores a new one.
    pub router: Arc<ArcSwap<Router>>,
    /// Who carries.
    pub couriers: Couriers,
    /// Where reports go.
    pub own_mail: Arc<dyn OwnMail>,
    /// What attempts did.
    pub traces: Arc<Traces>,
    /// Our name, for reports.
    pub hostname: Domain,
}

/// What a delivery thread tells the manager, and gives back.
pub(super) struct Report {
    pub(super) active: Arc<Active>,
    pub(super) route: Arc<Route>,
    /// Positions in the envelope.
    pub(super) recipients: Vec<usize>,
    /// Number of the attempt, from 1.
    pub(super) round: u32,
    /// When those who still wait are due, if anybody does.
    pub(super) due: Option<Moment>,
    /// What it says of the destination; nothing if the job was only to put off.
    pub(super) contact: Option<Contact>,
}

/// A queue that is open and not yet running: messages can be put and none leaves.
pub struct Opened {
    shared: Arc<Shared>,
    news: Receiver<News>,
    leases: Leases,
    survivors: Vec<Survivor>,
    culprits: Arc<Culprits>,
    metrics: Arc<Metrics>,
}

/// How a queue has stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stopped {
    /// Every attempt is back, and all that came of them is on disk.
    Clean,
    /// Some attempts are not back: their recipients are tried again after the next start.
    UnderWay,
    /// The disk refuses to take down what came of some attempts: their recipients may be delivered to
    /// again after the next start. Other attempts may be under way.
    Unwritten,
}

/// A queue that runs.
pub struct Running {
    handle: Handle,
    operator: Operator,
    manager: JoinHandle<()>,
    pulse: Arc<Pulse>,
    /// The disk refused what was owed to it when we stopped.
    is_unwritten: Arc<AtomicBool>,
    finished: Receiver<()>,
}

/// Opens the spool: takes the lock on the data directory, which must exist, and finds what was
/// promised before. With a [`crate::sys::RootedDisk`], lock and spool are of one directory, whatever
/// becomes of its path.
///
/// # Errors
/// See [`OpenError`]; the process should say it and not start.
pub fn open(parts: SpoolParts) -> Result<(Handle, Opened), OpenError> {
    let path = parts.data_dir.join("lock");
    let lock = parts.disk.lock(&path).map_err(|error| match error.kind() {
        io::ErrorKind::WouldBlock => OpenError::Busy(parts.data_dir.clone()),
        _ => OpenError::Io { path, error },
    })?;
    open_with(parts, Some(lock))
}

/// The same without the lock: for a simulated disk, which nobody else can see.
///
/// # Errors
/// See [`OpenError`].
pub fn open_unlocked(parts: SpoolParts) -> Result<(Handle, Opened), OpenError> {
    open_with(parts, None)
}

fn open_with(parts: SpoolParts, lock: Option<FileLock>) -> Result<(Handle, Opened), OpenError> {
    let (spool, mut leases, survivors) = Spool::open(&parts)?;
    let culprits = Arc::new(Culprits::new(&parts));
    let survivors = culprits.judge(&spool, &mut leases, survivors);
    let (sender, news) = channel();
    let shared = Arc::new(Shared {
        spool: Arc::new(spool),
        news: sender,
        put: parts.metrics.counter("queue_put", "Messages promised"),
        clock: parts.clock,
        random: parts.random,
        settings: parts.settings,
        coming: AtomicUsize::new(0),
        is_stopping: AtomicBool::new(false),
        _lock: lock,
    });
    let handle = Handle::new(Arc::clone(&shared));
    Ok((handle, Opened { shared, news, leases, survivors, culprits, metrics: parts.metrics }))
}

impl Opened {
    /// Messages that an earlier process promised.
    #[must_use]
    pub fn survivors(&self) -> usize {
        self.survivors.len()
    }

    /// Starts the manager and the delivery threads.
    ///
    /// # Errors
    /// When the host has no thread to give.
    pub fn start(self, crew: Crew) -> io::Result<Running> {
        let handle = Handle::new(Arc::clone(&self.shared));
        let (Settings { deliver_local, deliver_remote, .. }, sender) =
            (self.shared.settings.clone(), self.shared.news.clone());
        let (done, finished) = channel();
        let culprits = Arc::clone(&self.culprits);
        let (crew, mut step) = self.steps(crew);
        let operator = crew.operator();
        let mut lanes = Vec::new();
        let mut number = 0;
        for (lane, threads) in [(Lane::Local, deliver_local.max(1)), (Lane::Remote, deliver_remote.max(1))] {
            let (jobs, waiting) = channel::<Job>();
            for _ in 0..threads {
                let (crew, waiting, sender) = (Arc::clone(&crew), waiting.clone(), sender.clone());
                spawn(format!("deliver-{number}"), move || deliver(&crew, &waiting, &sender))?;
                number += 1;
            }
            lanes.push(Supply { lane, jobs, free: threads });
        }
        let pulse = Pulse::new("the queue manager");
        let theirs = Arc::clone(&pulse);
        let is_unwritten = Arc::<AtomicBool>::default();
        let unwritten = Arc::clone(&is_unwritten);
        let manager = spawn("queue", move || {
            let managed = catch_panic(|| manage(&mut step, lanes, &theirs, &unwritten));
            if let Err(panic) = managed {
                log::error!(target: "queue", "the queue manager panicked: {}", words(panic.as_ref()));
                if let Some(id) = step.manager.busy_with() {
                    culprits.accuse(&id);
                }
                // Delivery programs must not go on without anybody who hears how they end. The supervisor
                // starts us again, and the disk is the truth.
                Program::end_all();
                std::process::abort();
            }
            let _ = done.send(());
        })?;
        Ok(Running { handle, operator, manager, pulse, is_unwritten, finished })
    }

    /// The queue without its threads, to be stepped by a test that turns the clock.
    #[must_use]
    pub fn into_stepped(self, crew: Crew) -> Stepped {
        self.steps(crew).1
    }

    fn steps(self, crew: Crew) -> (Arc<Carriage>, Stepped) {
        let Shared { spool, clock, random, settings, .. } = self.shared.as_ref();
        let router = Arc::clone(&crew.router);
        let (spool, clock, random) = (Arc::clone(spool), Arc::clone(clock), Arc::clone(random));
        let manager =
            Manager::new(spool, clock, random, router, settings.clone(), (self.leases, self.survivors));
        let carriage = Arc::new(Carriage::new(self.shared, crew, &self.metrics));
        (Arc::clone(&carriage), Stepped { manager, carriage, news: self.news })
    }
}

impl Running {
    /// By which to see whether the manager is stuck.
    #[must_use]
    pub fn pulse(&self) -> Arc<Pulse> {
        Arc::clone(&self.pulse)
    }

    /// For those who look at the queue and change it.
    #[must_use]
    pub fn operator(&self) -> Operator {
        self.operator.clone()
    }

    /// Stops in order: no more attempts are handed out, and within `grace` those under way come back
    /// and what came of them is written down. What has not is left to the next start, which is safe.
    pub fn stop(self, grace: Duration) -> Stopped {
        self.handle.stop();
        match self.finished.recv_timeout(grace) {
            Ok(()) => {
                // It has nothing left to do but to give up what it holds.
                let _ = join(self.manager);
                Stopped::Clean
            }
            // Attempts under way still write, and so may sessions: whoever can still write holds the
            // lock, so that nobody else has the spool before.
            Err(_) if self.is_unwritten.load(Ordering::Acquire) => Stopped::Unwritten,
            Err(_) => Stopped::UnderWay,
        }
    }
}

/// A queue without threads.
pub struct Stepped {
    pub(super) manager: Manager,
    pub(super) carriage: Arc<Carriage>,
    pub(super) news: Receiver<News>,
}

impl Stepped {
    /// Does everything that can be done now, attempts included, on the caller's thread.
    pub fn run(&mut self) {
        loop {
            self.manager.tick();
            while let Ok(news) = self.news.try_recv() {
                self.manager.hear(news);
            }
            let job = self.manager.next_job(Lane::Local).or_else(|| self.manager.next_job(Lane::Remote));
            self.manager.clear_up();
            match job {
                Some(job) => {
                    let carried = self.carriage.carry(&job);
                    self.manager.hear(News::Done(job.over(carried)));
                }
                None if self.manager.idle() == Some(Duration::ZERO) || !self.news.is_empty() => {}
                None => return,
            }
        }
    }

    /// Stops in order, as a process does that is told to: nothing leaves any more, and what is owed to
    /// the disk is written.
    ///
    /// # Errors
    /// The disk refuses still.
    pub fn stop(&mut self) -> io::Result<()> {
        Handle::new(Arc::clone(&self.carriage.shared)).stop();
        while let Ok(news) = self.news.try_recv() {
            self.manager.hear(news);
        }
        self.manager.write_owed()
    }

    /// For those who look at the queue and change it, on another thread than [`Stepped::run`].
    #[must_use]
    pub fn operator(&self) -> Operator {
        self.carriage.operator()
    }

    /// How long until there is something to do without news.
    #[must_use]
    pub fn idle(&self) -> Option<Duration> {
        self.manager.idle()
    }
}

/// The manager's channel to one lane's threads.
struct Supply {
    lane: Lane,
    jobs: Sender<Job>,
    free: usize,
}

/// The life of the thread `queue`. Returns when we stop, every attempt is back, and what came of them is
/// on disk; the delivery threads end with their channels.
fn manage(step: &mut Stepped, mut lanes: Vec<Supply>, pulse: &Pulse, is_unwritten: &AtomicBool) {
    let Stepped { manager, news, .. } = step;
    loop {
        pulse.works();
        manager.tick();
        for supply in &mut lanes {
            while supply.free > 0
                && let Some(job) = manager.next_job(supply.lane)
            {
                supply.free -= 1;
                // The threads hold the other end until this one is dropped.
                let _ = supply.jobs.send(job);
            }
        }
        let wait = if manager.is_stopping() {
            // What is owed does not wait for attempts that may take all the time there is.
            let written = manager.write_owed();
            if let Err(e) = &written
                && !is_unwritten.load(Ordering::Acquire)
            {
                log::error!(target: "queue", "what is owed to the disk cannot be written yet: {e}");
            }
            is_unwritten.store(written.is_err(), Ordering::Release);
            if written.is_ok() && manager.under_way() == 0 {
                // Commands that asked meanwhile hear what becomes of it.
                news.try_iter().for_each(|one| manager.hear(one));
                return pulse.waits();
            }
            written.is_err().then_some(OWED_AGAIN)
        } else {
            manager.clear_up();
            manager.idle()
        };
        pulse.waits();
        let first = match wait {
            Some(wait) => news.recv_timeout(wait),
            None => news.recv().map_err(|_| RecvTimeoutError::Disconnected),
        };
        pulse.works();
        for one in first.into_iter().chain(news.try_iter().take(NEWS_AT_ONCE)) {
            if let News::Done(report) = &one {
                let lane = Lane::of(&report.route);
                for supply in lanes.iter_mut().filter(|supply| supply.lane == lane) {
                    supply.free += 1;
                }
            }
            manager.hear(one);
        }
    }
}

/// While we stop, until the disk is asked again to take what is owed.
const OWED_AGAIN: Duration = Duration::from_millis(200);
/// News taken in before jobs are handed out again.
const NEWS_AT_ONCE: usize = 100;

/// The life of a delivery thread.
fn deliver(carriage: &Carriage, jobs: &Receiver<Job>, news: &Sender<News>) {
    for job in jobs {
        let carried = catch_panic(|| carriage.carry(&job));
        let carried = carried.unwrap_or_else(|panic| {
            let id = job.active.envelope.id;
            log::error!(target: "queue", "{id}: an outcome was lost in a panic: {}", words(panic.as_ref()));
            carriage.panics.add_one();
            let due = Some(carriage.shared.clock.now() + PAUSE_AFTER_PANIC);
            let contact = job.put_off.is_none().then_some(Contact::NotMade);
            Carried { due, contact }
        });
        if news.send(News::Done(job.over(carried))).is_err() {
            return;
        }
    }
}

const PAUSE_AFTER_PANIC: Duration = Duration::from_secs(300);
/// What a panic said.
pub(super) fn words(panic: &(dyn Any + Send)) -> String {
    let text =
        panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    printable(text.unwrap_or("no words").as_bytes(), 500)
}
