//! The current thread as an actor: what locks, channels and disks call.

use std::any::Any;
use std::cell::RefCell;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::MutexGuard;
use std::sync::atomic::Ordering;
use std::thread::{JoinHandle, ThreadId, panicking};

use super::super::clock::Moment;
use super::state::{Actor, Core, State};
use super::{Doing, Key, ScheduleEnd, Scheduler};

/// A condition variable may wake without notice; once in so many waits, it does.
const SPURIOUS_ONE_IN: u64 = 16;

thread_local! {
    static CURRENT: RefCell<Option<Here>> = const { RefCell::new(None) };
}

/// The payload with which actors are unwound when a schedule ends early.
struct Unwound;

/// Whether this is the payload of an actor that is being ended, and not a panic.
pub(in crate::sys) fn is_end_of_actor(payload: &(dyn Any + Send)) -> bool {
    payload.is::<Unwound>()
}

/// The current thread as an actor.
#[derive(Clone)]
pub(in crate::sys) struct Here {
    pub(super) scheduler: Scheduler,
    pub(super) number: usize,
}

/// The current thread as an actor, if it is one.
pub(in crate::sys) fn current() -> Option<Here> {
    CURRENT.try_with(|current| current.borrow().clone()).ok().flatten()
}

impl Here {
    /// The actor is about to do this: others may run first.
    pub(in crate::sys) fn point(&self, doing: Doing) {
        if !self.may_switch(None, doing) {
            self.unwind_if_over();
        }
    }

    /// The actor has let something go: those who wait for it look again. In a destructor, which must not
    /// unwind.
    pub(in crate::sys) fn let_go(&self, key: Key, doing: Doing) {
        self.may_switch(Some(key), doing);
    }

    /// Those who wait for it look again, when it is their turn.
    pub(in crate::sys) fn wake(&self, key: Key) {
        self.scheduler.core().wake(key);
    }

    /// False if the schedule is over.
    fn may_switch(&self, let_go: Option<Key>, doing: Doing) -> bool {
        let mut core = self.scheduler.core();
        if let Some(key) = let_go {
            core.wake(key);
        }
        if panicking() {
            return true;
        }
        core.steps += 1;
        core.note(Some(self.number), doing);
        if core.steps > core.steps_max {
            core.stop(ScheduleEnd::StepsOver);
        }
        if core.end.is_none() {
            core = self.occurrences(core);
        }
        let switch_one_in = core.switch_one_in;
        if core.end.is_none() && core.is_once_in(switch_one_in) {
            let stall_one_in = core.stall_one_in;
            if core.is_once_in(stall_one_in) {
                let until = core.steps + (1 << core.below(10));
                if let Some(actor) = core.actors.get_mut(self.number) {
                    actor.stalled_until = until;
                }
            }
            self.pass(core);
            core = self.scheduler.core();
        }
        core.end.is_none()
    }

    /// Events and invariants, without the scheduler's lock: they may do what an actor may.
    fn occurrences<'a>(&'a self, mut core: MutexGuard<'a, Core>) -> MutexGuard<'a, Core> {
        let steps = core.steps;
        while let Some(entry) = core.events.first_entry()
            && *entry.key() <= steps
        {
            let events = entry.remove();
            drop(core);
            events.into_iter().for_each(|event| event());
            core = self.scheduler.core();
        }
        if let Some(mut look) = core.each_step.take() {
            drop(core);
            look(steps);
            core = self.scheduler.core();
            core.each_step = Some(look);
        }
        core
    }

    /// Gives the turn away and waits to have it again.
    fn pass(&self, core: MutexGuard<'_, Core>) {
        self.scheduler.hand_on(core);
        self.await_turn();
    }

    fn await_turn(&self) {
        while self.scheduler.0.turn.load(Ordering::Acquire) != self.number {
            std::thread::park();
        }
    }

    fn unwind_if_over(&self) {
        if self.scheduler.core().end.is_some() && !panicking() {
            // Without the panic hook: nothing went wrong.
            resume_unwind(Box::new(Unwound));
        }
    }

    /// The actor cannot go on before somebody lets go what it waits for. It may come back for nothing, and
    /// has to look again; true if it is because the deadline has passed.
    pub(in crate::sys) fn wait(&self, on: Key, doing: &Doing, deadline: Option<Moment>) -> bool {
        self.unwind_if_over();
        let mut core = self.scheduler.core();
        if let Some(actor) = core.actors.get_mut(self.number) {
            actor.state = State::Waiting { on, doing: doing.clone(), deadline };
        }
        self.pass(core);
        self.unwind_if_over();
        let mut core = self.scheduler.core();
        core.actors.get_mut(self.number).is_some_and(|actor| std::mem::take(&mut actor.is_timed_out))
    }

    /// The same for a condition variable, which sometimes wakes without notice.
    pub(in crate::sys) fn wait_for_notice(&self, on: Key, doing: &Doing) {
        let mut core = self.scheduler.core();
        if core.is_once_in(SPURIOUS_ONE_IN) {
            self.pass(core);
            self.unwind_if_over();
        } else {
            drop(core);
            self.wait(on, doing, None);
        }
    }

    /// The schedule is over, and this actor unwinds: nobody will send it anything.
    pub(in crate::sys) fn is_over(&self) -> bool {
        self.scheduler.core().end.is_some()
    }

    /// Now, by the clock of the test.
    pub(in crate::sys) fn now(&self) -> Moment {
        self.scheduler.core().clock.now()
    }

    /// Another actor of the same schedule.
    pub(in crate::sys) fn spawn(
        &self,
        name: String,
        body: impl FnOnce() + Send + 'static,
    ) -> io::Result<JoinHandle<()>> {
        let doing = Doing::text(format!("spawn {name}"));
        let (_, handle) = self.scheduler.begin(name, body)?;
        self.point(doing);
        Ok(handle)
    }

    /// Waits until that thread is over, if it is an actor of the same schedule.
    pub(in crate::sys) fn join(&self, thread: ThreadId) {
        let core = self.scheduler.core();
        let is_it = |actor: &Actor| actor.thread.id() == thread;
        let Some(number) = core.actors.iter().position(is_it) else { return };
        let name = core.actors.get(number).map(|actor| actor.name.clone()).unwrap_or_default();
        drop(core);
        let doing = Doing::text(format!("join {name}"));
        self.point(doing.clone());
        let is_running = || {
            let core = self.scheduler.core();
            core.actors.get(number).is_some_and(|actor| !matches!(actor.state, State::Over))
        };
        while is_running() {
            self.wait(Key::End(number), &doing, None);
        }
    }

    /// The life of an actor's thread.
    pub(super) fn live(self, body: impl FnOnce()) {
        self.await_turn();
        CURRENT.set(Some(self.clone()));
        let lived = catch_unwind(AssertUnwindSafe(|| {
            self.unwind_if_over();
            body();
        }));
        CURRENT.set(None);
        let mut core = self.scheduler.core();
        let name = core.actors.get_mut(self.number).map(|actor| {
            actor.state = State::Over;
            actor.name.clone()
        });
        if let Err(panic) = &lived
            && !is_end_of_actor(panic.as_ref())
        {
            core.stop(ScheduleEnd::Panicked(name.unwrap_or_default(), words(panic.as_ref())));
        }
        core.wake(Key::End(self.number));
        self.scheduler.hand_on(core);
        // Who joins it sees how it ended.
        if let Err(panic) = lived {
            resume_unwind(panic);
        }
    }
}

fn words(panic: &(dyn Any + Send)) -> String {
    let text =
        panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("no words").to_owned()
}
