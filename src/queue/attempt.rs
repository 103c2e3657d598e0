//! Makes one attempt and records its outcomes.
//!
//! Calls the courier of the job's route, records the outcome of each recipient, and computes when the
//! recipients that still wait are due. A bounce is queued, durably, before the outcomes are recorded: a crash
//! between the two leads to a second bounce, never to none. If a failure bounce cannot be queued, its
//! recipients wait on; a delay notice is tried again after the next attempt; a success notice is lost,
//! because a second delivery would be worse.

use std::sync::Arc;
use std::time::Duration;

use super::attempt_job::{AttemptJob, AttemptSummary};
use super::bounce::{self, AttemptChanges, BounceKind};
use super::bounce_writer::BounceWriter;
use super::delivery_parts::DeliveryParts;
use super::destination_state::ContactResult;
use super::outgoing_content::OutgoingContent;
use super::panic_message::panic_message;
use super::queue_control::QueueControl;
use super::queue_shared::QueueShared;
use super::recipient_batch::SkipReason;
use crate::courier::{Courier, Delivery, DeliveryPool};
use crate::dsn::Action;
use crate::mail::{FailureScope, Outcome, Reason, Recipient};
use crate::observe::maillog::{self, AttemptEvent};
use crate::observe::{Counter, CounterFamily, Metrics, Trace};
use crate::spool::{Notice, ProgressUpdate, RecipientState};
use crate::sys::catch_panic;

/// The least wait between two attempts, also before the last one at the end of the lifetime.
const RETRY_DELAY_MIN: Duration = Duration::from_secs(1);

/// Makes attempts. Shared by the delivery threads.
pub(super) struct AttemptRunner {
    pub(super) shared: Arc<QueueShared>,
    parts: DeliveryParts,
    bounce_writer: BounceWriter,
    attempts: CounterFamily,
    outcomes: CounterFamily,
    pub(super) panics: Counter,
}

/// The age of the message when an attempt ended, and when the next attempt is.
struct RetryTiming {
    age: Duration,
    /// Until the next attempt; `None` if the lifetime is over.
    retry_delay: Option<Duration>,
}

impl AttemptRunner {
    pub(super) fn new(shared: Arc<QueueShared>, parts: DeliveryParts, metrics: &Metrics) -> Self {
        Self {
            bounce_writer: BounceWriter::new(Arc::clone(&shared), parts.clone(), metrics),
            shared,
            parts,
            attempts: metrics.counter_family("queue_attempts", "Attempts made, by courier", "courier"),
            outcomes: metrics.counter_family("queue_outcomes", "Outcomes of recipients, by result", "result"),
            panics: metrics.counter("queue_attempt_panics", "Attempts that ended in a panic"),
        }
    }

    /// Shows the queue to an operator and changes it; writes bounces as attempts do.
    pub(super) fn queue_control(&self) -> QueueControl {
        QueueControl::new(Arc::clone(&self.shared), self.bounce_writer.clone(), &self.parts)
    }

    /// Makes one attempt and records its outcomes.
    pub(super) fn run(&self, job: &AttemptJob) -> AttemptSummary {
        let envelope = &job.message.envelope;
        let courier = self.parts.couriers.for_kind(job.route.courier);
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
        let contact_result = job.skip_reason.is_none().then(|| contact_result(&outcomes));
        let now = self.shared.clock.now();
        let mut timing = self.retry_timing(job);
        if job.skip_reason != Some(SkipReason::Overdue) {
            for (recipient, outcome) in recipients.iter().zip(&outcomes) {
                self.log_outcome(job, courier, recipient, outcome, now.since(began), &timing, &trace);
            }
        }
        let mut states: Vec<(usize, RecipientState)> =
            job.recipients.iter().copied().zip(outcomes.into_iter().map(RecipientState::from)).collect();
        if timing.retry_delay.is_none() {
            self.expire(job, &mut states);
        }
        let notices = self.put_bounces(job, &mut states, &timing);
        if job.skip_reason == Some(SkipReason::Overdue) && !notices.is_empty() {
            // The attempt itself comes next.
            timing.retry_delay = timing.retry_delay.map(|_| RETRY_DELAY_MIN);
        }
        let waits = states.iter().any(|(_, state)| !state.is_settled());
        let is_saved = self.record_states(job, states, notices, &timing);
        let delay = timing.retry_delay.unwrap_or_else(|| self.retry_delay(job));
        let due = (waits || !is_saved).then(|| now + delay);
        AttemptSummary { due, contact_result }
    }

    /// Calls the courier. Returns one outcome for each recipient, even if the courier panics.
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
        let timeout = match job.pool {
            DeliveryPool::Local => settings.local_attempt_timeout,
            DeliveryPool::Remote => settings.remote_attempt_timeout,
        };
        let message =
            self.shared.spool.extent(&envelope.id).and_then(|extent| OutgoingContent::new(extent, envelope));
        let message = match message {
            Ok(message) => message,
            Err(e) => return defer(format!("the message cannot be read from the spool: {e}")),
        };
        let deadline = self.shared.clock.now() + timeout;
        let delivery = Delivery {
            envelope,
            recipients,
            message: &message,
            deadline,
            is_more_mail_expected: job.is_more_mail_expected,
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
        // The last attempt is at the end of the lifetime. If the sender wants a delay notice, one attempt is
        // at the time of that.
        let until_notice = self.shared.settings.delay_warning.checked_sub(age);
        let until_notice = until_notice.filter(|left| !left.is_zero() && self.wants_delay_notice(job));
        let until_notice = until_notice.unwrap_or(Duration::MAX);
        let delay = |left| self.retry_delay(job).min(left).min(until_notice).max(RETRY_DELAY_MIN);
        RetryTiming { age, retry_delay: left.map(delay) }
    }

    fn wants_delay_notice(&self, job: &AttemptJob) -> bool {
        let envelope = &job.message.envelope;
        let mut recipients = job.recipients.iter().filter_map(|position| envelope.recipients.get(*position));
        recipients.any(|recipient| bounce::wants_delay_notice(envelope, recipient.notify))
    }

    fn retry_delay(&self, job: &AttemptJob) -> Duration {
        self.shared.settings.retry_delay(job.attempt_number, self.shared.random.as_ref())
    }

    /// Writes one outcome to the log, the trace and the counters.
    #[expect(clippy::too_many_arguments, reason = "each is a different thing, and all are on the log line")]
    fn log_outcome(
        &self,
        job: &AttemptJob,
        courier: &dyn Courier,
        recipient: &Recipient,
        outcome: &Outcome,
        took: Duration,
        timing: &RetryTiming,
        trace: &Trace,
    ) {
        let envelope = &job.message.envelope;
        let next = timing.retry_delay.filter(|_| !outcome.is_final());
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

    /// The lifetime is over: the recipients that still wait have failed.
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

    /// Queues the bounces that are due. Returns the notices that the sender gets about recipients that still
    /// wait.
    fn put_bounces(
        &self,
        job: &AttemptJob,
        states: &mut [(usize, RecipientState)],
        timing: &RetryTiming,
    ) -> Vec<(usize, Notice)> {
        let envelope = &job.message.envelope;
        let settings = &self.shared.settings;
        let decision = bounce::decide_bounces(&AttemptChanges {
            envelope,
            states,
            notices: &job.message.state.lock().progress.notices.clone(),
            is_final_delivery: self.parts.couriers.profile(&job.route).is_final_delivery,
            is_delayed: timing.age >= settings.delay_warning,
        });
        if let Some(why) = decision.suppression_reason {
            maillog::bounce_suppressed(&envelope.id, why);
        }
        let until = self.shared.clock.wall_time().after(settings.lifetime.saturating_sub(timing.age));
        let mut notices = Vec::new();
        for planned in decision.bounces {
            let is_put = self.bounce_writer.put_bounce(envelope, &planned, until);
            for (position, action, reason) in planned.entries {
                match (action, planned.kind) {
                    (Action::Delayed, _) if is_put => notices.push((position, Notice::Delayed)),
                    (Action::Expanded, _) if is_put => notices.push((position, Notice::Expanded)),
                    // The recipient fails again, and is reported then.
                    (_, BounceKind::Failure) if !is_put => mark_waiting(states, position, reason),
                    _ => {}
                }
            }
        }
        notices
    }

    /// Adds the states to the message's progress, in memory and on disk. Returns false if the disk refuses.
    fn record_states(
        &self,
        job: &AttemptJob,
        states: Vec<(usize, RecipientState)>,
        notices: Vec<(usize, Notice)>,
        timing: &RetryTiming,
    ) -> bool {
        let (wall, now) = (self.shared.clock.wall_time(), self.shared.spool.age_clock.now());
        let due = now.after(timing.retry_delay.unwrap_or_else(|| self.retry_delay(job)));
        let id = &job.message.envelope.id;
        let recorded = job.message.record_attempt(&self.shared.spool, |before| {
            let mut update =
                ProgressUpdate { states, notices, ..ProgressUpdate::new(wall, job.attempt_number, due) };
            // A restart uses the time when the first of the waiting recipients is due.
            if before.due > now
                && before.waiting_positions().any(|position| !job.recipients.contains(&position))
            {
                update.due = update.due.min(before.due);
            }
            update
        });
        match recorded {
            Ok(is_settled) => {
                if is_settled {
                    maillog::done(id);
                }
                true
            }
            Err(e) => {
                log::error!(target: "queue", "{id}: the outcome cannot be recorded yet: {e}");
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

/// What these outcomes show of the destination.
fn contact_result(outcomes: &[Outcome]) -> ContactResult {
    let is_answer = |outcome: &Outcome| {
        let reason = outcome.reason();
        matches!(outcome, Outcome::Delivered(_))
            || (reason.response.is_some() && reason.scope == FailureScope::Message)
    };
    if outcomes.iter().any(is_answer) {
        return ContactResult::Answered;
    }
    let unresponsive =
        outcomes.iter().map(Outcome::reason).find(|reason| reason.scope == FailureScope::Destination);
    unresponsive
        .map_or(ContactResult::NotContacted, |reason| ContactResult::Unresponsive(Arc::new(reason.clone())))
}

/// Outcomes of recipients that are not tried, because their destination does not answer.
fn skipped_outcomes(why: &Reason, recipients: &[&Recipient], trace: &Trace) -> Vec<Outcome> {
    let text = format!("not tried, because the destination does not answer: {}", why.text);
    trace.add_error(text.clone());
    let reason = Reason { text, ..why.clone() };
    vec![Outcome::Deferred(reason); recipients.len()]
}

/// Outcomes of recipients that are not tried, because they were to be given up, or reported as delayed,
/// before this process began: the reasons of their last outcomes.
fn overdue_outcomes(job: &AttemptJob, trace: &Trace) -> Vec<Outcome> {
    trace.add_event("not tried: it was to be given up or reported as delayed before this start");
    let states = job.message.state.lock().progress.states.clone();
    let last = |position: &usize| states.get(*position).and_then(RecipientState::reason).cloned();
    let none = || Reason::new(4, 0, "no attempt came to an end");
    job.recipients.iter().map(|position| Outcome::Deferred(last(position).unwrap_or_else(none))).collect()
}
