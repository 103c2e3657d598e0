//! The main functions of the queue manager's thread and of the delivery threads.
//!
//! A delivery thread takes a job from the channel of its pool, makes the attempt (`attempt`), and sends the
//! result to the manager. If an attempt panics, it ends with a temporary failure, is counted, and the thread
//! goes on.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::attempt::AttemptRunner;
use super::attempt_job::{AttemptJob, AttemptSummary};
use super::destination_state::ContactResult;
use super::manager_event::ManagerEvent;
use super::panic_message::panic_message;
use super::settings::Settings;
use super::stepped_queue::SteppedQueue;
use crate::courier::DeliveryPool;
use crate::sys::{Receiver, RecvTimeoutError, Sender, ThreadActivity, catch_panic, channel, spawn};

/// While the server stops, the wait before the disk is tried again.
const UNSAVED_RETRY_DELAY: Duration = Duration::from_millis(200);
/// Events handled before jobs are handed out again.
const EVENTS_PER_PASS: usize = 100;
/// The recipients of an attempt whose outcome was lost in a panic are tried again after this.
const PANIC_RETRY_DELAY: Duration = Duration::from_secs(300);

/// The manager's channel to the threads of one pool.
pub(super) struct PoolThreads {
    pool: DeliveryPool,
    jobs: Sender<AttemptJob>,
    idle_threads: usize,
}

/// Starts the delivery threads of both pools. A thread ends when the other end of its channel is dropped.
pub(super) fn start_delivery_threads(
    settings: &Settings,
    attempt_runner: &Arc<AttemptRunner>,
    events: &Sender<ManagerEvent>,
) -> io::Result<Vec<PoolThreads>> {
    let mut pools = Vec::new();
    let mut number = 0;
    for (pool, threads) in [
        (DeliveryPool::Local, settings.local_threads.max(1)),
        (DeliveryPool::Remote, settings.remote_threads.max(1)),
    ] {
        let (sender, jobs) = channel::<AttemptJob>();
        for _ in 0..threads {
            let (attempt_runner, jobs, events) = (Arc::clone(attempt_runner), jobs.clone(), events.clone());
            spawn(format!("deliver-{number}"), move || run_delivery_thread(&attempt_runner, &jobs, &events))?;
            number += 1;
        }
        pools.push(PoolThreads { pool, jobs: sender, idle_threads: threads });
    }
    Ok(pools)
}

/// The main function of the queue manager's thread. Returns when the server stops, every attempt has ended,
/// and all outcomes are on disk.
pub(super) fn run_manager(
    stepped: &mut SteppedQueue,
    mut pools: Vec<PoolThreads>,
    activity: &ThreadActivity,
    has_unwritten_outcomes: &AtomicBool,
) {
    let SteppedQueue { manager, events, .. } = stepped;
    loop {
        activity.set_busy();
        manager.tick();
        for pool in &mut pools {
            while pool.idle_threads > 0
                && let Some(job) = manager.next_job(pool.pool)
            {
                pool.idle_threads -= 1;
                // The threads hold the other end until this one is dropped.
                let _ = pool.jobs.send(job);
            }
        }
        let wait = if manager.is_stopping() {
            // Outcomes are written at once: the attempts under way may take all the time of the stop.
            let written = manager.write_unsaved();
            if let Err(e) = &written
                && !has_unwritten_outcomes.load(Ordering::Acquire)
            {
                log::error!(target: "queue", "pending updates cannot be written yet: {e}");
            }
            has_unwritten_outcomes.store(written.is_err(), Ordering::Release);
            if written.is_ok() && manager.under_way() == 0 {
                // Answers commands that sent a request meanwhile.
                events.try_iter().for_each(|event| manager.handle_event(event));
                return activity.set_idle();
            }
            written.is_err().then_some(UNSAVED_RETRY_DELAY)
        } else {
            manager.run_maintenance();
            manager.time_until_work()
        };
        activity.set_idle();
        let first = match wait {
            Some(wait) => events.recv_timeout(wait),
            None => events.recv().map_err(|_| RecvTimeoutError::Disconnected),
        };
        activity.set_busy();
        for event in first.into_iter().chain(events.try_iter().take(EVENTS_PER_PASS)) {
            if let ManagerEvent::AttemptFinished(result) = &event {
                for pool in pools.iter_mut().filter(|pool| pool.pool == result.pool) {
                    pool.idle_threads += 1;
                }
            }
            manager.handle_event(event);
        }
    }
}

/// The main function of a delivery thread.
fn run_delivery_thread(
    attempt_runner: &AttemptRunner,
    jobs: &Receiver<AttemptJob>,
    events: &Sender<ManagerEvent>,
) {
    for job in jobs {
        let summary = catch_panic(|| attempt_runner.run(&job));
        let summary = summary.unwrap_or_else(|panic| {
            let id = job.message.envelope.id;
            log::error!(target: "queue", "{id}: an outcome was lost in a panic: {}", panic_message(panic.as_ref()));
            attempt_runner.panics.add_one();
            let due = Some(attempt_runner.shared.clock.now() + PANIC_RETRY_DELAY);
            let contact_result = job.skip_reason.is_none().then_some(ContactResult::NotContacted);
            AttemptSummary { due, contact_result }
        });
        if events.send(ManagerEvent::AttemptFinished(job.into_result(summary))).is_err() {
            return;
        }
    }
}
