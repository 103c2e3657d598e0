//! One attempt, and what is written down of it.
//!
//! Runs the job's courier, writes down what became of each recipient, and says when those who
//! still wait are due. The order: a report is put first (durable), then what it is about is noted,
//! so that a crash between the two sends a second report and never none. A report of failures that
//! cannot be put leaves its recipients waiting; one of delays is owed until the next attempt; one
//! of successes is lost, because nobody is delivered to twice for it.

use std::sync::Arc;
use std::time::Duration;

use super::bounce::{self, Changes, Kind};
use super::clerk::Clerk;
use super::destination::Contact;
use super::handle::Shared;
use super::item::{Notice, Record, State};
use super::job::Job;
use super::octets::Octets;
use super::operator::Operator;
use super::schedule::{Lane, PutOff};
use super::worker::{Crew, words};
use crate::courier::{Courier, Delivery};
use crate::dsn::Action;
use crate::mail::{Outcome, Reason, Recipient, Scope};
use crate::observe::maillog::{self, Attempt};
use crate::observe::{Counter, CounterFamily, Metrics, Trace};
use crate::route::Carrier;
use crate::sys::{Moment, catch_panic};

/// The last attempt before the lifetime ends is not closer than this to the one before.
const PAUSE_MIN: Duration = Duration::from_secs(1);

/// Makes attempts. Shared by the delivery threads.
pub(super) struct Carriage {
    pub(super) shared: Arc<Shared>,
    crew: Crew,
    clerk: Clerk,
    attempts: CounterFamily,
    outcomes: CounterFamily,
    pub(super) panics: Counter,
}

/// What the manager is to know of an attempt that is over.
pub(super) struct Carried {
    /// When those who still wait are due, if anybody does.
    pub(super) due: Option<Moment>,
    /// What it says of the destination; nothing if the job was only to put off.
    pub(super) contact: Option<Contact>,
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
            clerk: Clerk::new(Arc::clone(&shared), crew.clone(), metrics),
            shared,
            crew,
            attempts: metrics.family("queue_attempts", "Attempts made, by courier", "courier"),
            outcomes: metrics.family("queue_outcomes", "Outcomes of recipients, by kind", "result"),
            panics: metrics.counter("queue_attempt_panics", "Attempts that ended in a panic"),
        }
    }

    /// Whoever changes the queue for a person writes reports in the same name.
    pub(super) fn operator(&self) -> Operator {
        Operator::new(Arc::clone(&self.shared), self.clerk.clone(), &self.crew)
    }

    /// Makes one attempt and writes down what came of it.
    pub(super) fn carry(&self, job: &Job) -> Carried {
        let envelope = &job.active.envelope;
        let courier = self.crew.couriers.of(job.route.carrier);
        let found = job.recipients.iter().filter_map(|position| envelope.recipients.get(*position));
        let recipients: Vec<&Recipient> = found.collect();
        let began = self.shared.clock.now();
        let title = format!("{} {} {}", envelope.id, courier.name(), job.route.destination);
        let trace = self.crew.traces.begin("attempt", title);
        let outcomes = match &job.put_off {
            Some(PutOff::Silent(why)) => put_off(why, &recipients, &trace),
            Some(PutOff::Overdue) => overdue(job, &trace),
            None => self.attempt(job, courier, &recipients, &trace),
        };
        let contact = job.put_off.is_none().then(|| contact(&outcomes));
        let now = self.shared.clock.now();
        let mut ended = self.ended(job);
        if job.put_off != Some(PutOff::Overdue) {
            for (recipient, outcome) in recipients.iter().zip(&outcomes) {
                self.tell(job, courier, recipient, outcome, now.since(began), &ended, &trace);
            }
        }
        let mut states: Vec<(usize, State)> =
            job.recipients.iter().copied().zip(outcomes.into_iter().map(State::from)).collect();
        if ended.pause.is_none() {
            self.expire(job, &mut states);
        }
        let told = self.report(job, &mut states, &ended);
        if job.put_off == Some(PutOff::Overdue) && !told.is_empty() {
            // That was all that stood before an attempt.
            ended.pause = ended.pause.map(|_| PAUSE_MIN);
        }
        let waits = states.iter().any(|(_, state)| !state.is_settled());
        let is_saved = self.write_down(job, states, told, &ended);
        let pause = ended.pause.unwrap_or_else(|| self.pause(job));
        let due = (waits || !is_saved).then(|| now + pause);
        Carried { due, contact }
    }

    /// One outcome for each recipient, whatever the courier does.
    fn attempt(
        &self,
        job: &Job,
        courier: &dyn Courier,
        recipients: &[&Recipient],
        trace: &Trace,
    ) -> Vec<Outcome> {
        self.attempts.add_one(courier.name());
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
        let delivery =
            Delivery { envelope, recipients, message: &message, deadline, more_follows: job.is_busy, trace };
        match catch_panic(|| courier.carry(&delivery)) {
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

    fn ended(&self, job: &Job) -> Ended {
        let age = self.shared.spool.ages.age(&job.active.envelope);
        let left = self.shared.settings.lifetime.checked_sub(age).filter(|left| !left.is_zero());
        // The last attempt falls on the end of the lifetime, not some way before it; and if a delay
        // is to be reported, one falls on the time for that.
        let until_report = self.shared.settings.delay_report.checked_sub(age);
        let until_report = until_report.filter(|left| !left.is_zero() && self.wants_delay(job));
        let until_report = until_report.unwrap_or(Duration::MAX);
        let pause = |left| self.pause(job).min(left).min(until_report).max(PAUSE_MIN);
        Ended { age, pause: left.map(pause) }
    }

    fn wants_delay(&self, job: &Job) -> bool {
        let envelope = &job.active.envelope;
        let mut recipients = job.recipients.iter().filter_map(|position| envelope.recipients.get(*position));
        recipients.any(|recipient| bounce::wants_delay(envelope, recipient.notify))
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

    /// Puts the reports that are owed; says what the sender has been told of those who go on.
    fn report(&self, job: &Job, states: &mut [(usize, State)], ended: &Ended) -> Vec<(usize, Notice)> {
        let envelope = &job.active.envelope;
        let settings = &self.shared.settings;
        let owed = bounce::owed(&Changes {
            envelope,
            states,
            told: &job.active.state.lock().progress.told.clone(),
            is_last_hop: job.route.carrier != Carrier::Smtp,
            is_late: ended.age >= settings.delay_report,
        });
        if let Some(why) = owed.silence {
            maillog::not_reported(&envelope.id, why);
        }
        let until = self.shared.clock.wall().after(settings.lifetime.saturating_sub(ended.age));
        let mut told = Vec::new();
        for due in owed.reports {
            let is_put = self.clerk.report(envelope, &due, until);
            for (position, action, reason) in due.entries {
                match (action, due.kind) {
                    (Action::Delayed, _) if is_put => told.push((position, Notice::Delayed)),
                    (Action::Expanded, _) if is_put => told.push((position, Notice::Expanded)),
                    // It fails again, and is reported then.
                    (_, Kind::Failure) if !is_put => wait_on(states, position, reason),
                    _ => {}
                }
            }
        }
        told
    }

    /// Adds the states to the message's progress, on disk and in memory. False if the disk refuses.
    fn write_down(
        &self,
        job: &Job,
        states: Vec<(usize, State)>,
        told: Vec<(usize, Notice)>,
        ended: &Ended,
    ) -> bool {
        let (wall, now) = (self.shared.clock.wall(), self.shared.spool.ages.now());
        let due = now.after(ended.pause.unwrap_or_else(|| self.pause(job)));
        let id = &job.active.envelope.id;
        let noted = job.active.note_attempt(&self.shared.spool, |before| {
            let mut record = Record { states, told, ..Record::new(wall, job.round, due) };
            // What a restart goes by is when the first of those who wait is due.
            if before.due > now && before.waiting().any(|position| !job.recipients.contains(&position)) {
                record.due = record.due.min(before.due);
            }
            record
        });
        match noted {
            Ok(is_settled) => {
                if is_settled {
                    maillog::done(id);
                }
                true
            }
            Err(e) => {
                log::error!(target: "queue", "{id}: what became of it cannot be written down yet: {e}");
                false
            }
        }
    }
}

fn wait_on(states: &mut [(usize, State)], position: usize, reason: Reason) {
    if let Some((_, state)) = states.iter_mut().find(|(other, _)| *other == position) {
        *state = State::Waiting(Some(reason));
    }
}

/// What these outcomes say of the destination.
fn contact(outcomes: &[Outcome]) -> Contact {
    let is_answer = |outcome: &Outcome| {
        let reason = outcome.reason();
        matches!(outcome, Outcome::Delivered(_)) || (reason.remote.is_some() && reason.scope == Scope::Mail)
    };
    if outcomes.iter().any(is_answer) {
        return Contact::Answered;
    }
    let silent = outcomes.iter().map(Outcome::reason).find(|reason| reason.scope == Scope::Destination);
    silent.map_or(Contact::NotMade, |reason| Contact::Silent(Arc::new(reason.clone())))
}

/// Nobody is asked, and why.
fn put_off(why: &Reason, recipients: &[&Recipient], trace: &Trace) -> Vec<Outcome> {
    let text = format!("not tried, because the destination does not answer: {}", why.text);
    trace.error(text.clone());
    let reason = Reason { text, ..why.clone() };
    vec![Outcome::Deferred(reason); recipients.len()]
}

/// Nobody is asked, because an earlier process should have done what is done now. What was heard last
/// stands.
fn overdue(job: &Job, trace: &Trace) -> Vec<Outcome> {
    trace.event("not tried: it was to be given up or reported as delayed before this start");
    let states = job.active.state.lock().progress.states.clone();
    let last = |position: &usize| states.get(*position).and_then(State::reason).cloned();
    let none = || Reason::new(4, 0, "no attempt came to an end");
    job.recipients.iter().map(|position| Outcome::Deferred(last(position).unwrap_or_else(none))).collect()
}
