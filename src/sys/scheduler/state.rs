//! The state of a schedule, and whose turn it is: no threads, no waiting.

use std::collections::{BTreeMap, VecDeque};
use std::thread::{JoinHandle, Thread};
use std::time::Duration;

use super::super::clock::Moment;
use super::{CALLER, Doing, Key, ScheduleEnd};

/// Choices that are kept for [`Scheduler::trace`].
const TRACE_LINES: usize = 2_000;

/// Unless a test says otherwise.
const STEPS_MAX: u64 = 100_000;

pub(super) type Event = Box<dyn FnOnce() + Send>;
pub(super) type Look = Box<dyn FnMut(u64) + Send>;

pub(super) struct Core {
    pub(super) random: u64,
    /// A choice point switches once in so many.
    pub(super) switch_one_in: u64,
    /// A switch stalls the actor that it leaves once in so many; never if 0.
    pub(super) stall_one_in: u64,
    /// At a switch the earliest deadline passes once in so many; never if 0.
    pub(super) early_one_in: u64,
    pub(super) steps: u64,
    pub(super) steps_max: u64,
    pub(super) actors: Vec<Actor>,
    pub(super) events: BTreeMap<u64, Vec<Event>>,
    pub(super) each_step: Option<Look>,
    pub(super) clock: Box<dyn TimeSource>,
    pub(super) trace: VecDeque<Line>,
    /// Once this is set, every actor unwinds.
    pub(super) end: Option<ScheduleEnd>,
    pub(super) caller: Option<Thread>,
}

pub(super) struct Actor {
    pub(super) name: String,
    pub(super) state: State,
    /// It became ready because its deadline passed.
    pub(super) is_timed_out: bool,
    /// It is not chosen before this step, unless nobody else can run.
    pub(super) stalled_until: u64,
    pub(super) thread: Thread,
    /// Of those that the test spawned; an actor has the handles of those that it spawned.
    pub(super) handle: Option<JoinHandle<()>>,
}

pub(super) enum State {
    Ready,
    Waiting { on: Key, doing: Doing, deadline: Option<Moment> },
    Over,
}

pub(super) struct Line {
    pub(super) step: u64,
    pub(super) actor: Option<usize>,
    pub(super) doing: Doing,
}

/// What the scheduler needs of a test's clock.
pub(super) trait TimeSource: Send {
    fn now(&self) -> Moment;
    fn advance(&mut self, by: Duration);
}

/// The clock of a schedule whose test has none.
#[derive(Default)]
struct OwnTime(Moment);

impl TimeSource for OwnTime {
    fn now(&self) -> Moment {
        self.0
    }

    fn advance(&mut self, by: Duration) {
        self.0 = self.0 + by;
    }
}

struct GivenTime<N, A>(N, A);

impl<N: Fn() -> Moment + Send, A: Fn(Duration) + Send> TimeSource for GivenTime<N, A> {
    fn now(&self) -> Moment {
        (self.0)()
    }

    fn advance(&mut self, by: Duration) {
        (self.1)(by);
    }
}

impl Actor {
    pub(super) fn new(name: String, thread: Thread) -> Self {
        Self { name, state: State::Ready, is_timed_out: false, stalled_until: 0, thread, handle: None }
    }
}

impl Core {
    pub(super) fn new(seed: u64) -> Self {
        let mut core = Self {
            random: seed,
            switch_one_in: 2,
            stall_one_in: 0,
            early_one_in: 0,
            steps: 0,
            steps_max: STEPS_MAX,
            actors: Vec::new(),
            events: BTreeMap::new(),
            each_step: None,
            clock: Box::<OwnTime>::default(),
            trace: VecDeque::new(),
            end: None,
            caller: None,
        };
        core.switch_one_in = core.one_of([2, 8, 32]);
        core.stall_one_in = core.one_of([0, 16, 4]);
        core.early_one_in = core.one_of([0, 256, 32]);
        core
    }

    pub(super) fn set_clock(
        &mut self,
        now: impl Fn() -> Moment + Send + 'static,
        advance: impl Fn(Duration) + Send + 'static,
    ) {
        self.clock = Box::new(GivenTime(now, advance));
    }

    /// All that belongs to the test.
    pub(super) fn let_go(&mut self) -> impl Sized + use<> {
        let own: Box<dyn TimeSource> = Box::<OwnTime>::default();
        let clock = std::mem::replace(&mut self.clock, own);
        (std::mem::take(&mut self.events), self.each_step.take(), clock)
    }

    /// SplitMix64.
    fn bits(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Below `n`, which is not 0.
    pub(super) fn below(&mut self, n: u64) -> u64 {
        self.bits() % n
    }

    pub(super) fn is_once_in(&mut self, n: u64) -> bool {
        n > 0 && self.below(n) == 0
    }

    fn one_of(&mut self, choices: [u64; 3]) -> u64 {
        let choice = usize::try_from(self.below(3)).unwrap_or_default();
        choices.get(choice).copied().unwrap_or_default()
    }

    pub(super) fn note(&mut self, actor: Option<usize>, doing: Doing) {
        if self.trace.len() == TRACE_LINES {
            self.trace.pop_front();
        }
        self.trace.push_back(Line { step: self.steps, actor, doing });
    }

    pub(super) fn shown(&self, line: &Line) -> String {
        let actor = line.actor.and_then(|number| self.actors.get(number));
        let name = actor.map_or("the clock", |actor| actor.name.as_str());
        format!("{} {name}: {}", line.step, line.doing)
    }

    /// The first reason counts. All actors run once more, to unwind.
    pub(super) fn stop(&mut self, end: ScheduleEnd) {
        self.end.get_or_insert(end);
        for actor in &mut self.actors {
            if !matches!(actor.state, State::Over) {
                actor.state = State::Ready;
            }
        }
    }

    pub(super) fn wake(&mut self, key: Key) {
        for actor in &mut self.actors {
            if matches!(actor.state, State::Waiting { on, .. } if on == key) {
                actor.state = State::Ready;
            }
        }
    }

    fn earliest_deadline(&self) -> Option<Moment> {
        let deadlines = self.actors.iter().filter_map(|actor| match actor.state {
            State::Waiting { deadline, .. } => deadline,
            State::Ready | State::Over => None,
        });
        deadlines.min()
    }

    /// Lets time pass until `deadline`, and those run whose deadline has passed.
    fn pass_time(&mut self, deadline: Moment) {
        let missing = deadline.since(self.clock.now());
        if !missing.is_zero() {
            self.clock.advance(missing);
            self.note(None, Doing::text(format!("{missing:?} pass")));
        }
        self.end_waits();
    }

    fn end_waits(&mut self) {
        let now = self.clock.now();
        for actor in &mut self.actors {
            if matches!(actor.state, State::Waiting { deadline: Some(deadline), .. } if deadline <= now) {
                (actor.state, actor.is_timed_out) = (State::Ready, true);
            }
        }
    }

    /// Who runs next, and its thread.
    pub(super) fn next(&mut self) -> (usize, Option<Thread>) {
        if self.earliest_deadline().is_some() {
            // An actor may have turned the clock.
            self.end_waits();
        }
        if let Some(deadline) = self.earliest_deadline()
            && (!self.has_ready() || self.is_once_in(self.early_one_in))
        {
            self.pass_time(deadline);
        }
        if !self.has_ready() && self.actors.iter().any(|actor| !matches!(actor.state, State::Over)) {
            if self.end.is_some() {
                // They unwind, and wait for each other: their threads are left behind.
                return (CALLER, self.caller.clone());
            }
            let waits = self.waits();
            self.stop(ScheduleEnd::Deadlock(waits));
        }
        match self.choose() {
            Some(number) => (number, self.actors.get(number).map(|actor| actor.thread.clone())),
            None => (CALLER, self.caller.clone()),
        }
    }

    fn has_ready(&self) -> bool {
        self.actors.iter().any(|actor| matches!(actor.state, State::Ready))
    }

    /// One of those who can run; who is stalled only if all of them are.
    fn choose(&mut self) -> Option<usize> {
        let steps = self.steps;
        let is_ready = |actor: &Actor| matches!(actor.state, State::Ready);
        let is_fit = |actor: &Actor| is_ready(actor) && actor.stalled_until <= steps;
        let fit = self.actors.iter().filter(|actor| is_fit(actor)).count();
        let count = if fit > 0 { fit } else { self.actors.iter().filter(|actor| is_ready(actor)).count() };
        if count == 0 {
            return None;
        }
        let choice = usize::try_from(self.below(count as u64)).unwrap_or_default();
        let among = |actor: &Actor| if fit > 0 { is_fit(actor) } else { is_ready(actor) };
        let mut chosen = self.actors.iter().enumerate().filter(|(_, actor)| among(actor));
        chosen.nth(choice).map(|(number, _)| number)
    }

    fn waits(&self) -> String {
        let waits = self.actors.iter().filter_map(|actor| match &actor.state {
            State::Waiting { doing, .. } => Some(format!("{} waits: {doing}", actor.name)),
            State::Ready | State::Over => None,
        });
        waits.collect::<Vec<_>>().join("; ")
    }
}
