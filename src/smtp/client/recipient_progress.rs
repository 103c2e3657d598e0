//! What one connection makes of each recipient.
//!
//! A fate once settled stays: whatever is heard later is for those who are still open to it.

use crate::mail::{Failure, Outcome};

/// What one connection made of one recipient, at its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RecipientResult {
    /// The host had its say: other hosts are not asked in the same attempt.
    Outcome(Outcome),
    /// The host gave no answer. Another may; if there is none, this is why. Permanent if this host
    /// lacks what the message needs: asking it again, at any address of its, would be in vain.
    NoAnswer(Failure),
    /// The host takes no more on this connection, and was not asked: ask it again on another.
    NotAsked,
}

/// Where one recipient stands while the connection lasts.
#[derive(Debug, Clone, PartialEq, Eq)]
enum RecipientProgress {
    /// Not asked yet, or not answered.
    Waiting,
    /// Not asked, or asked in vain: another host may do better.
    LeftToOtherHosts(Failure),
    /// RCPT was accepted.
    Accepted,
    Answered(Outcome),
}

/// One for each recipient, in the order of the plan.
#[derive(Debug)]
pub(super) struct TransactionProgress(Vec<RecipientProgress>);

impl TransactionProgress {
    /// Nobody was asked about yet.
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

    /// Another host may do better for this recipient, if it waits.
    pub(super) fn leave_to_other_hosts(&mut self, recipient: usize, failure: Failure) {
        self.set_if_waiting(recipient, RecipientProgress::LeftToOtherHosts(failure));
    }

    /// Another host may do better for everyone who waits.
    pub(super) fn leave_all_to_other_hosts(&mut self, failure: &Failure) {
        for fate in self.0.iter_mut().filter(|fate| **fate == RecipientProgress::Waiting) {
            *fate = RecipientProgress::LeftToOtherHosts(failure.clone());
        }
    }

    /// RCPT was accepted.
    pub(super) fn set_accepted(&mut self, recipient: usize) {
        self.set_if_waiting(recipient, RecipientProgress::Accepted);
    }

    /// The answer for this recipient, if it waits.
    pub(super) fn settle(&mut self, recipient: usize, outcome: Outcome) {
        self.set_if_waiting(recipient, RecipientProgress::Answered(outcome));
    }

    /// The answer for so many of those whom RCPT was accepted for, in order.
    pub(super) fn settle_accepted(&mut self, outcome: &Outcome, at_most: usize) {
        for fate in self.0.iter_mut().filter(|fate| **fate == RecipientProgress::Accepted).take(at_most) {
            *fate = RecipientProgress::Answered(outcome.clone());
        }
    }

    /// The answer for everyone who has no other.
    pub(super) fn settle_remaining(&mut self, outcome: &Outcome) {
        for fate in &mut self.0 {
            if matches!(fate, RecipientProgress::Waiting | RecipientProgress::Accepted) {
                *fate = RecipientProgress::Answered(outcome.clone());
            }
        }
    }

    /// What it came to. Who still waits was not asked, if the peer was content; `why` is the reason
    /// for all others without an answer.
    pub(super) fn results(&self, is_sound: bool, why: &Failure) -> Vec<RecipientResult> {
        let answer = |fate: &RecipientProgress| match fate {
            RecipientProgress::Answered(outcome) => RecipientResult::Outcome(outcome.clone()),
            RecipientProgress::LeftToOtherHosts(failure) => RecipientResult::NoAnswer(failure.clone()),
            RecipientProgress::Waiting if is_sound => RecipientResult::NotAsked,
            RecipientProgress::Waiting | RecipientProgress::Accepted => {
                RecipientResult::NoAnswer(why.clone())
            }
        };
        self.0.iter().map(answer).collect()
    }

    /// Who is settled stays so.
    fn set_if_waiting(&mut self, recipient: usize, decided: RecipientProgress) {
        if let Some(fate @ RecipientProgress::Waiting) = self.0.get_mut(recipient) {
            *fate = decided;
        }
    }
}
