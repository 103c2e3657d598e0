//! The state of a schedule, and the choice of the next actor. Has no threads and does not wait.

use std::collections::{BTreeMap, VecDeque};
use std::thread::{JoinHandle, Thread};
use std::time::Duration;

use super::super::clock::Moment;
use super::{NO_ACTOR, Operation, ScheduleEnd, WaitKey};

/// Scheduling points that are kept for the trace.
const TRACE_LINES: usize = 2_000;

/// The limit of scheduling points unless a test sets another one.
const STEPS_MAX_DEFAULT: u64 = 100_000;

pub(super) type StepEvent = Box<dyn FnOnce() + Send>;
pub(super) type StepCheck = Box<dyn FnMut(u64) + Send>;

pub(super) struct ScheduleState {
    pub(super) random: u64,
    /// One in so many scheduling points switches actors.
    pub(super) switch_one_in: u64,
    /// One in so many switches stalls the actor that it leaves; none if 0.
    pub(super) stall_one_in: u64,
    /// At one in so many switches the earliest deadline passes; at none if 0.
    pub(super) early_timeout_one_in: u64,
    pub(super) steps: u64,
    pub(super) steps_max: u64,
    pub(super) actors: Vec<Actor>,
    pub(super) events: BTreeMap<u64, Vec<StepEvent>>,
    pub(super) each_step: Option<StepCheck>,
    pub(super) clock: Box<dyn TimeSource>,
    pub(super) trace: VecDeque<TraceEntry>,
    /// Why the schedule ends. Once it is set, every actor unwinds.
    pub(super) end: Option<ScheduleEnd>,
    pub(super) caller: Option<Thread>,
}

pub(super) struct Actor {
    pub(super) name: String,
    pub(super) state: ActorState,
    /// The actor became ready because its deadline passed.
    pub(super) is_timed_out: bool,
    /// The actor is not chosen before this step, unless no other actor can run.
    pub(super) stalled_until: u64,
    pub(super) thread: Thread,
    /// Set if the test spawned the actor; an actor has the handles of the actors that it spawned.
    pub(super) handle: Option<JoinHandle<()>>,
}

pub(super) enum ActorState {
    Ready,
    Waiting { on: WaitKey, operation: Operation, deadline: Option<Moment> },
    Finished,
}

pub(super) struct TraceEntry {
    pub(super) step: u64,
    pub(super) actor: Option<usize>,
    pub(super) operation: Operation,
}

/// The clock of a schedule.
pub(super) trait TimeSource: Send {
    fn now(&self) -> Moment;
    fn advance(&mut self, by: Duration);
}

/// The clock of a schedule whose test sets none.
#[derive(Default)]
struct DefaultTime(Moment);

impl TimeSource for DefaultTime {
    fn now(&self) -> Moment {
        self.0
    }

    fn advance(&mut self, by: Duration) {
        self.0 = self.0 + by;
    }
}

struct TestTime<N, A>(N, A);

impl<N: Fn() -> Moment + Send, A: Fn(Duration) + Send> TimeSource for TestTime<N, A> {
    fn now(&self) -> Moment {
        (self.0)()
    }

    fn advance(&mut self, by: Duration) {
        (self.1)(by);
    }
}

impl Actor {
    pub(super) fn new(name: String, thread: Thread) -> Self {
        Self { name, state: ActorState::Ready, is_timed_out: false, stalled_until: 0, thread, handle: None }
    }
}

impl ScheduleState {
    pub(super) fn new(seed: u64) -> Self {
        let mut state = Self {
            random: seed,
            switch_one_in: 2,
            stall_one_in: 0,
            early_timeout_one_in: 0,
            steps: 0,
            steps_max: STEPS_MAX_DEFAULT,
            actors: Vec::new(),
            events: BTreeMap::new(),
            each_step: None,
            clock: Box::<DefaultTime>::default(),
            trace: VecDeque::new(),
            end: None,
            caller: None,
        };
        state.switch_one_in = state.pick_one([2, 8, 32]);
        state.stall_one_in = state.pick_one([0, 16, 4]);
        state.early_timeout_one_in = state.pick_one([0, 256, 32]);
        state
    }

    pub(super) fn set_clock(
        &mut self,
        now: impl Fn() -> Moment + Send + 'static,
        advance: impl Fn(Duration) + Send + 'static,
    ) {
        self.clock = Box::new(TestTime(now, advance));
    }

    /// Takes out everything that belongs to the test.
    pub(super) fn take_test_closures(&mut self) -> impl Sized + use<> {
        let own: Box<dyn TimeSource> = Box::<DefaultTime>::default();
        let clock = std::mem::replace(&mut self.clock, own);
        (std::mem::take(&mut self.events), self.each_step.take(), clock)
    }

    /// The next number of SplitMix64.
    fn random_bits(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A random number below `n`, which must not be 0.
    pub(super) fn random_below(&mut self, n: u64) -> u64 {
        self.random_bits() % n
    }

    pub(super) fn happens_once_in(&mut self, n: u64) -> bool {
        n > 0 && self.random_below(n) == 0
    }

    fn pick_one(&mut self, choices: [u64; 3]) -> u64 {
        let choice = usize::try_from(self.random_below(3)).unwrap_or_default();
        choices.get(choice).copied().unwrap_or_default()
    }

    pub(super) fn record(&mut self, actor: Option<usize>, operation: Operation) {
        if self.trace.len() == TRACE_LINES {
            self.trace.pop_front();
        }
        self.trace.push_back(TraceEntry { step: self.steps, actor, operation });
    }

    pub(super) fn format_entry(&self, line: &TraceEntry) -> String {
        let actor = line.actor.and_then(|number| self.actors.get(number));
        let name = actor.map_or("the clock", |actor| actor.name.as_str());
        format!("{} {name}: {}", line.step, line.operation)
    }

    /// Ends the schedule; the first reason counts. All actors run once more, to unwind.
    pub(super) fn stop(&mut self, end: ScheduleEnd) {
        self.end.get_or_insert(end);
        for actor in &mut self.actors {
            if !matches!(actor.state, ActorState::Finished) {
                actor.state = ActorState::Ready;
            }
        }
    }

    pub(super) fn wake(&mut self, key: WaitKey) {
        for actor in &mut self.actors {
            if matches!(actor.state, ActorState::Waiting { on, .. } if on == key) {
                actor.state = ActorState::Ready;
            }
        }
    }

    fn earliest_deadline(&self) -> Option<Moment> {
        let deadlines = self.actors.iter().filter_map(|actor| match actor.state {
            ActorState::Waiting { deadline, .. } => deadline,
            ActorState::Ready | ActorState::Finished => None,
        });
        deadlines.min()
    }

    /// Advances the clock to `deadline`, and makes the actors ready whose deadline has passed.
    fn advance_to(&mut self, deadline: Moment) {
        let missing = deadline.since(self.clock.now());
        if !missing.is_zero() {
            self.clock.advance(missing);
            self.record(None, Operation::from_text(format!("{missing:?} pass")));
        }
        self.expire_waits();
    }

    fn expire_waits(&mut self) {
        let now = self.clock.now();
        for actor in &mut self.actors {
            if matches!(actor.state, ActorState::Waiting { deadline: Some(deadline), .. } if deadline <= now)
            {
                (actor.state, actor.is_timed_out) = (ActorState::Ready, true);
            }
        }
    }

    /// The number of the actor that runs next, and its thread.
    pub(super) fn next_turn(&mut self) -> (usize, Option<Thread>) {
        if self.earliest_deadline().is_some() {
            // An actor may have advanced the clock.
            self.expire_waits();
        }
        if let Some(deadline) = self.earliest_deadline()
            && (!self.has_ready() || self.happens_once_in(self.early_timeout_one_in))
        {
            self.advance_to(deadline);
        }
        if !self.has_ready() && self.actors.iter().any(|actor| !matches!(actor.state, ActorState::Finished)) {
            if self.end.is_some() {
                // The actors unwind and wait for each other: their threads are abandoned.
                return (NO_ACTOR, self.caller.clone());
            }
            let waits = self.describe_waits();
            self.stop(ScheduleEnd::Deadlock(waits));
        }
        match self.choose_actor() {
            Some(number) => (number, self.actors.get(number).map(|actor| actor.thread.clone())),
            None => (NO_ACTOR, self.caller.clone()),
        }
    }

    fn has_ready(&self) -> bool {
        self.actors.iter().any(|actor| matches!(actor.state, ActorState::Ready))
    }

    /// A random actor that can run; a stalled one only if all others are stalled too.
    fn choose_actor(&mut self) -> Option<usize> {
        let steps = self.steps;
        let is_ready = |actor: &Actor| matches!(actor.state, ActorState::Ready);
        let is_fit = |actor: &Actor| is_ready(actor) && actor.stalled_until <= steps;
        let fit = self.actors.iter().filter(|actor| is_fit(actor)).count();
        let count = if fit > 0 { fit } else { self.actors.iter().filter(|actor| is_ready(actor)).count() };
        if count == 0 {
            return None;
        }
        let choice = usize::try_from(self.random_below(count as u64)).unwrap_or_default();
        let among = |actor: &Actor| if fit > 0 { is_fit(actor) } else { is_ready(actor) };
        let mut chosen = self.actors.iter().enumerate().filter(|(_, actor)| among(actor));
        chosen.nth(choice).map(|(number, _)| number)
    }

    fn describe_waits(&self) -> String {
        let waits = self.actors.iter().filter_map(|actor| match &actor.state {
            ActorState::Waiting { operation, .. } => Some(format!("{} waits: {operation}", actor.name)),
            ActorState::Ready | ActorState::Finished => None,
        });
        waits.collect::<Vec<_>>().join("; ")
    }
}
