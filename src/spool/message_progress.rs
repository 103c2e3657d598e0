//! The progress of one queued message: the state of each recipient, and when the message is due.
//!
//! The progress is the sum of the message's updates (`progress_update`), in order. An update only adds: a
//! delivered recipient never waits again.
//!
//! The due time is a time of the age clock (`age_clock`), which does not jump and continues across restarts.
//! Wall time is only for people.

use std::collections::BTreeMap;

use super::progress_update::ProgressUpdate;
use super::recipient_state::{Notice, RecipientState};
use crate::mail::{Destination, Envelope, Timestamp};

/// The progress of a message: the sum of its updates.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MessageProgress {
    /// One for each recipient of the envelope, in its order.
    pub states: Vec<RecipientState>,
    /// Rounds of attempts so far.
    pub attempts: u32,
    /// Wall time of the last update, or of arrival.
    pub last_updated: Timestamp,
    /// When the message is due, by the age clock, as last written; the time of arrival before the first
    /// attempt.
    pub due: Timestamp,
    /// Notices that the sender has got, by the recipient's position.
    pub notices: Vec<(usize, Notice)>,
    /// The message is not tried before an operator releases it.
    pub is_held: bool,
    /// Destinations that an operator chose instead of those in the envelope, by position.
    pub routes: BTreeMap<usize, Destination>,
}

impl MessageProgress {
    /// The progress of a message that was just put.
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

    /// The envelope with the destinations that an operator chose. Never written to disk: a later update can
    /// take a destination back, and nothing changes an envelope.
    pub(crate) fn rerouted(&self, mut envelope: Envelope) -> Envelope {
        for (position, destination) in &self.routes {
            if let Some(recipient) = envelope.recipients.get_mut(*position) {
                recipient.destination = destination.clone();
            }
        }
        envelope
    }

    /// Adds one update. Positions outside the envelope are ignored.
    pub(crate) fn apply(&mut self, update: &ProgressUpdate) {
        for (position, state) in &update.states {
            if let Some(slot) = self.states.get_mut(*position)
                && !slot.is_settled()
            {
                *slot = state.clone();
            }
        }
        for notice in &update.notices {
            if !self.notices.contains(notice) {
                self.notices.push(*notice);
            }
        }
        self.is_held = update.is_held.unwrap_or(self.is_held);
        for (position, destination) in &update.routes {
            match destination {
                Some(destination) => self.routes.insert(*position, destination.clone()),
                None => self.routes.remove(position),
            };
        }
        self.attempts = self.attempts.max(update.attempts);
        self.last_updated = update.time;
        self.due = update.due;
    }

    /// One update that has the same effect as all updates so far.
    pub(crate) fn to_update(&self) -> ProgressUpdate {
        let states = self.states.iter().cloned().enumerate();
        let states = states.filter(|(_, state)| *state != RecipientState::Waiting(None)).collect();
        let update = ProgressUpdate::new(self.last_updated, self.attempts, self.due);
        let routes = self.routes.iter().map(|(position, to)| (*position, Some(to.clone())));
        let (notices, is_held) = (self.notices.clone(), self.is_held.then_some(true));
        ProgressUpdate { states, notices, is_held, routes: routes.collect(), ..update }
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
    use crate::mail::{Mailbox, MessageId, Reason, Recipient, ReversePath};

    fn envelope() -> Envelope {
        let at = Timestamp::from_millis(1_000_000);
        let recipients =
            ["a@x.example", "b@x.example"].map(|raw| Recipient::for_mailbox(Mailbox::parse(raw).unwrap()));
        Envelope::new(MessageId::new(at, 1), at, ReversePath::Null, recipients.to_vec())
    }

    #[test]
    fn updates_add_up_and_a_settled_recipient_never_waits_again() {
        let mut progress = MessageProgress::new(&envelope());
        let busy = Reason::new(4, 1, "busy");
        let [at, due] = [2_000_000, 3_000_000].map(Timestamp::from_millis);
        let update = |states| ProgressUpdate {
            states,
            notices: vec![(1, Notice::Delayed)],
            is_held: Some(true),
            ..ProgressUpdate::new(at, 1, due)
        };
        progress.apply(&update(vec![
            (0, RecipientState::Delivered(busy.clone())),
            (9, RecipientState::Waiting(None)),
        ]));
        progress.apply(&update(vec![
            (0, RecipientState::Waiting(None)),
            (1, RecipientState::Waiting(Some(busy.clone()))),
        ]));
        assert_eq!(progress.waiting_positions().collect::<Vec<_>>(), [1]);
        assert!(!progress.is_settled());
        assert_eq!(progress.notices, [(1, Notice::Delayed)], "once");

        let mut copy = MessageProgress::new(&envelope());
        copy.apply(&progress.to_update());
        assert_eq!(copy, progress);
        assert!(copy.is_held);
        copy.apply(&ProgressUpdate { is_held: Some(false), ..ProgressUpdate::new(at, 1, due) });
        assert!(!copy.is_held);

        let elsewhere = Destination::Mailbox(Mailbox::parse("b@y.example").unwrap());
        let route = |to| ProgressUpdate { routes: vec![(1, to)], ..ProgressUpdate::new(at, 1, due) };
        copy.apply(&route(Some(elsewhere.clone())));
        assert_eq!(copy.rerouted(envelope()).recipients[1].destination, elsewhere);
        let mut again = MessageProgress::new(&envelope());
        again.apply(&copy.to_update());
        assert_eq!(again.routes, copy.routes);
        copy.apply(&route(None));
        assert_eq!(copy.rerouted(envelope()), envelope());
    }
}
