//! What recent sessions and attempts did, event by event.
//!
//! Kept in memory within a bound, for the monitoring page and for `postrider explain`: the last
//! [`FINISHED_MAX`] finished traces, those that ended in an error apart from the others, so that a
//! flood of good ones does not push out the one you look for; and all that are still open. A long
//! trace keeps its beginning and its end.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use crate::mail::Timestamp;
use crate::sys::{Clock, Moment, Mutex};

/// Finished traces kept of each kind, good and bad.
const FINISHED_MAX: usize = 200;
/// Events kept of one trace: the first third, and the latest.
const EVENTS_MAX: usize = 100;
const EVENTS_FIRST: usize = TraceView::EVENTS_FIRST;

/// One thing that happened.
#[derive(Debug, Clone)]
pub struct TraceEvent {
    /// Since the trace began.
    pub since_start: Duration,
    /// Something went wrong here.
    pub is_error: bool,
    /// What, printable and on one line.
    pub text: String,
}

/// A trace as the monitoring page shows it.
#[derive(Debug, Clone)]
pub struct TraceView {
    /// Number, in order of beginning.
    pub number: u64,
    /// What kind of work: `session`, `attempt` …
    pub kind: &'static str,
    /// Which: a client's address, a message id …
    pub title: String,
    /// When it began.
    pub started: Timestamp,
    /// How long it took, or has taken so far.
    pub duration: Duration,
    /// Whether it is over.
    pub is_finished: bool,
    /// Events left out in the middle.
    pub events_omitted: usize,
    /// What happened.
    pub events: Vec<TraceEvent>,
}

impl TraceView {
    /// If events were left out, it was behind so many.
    pub const EVENTS_FIRST: usize = EVENTS_MAX / 3;

    /// Something went wrong in it.
    #[must_use]
    pub fn has_error(&self) -> bool {
        self.events.iter().any(|event| event.is_error)
    }
}

/// Everyone's traces.
pub struct Traces {
    clock: Arc<dyn Clock>,
    store: Mutex<TraceStore>,
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
    fn add(&mut self, event: TraceEvent) {
        if self.view_so_far.events.len() < EVENTS_FIRST {
            self.view_so_far.events.push(event);
            return;
        }
        if self.latest_events.len() == EVENTS_MAX - EVENTS_FIRST {
            self.latest_events.pop_front();
            self.view_so_far.events_omitted += 1;
        }
        self.latest_events.push_back(event);
    }

    fn view(&self, now: Moment) -> TraceView {
        let mut view = self.view_so_far.clone();
        view.events.extend(self.latest_events.iter().cloned());
        view.duration = now.since(self.started);
        view
    }
}

impl Traces {
    /// Keeps traces by this clock.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>) -> Arc<Self> {
        Arc::new(Self { clock, store: Mutex::default() })
    }

    /// Begins a trace; it is finished when the value is dropped.
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

    /// All that is kept: open ones first, then finished ones, the latest first.
    #[must_use]
    pub fn list(&self) -> Vec<TraceView> {
        let now = self.clock.now();
        let kept = self.store.lock();
        let mut finished: Vec<_> =
            kept.finished_without_error.iter().chain(&kept.finished_with_error).cloned().collect();
        finished.sort_by_key(|view| std::cmp::Reverse(view.number));
        kept.open.values().map(|open| open.lock().view(now)).chain(finished).collect()
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
            if shelf.len() == FINISHED_MAX {
                shelf.pop_front();
            }
            shelf.push_back(view);
        }
    }
}

/// One open trace, owned by the thread that does the work; its lock is free but for somebody who
/// looks at the monitoring page.
pub struct Trace {
    traces: Arc<Traces>,
    number: u64,
    open: Arc<Mutex<OpenTrace>>,
}

impl Trace {
    /// Something happened. `text` is printable: remote words have gone through
    /// [`crate::mail::printable`].
    pub fn add_event(&self, text: impl Into<String>) {
        self.add(false, text.into());
    }

    /// Something went wrong.
    pub fn add_error(&self, text: impl Into<String>) {
        self.add(true, text.into());
    }

    fn add(&self, is_error: bool, text: String) {
        let now = self.traces.clock.now();
        let mut open = self.open.lock();
        let after = now.since(open.started);
        open.add(TraceEvent { since_start: after, is_error, text });
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
    use crate::sys::SystemClock;

    #[test]
    fn a_flood_of_good_traces_does_not_push_out_a_bad_one() {
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
}
