//! The answer to the question whether something is allowed.

use crate::mail::Failure;
use crate::smtp::{Answer, Verdict};

/// Allowed or refused, with the reasons.
#[derive(Debug)]
pub struct Decision {
    /// The refusal, if it is not allowed.
    pub refusal: Option<Failure>,
    /// Reasons in order, one sentence each, for the log and the trace.
    pub reasons: Vec<String>,
}

impl Decision {
    /// It is allowed.
    #[must_use]
    pub fn allowed() -> Self {
        Self { refusal: None, reasons: Vec::new() }
    }

    /// It is refused.
    #[must_use]
    pub fn refused(failure: Failure) -> Self {
        Self { refusal: Some(failure), reasons: Vec::new() }
    }

    /// The same decision with one more reason.
    #[must_use]
    pub fn with_reason(mut self, reason: impl Into<String>) -> Self {
        self.reasons.push(reason.into());
        self
    }

    /// The verdict for the protocol: `answer` if it is allowed.
    pub(super) fn into_verdict(self, answer: Answer) -> Verdict {
        let answer = self.refusal.map_or(answer, Answer::Refused);
        Verdict { answer, reasons: self.reasons }
    }
}
