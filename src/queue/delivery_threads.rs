//! The threads of the queue: opening, starting, stopping.
//!
//! A delivery thread takes a job, makes the attempt (`attempt`), and says so to the manager.
//!
//! **Panics.** One in a courier ends the attempt, transiently, and is counted; the thread goes on.
//! One in the manager aborts the process: half a schedule is worse than a restart from the disk.

use std::any::Any;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use arc_swap::ArcSwap;

use super::attempt::{AttemptRunner, AttemptSummary};
use super::crash_loop_guard::CrashLoopGuard;
use super::destination_state::ContactResult;
use super::generated_mail::GeneratedMail;
use super::handle::{Handle, ManagerEvent, QueueShared};
use super::job::{ActiveMessage, AttemptJob};
use super::manager::Manager;
use super::operator::Operator;
use super::schedule::{DeliveryPool, Settings};
use crate::courier::Courier;
use crate::mail::{Domain, printable};
use crate::observe::{Metrics, Traces};
use crate::route::{Route, Router, Transport};
use crate::spool::{Leases, OpenError, RecoveredMessage, Spool, SpoolParts};
use crate::sys::{
    Clock, Disk, FileLock, Moment, Program, Random, Receiver, RecvTimeoutError, Sender, ThreadActivity,
    catch_panic, channel, join, spawn,
};

/// What the queue needs to keep messages.
pub struct QueueParts {
    /// The disk on which the spool is.
    pub disk: Arc<dyn Disk>,
    /// The data directory; the spool is `spool` below it.
    pub data_dir: PathBuf,
    /// Wall time, uptime and deadlines.
    pub clock: Arc<dyn Clock>,
    /// The source of ids, salts and jitter.
    pub random: Arc<dyn Random>,
    /// Where counters are registered.
    pub metrics: Arc<Metrics>,
    /// Limits, delays and numbers of threads.
    pub settings: Settings,
}

impl QueueParts {
    fn spool_parts(&self) -> SpoolParts {
        SpoolParts {
            disk: Arc::clone(&self.disk),
            data_dir: self.data_dir.clone(),
            clock: Arc::clone(&self.clock),
            random: Arc::clone(&self.random),
            metrics: Arc::clone(&self.metrics),
            segment_octets: self.settings.segment_octets,
        }
    }
}

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
    pub(super) fn for_carrier(&self, carrier: Transport) -> &dyn Courier {
        match carrier {
            Transport::Local => self.local.as_ref(),
            Transport::Program => self.program.as_ref(),
            Transport::Smtp => self.smtp.as_ref(),
        }
    }
}

/// What the queue needs to carry mail, beyond the spool.
#[derive(Clone)]
pub struct DeliveryParts {
    /// Chooses routes; a reload stores a new one.
    pub router: Arc<ArcSwap<Router>>,
    /// Who carries.
    pub couriers: Couriers,
    /// Where reports go.
    pub generated_mail: Arc<dyn GeneratedMail>,
    /// What attempts did.
    pub traces: Arc<Traces>,
    /// Our name, for reports.
    pub hostname: Domain,
}

/// What a delivery thread tells the manager, and gives back.
pub(super) struct AttemptResult {
    pub(super) message: Arc<ActiveMessage>,
    pub(super) route: Arc<Route>,
    /// Positions in the envelope.
    pub(super) recipients: Vec<usize>,
    /// Number of the attempt, from 1.
    pub(super) attempt_number: u32,
    /// When those who still wait are due, if anybody does.
    pub(super) due: Option<Moment>,
    /// What it says of the destination; nothing if the job was only to put off.
    pub(super) contact_result: Option<ContactResult>,
}

/// A queue that is open and not yet running: messages can be put and none leaves.
pub struct OpenQueue {
    shared: Arc<QueueShared>,
    events: Receiver<ManagerEvent>,
    leases: Leases,
    recovered: Vec<RecoveredMessage>,
    crash_loop_guard: Arc<CrashLoopGuard>,
    metrics: Arc<Metrics>,
}

/// How a queue has stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StopResult {
    /// Every attempt is back, and all that came of them is on disk.
    Clean,
    /// Some attempts are not back: their recipients are tried again after the next start.
    AttemptsUnfinished,
    /// The disk refuses to take down what came of some attempts: their recipients may be delivered to
    /// again after the next start. Other attempts may be under way.
    OutcomesUnwritten,
}

/// A queue that runs.
pub struct RunningQueue {
    handle: Handle,
    queue_control: Operator,
    manager: JoinHandle<()>,
    pulse: Arc<ThreadActivity>,
    /// The disk refused what was owed to it when we stopped.
    has_unwritten_outcomes: Arc<AtomicBool>,
    manager_ended: Receiver<()>,
}

/// Opens the spool: takes the lock on the data directory, which must exist, and finds what was
/// promised before. With a [`crate::sys::RootedDisk`], lock and spool are of one directory, whatever
/// becomes of its path.
///
/// # Errors
/// See [`OpenError`]; the process should say it and not start.
pub fn open(parts: QueueParts) -> Result<(Handle, OpenQueue), OpenError> {
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
pub fn open_unlocked(parts: QueueParts) -> Result<(Handle, OpenQueue), OpenError> {
    open_with(parts, None)
}

fn open_with(parts: QueueParts, lock: Option<FileLock>) -> Result<(Handle, OpenQueue), OpenError> {
    let spool_parts = parts.spool_parts();
    let (spool, mut leases, survivors) = Spool::open(&spool_parts)?;
    let culprits = Arc::new(CrashLoopGuard::new(&spool_parts));
    let survivors = culprits.filter(&spool, &mut leases, survivors);
    let (sender, news) = channel();
    let shared = Arc::new(QueueShared {
        spool: Arc::new(spool),
        events: sender,
        messages_put: parts.metrics.counter("queue_put", "Messages promised"),
        clock: parts.clock,
        random: parts.random,
        settings: parts.settings,
        incoming_count: AtomicUsize::new(0),
        is_stopping: AtomicBool::new(false),
        _lock: lock,
    });
    let handle = Handle::new(Arc::clone(&shared));
    Ok((
        handle,
        OpenQueue {
            shared,
            events: news,
            leases,
            recovered: survivors,
            crash_loop_guard: culprits,
            metrics: parts.metrics,
        },
    ))
}

impl OpenQueue {
    /// Messages that an earlier process promised.
    #[must_use]
    pub fn recovered_count(&self) -> usize {
        self.recovered.len()
    }

    /// Starts the manager and the delivery threads.
    ///
    /// # Errors
    /// When the host has no thread to give.
    pub fn start(self, crew: DeliveryParts) -> io::Result<RunningQueue> {
        let handle = Handle::new(Arc::clone(&self.shared));
        let (Settings { local_threads: deliver_local, remote_threads: deliver_remote, .. }, sender) =
            (self.shared.settings.clone(), self.shared.events.clone());
        let (done, finished) = channel();
        let culprits = Arc::clone(&self.crash_loop_guard);
        let (crew, mut step) = self.assemble(crew);
        let operator = crew.queue_control();
        let mut lanes = Vec::new();
        let mut number = 0;
        for (lane, threads) in
            [(DeliveryPool::Local, deliver_local.max(1)), (DeliveryPool::Remote, deliver_remote.max(1))]
        {
            let (jobs, waiting) = channel::<AttemptJob>();
            for _ in 0..threads {
                let (crew, waiting, sender) = (Arc::clone(&crew), waiting.clone(), sender.clone());
                spawn(format!("deliver-{number}"), move || run_delivery_thread(&crew, &waiting, &sender))?;
                number += 1;
            }
            lanes.push(PoolThreads { pool: lane, jobs, idle_threads: threads });
        }
        let pulse = ThreadActivity::new("the queue manager");
        let theirs = Arc::clone(&pulse);
        let is_unwritten = Arc::<AtomicBool>::default();
        let unwritten = Arc::clone(&is_unwritten);
        let manager = spawn("queue", move || {
            let managed = catch_panic(|| run_manager(&mut step, lanes, &theirs, &unwritten));
            if let Err(panic) = managed {
                log::error!(target: "queue", "the queue manager panicked: {}", panic_message(panic.as_ref()));
                if let Some(id) = step.manager.current_message() {
                    culprits.record(&id);
                }
                // Delivery programs must not go on without anybody who hears how they end. The supervisor
                // starts us again, and the disk is the truth.
                Program::kill_all();
                std::process::abort();
            }
            let _ = done.send(());
        })?;
        Ok(RunningQueue {
            handle,
            queue_control: operator,
            manager,
            pulse,
            has_unwritten_outcomes: is_unwritten,
            manager_ended: finished,
        })
    }

    /// The queue without its threads, to be stepped by a test that turns the clock.
    #[must_use]
    pub fn into_stepped(self, crew: DeliveryParts) -> SteppedQueue {
        self.assemble(crew).1
    }

    fn assemble(self, crew: DeliveryParts) -> (Arc<AttemptRunner>, SteppedQueue) {
        let QueueShared { spool, clock, random, settings, .. } = self.shared.as_ref();
        let router = Arc::clone(&crew.router);
        let (spool, clock, random) = (Arc::clone(spool), Arc::clone(clock), Arc::clone(random));
        let manager =
            Manager::new(spool, clock, random, router, settings.clone(), (self.leases, self.recovered));
        let carriage = Arc::new(AttemptRunner::new(self.shared, crew, &self.metrics));
        (Arc::clone(&carriage), SteppedQueue { manager, attempt_runner: carriage, events: self.events })
    }
}

impl RunningQueue {
    /// By which to see whether the manager is stuck.
    #[must_use]
    pub fn pulse(&self) -> Arc<ThreadActivity> {
        Arc::clone(&self.pulse)
    }

    /// For those who look at the queue and change it.
    #[must_use]
    pub fn queue_control(&self) -> Operator {
        self.queue_control.clone()
    }

    /// Stops in order: no more attempts are handed out, and within `grace` those under way come back
    /// and what came of them is written down. What has not is left to the next start, which is safe.
    pub fn stop(self, grace: Duration) -> StopResult {
        self.handle.stop();
        match self.manager_ended.recv_timeout(grace) {
            Ok(()) => {
                // It has nothing left to do but to give up what it holds.
                let _ = join(self.manager);
                StopResult::Clean
            }
            // Attempts under way still write, and so may sessions: whoever can still write holds the
            // lock, so that nobody else has the spool before.
            Err(_) if self.has_unwritten_outcomes.load(Ordering::Acquire) => StopResult::OutcomesUnwritten,
            Err(_) => StopResult::AttemptsUnfinished,
        }
    }
}

/// A queue without threads.
pub struct SteppedQueue {
    pub(super) manager: Manager,
    pub(super) attempt_runner: Arc<AttemptRunner>,
    pub(super) events: Receiver<ManagerEvent>,
}

impl SteppedQueue {
    /// Does everything that can be done now, attempts included, on the caller's thread.
    pub fn run(&mut self) {
        loop {
            self.manager.tick();
            while let Ok(news) = self.events.try_recv() {
                self.manager.handle_event(news);
            }
            let job = self
                .manager
                .next_job(DeliveryPool::Local)
                .or_else(|| self.manager.next_job(DeliveryPool::Remote));
            self.manager.run_maintenance();
            match job {
                Some(job) => {
                    let carried = self.attempt_runner.run(&job);
                    self.manager.handle_event(ManagerEvent::AttemptFinished(job.into_result(carried)));
                }
                None if self.manager.time_until_work() == Some(Duration::ZERO) || !self.events.is_empty() => {
                }
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
        Handle::new(Arc::clone(&self.attempt_runner.shared)).stop();
        while let Ok(news) = self.events.try_recv() {
            self.manager.handle_event(news);
        }
        self.manager.write_unsaved()
    }

    /// For those who look at the queue and change it, on another thread than [`Stepped::run`].
    #[must_use]
    pub fn queue_control(&self) -> Operator {
        self.attempt_runner.queue_control()
    }

    /// How long until there is something to do without news.
    #[must_use]
    pub fn time_until_work(&self) -> Option<Duration> {
        self.manager.time_until_work()
    }
}

/// The manager's channel to one lane's threads.
struct PoolThreads {
    pool: DeliveryPool,
    jobs: Sender<AttemptJob>,
    idle_threads: usize,
}

/// The life of the thread `queue`. Returns when we stop, every attempt is back, and what came of them is
/// on disk; the delivery threads end with their channels.
fn run_manager(
    step: &mut SteppedQueue,
    mut lanes: Vec<PoolThreads>,
    pulse: &ThreadActivity,
    is_unwritten: &AtomicBool,
) {
    let SteppedQueue { manager, events: news, .. } = step;
    loop {
        pulse.set_busy();
        manager.tick();
        for supply in &mut lanes {
            while supply.idle_threads > 0
                && let Some(job) = manager.next_job(supply.pool)
            {
                supply.idle_threads -= 1;
                // The threads hold the other end until this one is dropped.
                let _ = supply.jobs.send(job);
            }
        }
        let wait = if manager.is_stopping() {
            // What is owed does not wait for attempts that may take all the time there is.
            let written = manager.write_unsaved();
            if let Err(e) = &written
                && !is_unwritten.load(Ordering::Acquire)
            {
                log::error!(target: "queue", "what is owed to the disk cannot be written yet: {e}");
            }
            is_unwritten.store(written.is_err(), Ordering::Release);
            if written.is_ok() && manager.under_way() == 0 {
                // Commands that asked meanwhile hear what becomes of it.
                news.try_iter().for_each(|one| manager.handle_event(one));
                return pulse.set_idle();
            }
            written.is_err().then_some(UNSAVED_RETRY_DELAY)
        } else {
            manager.run_maintenance();
            manager.time_until_work()
        };
        pulse.set_idle();
        let first = match wait {
            Some(wait) => news.recv_timeout(wait),
            None => news.recv().map_err(|_| RecvTimeoutError::Disconnected),
        };
        pulse.set_busy();
        for one in first.into_iter().chain(news.try_iter().take(EVENTS_PER_PASS)) {
            if let ManagerEvent::AttemptFinished(report) = &one {
                let lane = DeliveryPool::of(&report.route);
                for supply in lanes.iter_mut().filter(|supply| supply.pool == lane) {
                    supply.idle_threads += 1;
                }
            }
            manager.handle_event(one);
        }
    }
}

/// While we stop, until the disk is asked again to take what is owed.
const UNSAVED_RETRY_DELAY: Duration = Duration::from_millis(200);
/// News taken in before jobs are handed out again.
const EVENTS_PER_PASS: usize = 100;

/// The life of a delivery thread.
fn run_delivery_thread(carriage: &AttemptRunner, jobs: &Receiver<AttemptJob>, news: &Sender<ManagerEvent>) {
    for job in jobs {
        let carried = catch_panic(|| carriage.run(&job));
        let carried = carried.unwrap_or_else(|panic| {
            let id = job.message.envelope.id;
            log::error!(target: "queue", "{id}: an outcome was lost in a panic: {}", panic_message(panic.as_ref()));
            carriage.panics.add_one();
            let due = Some(carriage.shared.clock.now() + PANIC_RETRY_DELAY);
            let contact = job.skip_reason.is_none().then_some(ContactResult::NotContacted);
            AttemptSummary { due, contact_result: contact }
        });
        if news.send(ManagerEvent::AttemptFinished(job.into_result(carried))).is_err() {
            return;
        }
    }
}

const PANIC_RETRY_DELAY: Duration = Duration::from_secs(300);
/// What a panic said.
pub(super) fn panic_message(panic: &(dyn Any + Send)) -> String {
    let text =
        panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    printable(text.unwrap_or("no words").as_bytes(), 500)
}
