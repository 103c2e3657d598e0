//! One change of a message's progress, as it is written.
//!
//! In the journal it is the text of a `note`, in a message file a line of its own; as JSON in both.

use serde::{Deserialize, Serialize};

use super::recipient_state::{Notice, RecipientState};
use crate::mail::{Destination, Timestamp};

/// One change of a message's progress. One is written for each attempt that changed something, for each
/// operator's command, and when a message moves from the journal to a file: then it is the sum of the others.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ProgressUpdate {
    /// Wall time of the change.
    pub(crate) at: Timestamp,
    /// Rounds of attempts so far, this one included.
    pub(crate) attempts: u32,
    /// When the recipients that still wait are due, by the age clock.
    pub(crate) due: Timestamp,
    /// New states, by the recipient's position in the envelope.
    pub(crate) states: Vec<(usize, RecipientState)>,
    /// Notices that the sender got about recipients that still wait.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) told: Vec<(usize, Notice)>,
    /// An operator holds the message (true) or releases it (false).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) held: Option<bool>,
    /// Destinations that an operator chose, by position; `None` is the destination of the envelope.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) routes: Vec<(usize, Option<Destination>)>,
    /// From an operator's command, which waits until it is durable: the message moves to a file of its own.
    #[serde(skip)]
    pub(crate) by_operator: bool,
}

impl ProgressUpdate {
    /// An update that changes no recipient.
    pub(crate) fn new(at: Timestamp, attempts: u32, due: Timestamp) -> Self {
        let (states, told, routes) = (Vec::new(), Vec::new(), Vec::new());
        Self { at, attempts, due, states, told, held: None, routes, by_operator: false }
    }
}
