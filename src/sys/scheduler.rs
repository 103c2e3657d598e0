//! A seeded scheduler for tests of concurrent code.
//!
//! A test spawns *actors*: threads of the host, of which exactly one runs at a time. At each *scheduling point*
//! (a lock, an unlock, a wait, a channel, an operation of the simulated disk) the scheduler may let another
//! actor run, by numbers from a seed. One seed gives one schedule, which can be repeated: it does not depend on
//! the scheduler and the clock of the host, on addresses, or on the order of a hash map.
//!
//! The locks and channels of `sys` check at run time whether the current thread is an actor. Other threads, and
//! all other tests, are not affected. A shipped program does not contain the scheduler.
//!
//! The seed also chooses how often the schedule switches, whether an actor may be stalled for long, and whether
//! time passes while actors could run: different faults need different schedules.
//!
//! Actors must wait for each other only through `sys`: a lock of the standard library that is held across a
//! scheduling point would block the only running thread. [`Scheduler::run`] reports that as
//! [`ScheduleEnd::Stuck`].
//!
//! Called by `thread`, `scheduled_mutex` and `channel` for the actors, and by model tests.

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

/// In [`SharedSchedule::active_actor`]: the thread in [`Scheduler::run`] runs instead of an actor.
const NO_ACTOR: usize = usize::MAX;

/// Octets of the stack of an actor: a debug build needs more than a shipped program.
const STACK_OCTETS: usize = 1024 * 1024;

/// After this real time without a step, an actor must be blocked outside of the scheduler: computing takes far
/// less.
const STUCK_AFTER: Duration = Duration::from_secs(60);

/// How a schedule ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ScheduleEnd {
    /// All actors have returned.
    AllFinished,
    /// No actor can run, and none waits for a deadline: the text lists which actor waits for what.
    Deadlock(String),
    /// More scheduling points than [`Scheduler::set_steps_max`] allows.
    StepLimitReached,
    /// [`Scheduler::kill`] was called.
    Killed,
    /// [`Scheduler::fail`] was called with this text.
    Failed(String),
    /// An actor panicked: its name, and the message of the panic.
    Panicked(String, String),
    /// An actor is blocked outside of the scheduler: its last operation. Its thread is abandoned.
    Stuck(String),
}

/// A schedule and its actors; clones share them.
#[derive(Clone)]
pub struct Scheduler(Arc<SharedSchedule>);

struct SharedSchedule {
    state: PlainMutex<ScheduleState>,
    /// The number of the running actor. The thread of an actor waits until this is its number.
    active_actor: AtomicUsize,
}

impl Scheduler {
    /// The schedule of this seed, still without actors.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(Arc::new(SharedSchedule {
            state: PlainMutex::new(ScheduleState::new(seed)),
            active_actor: AtomicUsize::new(NO_ACTOR),
        }))
    }

    /// Sets the clock by which waits end: when no actor can run, it is advanced to the earliest deadline. Both
    /// functions are called under the lock of the scheduler and must not call it: they may take a `PlainMutex`,
    /// but no other lock of `sys`.
    pub fn set_clock(
        &self,
        now: impl Fn() -> Moment + Send + 'static,
        advance: impl Fn(Duration) + Send + 'static,
    ) {
        self.state().set_clock(now, advance);
    }

    /// Sets how many scheduling points the schedule may have; the default is 100,000.
    pub fn set_steps_max(&self, steps: u64) {
        self.state().steps_max = steps;
    }

    /// Adds an actor. It begins when it is chosen, after the call of [`Scheduler::run`]. A scheduler with actors
    /// must be run.
    ///
    /// # Errors
    /// When the host cannot start a thread.
    pub fn spawn(&self, name: impl Into<String>, body: impl FnOnce() + Send + 'static) -> io::Result<()> {
        let (number, handle) = self.start_actor(name.into(), body)?;
        if let Some(actor) = self.state().actors.get_mut(number) {
            actor.handle = Some(handle);
        }
        Ok(())
    }

    /// Calls `act` at this scheduling point, or at the first one after it, on the actor that reached it.
    pub fn at_step(&self, step: u64, act: impl FnOnce() + Send + 'static) {
        self.state().events.entry(step).or_default().push(Box::new(act));
    }

    /// Calls `check` at each scheduling point with its number, on the actor that reached it. For invariants: a
    /// violation is reported by [`Scheduler::fail`], because the code under test may catch a panic.
    pub fn on_each_step(&self, check: impl FnMut(u64) + Send + 'static) {
        self.state().each_step = Some(Box::new(check));
    }

    /// Ends every actor at its next scheduling point by unwinding it, as if the process were killed. While an
    /// actor unwinds it has no scheduling points, and still waits for locks that other actors hold. The
    /// destructors that run then must have no effect: stop the disk first.
    pub fn kill(&self) {
        self.state().stop(ScheduleEnd::Killed);
    }

    /// Ends the schedule like [`Scheduler::kill`], because the test has found a fault.
    pub fn fail(&self, why: impl Into<String>) {
        self.state().stop(ScheduleEnd::Failed(why.into()));
    }

    /// How many scheduling points there have been.
    #[must_use]
    pub fn steps(&self) -> u64 {
        self.state().steps
    }

    /// The last 2,000 scheduling points, one line each: its number, the actor, and the operation that follows.
    #[must_use]
    pub fn trace(&self) -> Vec<String> {
        let state = self.state();
        state.trace.iter().map(|line| state.format_entry(line)).collect()
    }

    /// Runs all actors until the schedule ends, and returns the first reason to end it. Called once, by the
    /// thread of the test, which is not an actor.
    #[must_use]
    pub fn run(&self) -> ScheduleEnd {
        let mut state = self.state();
        state.caller = Some(std::thread::current());
        self.pass_turn(state);
        let (mut seen, mut since) = (0, Instant::now());
        while self.0.active_actor.load(Ordering::Acquire) != NO_ACTOR {
            std::thread::park_timeout(STUCK_AFTER);
            let state = self.state();
            if state.steps != seen {
                (seen, since) = (state.steps, Instant::now());
            } else if since.elapsed() >= STUCK_AFTER
                && self.0.active_actor.load(Ordering::Acquire) != NO_ACTOR
            {
                let last = state.trace.back().map(|line| state.format_entry(line)).unwrap_or_default();
                return ScheduleEnd::Stuck(last);
            }
        }
        let mut state = self.state();
        let over = state.actors.iter_mut().filter(|actor| matches!(actor.state, ActorState::Finished));
        let handles: Vec<_> = over.filter_map(|actor| actor.handle.take()).collect();
        // Values in these closures may hold this scheduler.
        let left = state.take_test_closures();
        let end = state.end.clone().unwrap_or(ScheduleEnd::AllFinished);
        drop(state);
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
        let mut state = self.state();
        let number = state.actors.len();
        let here = CurrentActor { scheduler: self.clone(), number };
        // The new thread waits for its turn, which it cannot get while the lock is held.
        let builder = Builder::new().name(name.clone()).stack_size(STACK_OCTETS);
        let handle = builder.spawn(move || here.run_thread(body))?;
        state.actors.push(Actor::new(name, handle.thread().clone()));
        Ok((number, handle))
    }

    /// Gives the turn to a random actor, or back to [`Scheduler::run`] at the end. The caller must not go on before
    /// it is chosen again.
    fn pass_turn(&self, mut state: MutexGuard<'_, ScheduleState>) {
        if let (next, Some(thread)) = state.next_turn() {
            drop(state);
            self.0.active_actor.store(next, Ordering::Release);
            thread.unpark();
        }
    }
}

#[cfg(test)]
mod tests;
