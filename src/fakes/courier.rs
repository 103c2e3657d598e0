//! A courier that follows a script, and keeps what it carried.

use std::collections::VecDeque;
use std::io::Read as _;
use std::sync::Arc;

use super::SimulatedDisk;
use crate::courier::{Courier, CourierProfile, Delivery};
use crate::mail::{Envelope, Outcome, Reason};
use crate::sys::PlainMutex as Mutex;

/// One recipient's part of an attempt.
#[derive(Debug, Clone, PartialEq)]
pub struct RecordedAttempt {
    /// The envelope it came with.
    pub envelope: Envelope,
    /// To whom, as the log shows it.
    pub recipient: String,
    /// The octets, as they would go out.
    pub octets: Vec<u8>,
    /// What the script said.
    pub outcome: Outcome,
    /// How many verbs the disk had done, if one is watched.
    pub disk_operations: usize,
}

/// Answers from a script, one outcome for each recipient; when the script is over, delivers.
#[derive(Default)]
pub struct ScriptedCourier {
    script: Mutex<VecDeque<ScriptStep>>,
    /// When the script is over, this and nothing else.
    default_outcome: Mutex<Option<Outcome>>,
    attempts: Mutex<Vec<RecordedAttempt>>,
    disk: Option<SimulatedDisk>,
}

enum ScriptStep {
    Outcome(Outcome),
    Panic,
}

impl ScriptedCourier {
    /// One that notes how far a disk is at each delivery.
    #[must_use]
    pub fn with_disk(disk: SimulatedDisk) -> Self {
        Self { disk: Some(disk), ..Self::default() }
    }

    /// Adds outcomes to the script.
    pub fn add_outcomes(&self, outcomes: impl IntoIterator<Item = Outcome>) {
        self.script.lock().extend(outcomes.into_iter().map(ScriptStep::Outcome));
    }

    /// Adds a panic to the script.
    pub fn add_panic(&self) {
        self.script.lock().push_back(ScriptStep::Panic);
    }

    /// What it says when the script is over, instead of delivering.
    pub fn set_default_outcome(&self, outcome: Option<Outcome>) {
        *self.default_outcome.lock() = outcome;
    }

    /// Everything it was asked to carry, in order.
    #[must_use]
    pub fn attempts(&self) -> Vec<RecordedAttempt> {
        self.attempts.lock().clone()
    }

    /// What it delivered.
    #[must_use]
    pub fn delivered(&self) -> Vec<RecordedAttempt> {
        let mut carried = self.attempts();
        carried.retain(|one| matches!(one.outcome, Outcome::Delivered(_)));
        carried
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
