//! The current thread as an actor, for locks, channels and disks.

use std::any::Any;
use std::cell::RefCell;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::MutexGuard;
use std::sync::atomic::Ordering;
use std::thread::{JoinHandle, ThreadId, panicking};

use super::super::clock::Moment;
use super::state::{Actor, ActorState, ScheduleState};
use super::{Operation, ScheduleEnd, Scheduler, WaitKey};

/// One in so many waits for a condition variable ends without a notification, which POSIX allows.
const SPURIOUS_WAKE_ONE_IN: u64 = 16;

thread_local! {
    static CURRENT: RefCell<Option<CurrentActor>> = const { RefCell::new(None) };
}

/// The panic payload that unwinds an actor when a schedule ends early.
struct ActorUnwind;

/// Whether this payload unwinds an actor at the end of a schedule, and is not a panic.
pub(in crate::sys) fn is_actor_unwind(payload: &(dyn Any + Send)) -> bool {
    payload.is::<ActorUnwind>()
}

/// The actor whose thread is the current one.
#[derive(Clone)]
pub(in crate::sys) struct CurrentActor {
    pub(super) scheduler: Scheduler,
    pub(super) number: usize,
}

/// The actor whose thread is the current one; `None` on any other thread.
pub(in crate::sys) fn current_actor() -> Option<CurrentActor> {
    CURRENT.try_with(|current| current.borrow().clone()).ok().flatten()
}

impl CurrentActor {
    /// The actor is about to do `operation`: other actors may run first.
    pub(in crate::sys) fn scheduling_point(&self, operation: Operation) {
        if !self.switch_maybe(None, operation) {
            self.unwind_if_ended();
        }
    }

    /// The actor has released `key`: actors that wait for it try again. For destructors: does not unwind.
    pub(in crate::sys) fn release(&self, key: WaitKey, operation: Operation) {
        self.switch_maybe(Some(key), operation);
    }

    /// Makes the actors ready that wait for `key`.
    pub(in crate::sys) fn wake(&self, key: WaitKey) {
        self.scheduler.state().wake(key);
    }

    /// Lets another actor run, or not. False if the schedule has ended.
    fn switch_maybe(&self, released: Option<WaitKey>, operation: Operation) -> bool {
        let mut state = self.scheduler.state();
        if let Some(key) = released {
            state.wake(key);
        }
        if panicking() {
            return true;
        }
        state.steps += 1;
        state.record(Some(self.number), operation);
        if state.steps > state.steps_max {
            state.stop(ScheduleEnd::StepLimitReached);
        }
        if state.end.is_none() {
            state = self.run_events(state);
        }
        let switch_one_in = state.switch_one_in;
        if state.end.is_none() && state.happens_once_in(switch_one_in) {
            let stall_one_in = state.stall_one_in;
            if state.happens_once_in(stall_one_in) {
                let until = state.steps + (1 << state.random_below(10));
                if let Some(actor) = state.actors.get_mut(self.number) {
                    actor.stalled_until = until;
                }
            }
            self.yield_turn(state);
            state = self.scheduler.state();
        }
        state.end.is_none()
    }

    /// Calls events and checks without the lock of the scheduler: they may do whatever an actor may.
    fn run_events<'a>(&'a self, mut state: MutexGuard<'a, ScheduleState>) -> MutexGuard<'a, ScheduleState> {
        let steps = state.steps;
        while let Some(entry) = state.events.first_entry()
            && *entry.key() <= steps
        {
            let events = entry.remove();
            drop(state);
            events.into_iter().for_each(|event| event());
            state = self.scheduler.state();
        }
        if let Some(mut check) = state.each_step.take() {
            drop(state);
            check(steps);
            state = self.scheduler.state();
            state.each_step = Some(check);
        }
        state
    }

    /// Gives the turn away and waits until it comes back.
    fn yield_turn(&self, state: MutexGuard<'_, ScheduleState>) {
        self.scheduler.pass_turn(state);
        self.await_turn();
    }

    fn await_turn(&self) {
        while self.scheduler.0.active_actor.load(Ordering::Acquire) != self.number {
            std::thread::park();
        }
    }

    fn unwind_if_ended(&self) {
        if self.scheduler.state().end.is_some() && !panicking() {
            // `resume_unwind` does not call the panic hook: this is not an error.
            resume_unwind(Box::new(ActorUnwind));
        }
    }

    /// Waits until another actor releases `on`. The wait may end without a reason, so the caller must check again;
    /// true if it ended because the deadline has passed.
    pub(in crate::sys) fn wait(&self, on: WaitKey, operation: &Operation, deadline: Option<Moment>) -> bool {
        self.unwind_if_ended();
        let mut state = self.scheduler.state();
        if let Some(actor) = state.actors.get_mut(self.number) {
            actor.state = ActorState::Waiting { on, operation: operation.clone(), deadline };
        }
        self.yield_turn(state);
        self.unwind_if_ended();
        let mut state = self.scheduler.state();
        state.actors.get_mut(self.number).is_some_and(|actor| std::mem::take(&mut actor.is_timed_out))
    }

    /// Waits like [`Self::wait`] for a condition variable, and sometimes ends without a notification.
    pub(in crate::sys) fn wait_for_notify(&self, on: WaitKey, operation: &Operation) {
        let mut state = self.scheduler.state();
        if state.happens_once_in(SPURIOUS_WAKE_ONE_IN) {
            self.yield_turn(state);
            self.unwind_if_ended();
        } else {
            drop(state);
            self.wait(on, operation, None);
        }
    }

    /// The schedule has ended and this actor unwinds, so that no message will come.
    pub(in crate::sys) fn has_ended(&self) -> bool {
        self.scheduler.state().end.is_some()
    }

    /// The time by the clock of the test.
    pub(in crate::sys) fn now(&self) -> Moment {
        self.scheduler.state().clock.now()
    }

    /// Starts another actor of the same schedule.
    pub(in crate::sys) fn spawn(
        &self,
        name: String,
        body: impl FnOnce() + Send + 'static,
    ) -> io::Result<JoinHandle<()>> {
        let operation = Operation::from_text(format!("spawn {name}"));
        let (_, handle) = self.scheduler.start_actor(name, body)?;
        self.scheduling_point(operation);
        Ok(handle)
    }

    /// Waits until that thread has ended, if it is an actor of the same schedule.
    pub(in crate::sys) fn join(&self, thread: ThreadId) {
        let state = self.scheduler.state();
        let is_it = |actor: &Actor| actor.thread.id() == thread;
        let Some(number) = state.actors.iter().position(is_it) else { return };
        let name = state.actors.get(number).map(|actor| actor.name.clone()).unwrap_or_default();
        drop(state);
        let operation = Operation::from_text(format!("join {name}"));
        self.scheduling_point(operation.clone());
        let is_running = || {
            let state = self.scheduler.state();
            state.actors.get(number).is_some_and(|actor| !matches!(actor.state, ActorState::Finished))
        };
        while is_running() {
            self.wait(WaitKey::ActorEnd(number), &operation, None);
        }
    }

    /// Runs `body` on the thread of the actor, from its first turn to its end.
    pub(super) fn run_thread(self, body: impl FnOnce()) {
        self.await_turn();
        CURRENT.set(Some(self.clone()));
        let result = catch_unwind(AssertUnwindSafe(|| {
            self.unwind_if_ended();
            body();
        }));
        CURRENT.set(None);
        let mut state = self.scheduler.state();
        let name = state.actors.get_mut(self.number).map(|actor| {
            actor.state = ActorState::Finished;
            actor.name.clone()
        });
        if let Err(panic) = &result
            && !is_actor_unwind(panic.as_ref())
        {
            state.stop(ScheduleEnd::Panicked(name.unwrap_or_default(), panic_message(panic.as_ref())));
        }
        state.wake(WaitKey::ActorEnd(self.number));
        self.scheduler.pass_turn(state);
        // The thread that joins this one gets the panic.
        if let Err(panic) = result {
            resume_unwind(panic);
        }
    }
}

fn panic_message(panic: &(dyn Any + Send)) -> String {
    let text =
        panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("no message").to_owned()
}
