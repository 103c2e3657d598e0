//! A courier that follows a script and records what it was asked to deliver.

use std::collections::VecDeque;
use std::io::Read as _;
use std::sync::Arc;

use super::SimulatedDisk;
use crate::courier::{Courier, CourierProfile, Delivery};
use crate::mail::{Envelope, Outcome, Reason};
use crate::sys::PlainMutex as Mutex;

/// What an attempt did for one recipient.
#[derive(Debug, Clone, PartialEq)]
pub struct RecordedAttempt {
    /// The envelope of the message.
    pub envelope: Envelope,
    /// The recipient, as the log shows it.
    pub recipient: String,
    /// The octets that would be sent.
    pub octets: Vec<u8>,
    /// The outcome from the script.
    pub outcome: Outcome,
    /// How many operations the disk had done, if the courier has one.
    pub disk_operations: usize,
}

/// Takes one outcome for each recipient from a script, and delivers when the script has no more.
#[derive(Default)]
pub struct ScriptedCourier {
    script: Mutex<VecDeque<ScriptStep>>,
    /// The outcome when the script has no more, instead of a delivery.
    default_outcome: Mutex<Option<Outcome>>,
    attempts: Mutex<Vec<RecordedAttempt>>,
    disk: Option<SimulatedDisk>,
}

enum ScriptStep {
    Outcome(Outcome),
    Panic,
}

impl ScriptedCourier {
    /// A courier that records at each delivery how many operations `disk` has done.
    #[must_use]
    pub fn with_disk(disk: SimulatedDisk) -> Self {
        Self { disk: Some(disk), ..Self::default() }
    }

    /// Appends outcomes to the script.
    pub fn add_outcomes(&self, outcomes: impl IntoIterator<Item = Outcome>) {
        self.script.lock().extend(outcomes.into_iter().map(ScriptStep::Outcome));
    }

    /// Appends a panic to the script.
    pub fn add_panic(&self) {
        self.script.lock().push_back(ScriptStep::Panic);
    }

    /// Sets the outcome when the script has no more, instead of a delivery.
    pub fn set_default_outcome(&self, outcome: Option<Outcome>) {
        *self.default_outcome.lock() = outcome;
    }

    /// Everything that the courier was asked to deliver, in order.
    #[must_use]
    pub fn attempts(&self) -> Vec<RecordedAttempt> {
        self.attempts.lock().clone()
    }

    /// What the courier delivered.
    #[must_use]
    pub fn delivered(&self) -> Vec<RecordedAttempt> {
        let mut delivered = self.attempts();
        delivered.retain(|one| matches!(one.outcome, Outcome::Delivered(_)));
        delivered
    }
}

impl Courier for ScriptedCourier {
    fn name(&self) -> &'static str {
        "scripted"
    }

    fn profile(&self) -> CourierProfile {
        CourierProfile::REMOTE
    }

    fn attempt(&self, delivery: &Delivery<'_>) -> Vec<Outcome> {
        let mut octets = Vec::new();
        let read = delivery.message.open().and_then(|mut message| message.read_to_end(&mut octets));
        if let Err(e) = read {
            let reason = Reason::new(3, 0, e.to_string());
            return vec![Outcome::Deferred(reason); delivery.recipients.len()];
        }
        let outcomes = delivery.recipients.iter().map(|recipient| {
            let step = self.script.lock().pop_front();
            let outcome = match step {
                Some(ScriptStep::Outcome(outcome)) => outcome,
                Some(ScriptStep::Panic) => std::panic::panic_any("as the script says"),
                None => self
                    .default_outcome
                    .lock()
                    .clone()
                    .unwrap_or(Outcome::Delivered(Reason::new(0, 0, "taken"))),
            };
            self.attempts.lock().push(RecordedAttempt {
                envelope: delivery.envelope.clone(),
                recipient: recipient.to_string(),
                octets: octets.clone(),
                outcome: outcome.clone(),
                disk_operations: self.disk.as_ref().map_or(0, |disk| disk.operations().len()),
            });
            outcome
        });
        outcomes.collect()
    }
}

/// A courier with another profile: for a fake that stands in for several couriers.
pub struct WithProfile(pub Arc<dyn Courier>, pub CourierProfile);

impl Courier for WithProfile {
    fn name(&self) -> &'static str {
        self.0.name()
    }

    fn profile(&self) -> CourierProfile {
        self.1
    }

    fn attempt(&self, delivery: &Delivery<'_>) -> Vec<Outcome> {
        self.0.attempt(delivery)
    }

    fn forget_host_failures(&self) {
        self.0.forget_host_failures();
    }
}
