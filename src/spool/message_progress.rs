//! One queued message: what became of each recipient, and when it is due.
//!
//! A record is one attempt's news; the state of a message is its envelope and its records in
//! order. Records only ever add: a delivered recipient is never waiting again.
//!
//! When it is due is a time of the clock by which it ages, `age_clock`, which neither jumps nor forgets
//! at a restart. Wall time is written down for people only.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::mail::{Destination, Envelope, Outcome, Reason, Timestamp};

/// Where one recipient stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RecipientState {
    /// To be tried, again if there is a reason.
    Waiting(Option<Reason>),
    /// The next hop has it.
    Delivered(Reason),
    /// It will never arrive; the sender was told, if that is owed.
    Failed(Reason),
    /// The lifetime ended while it was waiting for this reason; reported as 4.4.7.
    Expired(Reason),
}

impl RecipientState {
    /// Nothing is left to do.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        !matches!(self, Self::Waiting(_))
    }

    /// What was heard last.
    #[must_use]
    pub fn reason(&self) -> Option<&Reason> {
        match self {
            Self::Waiting(reason) => reason.as_ref(),
            Self::Delivered(reason) | Self::Failed(reason) | Self::Expired(reason) => Some(reason),
        }
    }
}

impl From<Outcome> for RecipientState {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Delivered(reason) => Self::Delivered(reason),
            Outcome::Deferred(reason) => Self::Waiting(Some(reason)),
            Outcome::Failed(reason) => Self::Failed(reason),
        }
    }
}

/// What one attempt changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ProgressUpdate {
    /// Wall time when it was written.
    pub(crate) at: Timestamp,
    /// Rounds of attempts so far, this one included.
    pub(crate) attempts: u32,
    /// When the recipients that still wait are due, by the age clock.
    pub(crate) due: Timestamp,
    /// New states, by the recipient's position in the envelope.
    pub(crate) states: Vec<(usize, RecipientState)>,
    /// What the sender has been told of recipients that this settled nothing for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) told: Vec<(usize, Notice)>,
    /// An operator holds the message, or releases it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) held: Option<bool>,
    /// Where an operator sends recipients instead, by position; nothing: where their envelope says.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) routes: Vec<(usize, Option<Destination>)>,
    /// A person waits for it to be durable: it goes to a file that lasts, synced.
    #[serde(skip)]
    pub(crate) by_operator: bool,
}

impl ProgressUpdate {
    /// One that changes nothing yet.
    pub(crate) fn new(at: Timestamp, attempts: u32, due: Timestamp) -> Self {
        let (states, told, routes) = (Vec::new(), Vec::new(), Vec::new());
        Self { at, attempts, due, states, told, held: None, routes, by_operator: false }
    }
}

/// What a sender is told once, though the message goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Notice {
    /// The recipient is delayed.
    Delayed,
    /// An alias made several of it.
    Expanded,
}

/// Where a message stands: the sum of its records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MessageProgress {
    /// One for each recipient of the envelope, in its order.
    pub states: Vec<RecipientState>,
    /// Rounds of attempts so far.
    pub attempts: u32,
    /// Wall time of the last record, or of arrival.
    pub last_updated: Timestamp,
    /// When it is due, by the age clock, as last written down; when it was put if no attempt was made.
    pub due: Timestamp,
    /// What the sender has been told of recipients, by position, while the message went on.
    pub notices: Vec<(usize, Notice)>,
    /// It is not tried before an operator releases it.
    pub is_held: bool,
    /// Where an operator sends recipients instead of where their envelope says, by position.
    pub routes: BTreeMap<usize, Destination>,
}

impl MessageProgress {
    /// Nothing has happened yet.
    #[must_use]
    pub fn new(envelope: &Envelope) -> Self {
        Self {
            states: vec![RecipientState::Waiting(None); envelope.recipients.len()],
            attempts: 0,
            last_updated: envelope.arrived_at,
            due: envelope.age_start(),
            notices: Vec::new(),
            is_held: false,
            routes: BTreeMap::new(),
        }
    }

    /// The envelope with recipients going where an operator sends them. Never written down: a
    /// record can be taken back, an envelope cannot.
    pub(crate) fn rerouted(&self, mut envelope: Envelope) -> Envelope {
        for (position, destination) in &self.routes {
            if let Some(recipient) = envelope.recipients.get_mut(*position) {
                recipient.destination = destination.clone();
            }
        }
        envelope
    }

    /// Adds one record. Positions outside the envelope are passed over.
    pub(crate) fn apply(&mut self, record: &ProgressUpdate) {
        for (position, state) in &record.states {
            if let Some(slot) = self.states.get_mut(*position)
                && !slot.is_settled()
            {
                *slot = state.clone();
            }
        }
        for notice in &record.told {
            if !self.notices.contains(notice) {
                self.notices.push(*notice);
            }
        }
        self.is_held = record.held.unwrap_or(self.is_held);
        for (position, destination) in &record.routes {
            match destination {
                Some(destination) => self.routes.insert(*position, destination.clone()),
                None => self.routes.remove(position),
            };
        }
        self.attempts = self.attempts.max(record.attempts);
        self.last_updated = record.at;
        self.due = record.due;
    }

    /// Everything at once, as one record.
    pub(crate) fn to_record(&self) -> ProgressUpdate {
        let states = self.states.iter().cloned().enumerate();
        let states = states.filter(|(_, state)| *state != RecipientState::Waiting(None)).collect();
        let record = ProgressUpdate::new(self.last_updated, self.attempts, self.due);
        let routes = self.routes.iter().map(|(position, to)| (*position, Some(to.clone())));
        let (told, held) = (self.notices.clone(), self.is_held.then_some(true));
        ProgressUpdate { states, told, held, routes: routes.collect(), ..record }
    }

    /// No recipient waits any more.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.states.iter().all(RecipientState::is_settled)
    }

    /// Positions of the recipients that wait.
    pub fn waiting_positions(&self) -> impl Iterator<Item = usize> {
        self.states.iter().enumerate().filter(|(_, state)| !state.is_settled()).map(|(position, _)| position)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mail::{Mailbox, MessageId, Recipient, ReversePath};

    fn envelope() -> Envelope {
        let at = Timestamp::from_millis(1_000_000);
        let recipients =
            ["a@x.example", "b@x.example"].map(|raw| Recipient::for_mailbox(Mailbox::parse(raw).unwrap()));
        Envelope::new(MessageId::new(at, 1), at, ReversePath::Null, recipients.to_vec())
    }

    #[test]
    fn records_add_up_and_nothing_settled_waits_again() {
        let mut progress = MessageProgress::new(&envelope());
        let busy = Reason::new(4, 1, "busy");
        let [at, due] = [2_000_000, 3_000_000].map(Timestamp::from_millis);
        let record = |states| ProgressUpdate {
            states,
            told: vec![(1, Notice::Delayed)],
            held: Some(true),
            ..ProgressUpdate::new(at, 1, due)
        };
        progress.apply(&record(vec![
            (0, RecipientState::Delivered(busy.clone())),
            (9, RecipientState::Waiting(None)),
        ]));
        progress.apply(&record(vec![
            (0, RecipientState::Waiting(None)),
            (1, RecipientState::Waiting(Some(busy.clone()))),
        ]));
        assert_eq!(progress.waiting_positions().collect::<Vec<_>>(), [1]);
        assert!(!progress.is_settled());
        assert_eq!(progress.notices, [(1, Notice::Delayed)], "once");

        let mut copy = MessageProgress::new(&envelope());
        copy.apply(&progress.to_record());
        assert_eq!(copy, progress);
        assert!(copy.is_held);
        copy.apply(&ProgressUpdate { held: Some(false), ..ProgressUpdate::new(at, 1, due) });
        assert!(!copy.is_held);

        let elsewhere = Destination::Mailbox(Mailbox::parse("b@y.example").unwrap());
        let route = |to| ProgressUpdate { routes: vec![(1, to)], ..ProgressUpdate::new(at, 1, due) };
        copy.apply(&route(Some(elsewhere.clone())));
        assert_eq!(copy.rerouted(envelope()).recipients[1].destination, elsewhere);
        let mut again = MessageProgress::new(&envelope());
        again.apply(&copy.to_record());
        assert_eq!(again.routes, copy.routes);
        copy.apply(&route(None));
        assert_eq!(copy.rerouted(envelope()), envelope());
    }
}
