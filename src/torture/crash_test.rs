//! Stop after every disk operation; find every promised message again.
//!
//! The day of `scenario` is stopped after every verb of the disk in turn, then the machine crashes
//! in one of several ways, and the next process must deliver whatever was promised, octet by octet,
//! and nothing that is not whole.

use std::sync::Arc;

use super::scenario::{SentMail, find_delivery_fault, run_scenario};
use super::simulated_queue::{MINUTE, SimulatedQueue, settings};
use crate::fakes::{Crash, RecordedAttempt, SimulatedDisk, TestClock};
use crate::queue::OpenError;

/// How much was tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CrashTestResult {
    /// Disk operations in the scenario.
    pub operations: usize,
    /// Crashes that were come through.
    pub crashes: usize,
}

/// Operations of the next process before it stops too, where a machine stops twice: at its start,
/// and a little later.
const SECOND_STOP_AFTER: [usize; 6] = [0, 2, 4, 8, 16, 40];

/// Stops everywhere, in every way.
///
/// # Errors
/// What was lost, and where: a fault of this program.
pub fn run_crash_test() -> Result<CrashTestResult, String> {
    let operations = count_operations().map_err(|e| e.to_string())?;
    let mut stops = CrashTestResult { operations, crashes: 0 };
    for n in 0..=operations {
        for crashes in crash_plans(n) {
            match run_with_crashes(&crashes, |_| {}).0 {
                Some(fault) => return Err(fault),
                None => stops.crashes += crashes.len(),
            }
        }
    }
    Ok(stops)
}

/// Every way to stop after `n` operations.
pub fn crash_plans(n: usize) -> impl Iterator<Item = Vec<(usize, Crash)>> {
    let seed = n as u64;
    let once =
        [Crash::ProcessKilled, Crash::UnsyncedLost, Crash::UnsyncedTorn(seed), Crash::UnsyncedTorn(!seed)];
    let once = once.map(|crash| vec![(n, crash)]);
    // What the killed process had not synced is found by the next one, and then lost.
    let twice = SECOND_STOP_AFTER.map(|later| vec![(n, Crash::ProcessKilled), (later, Crash::UnsyncedLost)]);
    once.into_iter().chain(twice)
}

/// Disk operations in the scenario.
fn count_operations() -> Result<usize, OpenError> {
    let mut office = SimulatedQueue::new(settings())?;
    let before = office.disk.operations().len();
    run_scenario(&mut office, &mut SentMail::default());
    Ok(office.disk.operations().len() - before)
}

/// The scenario, on a disk that is prepared so, with these stops: each after so many operations of
/// its process. The complaint, if there is one, and everything that was carried.
pub fn run_with_crashes(
    stops: &[(usize, Crash)],
    prepare: impl Fn(&SimulatedDisk),
) -> (Option<String>, Vec<RecordedAttempt>) {
    let (disk, clock) = (SimulatedDisk::default(), Arc::<TestClock>::default());
    prepare(&disk);
    let mut ledger = SentMail::default();
    let mut all = Vec::new();
    let at = |text: String| format!("stopped after {stops:?}: {text}");
    for life in 0..=stops.len() {
        let stop = stops.get(life);
        // The first process starts on an empty disk, and there is nothing to lose yet.
        if life > 0
            && let Some((n, _)) = stop
        {
            disk.stop_after(*n);
        }
        match SimulatedQueue::open(disk.clone(), Arc::clone(&clock), life as u64 + 1, settings()) {
            Ok(mut office) if life == 0 => {
                if let Some((n, _)) = stop {
                    disk.stop_after(*n);
                }
                run_scenario(&mut office, &mut ledger);
                all.extend(office.attempts());
            }
            Ok(mut office) => {
                office.stepped.run();
                office.run_for(200 * MINUTE);
                all.extend(office.attempts());
                if stop.is_none() && office.queue_length() > 0 {
                    return (Some(at(format!("{} messages do not leave", office.queue_length()))), all);
                }
            }
            Err(_) if stop.is_some() => {}
            Err(e) => return (Some(at(format!("the spool does not open: {e}"))), all),
        }
        if let Some((_, crash)) = stop {
            disk.crash(*crash);
        }
    }
    (find_delivery_fault(&ledger, &all).map(at), all)
}
