//! The state of one recipient of a queued message.

use serde::{Deserialize, Serialize};

use crate::mail::{Outcome, Reason};

/// The state of one recipient.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RecipientState {
    /// To be tried; the reason is why the last attempt deferred the recipient.
    Waiting(Option<Reason>),
    /// The next hop has the message.
    Delivered(Reason),
    /// The message will never arrive. If a bounce was due, it is queued.
    Failed(Reason),
    /// The lifetime ended while the recipient waited for this reason; bounced as 4.4.7.
    Expired(Reason),
}

impl RecipientState {
    /// Nothing is left to do.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        !matches!(self, Self::Waiting(_))
    }

    /// The reason of the last outcome.
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

/// A notice that a sender gets once while the message stays in the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Notice {
    /// The recipient is delayed.
    Delayed,
    /// An alias turned the recipient into several.
    Expanded,
}
