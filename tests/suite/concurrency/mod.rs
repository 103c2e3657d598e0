//! The queue with its threads, run by a seeded scheduler, which switches between sessions, attempts, sweeps,
//! commands, stops, kills, power cuts and full disks at every lock, channel, wait and disk operation.
//!
//! One seed is one schedule of one scenario, and repeats. `scenario` makes the processes of a server from a
//! seed. `invariants` checks what must be true, without the queue's own state.
//!
//! In the environment, `SCHEDULES` is the number of schedules, and `SEED` the first seed.

mod invariants;
mod scenario;

use scenario::{ScheduleResult, run};

/// The number of schedules in `make test`.
const SCHEDULES: u64 = 2000;
/// Schedules of one `SEED` do not overlap with those of another.
const SEED_STEP: u64 = 1_000_000_007;

fn number_from_environment(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).map_or(otherwise, |text| text.parse().unwrap())
}

/// The first of these schedules that violates an invariant, and how; and the number of choices.
fn first_violation(seeds: impl Iterator<Item = u64>) -> (Option<(u64, ScheduleResult)>, u64) {
    let mut steps = 0;
    for seed in seeds {
        let ran = run(seed);
        steps += ran.steps;
        if ran.violation.is_some() {
            return (Some((seed, ran)), steps);
        }
    }
    (None, steps)
}

#[test]
fn no_schedule_of_concurrent_threads_violates_an_invariant() {
    let (schedules, seed) =
        (number_from_environment("SCHEDULES", SCHEDULES), number_from_environment("SEED", 1));
    // A schedule runs one thread at a time, so that several schedules may run at once.
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    let found: Vec<_> = std::thread::scope(|scope| {
        let worker = |first: usize| {
            scope.spawn(move || {
                first_violation((0..schedules).skip(first).step_by(workers).map(|n| seed * SEED_STEP + n))
            })
        };
        let started: Vec<_> = (0..workers).map(worker).collect();
        started.into_iter().map(|worker| worker.join().unwrap()).collect()
    });
    let steps: u64 = found.iter().map(|(_, steps)| steps).sum();
    if let Some((seed, ran)) =
        found.into_iter().filter_map(|(broken, _)| broken).min_by_key(|(seed, _)| *seed)
    {
        let last = ran.trace.len().saturating_sub(400);
        panic!(
            "{}\nschedule {} of SEED={}: {}",
            ran.trace[last..].join("\n"),
            seed % SEED_STEP,
            seed / SEED_STEP,
            ran.violation.unwrap()
        );
    }
    assert!(steps > 100 * schedules, "{steps} choices are too few to prove anything");
    println!("{schedules} schedules, {steps} choices");
}

#[test]
fn a_seed_repeats_its_schedule() {
    let (once, again) = (run(SEED_STEP), run(SEED_STEP));
    assert_eq!(once.trace, again.trace);
    assert_eq!(once.steps, again.steps);
}
