//! What became of each recipient on one connection.
//!
//! An answer never changes: later replies apply to recipients without an answer.

use crate::mail::{Failure, Outcome};

/// The result for one recipient at the end of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RecipientResult {
    /// The host answered: no other host is tried in the same attempt.
    Outcome(Outcome),
    /// The host gave no answer, for this reason; another host may. Permanent if the host lacks what the
    /// message needs, so that another attempt at the same host is useless.
    NoAnswer(Failure),
    /// The host takes no more recipients on this connection, and was not asked: ask it on another one.
    NotAsked,
}

/// The state of one recipient while the connection lasts.
#[derive(Debug, Clone, PartialEq, Eq)]
enum RecipientProgress {
    /// RCPT was not sent, or not answered.
    Waiting,
    /// The host refused for reasons of its own, or was not asked: another host may accept.
    LeftToOtherHosts(Failure),
    /// RCPT was accepted.
    Accepted,
    Answered(Outcome),
}

/// The state of each recipient, in the order of the plan.
#[derive(Debug)]
pub(super) struct TransactionProgress(Vec<RecipientProgress>);

impl TransactionProgress {
    /// All recipients wait.
    pub(super) fn new(recipients: usize) -> Self {
        Self(vec![RecipientProgress::Waiting; recipients])
    }

    pub(super) fn is_waiting(&self, recipient: usize) -> bool {
        self.0.get(recipient) == Some(&RecipientProgress::Waiting)
    }

    pub(super) fn has_waiting(&self) -> bool {
        self.0.contains(&RecipientProgress::Waiting)
    }

    pub(super) fn has_accepted(&self) -> bool {
        self.0.contains(&RecipientProgress::Accepted)
    }

    /// Leaves this recipient to other hosts, if it waits.
    pub(super) fn leave_to_other_hosts(&mut self, recipient: usize, failure: Failure) {
        self.set_if_waiting(recipient, RecipientProgress::LeftToOtherHosts(failure));
    }

    /// Leaves all recipients that wait to other hosts.
    pub(super) fn leave_all_to_other_hosts(&mut self, failure: &Failure) {
        for progress in self.0.iter_mut().filter(|progress| **progress == RecipientProgress::Waiting) {
            *progress = RecipientProgress::LeftToOtherHosts(failure.clone());
        }
    }

    /// RCPT was accepted for this recipient.
    pub(super) fn set_accepted(&mut self, recipient: usize) {
        self.set_if_waiting(recipient, RecipientProgress::Accepted);
    }

    /// Sets the answer for this recipient, if it waits.
    pub(super) fn settle(&mut self, recipient: usize, outcome: Outcome) {
        self.set_if_waiting(recipient, RecipientProgress::Answered(outcome));
    }

    /// Sets the answer for the first so many recipients whose RCPT was accepted.
    pub(super) fn settle_accepted(&mut self, outcome: &Outcome, at_most: usize) {
        for progress in
            self.0.iter_mut().filter(|progress| **progress == RecipientProgress::Accepted).take(at_most)
        {
            *progress = RecipientProgress::Answered(outcome.clone());
        }
    }

    /// Sets the answer for all recipients without one.
    pub(super) fn settle_remaining(&mut self, outcome: &Outcome) {
        for progress in &mut self.0 {
            if matches!(progress, RecipientProgress::Waiting | RecipientProgress::Accepted) {
                *progress = RecipientProgress::Answered(outcome.clone());
            }
        }
    }

    /// The result for each recipient. If `is_sound`, recipients that wait were not asked; `why` is the
    /// reason for all others without an answer.
    pub(super) fn results(&self, is_sound: bool, why: &Failure) -> Vec<RecipientResult> {
        let answer = |progress: &RecipientProgress| match progress {
            RecipientProgress::Answered(outcome) => RecipientResult::Outcome(outcome.clone()),
            RecipientProgress::LeftToOtherHosts(failure) => RecipientResult::NoAnswer(failure.clone()),
            RecipientProgress::Waiting if is_sound => RecipientResult::NotAsked,
            RecipientProgress::Waiting | RecipientProgress::Accepted => {
                RecipientResult::NoAnswer(why.clone())
            }
        };
        self.0.iter().map(answer).collect()
    }

    /// Changes a recipient that waits, and no other.
    fn set_if_waiting(&mut self, recipient: usize, decided: RecipientProgress) {
        if let Some(progress @ RecipientProgress::Waiting) = self.0.get_mut(recipient) {
            *progress = decided;
        }
    }
}
