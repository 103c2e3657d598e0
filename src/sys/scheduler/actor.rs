//! The current thread as an actor: what locks, channels and disks call.

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

/// A condition variable may wake without notice; once in so many waits, it does.
const SPURIOUS_WAKE_ONE_IN: u64 = 16;

thread_local! {
    static CURRENT: RefCell<Option<CurrentActor>> = const { RefCell::new(None) };
}

/// The payload with which actors are unwound when a schedule ends early.
struct ActorUnwind;

/// Whether this is the payload of an actor that is being ended, and not a panic.
pub(in crate::sys) fn is_actor_unwind(payload: &(dyn Any + Send)) -> bool {
    payload.is::<ActorUnwind>()
}

/// The current thread as an actor.
#[derive(Clone)]
pub(in crate::sys) struct CurrentActor {
    pub(super) scheduler: Scheduler,
    pub(super) number: usize,
}

/// The current thread as an actor, if it is one.
pub(in crate::sys) fn current_actor() -> Option<CurrentActor> {
    CURRENT.try_with(|current| current.borrow().clone()).ok().flatten()
}

impl CurrentActor {
    /// The actor is about to do this: others may run first.
    pub(in crate::sys) fn scheduling_point(&self, doing: Operation) {
        if !self.switch_maybe(None, doing) {
            self.unwind_if_ended();
        }
    }

    /// The actor has let something go: those who wait for it look again. In a destructor, which must not
    /// unwind.
    pub(in crate::sys) fn release(&self, key: WaitKey, doing: Operation) {
        self.switch_maybe(Some(key), doing);
    }

    /// Those who wait for it look again, when it is their turn.
    pub(in crate::sys) fn wake(&self, key: WaitKey) {
        self.scheduler.state().wake(key);
    }

    /// False if the schedule is over.
    fn switch_maybe(&self, let_go: Option<WaitKey>, doing: Operation) -> bool {
        let mut core = self.scheduler.state();
        if let Some(key) = let_go {
            core.wake(key);
        }
        if panicking() {
            return true;
        }
        core.steps += 1;
        core.record(Some(self.number), doing);
        if core.steps > core.steps_max {
            core.stop(ScheduleEnd::StepLimitReached);
        }
        if core.end.is_none() {
            core = self.run_events(core);
        }
        let switch_one_in = core.switch_one_in;
        if core.end.is_none() && core.happens_once_in(switch_one_in) {
            let stall_one_in = core.stall_one_in;
            if core.happens_once_in(stall_one_in) {
                let until = core.steps + (1 << core.random_below(10));
                if let Some(actor) = core.actors.get_mut(self.number) {
                    actor.stalled_until = until;
                }
            }
            self.yield_turn(core);
            core = self.scheduler.state();
        }
        core.end.is_none()
    }

    /// Events and invariants, without the scheduler's lock: they may do what an actor may.
    fn run_events<'a>(&'a self, mut core: MutexGuard<'a, ScheduleState>) -> MutexGuard<'a, ScheduleState> {
        let steps = core.steps;
        while let Some(entry) = core.events.first_entry()
            && *entry.key() <= steps
        {
            let events = entry.remove();
            drop(core);
            events.into_iter().for_each(|event| event());
            core = self.scheduler.state();
        }
        if let Some(mut look) = core.each_step.take() {
            drop(core);
            look(steps);
            core = self.scheduler.state();
            core.each_step = Some(look);
        }
        core
    }

    /// Gives the turn away and waits to have it again.
    fn yield_turn(&self, core: MutexGuard<'_, ScheduleState>) {
        self.scheduler.pass_turn(core);
        self.await_turn();
    }

    fn await_turn(&self) {
        while self.scheduler.0.active_actor.load(Ordering::Acquire) != self.number {
            std::thread::park();
        }
    }

    fn unwind_if_ended(&self) {
        if self.scheduler.state().end.is_some() && !panicking() {
            // Without the panic hook: nothing went wrong.
            resume_unwind(Box::new(ActorUnwind));
        }
    }

    /// The actor cannot go on before somebody lets go what it waits for. It may come back for nothing, and
    /// has to look again; true if it is because the deadline has passed.
    pub(in crate::sys) fn wait(&self, on: WaitKey, doing: &Operation, deadline: Option<Moment>) -> bool {
        self.unwind_if_ended();
        let mut core = self.scheduler.state();
        if let Some(actor) = core.actors.get_mut(self.number) {
            actor.state = ActorState::Waiting { on, operation: doing.clone(), deadline };
        }
        self.yield_turn(core);
        self.unwind_if_ended();
        let mut core = self.scheduler.state();
        core.actors.get_mut(self.number).is_some_and(|actor| std::mem::take(&mut actor.is_timed_out))
    }

    /// The same for a condition variable, which sometimes wakes without notice.
    pub(in crate::sys) fn wait_for_notify(&self, on: WaitKey, doing: &Operation) {
        let mut core = self.scheduler.state();
        if core.happens_once_in(SPURIOUS_WAKE_ONE_IN) {
            self.yield_turn(core);
            self.unwind_if_ended();
        } else {
            drop(core);
            self.wait(on, doing, None);
        }
    }

    /// The schedule is over, and this actor unwinds: nobody will send it anything.
    pub(in crate::sys) fn has_ended(&self) -> bool {
        self.scheduler.state().end.is_some()
    }

    /// Now, by the clock of the test.
    pub(in crate::sys) fn now(&self) -> Moment {
        self.scheduler.state().clock.now()
    }

    /// Another actor of the same schedule.
    pub(in crate::sys) fn spawn(
        &self,
        name: String,
        body: impl FnOnce() + Send + 'static,
    ) -> io::Result<JoinHandle<()>> {
        let doing = Operation::from_text(format!("spawn {name}"));
        let (_, handle) = self.scheduler.start_actor(name, body)?;
        self.scheduling_point(doing);
        Ok(handle)
    }

    /// Waits until that thread is over, if it is an actor of the same schedule.
    pub(in crate::sys) fn join(&self, thread: ThreadId) {
        let core = self.scheduler.state();
        let is_it = |actor: &Actor| actor.thread.id() == thread;
        let Some(number) = core.actors.iter().position(is_it) else { return };
        let name = core.actors.get(number).map(|actor| actor.name.clone()).unwrap_or_default();
        drop(core);
        let doing = Operation::from_text(format!("join {name}"));
        self.scheduling_point(doing.clone());
        let is_running = || {
            let core = self.scheduler.state();
            core.actors.get(number).is_some_and(|actor| !matches!(actor.state, ActorState::Finished))
        };
        while is_running() {
            self.wait(WaitKey::ActorEnd(number), &doing, None);
        }
    }

    /// The life of an actor's thread.
    pub(super) fn run_thread(self, body: impl FnOnce()) {
        self.await_turn();
        CURRENT.set(Some(self.clone()));
        let lived = catch_unwind(AssertUnwindSafe(|| {
            self.unwind_if_ended();
            body();
        }));
        CURRENT.set(None);
        let mut core = self.scheduler.state();
        let name = core.actors.get_mut(self.number).map(|actor| {
            actor.state = ActorState::Finished;
            actor.name.clone()
        });
        if let Err(panic) = &lived
            && !is_actor_unwind(panic.as_ref())
        {
            core.stop(ScheduleEnd::Panicked(name.unwrap_or_default(), panic_message(panic.as_ref())));
        }
        core.wake(WaitKey::ActorEnd(self.number));
        self.scheduler.pass_turn(core);
        // Who joins it sees how it ended.
        if let Err(panic) = lived {
            resume_unwind(panic);
        }
    }
}

fn panic_message(panic: &(dyn Any + Send)) -> String {
    let text =
        panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("no words").to_owned()
}
