//! What one connection makes of each recipient.
//!
//! A fate once settled stays: whatever is heard later is for those who are still open to it.

use crate::mail::{Failure, Outcome};

/// What one connection made of one recipient, at its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// The host had its say: other hosts are not asked in the same attempt.
    Outcome(Outcome),
    /// The host gave no answer. Another may; if there is none, this is why. Permanent if this host
    /// lacks what the message needs: asking it again, at any address of its, would be in vain.
    Open(Failure),
    /// The host takes no more on this connection, and was not asked: ask it again on another.
    NotAsked,
}

/// Where one recipient stands while the connection lasts.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Fate {
    /// Not asked yet, or not answered.
    Waiting,
    /// Not asked, or asked in vain: another host may do better.
    Open(Failure),
    /// RCPT was accepted.
    Accepted,
    Answered(Outcome),
}

/// One for each recipient, in the order of the plan.
#[derive(Debug)]
pub(super) struct Fates(Vec<Fate>);

impl Fates {
    /// Nobody was asked about yet.
    pub(super) fn new(recipients: usize) -> Self {
        Self(vec![Fate::Waiting; recipients])
    }

    pub(super) fn is_waiting(&self, recipient: usize) -> bool {
        self.0.get(recipient) == Some(&Fate::Waiting)
    }

    pub(super) fn has_waiting(&self) -> bool {
        self.0.contains(&Fate::Waiting)
    }

    pub(super) fn has_accepted(&self) -> bool {
        self.0.contains(&Fate::Accepted)
    }

    /// Another host may do better for this recipient, if it waits.
    pub(super) fn leave_open(&mut self, recipient: usize, failure: Failure) {
        self.decide(recipient, Fate::Open(failure));
    }

    /// Another host may do better for everyone who waits.
    pub(super) fn leave_all_open(&mut self, failure: &Failure) {
        for fate in self.0.iter_mut().filter(|fate| **fate == Fate::Waiting) {
            *fate = Fate::Open(failure.clone());
        }
    }

    /// RCPT was accepted.
    pub(super) fn accept(&mut self, recipient: usize) {
        self.decide(recipient, Fate::Accepted);
    }

    /// The answer for this recipient, if it waits.
    pub(super) fn answer(&mut self, recipient: usize, outcome: Outcome) {
        self.decide(recipient, Fate::Answered(outcome));
    }

    /// The answer for so many of those whom RCPT was accepted for, in order.
    pub(super) fn answer_accepted(&mut self, outcome: &Outcome, at_most: usize) {
        for fate in self.0.iter_mut().filter(|fate| **fate == Fate::Accepted).take(at_most) {
            *fate = Fate::Answered(outcome.clone());
        }
    }

    /// The answer for everyone who has no other.
    pub(super) fn answer_unsettled(&mut self, outcome: &Outcome) {
        for fate in &mut self.0 {
            if matches!(fate, Fate::Waiting | Fate::Accepted) {
                *fate = Fate::Answered(outcome.clone());
            }
        }
    }

    /// What it came to. Who still waits was not asked, if the peer was content; `why` is the reason
    /// for all others without an answer.
    pub(super) fn answers(&self, is_sound: bool, why: &Failure) -> Vec<Answer> {
        let answer = |fate: &Fate| match fate {
            Fate::Answered(outcome) => Answer::Outcome(outcome.clone()),
            Fate::Open(failure) => Answer::Open(failure.clone()),
            Fate::Waiting if is_sound => Answer::NotAsked,
            Fate::Waiting | Fate::Accepted => Answer::Open(why.clone()),
        };
        self.0.iter().map(answer).collect()
    }

    /// Who is settled stays so.
    fn decide(&mut self, recipient: usize, decided: Fate) {
        if let Some(fate @ Fate::Waiting) = self.0.get_mut(recipient) {
            *fate = decided;
        }
    }
}
