//! A seeded scheduler for tests of concurrent code.
//!
//! A test spawns *actors*: threads of the host, of which exactly one runs at a time. At each *choice point*
//! (a lock, an unlock, a wait, a channel, a verb of the simulated disk) the scheduler may let another actor
//! run, by numbers from a seed. So one seed is one schedule, which repeats: nothing depends on the host's
//! scheduler, on its clock, on addresses or on the order of a hash map.
//!
//! It is chosen at run time: the locks and channels of `sys` ask whether the current thread is an actor. A
//! thread that is none, in every other test, is not concerned. A shipped program has nothing of this.
//!
//! The seed also decides how a schedule behaves as a whole: how often it switches, whether an actor may be
//! stalled for long, and whether time passes while others could run. Different faults need different ones.
//!
//! Actors must not wait for each other by anything but `sys`: a lock of the standard library that is held
//! across a choice point would block the only thread that runs. [`Scheduler::run`] reports that as
//! [`ScheduleEnd::Stuck`].
//!
//! Called by `thread`, `scheduled` and `channel` for the actors, and by model tests.

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, MutexGuard};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use super::clock::Moment;
use super::plain_mutex::PlainMutex;

mod actor;
mod operation;
mod state;

pub(super) use actor::{CurrentActor, current_actor, is_actor_unwind};
pub(super) use operation::{Operation, WaitKey};
use state::{Actor, ActorState, ScheduleState};

/// In [`Shared::turn`]: no actor runs, the thread in [`Scheduler::run`] does.
const NO_ACTOR: usize = usize::MAX;

/// A debug build needs more than a shipped one.
const STACK_OCTETS: usize = 1024 * 1024;

/// After so long without a step, an actor blocks in something that the scheduler does not know. Real time;
/// an actor that computes takes far less.
const STUCK_AFTER: Duration = Duration::from_secs(60);

/// How a schedule ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ScheduleEnd {
    /// All actors have returned.
    AllFinished,
    /// No actor can run, and none waits for a time: who waits for what.
    Deadlock(String),
    /// More choice points than [`Scheduler::limit`] allows.
    StepLimitReached,
    /// [`Scheduler::kill`].
    Killed,
    /// [`Scheduler::fail`], and what it said.
    Failed(String),
    /// A panic left an actor: its name, and what the panic said.
    Panicked(String, String),
    /// An actor blocks in something that the scheduler does not know: what it did last. Its thread is left
    /// behind.
    Stuck(String),
}

/// One schedule; clones share it.
#[derive(Clone)]
pub struct Scheduler(Arc<SharedSchedule>);

struct SharedSchedule {
    state: PlainMutex<ScheduleState>,
    /// The number of the actor that runs. Each thread waits until it is its own.
    active_actor: AtomicUsize,
}

impl Scheduler {
    /// The schedule of this seed, without actors yet.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(Arc::new(SharedSchedule {
            state: PlainMutex::new(ScheduleState::new(seed)),
            active_actor: AtomicUsize::new(NO_ACTOR),
        }))
    }

    /// The clock by which waits end: when no actor can run, it is advanced to the earliest deadline. Both are
    /// called under the scheduler's lock and must not come back to it: no lock of `sys` but `PlainMutex`.
    pub fn set_clock(
        &self,
        now: impl Fn() -> Moment + Send + 'static,
        advance: impl Fn(Duration) + Send + 'static,
    ) {
        self.state().set_clock(now, advance);
    }

    /// How many choice points a schedule may have; 100,000 if nothing is said.
    pub fn set_steps_max(&self, steps: u64) {
        self.state().steps_max = steps;
    }

    /// An actor. It begins when it is chosen, not before [`Scheduler::run`]; a scheduler with actors must be
    /// run.
    ///
    /// # Errors
    /// When the host has no thread to give.
    pub fn spawn(&self, name: impl Into<String>, body: impl FnOnce() + Send + 'static) -> io::Result<()> {
        let (number, handle) = self.start_actor(name.into(), body)?;
        if let Some(actor) = self.state().actors.get_mut(number) {
            actor.handle = Some(handle);
        }
        Ok(())
    }

    /// At this choice point, or at the first after it: called on the actor that reached it, before it goes on.
    pub fn at_step(&self, step: u64, act: impl FnOnce() + Send + 'static) {
        self.state().events.entry(step).or_default().push(Box::new(act));
    }

    /// At each choice point, with its number: called on the actor that reached it. For invariants; what
    /// is wrong goes to [`Scheduler::fail`], for a panic may be caught by the code under test.
    pub fn on_each_step(&self, look: impl FnMut(u64) + Send + 'static) {
        self.state().each_step = Some(Box::new(look));
    }

    /// Every actor ends at its next choice point, as if the process were killed: it is unwound. While it
    /// unwinds nothing is a choice point, and it still waits for locks that others have to let go. Those
    /// parts of the code under test that run then must have no effect: freeze the disk first.
    pub fn kill(&self) {
        self.state().stop(ScheduleEnd::Killed);
    }

    /// The test has found a fault: ends the schedule like [`Scheduler::kill`].
    pub fn fail(&self, why: impl Into<String>) {
        self.state().stop(ScheduleEnd::Failed(why.into()));
    }

    /// Choice points so far.
    #[must_use]
    pub fn steps(&self) -> u64 {
        self.state().steps
    }

    /// The last 2,000 choice points, one line each: its number, the actor, what it was about to do.
    #[must_use]
    pub fn trace(&self) -> Vec<String> {
        let core = self.state();
        core.trace.iter().map(|line| core.format_entry(line)).collect()
    }

    /// Runs all actors until the schedule ends; the first reason to end it counts. Called once, by the test's
    /// thread, which is not an actor.
    #[must_use]
    pub fn run(&self) -> ScheduleEnd {
        let mut core = self.state();
        core.caller = Some(std::thread::current());
        self.pass_turn(core);
        let (mut seen, mut since) = (0, Instant::now());
        while self.0.active_actor.load(Ordering::Acquire) != NO_ACTOR {
            std::thread::park_timeout(STUCK_AFTER);
            let core = self.state();
            if core.steps != seen {
                (seen, since) = (core.steps, Instant::now());
            } else if since.elapsed() >= STUCK_AFTER
                && self.0.active_actor.load(Ordering::Acquire) != NO_ACTOR
            {
                let last = core.trace.back().map(|line| core.format_entry(line)).unwrap_or_default();
                return ScheduleEnd::Stuck(last);
            }
        }
        let mut core = self.state();
        let over = core.actors.iter_mut().filter(|actor| matches!(actor.state, ActorState::Finished));
        let handles: Vec<_> = over.filter_map(|actor| actor.handle.take()).collect();
        // What these hold may hold this scheduler.
        let left = core.take_test_closures();
        let end = core.end.clone().unwrap_or(ScheduleEnd::AllFinished);
        drop(core);
        drop(left);
        handles.into_iter().for_each(|handle| drop(handle.join()));
        end
    }

    fn state(&self) -> MutexGuard<'_, ScheduleState> {
        self.0.state.lock()
    }

    fn start_actor(
        &self,
        name: String,
        body: impl FnOnce() + Send + 'static,
    ) -> io::Result<(usize, JoinHandle<()>)> {
        let mut core = self.state();
        let number = core.actors.len();
        let here = CurrentActor { scheduler: self.clone(), number };
        // It waits for its turn, which nobody gives while we hold the lock.
        let builder = Builder::new().name(name.clone()).stack_size(STACK_OCTETS);
        let handle = builder.spawn(move || here.run_thread(body))?;
        core.actors.push(Actor::new(name, handle.thread().clone()));
        Ok((number, handle))
    }

    /// Gives the turn to whom chance chooses, or back to [`Scheduler::run`] when that is over. The caller must
    /// not go on before it is chosen again.
    fn pass_turn(&self, mut core: MutexGuard<'_, ScheduleState>) {
        if let (next, Some(thread)) = core.next_turn() {
            drop(core);
            self.0.active_actor.store(next, Ordering::Release);
            thread.unpark();
        }
    }
}

#[cfg(test)]
mod tests;
