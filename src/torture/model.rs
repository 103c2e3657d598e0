//! Stop after every disk operation; find every promised message again.
//!
//! The day of `scenario` is stopped after every verb of the disk in turn, then the machine crashes
//! in one of several ways, and the next process must deliver whatever was promised, octet by octet,
//! and nothing that is not whole.

use std::sync::Arc;

use super::post_office::{MINUTE, PostOffice, settings};
use super::scenario::{Ledger, complaint, scenario};
use crate::fakes::{Carried, Crash, SimulatedDisk, TestClock};
use crate::queue::OpenError;

/// How much was tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stops {
    /// Disk operations in the scenario.
    pub operations: usize,
    /// Crashes that were come through.
    pub crashes: usize,
}

/// Operations of the next process before it stops too, where a machine stops twice: at its start,
/// and a little later.
const SECOND_STOPS: [usize; 6] = [0, 2, 4, 8, 16, 40];

/// Stops everywhere, in every way.
///
/// # Errors
/// What was lost, and where: a fault of this program.
pub fn stop_everywhere() -> Result<Stops, String> {
    let operations = operations().map_err(|e| e.to_string())?;
    let mut stops = Stops { operations, crashes: 0 };
    for n in 0..=operations {
        for crashes in ways_to_stop(n) {
            match stopped(&crashes, |_| {}).0 {
                Some(complaint) => return Err(complaint),
                None => stops.crashes += crashes.len(),
            }
        }
    }
    Ok(stops)
}

/// Every way to stop after `n` operations.
pub fn ways_to_stop(n: usize) -> impl Iterator<Item = Vec<(usize, Crash)>> {
    let seed = n as u64;
    let once = [Crash::Killed, Crash::Dropped, Crash::Torn(seed), Crash::Torn(!seed)];
    let once = once.map(|crash| vec![(n, crash)]);
    // What the killed process had not synced is found by the next one, and then lost.
    let twice = SECOND_STOPS.map(|later| vec![(n, Crash::Killed), (later, Crash::Dropped)]);
    once.into_iter().chain(twice)
}

/// Disk operations in the scenario.
fn operations() -> Result<usize, OpenError> {
    let mut office = PostOffice::new(settings())?;
    let before = office.disk.verbs().len();
    scenario(&mut office, &mut Ledger::default());
    Ok(office.disk.verbs().len() - before)
}

/// The scenario, on a disk that is prepared so, with these stops: each after so many operations of
/// its process. The complaint, if there is one, and everything that was carried.
pub fn stopped(stops: &[(usize, Crash)], prepare: impl Fn(&SimulatedDisk)) -> (Option<String>, Vec<Carried>) {
    let (disk, clock) = (SimulatedDisk::default(), Arc::<TestClock>::default());
    prepare(&disk);
    let mut ledger = Ledger::default();
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
        match PostOffice::open(disk.clone(), Arc::clone(&clock), life as u64 + 1, settings()) {
            Ok(mut office) if life == 0 => {
                if let Some((n, _)) = stop {
                    disk.stop_after(*n);
                }
                scenario(&mut office, &mut ledger);
                all.extend(office.carried());
            }
            Ok(mut office) => {
                office.stepped.run();
                office.after(200 * MINUTE);
                all.extend(office.carried());
                if stop.is_none() && office.waiting() > 0 {
                    return (Some(at(format!("{} messages do not leave", office.waiting()))), all);
                }
            }
            Err(_) if stop.is_some() => {}
            Err(e) => return (Some(at(format!("the spool does not open: {e}"))), all),
        }
        if let Some((_, crash)) = stop {
            disk.crash(*crash);
        }
    }
    (complaint(&ledger, &all).map(at), all)
}
