//! Opens the queue and starts its threads.
//!
//! **Panics.** A panic in a courier ends the attempt with a temporary failure, and the thread goes on. A
//! panic in the queue manager ends the process: a restart from the disk is better than half a schedule.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize};

use super::attempt::AttemptRunner;
use super::crash_loop_guard::CrashLoopGuard;
use super::delivery_parts::DeliveryParts;
use super::delivery_threads::{run_manager, start_delivery_threads};
use super::handle::Handle;
use super::manager::Manager;
use super::manager_event::ManagerEvent;
use super::panic_message::panic_message;
use super::queue_parts::QueueParts;
use super::queue_shared::QueueShared;
use super::running_queue::RunningQueue;
use super::stepped_queue::SteppedQueue;
use crate::observe::Metrics;
use crate::spool::{Leases, OpenError, RecoveredMessage, Spool};
use crate::sys::{FileLock, Program, Receiver, ThreadActivity, catch_panic, channel, spawn};

/// A queue that is open and whose threads do not run yet: messages can be put, and no attempt begins.
pub struct OpenQueue {
    shared: Arc<QueueShared>,
    events: Receiver<ManagerEvent>,
    leases: Leases,
    recovered: Vec<RecoveredMessage>,
    crash_loop_guard: Arc<CrashLoopGuard>,
    metrics: Arc<Metrics>,
}

/// Opens the queue: takes the lock of the data directory, which must exist, and recovers the messages in the
/// spool. With a [`crate::sys::RootedDisk`], lock and spool are in the same directory even if it is renamed.
///
/// # Errors
/// See [`OpenError`]; the process should print it and not start.
pub fn open(parts: QueueParts) -> Result<(Handle, OpenQueue), OpenError> {
    let path = parts.data_dir.join("lock");
    let lock = parts.disk.lock(&path).map_err(|error| match error.kind() {
        io::ErrorKind::WouldBlock => OpenError::Busy(parts.data_dir.clone()),
        _ => OpenError::Io { path, error },
    })?;
    open_with(parts, Some(lock))
}

/// Opens the queue without the lock: for a simulated disk, which no other process can use.
///
/// # Errors
/// See [`OpenError`].
pub fn open_unlocked(parts: QueueParts) -> Result<(Handle, OpenQueue), OpenError> {
    open_with(parts, None)
}

fn open_with(parts: QueueParts, lock: Option<FileLock>) -> Result<(Handle, OpenQueue), OpenError> {
    let spool_parts = parts.spool_parts();
    let (spool, mut leases, recovered) = Spool::open(&spool_parts)?;
    let crash_loop_guard = Arc::new(CrashLoopGuard::new(&spool_parts));
    let recovered = crash_loop_guard.filter(&spool, &mut leases, recovered);
    let (sender, events) = channel();
    let shared = Arc::new(QueueShared {
        spool: Arc::new(spool),
        events: sender,
        messages_put: parts.metrics.counter("queue_messages_accepted", "Messages accepted"),
        clock: parts.clock,
        random: parts.random,
        settings: parts.settings,
        incoming_count: AtomicUsize::new(0),
        is_stopping: AtomicBool::new(false),
        _lock: lock,
    });
    let handle = Handle::new(Arc::clone(&shared));
    let metrics = parts.metrics;
    Ok((handle, OpenQueue { shared, events, leases, recovered, crash_loop_guard, metrics }))
}

impl OpenQueue {
    /// The number of messages that an earlier process accepted.
    #[must_use]
    pub fn recovered_count(&self) -> usize {
        self.recovered.len()
    }

    /// Starts the queue manager and the delivery threads.
    ///
    /// # Errors
    /// The host cannot start another thread.
    pub fn start(self, parts: DeliveryParts) -> io::Result<RunningQueue> {
        let handle = Handle::new(Arc::clone(&self.shared));
        let (settings, events) = (self.shared.settings.clone(), self.shared.events.clone());
        let crash_loop_guard = Arc::clone(&self.crash_loop_guard);
        let (attempt_runner, mut stepped) = self.assemble(parts);
        let queue_control = attempt_runner.queue_control();
        let pools = start_delivery_threads(&settings, &attempt_runner, &events)?;
        let manager_activity = ThreadActivity::new("the queue manager");
        let has_unwritten_outcomes = Arc::<AtomicBool>::default();
        let (activity, unwritten) = (Arc::clone(&manager_activity), Arc::clone(&has_unwritten_outcomes));
        let (ended, manager_ended) = channel();
        let manager = spawn("queue-manager", move || {
            let managed = catch_panic(|| run_manager(&mut stepped, pools, &activity, &unwritten));
            if let Err(panic) = managed {
                log::error!(target: "queue", "the queue manager panicked: {}", panic_message(panic.as_ref()));
                if let Some(id) = stepped.manager.current_message() {
                    crash_loop_guard.record(&id);
                }
                // Delivery programs must not go on when no thread gets their result. The supervisor starts
                // the server again, which continues with what is on disk.
                Program::kill_all();
                std::process::abort();
            }
            let _ = ended.send(());
        })?;
        Ok(RunningQueue {
            handle,
            queue_control,
            manager,
            manager_activity,
            has_unwritten_outcomes,
            manager_ended,
        })
    }

    /// The queue without its threads, for a test that turns the clock.
    #[must_use]
    pub fn into_stepped(self, parts: DeliveryParts) -> SteppedQueue {
        self.assemble(parts).1
    }

    fn assemble(self, parts: DeliveryParts) -> (Arc<AttemptRunner>, SteppedQueue) {
        let QueueShared { spool, clock, random, settings, .. } = self.shared.as_ref();
        let (spool, clock, random) = (Arc::clone(spool), Arc::clone(clock), Arc::clone(random));
        let recovered = (self.leases, self.recovered);
        let routing = (Arc::clone(&parts.router), parts.couriers.clone());
        let manager = Manager::new(spool, clock, random, routing, settings.clone(), recovered);
        let attempt_runner = Arc::new(AttemptRunner::new(self.shared, parts, &self.metrics));
        let stepped =
            SteppedQueue { manager, attempt_runner: Arc::clone(&attempt_runner), events: self.events };
        (attempt_runner, stepped)
    }
}
