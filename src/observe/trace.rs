//! The events of recent sessions and attempts, for the monitoring page.
//!
//! Memory is bounded. All open traces are kept, and of the finished ones the last [`FINISHED_MAX`] with an
//! error event and the last [`FINISHED_MAX`] without: many successful sessions do not displace a failed one.
//! A long trace keeps its first and its last events.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use super::refusal_reference::RefusalReference;
use crate::mail::Timestamp;
use crate::sys::{Clock, Moment, Mutex, Random};

/// Finished traces kept with an error, and as many without.
const FINISHED_MAX: usize = 200;
/// Events kept of one trace: the first third, and the latest.
const EVENTS_MAX: usize = 100;
const EVENTS_FIRST: usize = TraceView::EVENTS_FIRST;

/// One event.
#[derive(Debug, Clone)]
pub struct TraceEvent {
    /// Time since the trace began.
    pub since_start: Duration,
    /// Whether it is an error.
    pub is_error: bool,
    /// The text, printable and on one line.
    pub text: String,
    /// The reference of the refusal, if a client was refused here.
    pub reference: Option<RefusalReference>,
}

/// A trace as the monitoring page shows it.
#[derive(Debug, Clone)]
pub struct TraceView {
    /// Number, in the order in which traces began.
    pub number: u64,
    /// The kind of work: `session`, `attempt` …
    pub kind: &'static str,
    /// The title: a client's address, a message id …
    pub title: String,
    /// When it began.
    pub started: Timestamp,
    /// How long it took, or has taken so far.
    pub duration: Duration,
    /// Whether it is finished.
    pub is_finished: bool,
    /// Events left out in the middle.
    pub events_omitted: usize,
    /// The events.
    pub events: Vec<TraceEvent>,
}

impl TraceView {
    /// The number of events before those that were left out.
    pub const EVENTS_FIRST: usize = EVENTS_MAX / 3;

    /// Whether an event is an error.
    #[must_use]
    pub fn has_error(&self) -> bool {
        self.events.iter().any(|event| event.is_error)
    }
}

/// All traces.
pub struct Traces {
    clock: Arc<dyn Clock>,
    store: Mutex<TraceStore>,
    /// The references in all events that are kept. Locked last.
    references: Mutex<HashSet<RefusalReference>>,
}

#[derive(Default)]
struct TraceStore {
    next: u64,
    open: BTreeMap<u64, Arc<Mutex<OpenTrace>>>,
    finished_without_error: VecDeque<TraceView>,
    finished_with_error: VecDeque<TraceView>,
}

struct OpenTrace {
    started: Moment,
    view_so_far: TraceView,
    latest_events: VecDeque<TraceEvent>,
}

impl OpenTrace {
    /// Adds an event; the event that is dropped for it.
    fn add(&mut self, event: TraceEvent) -> Option<TraceEvent> {
        if self.view_so_far.events.len() < EVENTS_FIRST {
            self.view_so_far.events.push(event);
            return None;
        }
        let dropped = if self.latest_events.len() == EVENTS_MAX - EVENTS_FIRST {
            self.view_so_far.events_omitted += 1;
            self.latest_events.pop_front()
        } else {
            None
        };
        self.latest_events.push_back(event);
        dropped
    }

    fn view(&self, now: Moment) -> TraceView {
        let mut view = self.view_so_far.clone();
        view.events.extend(self.latest_events.iter().cloned());
        view.duration = now.since(self.started);
        view
    }
}

impl Traces {
    /// Keeps traces with times of this clock.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>) -> Arc<Self> {
        Arc::new(Self { clock, store: Mutex::default(), references: Mutex::default() })
    }

    /// Begins a trace, which is finished when the value is dropped.
    #[must_use]
    pub fn begin(self: &Arc<Self>, family: &'static str, title: impl Into<String>) -> Trace {
        let (began, wall) = (self.clock.now(), self.clock.wall_time());
        let mut kept = self.store.lock();
        let number = kept.next;
        kept.next += 1;
        let first = TraceView {
            number,
            kind: family,
            title: title.into(),
            started: wall,
            duration: Duration::ZERO,
            is_finished: false,
            events_omitted: 0,
            events: Vec::new(),
        };
        let open = Arc::new(Mutex::new(OpenTrace {
            started: began,
            view_so_far: first,
            latest_events: VecDeque::new(),
        }));
        kept.open.insert(number, Arc::clone(&open));
        Trace { traces: Arc::clone(self), number, open }
    }

    /// All traces: the open ones first, then the finished ones, the latest first.
    #[must_use]
    pub fn list(&self) -> Vec<TraceView> {
        let now = self.clock.now();
        let kept = self.store.lock();
        let mut finished: Vec<_> =
            kept.finished_without_error.iter().chain(&kept.finished_with_error).cloned().collect();
        finished.sort_by_key(|view| std::cmp::Reverse(view.number));
        kept.open.values().map(|open| open.lock().view(now)).chain(finished).collect()
    }

    /// A reference that no event in the kept traces has. It belongs to the caller, who gives it to
    /// [`Trace::add_refusal`].
    #[must_use]
    pub fn new_reference(&self, random: &dyn Random) -> RefusalReference {
        let mut references = self.references.lock();
        loop {
            let reference = RefusalReference::draw(random);
            if references.insert(reference) {
                return reference;
            }
        }
    }

    /// The references of events that are no longer kept may be used again.
    fn release_references(&self, dropped: &[TraceEvent]) {
        let mut dropped = dropped.iter().filter_map(|event| event.reference).peekable();
        if dropped.peek().is_some() {
            let mut references = self.references.lock();
            dropped.for_each(|reference| {
                references.remove(&reference);
            });
        }
    }

    fn finish(&self, number: u64) {
        let now = self.clock.now();
        let mut kept = self.store.lock();
        if let Some(open) = kept.open.remove(&number) {
            let view = TraceView { is_finished: true, ..open.lock().view(now) };
            let shelf = if view.has_error() {
                &mut kept.finished_with_error
            } else {
                &mut kept.finished_without_error
            };
            if shelf.len() == FINISHED_MAX
                && let Some(dropped) = shelf.pop_front()
            {
                self.release_references(&dropped.events);
            }
            shelf.push_back(view);
        }
    }
}

/// One open trace, owned by the thread that does the work. Only the monitoring page takes its lock besides.
pub struct Trace {
    traces: Arc<Traces>,
    number: u64,
    open: Arc<Mutex<OpenTrace>>,
}

impl Trace {
    /// Adds an event. `text` is printable: remote text has gone through [`crate::mail::printable`].
    pub fn add_event(&self, text: impl Into<String>) {
        self.add(false, text.into(), None);
    }

    /// Adds an error.
    pub fn add_error(&self, text: impl Into<String>) {
        self.add(true, text.into(), None);
    }

    /// A client was refused with this reference, which is one of [`Traces::new_reference`].
    pub fn add_refusal(&self, reference: RefusalReference, text: impl Into<String>) {
        self.add(true, text.into(), Some(reference));
    }

    fn add(&self, is_error: bool, text: String, reference: Option<RefusalReference>) {
        let now = self.traces.clock.now();
        let mut open = self.open.lock();
        let after = now.since(open.started);
        let dropped = open.add(TraceEvent { since_start: after, is_error, text, reference });
        self.traces.release_references(dropped.as_slice());
    }
}

impl Drop for Trace {
    fn drop(&mut self) {
        self.traces.finish(self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fakes::SeededRandom;
    use crate::sys::SystemClock;

    #[test]
    fn successful_traces_do_not_displace_a_failed_one() {
        let traces = Traces::new(Arc::new(SystemClock));
        traces.begin("session", "bad").add_error("what you look for");
        for n in 0..FINISHED_MAX * 2 {
            traces.begin("session", n.to_string()).add_event("fine");
        }
        let list = traces.list();
        assert_eq!(list.len(), FINISHED_MAX + 1);
        assert!(list.iter().any(|view| view.title == "bad" && view.has_error()));
    }

    #[test]
    fn a_long_trace_keeps_its_beginning_and_its_end() {
        let traces = Traces::new(Arc::new(SystemClock));
        let trace = traces.begin("session", "long");
        for n in 0..EVENTS_MAX * 3 {
            trace.add_event(n.to_string());
        }
        let view = traces.list().remove(0);
        assert!(!view.is_finished);
        assert_eq!(view.events.len(), EVENTS_MAX);
        assert_eq!(view.events_omitted, EVENTS_MAX * 2);
        assert_eq!(view.events[0].text, "0");
        assert_eq!(view.events[EVENTS_MAX - 1].text, (EVENTS_MAX * 3 - 1).to_string());
    }

    #[test]
    fn a_reference_is_used_again_only_when_its_event_is_gone() {
        let (traces, random) = (Traces::new(Arc::new(SystemClock)), SeededRandom::new(1));
        let again = SeededRandom::new(1);
        let first = traces.new_reference(&random);
        traces.begin("session", "first").add_refusal(first, "no");
        let other = traces.new_reference(&again);
        assert_ne!(other, first, "the same random numbers give another reference");
        for _ in 0..FINISHED_MAX {
            traces.begin("session", "later").add_error("no");
        }
        assert_eq!(traces.new_reference(&SeededRandom::new(1)), first, "the trace is gone");
        let long = traces.begin("session", "long");
        (0..EVENTS_MAX * 2).for_each(|_| long.add_refusal(traces.new_reference(&random), "no"));
        assert_eq!(traces.references.lock().len(), EVENTS_MAX + 2, "and so are events in the middle");
    }
}
