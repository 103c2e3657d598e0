//! One change of a message's progress, as it is written.
//!
//! In the journal it is the text of a `note`, in a message file a line of its own; as JSON in both.

use serde::{Deserialize, Serialize};

use super::recipient_state::{Notice, RecipientState};
use crate::mail::{Destination, Timestamp};

/// One change of a message's progress. One is written for each attempt that changed something, for each
/// operator's command, and when a message moves from the journal to a file: then it is the sum of the others.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) struct ProgressUpdate {
    /// Wall time of the change.
    pub(crate) time: Timestamp,
    /// Rounds of attempts so far, this one included.
    pub(crate) attempts: u32,
    /// When the recipients that still wait are due, by the age clock.
    pub(crate) due: Timestamp,
    /// New states, by the recipient's position in the envelope.
    pub(crate) states: Vec<(usize, RecipientState)>,
    /// Notices that the sender got about recipients that still wait.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) notices: Vec<(usize, Notice)>,
    /// An operator holds the message (true) or releases it (false).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) is_held: Option<bool>,
    /// Destinations that an operator chose, by position; `None` is the destination of the envelope.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) routes: Vec<(usize, Option<Destination>)>,
    /// From an operator's command, which waits until it is durable: the message moves to a file of its own.
    #[serde(skip)]
    pub(crate) by_operator: bool,
}

impl ProgressUpdate {
    /// An update that changes no recipient.
    pub(crate) fn new(time: Timestamp, attempts: u32, due: Timestamp) -> Self {
        let (states, notices, routes) = (Vec::new(), Vec::new(), Vec::new());
        Self { time, attempts, due, states, notices, is_held: None, routes, by_operator: false }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fakes::assert_golden;
    use crate::mail::{Mailbox, Reason, Via};

    fn mailbox(raw: &str) -> Mailbox {
        Mailbox::parse(raw).unwrap()
    }

    /// An update with every field, and one with as few as possible.
    fn updates() -> [ProgressUpdate; 2] {
        let [time, due] = [1_795_408_663_042, 1_795_408_723_042].map(Timestamp::from_millis);
        let reason = |text: &str| Reason::new(2, 2, text).with_response("mx.there.example", "452 4.2.2 full");
        let via = Via::parse("relay.example:587 192.0.2.1 tls=verified login=relay1").unwrap();
        let rerouted = Destination::Via { mailbox: mailbox("cy@there.example"), via };
        let all = ProgressUpdate {
            states: vec![
                (0, RecipientState::Delivered(Reason::new(0, 0, "accepted"))),
                (1, RecipientState::Waiting(Some(reason("the mailbox is full").with_destination_scope()))),
                (2, RecipientState::Failed(reason("no such mailbox"))),
                (3, RecipientState::Expired(reason("the mailbox is full"))),
                (4, RecipientState::Waiting(None)),
            ],
            notices: vec![(1, Notice::Delayed), (0, Notice::Expanded)],
            is_held: Some(true),
            routes: vec![(1, Some(rerouted)), (4, None)],
            ..ProgressUpdate::new(time, 3, due)
        };
        [all, ProgressUpdate::new(time, 0, due)]
    }

    #[test]
    fn the_format_of_an_update_is_the_golden_file() {
        let lines: String =
            updates().iter().map(|update| serde_json::to_string(update).unwrap() + "\n").collect();
        assert_golden("progress-update.jsonl", &lines);
        let read: Vec<ProgressUpdate> =
            lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(read, updates());
    }
}
