//! Stops after every disk operation, and checks that no accepted message is lost.
//!
//! The scenario is stopped after each operation of the disk in turn. Then the machine crashes in one of several
//! ways, and the next process must deliver every accepted message, octet by octet, and no incomplete one.

use std::sync::Arc;

use super::scenario::{SentMail, find_delivery_fault, run_scenario};
use super::simulated_queue::{MINUTE, SimulatedQueue, settings};
use crate::fakes::{Crash, RecordedAttempt, SimulatedDisk, TestClock};
use crate::queue::OpenError;

/// How much was tested.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CrashTestResult {
    /// Disk operations in the scenario.
    pub operations: usize,
    /// Crashes after which nothing was lost.
    pub crashes: usize,
}

/// If the machine stops twice: operations of the second process before it stops too.
const SECOND_STOP_AFTER: [usize; 6] = [0, 2, 4, 8, 16, 40];

/// Stops after every operation in every way.
///
/// # Errors
/// What was lost, and where: a fault of this program.
pub fn run_crash_test() -> Result<CrashTestResult, String> {
    let operations = count_operations().map_err(|e| e.to_string())?;
    let mut result = CrashTestResult { operations, crashes: 0 };
    for n in 0..=operations {
        for crashes in crash_plans(n) {
            match run_with_crashes(&crashes, |_| {}).0 {
                Some(fault) => return Err(fault),
                None => result.crashes += crashes.len(),
            }
        }
    }
    Ok(result)
}

/// All ways to stop after `n` operations.
pub fn crash_plans(n: usize) -> impl Iterator<Item = Vec<(usize, Crash)>> {
    let seed = n as u64;
    let once =
        [Crash::ProcessKilled, Crash::UnsyncedLost, Crash::UnsyncedTorn(seed), Crash::UnsyncedTorn(!seed)];
    let once = once.map(|crash| vec![(n, crash)]);
    // The second process sees what the killed one had not synced, and then a power cut loses it.
    let twice = SECOND_STOP_AFTER.map(|later| vec![(n, Crash::ProcessKilled), (later, Crash::UnsyncedLost)]);
    once.into_iter().chain(twice)
}

/// Counts the disk operations of the scenario.
fn count_operations() -> Result<usize, OpenError> {
    let mut queue = SimulatedQueue::new(settings())?;
    let before = queue.disk.operations().len();
    run_scenario(&mut queue, &mut SentMail::default());
    Ok(queue.disk.operations().len() - before)
}

/// Runs the scenario on a disk that `prepare` has changed, with these stops: each after a number of operations of
/// its process. Returns what is wrong, if anything, and all attempts.
pub fn run_with_crashes(
    stops: &[(usize, Crash)],
    prepare: impl Fn(&SimulatedDisk),
) -> (Option<String>, Vec<RecordedAttempt>) {
    let (disk, clock) = (SimulatedDisk::default(), Arc::<TestClock>::default());
    prepare(&disk);
    let mut sent = SentMail::default();
    let mut attempts = Vec::new();
    let describe = |text: String| format!("stopped after {stops:?}: {text}");
    for process in 0..=stops.len() {
        let stop = stops.get(process);
        // The first process starts on an empty disk and can lose nothing before the scenario begins.
        if process > 0
            && let Some((n, _)) = stop
        {
            disk.stop_after(*n);
        }
        match SimulatedQueue::open(disk.clone(), Arc::clone(&clock), process as u64 + 1, settings()) {
            Ok(mut queue) if process == 0 => {
                if let Some((n, _)) = stop {
                    disk.stop_after(*n);
                }
                run_scenario(&mut queue, &mut sent);
                attempts.extend(queue.attempts());
            }
            Ok(mut queue) => {
                queue.stepped.run();
                queue.run_for(200 * MINUTE);
                attempts.extend(queue.attempts());
                if stop.is_none() && queue.queue_length() > 0 {
                    return (
                        Some(describe(format!("{} messages are not delivered", queue.queue_length()))),
                        attempts,
                    );
                }
            }
            Err(_) if stop.is_some() => {}
            Err(e) => return (Some(describe(format!("the spool does not open: {e}"))), attempts),
        }
        if let Some((_, crash)) = stop {
            disk.crash(*crash);
        }
    }
    (find_delivery_fault(&sent, &attempts).map(describe), attempts)
}
