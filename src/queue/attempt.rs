//! One attempt, and what is written down of it.
//!
//! Runs the job's courier, writes down what became of each recipient, and says when those who
//! still wait are due. The order for a recipient that failed: the report is put first (durable),
//! then the failure is noted, so that a crash between the two sends a second report and never
//! none. A report that cannot be put leaves its recipients waiting.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use super::bounce;
use super::handle::Shared;
use super::item::{Record, State};
use super::manager::Job;
use super::octets::Octets;
use super::schedule::Lane;
use super::worker::{Crew, Report, words};
use crate::courier::{Courier, Delivery};
use crate::dsn::Original;
use crate::mail::{MessageId, Outcome, Reason, Recipient};
use crate::observe::maillog::{self, Attempt};
use crate::observe::{Counter, CounterFamily, Metrics, Trace};
use crate::sys::Moment;

/// The last attempt before the lifetime ends is not closer than this to the one before.
const PAUSE_MIN: Duration = Duration::from_secs(1);

/// Makes attempts. Shared by the delivery threads.
pub(super) struct Carriage {
    pub(super) shared: Arc<Shared>,
    crew: Crew,
    attempts: CounterFamily,
    outcomes: CounterFamily,
    reports: Counter,
    pub(super) panics: Counter,
}

/// When an attempt ended, and what that means for those who wait.
struct Ended {
    age: Duration,
    /// Until the next attempt; nothing if the lifetime is over.
    pause: Option<Duration>,
}

impl Carriage {
    pub(super) fn new(shared: Arc<Shared>, crew: Crew, metrics: &Metrics) -> Self {
        Self {
            shared,
            crew,
            attempts: metrics.family("queue_attempts", "Attempts made, by courier", "courier"),
            outcomes: metrics.family("queue_outcomes", "Outcomes of recipients, by kind", "result"),
            reports: metrics.counter("queue_reports", "Reports of failures put"),
            panics: metrics.counter("queue_attempt_panics", "Attempts that ended in a panic"),
        }
    }

    /// Makes one attempt and writes down what came of it.
    pub(super) fn carry(&self, job: &Job) -> Report {
        let envelope = &job.active.envelope;
        let courier = self.crew.couriers.of(job.route.carrier);
        let found = job.recipients.iter().filter_map(|position| envelope.recipients.get(*position));
        let recipients: Vec<&Recipient> = found.collect();
        let began = self.shared.clock.now();
        self.attempts.add_one(courier.name());
        let title = format!("{} {} {}", envelope.id, courier.name(), job.route.destination);
        let trace = self.crew.traces.begin("attempt", title);
        let outcomes = self.attempt(job, courier, &recipients, &trace);
        let now = self.shared.clock.now();
        let ended = self.ended(job, now);
        for (recipient, outcome) in recipients.iter().zip(&outcomes) {
            self.tell(job, courier, recipient, outcome, now.since(began), &ended, &trace);
        }
        let mut states: Vec<(usize, State)> =
            job.recipients.iter().copied().zip(outcomes.into_iter().map(State::from)).collect();
        if ended.pause.is_none() {
            self.expire(job, &mut states);
        }
        self.report(job, &mut states);
        self.write_down(job, states, &ended);
        let pause = ended.pause.unwrap_or_else(|| self.pause(job));
        Report { id: envelope.id, route: job.route.clone(), due: Some(now + pause) }
    }

    /// One outcome for each recipient, whatever the courier does.
    fn attempt(
        &self,
        job: &Job,
        courier: &dyn Courier,
        recipients: &[&Recipient],
        trace: &Trace,
    ) -> Vec<Outcome> {
        let defer = |text: String| {
            trace.error(text.clone());
            vec![Outcome::Deferred(Reason::new(3, 0, text)); recipients.len()]
        };
        let envelope = &job.active.envelope;
        let settings = &self.shared.settings;
        let allowed = match job.lane() {
            Lane::Local => settings.attempt_local,
            Lane::Remote => settings.attempt_remote,
        };
        let message = self.shared.spool.extent(&envelope.id).and_then(|extent| Octets::new(extent, envelope));
        let message = match message {
            Ok(message) => message,
            Err(e) => return defer(format!("the message cannot be read from the spool: {e}")),
        };
        let deadline = self.shared.clock.now() + allowed;
        let delivery = Delivery { envelope, recipients, message: &message, deadline, trace };
        match catch_unwind(AssertUnwindSafe(|| courier.carry(&delivery))) {
            Ok(outcomes) if outcomes.len() == recipients.len() => outcomes,
            Ok(outcomes) => defer(format!(
                "the courier {} gave {} outcomes for {} recipients",
                courier.name(),
                outcomes.len(),
                recipients.len()
            )),
            Err(panic) => {
                self.panics.add_one();
                log::error!(target: "queue", "{}: the attempt panicked: {}", envelope.id, words(panic.as_ref()));
                defer("a mistake in this program ended the attempt".to_owned())
            }
        }
    }

    fn ended(&self, job: &Job, now: Moment) -> Ended {
        let (age, since) = job.age;
        let age = age + now.since(since);
        let left = self.shared.settings.lifetime.checked_sub(age).filter(|left| !left.is_zero());
        // The last attempt falls on the end of the lifetime, not some way before it.
        Ended { age, pause: left.map(|left| self.pause(job).min(left).max(PAUSE_MIN)) }
    }

    fn pause(&self, job: &Job) -> Duration {
        self.shared.settings.delay(job.round, self.shared.random.as_ref())
    }

    /// One outcome to the log, the trace and the counters.
    #[expect(clippy::too_many_arguments, reason = "each is a different thing, and all are on the log line")]
    fn tell(
        &self,
        job: &Job,
        courier: &dyn Courier,
        recipient: &Recipient,
        outcome: &Outcome,
        took: Duration,
        ended: &Ended,
        trace: &Trace,
    ) {
        let envelope = &job.active.envelope;
        let next = ended.pause.filter(|_| !outcome.is_final());
        maillog::attempted(&Attempt {
            id: &envelope.id,
            reverse_path: &envelope.reverse_path,
            recipient,
            courier: courier.name(),
            outcome,
            number: job.round,
            took,
            next,
        });
        let result = match outcome {
            Outcome::Delivered(_) => "delivered",
            Outcome::Deferred(_) => "deferred",
            Outcome::Failed(_) => "failed",
        };
        self.outcomes.add_one(result);
        let text = format!("{recipient}: {result} {outcome}");
        match outcome {
            Outcome::Delivered(_) => trace.event(text),
            Outcome::Deferred(_) | Outcome::Failed(_) => trace.error(text),
        }
    }

    /// The lifetime is over: who still waits has failed.
    fn expire(&self, job: &Job, states: &mut [(usize, State)]) {
        let envelope = &job.active.envelope;
        for (position, state) in states {
            let State::Waiting(reason) = state else { continue };
            let reason = reason.take().unwrap_or_else(|| Reason::new(4, 7, "never tried"));
            if let Some(recipient) = envelope.recipients.get(*position) {
                let last = Outcome::Deferred(reason.clone());
                maillog::expired(&envelope.id, &envelope.reverse_path, recipient, Some(&last));
            }
            self.outcomes.add_one("expired");
            *state = State::Expired(reason);
        }
    }

    /// Puts the report that is owed. If that fails, its recipients wait on and will fail again.
    fn report(&self, job: &Job, states: &mut [(usize, State)]) {
        let envelope = &job.active.envelope;
        let owed = match bounce::owed(envelope, states) {
            bounce::Owed::Nothing => return,
            bounce::Owed::Silence(why) => return maillog::not_reported(&envelope.id, why),
            bounce::Owed::Report(positions) => positions,
        };
        let clerk = bounce::Clerk {
            router: &self.crew.router.load(),
            hostname: &self.crew.hostname,
            now: self.shared.clock.wall(),
            id: MessageId::new(self.shared.clock.wall(), self.shared.random.bits()),
        };
        let message = self.shared.spool.extent(&envelope.id).and_then(|extent| Octets::new(extent, envelope));
        // Who sent it hears that it failed, though not a word of it can be read any more.
        let original = message.and_then(|message| bounce::original(envelope, &message)).unwrap_or_else(|e| {
            log::error!(target: "queue", "{}: the message cannot be returned: {e}", envelope.id);
            Original::Headers(Vec::new())
        });
        // A panic here must not cost what else the attempt has found out: that a recipient has it.
        let put = catch_unwind(AssertUnwindSafe(|| match clerk.letter(envelope, states, &owed, original) {
            Some(letter) => self.crew.own_mail.put(letter).map(Some).map_err(|e| e.to_string()),
            None => Ok(None),
        }))
        .unwrap_or_else(|panic| Err(words(panic.as_ref())));
        match put {
            Ok(Some(report)) => {
                self.reports.add_one();
                maillog::reported(&envelope.id, &envelope.reverse_path, &report);
            }
            Ok(None) => {}
            Err(e) => {
                log::error!(target: "queue", "{}: the report cannot be put, trying again later: {e}", envelope.id);
                for (position, state) in states.iter_mut().filter(|(position, _)| owed.contains(position)) {
                    let reason = state.reason().cloned();
                    log::debug!(target: "queue", "{}: recipient {position} waits on", envelope.id);
                    *state = State::Waiting(reason);
                }
            }
        }
    }

    /// Adds the states to the message's progress, on disk and in memory.
    fn write_down(&self, job: &Job, states: Vec<(usize, State)>, ended: &Ended) {
        let wall = self.shared.clock.wall();
        let mut record = Record {
            at: wall,
            attempts: job.round,
            age_ms: u64::try_from(ended.age.as_millis()).unwrap_or(u64::MAX),
            due: wall.after(ended.pause.unwrap_or_else(|| self.pause(job))),
            states,
        };
        let mut standing = job.active.standing.lock();
        standing.progress.apply(&record);
        if standing.is_unsaved {
            record = standing.progress.to_record();
        }
        let id = &job.active.envelope.id;
        match self.shared.spool.note(&job.active.envelope, &record, &standing.progress) {
            Ok(()) => {
                standing.is_unsaved = false;
                if standing.progress.is_settled() {
                    maillog::done(id);
                }
            }
            Err(e) => {
                standing.is_unsaved = true;
                log::error!(target: "queue", "{id}: what became of it cannot be written down yet: {e}");
            }
        }
    }
}
