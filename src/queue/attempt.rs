//! One attempt, and what is written down of it.
//!
//! Runs the job's courier, writes down what became of each recipient, and says when those who
//! still wait are due. The order: a report is put first (durable), then what it is about is noted,
//! so that a crash between the two sends a second report and never none. A report of failures that
//! cannot be put leaves its recipients waiting; one of delays is owed until the next attempt; one
//! of successes is lost, because nobody is delivered to twice for it.

use std::sync::Arc;
use std::time::Duration;

use super::bounce::{self, AttemptChanges, BounceKind};
use super::bounce_writer::BounceWriter;
use super::delivery_threads::{DeliveryParts, panic_message};
use super::destination_state::ContactResult;
use super::handle::QueueShared;
use super::job::AttemptJob;
use super::operator::Operator;
use super::outgoing_content::OutgoingContent;
use super::schedule::{DeliveryPool, SkipReason};
use crate::courier::{Courier, Delivery};
use crate::dsn::Action;
use crate::mail::{FailureScope, Outcome, Reason, Recipient};
use crate::observe::maillog::{self, AttemptEvent};
use crate::observe::{Counter, CounterFamily, Metrics, Trace};
use crate::route::Transport;
use crate::spool::{Notice, ProgressUpdate, RecipientState};
use crate::sys::{Moment, catch_panic};

/// The last attempt before the lifetime ends is not closer than this to the one before.
const PAUSE_MIN: Duration = Duration::from_secs(1);

/// Makes attempts. Shared by the delivery threads.
pub(super) struct AttemptRunner {
    pub(super) shared: Arc<QueueShared>,
    parts: DeliveryParts,
    bounce_writer: BounceWriter,
    attempts: CounterFamily,
    outcomes: CounterFamily,
    pub(super) panics: Counter,
}

/// What the manager is to know of an attempt that is over.
pub(super) struct AttemptSummary {
    /// When those who still wait are due, if anybody does.
    pub(super) due: Option<Moment>,
    /// What it says of the destination; nothing if the job was only to put off.
    pub(super) contact_result: Option<ContactResult>,
}

/// When an attempt ended, and what that means for those who wait.
struct RetryTiming {
    age: Duration,
    /// Until the next attempt; nothing if the lifetime is over.
    retry_delay: Option<Duration>,
}

impl AttemptRunner {
    pub(super) fn new(shared: Arc<QueueShared>, crew: DeliveryParts, metrics: &Metrics) -> Self {
        Self {
            bounce_writer: BounceWriter::new(Arc::clone(&shared), crew.clone(), metrics),
            shared,
            parts: crew,
            attempts: metrics.counter_family("queue_attempts", "Attempts made, by courier", "courier"),
            outcomes: metrics.counter_family("queue_outcomes", "Outcomes of recipients, by kind", "result"),
            panics: metrics.counter("queue_attempt_panics", "Attempts that ended in a panic"),
        }
    }

    /// Whoever changes the queue for a person writes reports in the same name.
    pub(super) fn queue_control(&self) -> Operator {
        Operator::new(Arc::clone(&self.shared), self.bounce_writer.clone(), &self.parts)
    }

    /// Makes one attempt and writes down what came of it.
    pub(super) fn run(&self, job: &AttemptJob) -> AttemptSummary {
        let envelope = &job.message.envelope;
        let courier = self.parts.couriers.for_carrier(job.route.transport);
        let found = job.recipients.iter().filter_map(|position| envelope.recipients.get(*position));
        let recipients: Vec<&Recipient> = found.collect();
        let began = self.shared.clock.now();
        let title = format!("{} {} {}", envelope.id, courier.name(), job.route.destination);
        let trace = self.parts.traces.begin("attempt", title);
        let outcomes = match &job.skip_reason {
            Some(SkipReason::DestinationUnresponsive(why)) => skipped_outcomes(why, &recipients, &trace),
            Some(SkipReason::Overdue) => overdue_outcomes(job, &trace),
            None => self.call_courier(job, courier, &recipients, &trace),
        };
        let contact = job.skip_reason.is_none().then(|| contact_result(&outcomes));
        let now = self.shared.clock.now();
        let mut ended = self.retry_timing(job);
        if job.skip_reason != Some(SkipReason::Overdue) {
            for (recipient, outcome) in recipients.iter().zip(&outcomes) {
                self.log_outcome(job, courier, recipient, outcome, now.since(began), &ended, &trace);
            }
        }
        let mut states: Vec<(usize, RecipientState)> =
            job.recipients.iter().copied().zip(outcomes.into_iter().map(RecipientState::from)).collect();
        if ended.retry_delay.is_none() {
            self.expire(job, &mut states);
        }
        let told = self.put_bounces(job, &mut states, &ended);
        if job.skip_reason == Some(SkipReason::Overdue) && !told.is_empty() {
            // That was all that stood before an attempt.
            ended.retry_delay = ended.retry_delay.map(|_| PAUSE_MIN);
        }
        let waits = states.iter().any(|(_, state)| !state.is_settled());
        let is_saved = self.record_states(job, states, told, &ended);
        let pause = ended.retry_delay.unwrap_or_else(|| self.retry_delay(job));
        let due = (waits || !is_saved).then(|| now + pause);
        AttemptSummary { due, contact_result: contact }
    }

    /// One outcome for each recipient, whatever the courier does.
    fn call_courier(
        &self,
        job: &AttemptJob,
        courier: &dyn Courier,
        recipients: &[&Recipient],
        trace: &Trace,
    ) -> Vec<Outcome> {
        self.attempts.add_one(courier.name());
        let defer = |text: String| {
            trace.add_error(text.clone());
            vec![Outcome::Deferred(Reason::new(3, 0, text)); recipients.len()]
        };
        let envelope = &job.message.envelope;
        let settings = &self.shared.settings;
        let allowed = match job.pool() {
            DeliveryPool::Local => settings.local_attempt_timeout,
            DeliveryPool::Remote => settings.remote_attempt_timeout,
        };
        let message =
            self.shared.spool.extent(&envelope.id).and_then(|extent| OutgoingContent::new(extent, envelope));
        let message = match message {
            Ok(message) => message,
            Err(e) => return defer(format!("the message cannot be read from the spool: {e}")),
        };
        let deadline = self.shared.clock.now() + allowed;
        let delivery = Delivery {
            envelope,
            recipients,
            message: &message,
            deadline,
            more_follows: job.is_more_mail_expected,
            trace,
        };
        match catch_panic(|| courier.attempt(&delivery)) {
            Ok(outcomes) if outcomes.len() == recipients.len() => outcomes,
            Ok(outcomes) => defer(format!(
                "the courier {} gave {} outcomes for {} recipients",
                courier.name(),
                outcomes.len(),
                recipients.len()
            )),
            Err(panic) => {
                self.panics.add_one();
                log::error!(target: "queue", "{}: the attempt panicked: {}", envelope.id, panic_message(panic.as_ref()));
                defer("a mistake in this program ended the attempt".to_owned())
            }
        }
    }

    fn retry_timing(&self, job: &AttemptJob) -> RetryTiming {
        let age = self.shared.spool.age_clock.age(&job.message.envelope);
        let left = self.shared.settings.lifetime.checked_sub(age).filter(|left| !left.is_zero());
        // The last attempt falls on the end of the lifetime, not some way before it; and if a delay
        // is to be reported, one falls on the time for that.
        let until_report = self.shared.settings.delay_notice_after.checked_sub(age);
        let until_report = until_report.filter(|left| !left.is_zero() && self.wants_delay_notice(job));
        let until_report = until_report.unwrap_or(Duration::MAX);
        let pause = |left| self.retry_delay(job).min(left).min(until_report).max(PAUSE_MIN);
        RetryTiming { age, retry_delay: left.map(pause) }
    }

    fn wants_delay_notice(&self, job: &AttemptJob) -> bool {
        let envelope = &job.message.envelope;
        let mut recipients = job.recipients.iter().filter_map(|position| envelope.recipients.get(*position));
        recipients.any(|recipient| bounce::wants_delay_notice(envelope, recipient.notify))
    }

    fn retry_delay(&self, job: &AttemptJob) -> Duration {
        self.shared.settings.retry_delay(job.attempt_number, self.shared.random.as_ref())
    }

    /// One outcome to the log, the trace and the counters.
    #[expect(clippy::too_many_arguments, reason = "each is a different thing, and all are on the log line")]
    fn log_outcome(
        &self,
        job: &AttemptJob,
        courier: &dyn Courier,
        recipient: &Recipient,
        outcome: &Outcome,
        took: Duration,
        ended: &RetryTiming,
        trace: &Trace,
    ) {
        let envelope = &job.message.envelope;
        let next = ended.retry_delay.filter(|_| !outcome.is_final());
        maillog::attempted(&AttemptEvent {
            id: &envelope.id,
            reverse_path: &envelope.reverse_path,
            recipient,
            courier: courier.name(),
            outcome,
            attempt_number: job.attempt_number,
            duration: took,
            next_attempt_after: next,
        });
        let result = match outcome {
            Outcome::Delivered(_) => "delivered",
            Outcome::Deferred(_) => "deferred",
            Outcome::Failed(_) => "failed",
        };
        self.outcomes.add_one(result);
        let text = format!("{recipient}: {result} {outcome}");
        match outcome {
            Outcome::Delivered(_) => trace.add_event(text),
            Outcome::Deferred(_) | Outcome::Failed(_) => trace.add_error(text),
        }
    }

    /// The lifetime is over: who still waits has failed.
    fn expire(&self, job: &AttemptJob, states: &mut [(usize, RecipientState)]) {
        let envelope = &job.message.envelope;
        for (position, state) in states {
            let RecipientState::Waiting(reason) = state else { continue };
            let reason = reason.take().unwrap_or_else(|| Reason::new(4, 7, "never tried"));
            if let Some(recipient) = envelope.recipients.get(*position) {
                let last = Outcome::Deferred(reason.clone());
                maillog::expired(&envelope.id, &envelope.reverse_path, recipient, Some(&last));
            }
            self.outcomes.add_one("expired");
            *state = RecipientState::Expired(reason);
        }
    }

    /// Puts the reports that are owed; says what the sender has been told of those who go on.
    fn put_bounces(
        &self,
        job: &AttemptJob,
        states: &mut [(usize, RecipientState)],
        ended: &RetryTiming,
    ) -> Vec<(usize, Notice)> {
        let envelope = &job.message.envelope;
        let settings = &self.shared.settings;
        let owed = bounce::decide_bounces(&AttemptChanges {
            envelope,
            states,
            notices: &job.message.state.lock().progress.notices.clone(),
            is_last_hop: job.route.transport != Transport::Smtp,
            is_delayed: ended.age >= settings.delay_notice_after,
        });
        if let Some(why) = owed.suppression_reason {
            maillog::bounce_suppressed(&envelope.id, why);
        }
        let until = self.shared.clock.wall_time().after(settings.lifetime.saturating_sub(ended.age));
        let mut told = Vec::new();
        for due in owed.bounces {
            let is_put = self.bounce_writer.put_bounce(envelope, &due, until);
            for (position, action, reason) in due.entries {
                match (action, due.kind) {
                    (Action::Delayed, _) if is_put => told.push((position, Notice::Delayed)),
                    (Action::Expanded, _) if is_put => told.push((position, Notice::Expanded)),
                    // It fails again, and is reported then.
                    (_, BounceKind::Failure) if !is_put => mark_waiting(states, position, reason),
                    _ => {}
                }
            }
        }
        told
    }

    /// Adds the states to the message's progress, on disk and in memory. False if the disk refuses.
    fn record_states(
        &self,
        job: &AttemptJob,
        states: Vec<(usize, RecipientState)>,
        told: Vec<(usize, Notice)>,
        ended: &RetryTiming,
    ) -> bool {
        let (wall, now) = (self.shared.clock.wall_time(), self.shared.spool.age_clock.now());
        let due = now.after(ended.retry_delay.unwrap_or_else(|| self.retry_delay(job)));
        let id = &job.message.envelope.id;
        let noted = job.message.record_attempt(&self.shared.spool, |before| {
            let mut record =
                ProgressUpdate { states, told, ..ProgressUpdate::new(wall, job.attempt_number, due) };
            // What a restart goes by is when the first of those who wait is due.
            if before.due > now
                && before.waiting_positions().any(|position| !job.recipients.contains(&position))
            {
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

fn mark_waiting(states: &mut [(usize, RecipientState)], position: usize, reason: Reason) {
    if let Some((_, state)) = states.iter_mut().find(|(other, _)| *other == position) {
        *state = RecipientState::Waiting(Some(reason));
    }
}

/// What these outcomes say of the destination.
fn contact_result(outcomes: &[Outcome]) -> ContactResult {
    let is_answer = |outcome: &Outcome| {
        let reason = outcome.reason();
        matches!(outcome, Outcome::Delivered(_))
            || (reason.response.is_some() && reason.scope == FailureScope::Message)
    };
    if outcomes.iter().any(is_answer) {
        return ContactResult::Answered;
    }
    let silent =
        outcomes.iter().map(Outcome::reason).find(|reason| reason.scope == FailureScope::Destination);
    silent.map_or(ContactResult::NotContacted, |reason| ContactResult::Unresponsive(Arc::new(reason.clone())))
}

/// Nobody is asked, and why.
fn skipped_outcomes(why: &Reason, recipients: &[&Recipient], trace: &Trace) -> Vec<Outcome> {
    let text = format!("not tried, because the destination does not answer: {}", why.text);
    trace.add_error(text.clone());
    let reason = Reason { text, ..why.clone() };
    vec![Outcome::Deferred(reason); recipients.len()]
}

/// Nobody is asked, because an earlier process should have done what is done now. What was heard last
/// stands.
fn overdue_outcomes(job: &AttemptJob, trace: &Trace) -> Vec<Outcome> {
    trace.add_event("not tried: it was to be given up or reported as delayed before this start");
    let states = job.message.state.lock().progress.states.clone();
    let last = |position: &usize| states.get(*position).and_then(RecipientState::reason).cloned();
    let none = || Reason::new(4, 0, "no attempt came to an end");
    job.recipients.iter().map(|position| Outcome::Deferred(last(position).unwrap_or_else(none))).collect()
}
