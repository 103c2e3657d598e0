//! Shows queued messages to an operator and changes them.
//!
//! A command goes through the selected messages one after the other. A change is on disk and synced before
//! the command reports it, and no attempt of the message is under way meanwhile (`claims`): a message that
//! was reported as removed is not delivered. A message that is being tried is changed when the attempt has
//! ended, if anything is left to change. The command waits a moment for that, then returns, and a thread does
//! the rest (`change_command`).

mod change_command;

use std::io::{self, Read as _};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use serde::{Deserialize, Serialize};

use self::change_command::ChangeCommand;
use super::bounce_writer::BounceWriter;
use super::delivery_parts::{Couriers, DeliveryParts};
use super::handle::Handle;
use super::outgoing_content::OutgoingContent;
use super::queue_shared::QueueShared;
use super::queued_message::QueuedMessage;
use super::selection::Selection;
use crate::courier::Message;
use crate::mail::{Envelope, HeaderFields, MessageId, NextHop, Timestamp};
use crate::route::Router;
use crate::spool::{MessageProgress, RecipientState};
use crate::sys::{channel, spawn};

/// Shows the queue to an operator and changes it. Cheap to clone.
#[derive(Clone)]
pub struct QueueControl {
    handle: Handle,
    shared: Arc<QueueShared>,
    bounce_writer: BounceWriter,
    router: Arc<ArcSwap<Router>>,
    couriers: Couriers,
}

/// A change of the selected messages.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "change", rename_all = "kebab-case", rename_all_fields = "kebab-case")]
pub enum QueueChange {
    /// Try the messages now.
    Retry,
    /// Do not try the messages before they are released.
    Hold,
    /// Try held messages again, now.
    Release,
    /// Send the selected recipients by other hosts, now.
    Reroute {
        /// The hosts, in the order in which to try them; none: back to the destination in the envelope.
        via: Vec<NextHop>,
    },
    /// Give up the selected recipients.
    Remove {
        /// The sender gets a bounce with this text; `None`: no bounce.
        bounce_text: Option<String>,
    },
}

/// The result of a change.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ChangeResult {
    /// Messages that were changed.
    pub changed: Vec<MessageId>,
    /// Messages that are being tried: changed when the attempt has ended, if anything is left to change.
    pub pending: Vec<MessageId>,
    /// Messages that were not changed, and why: a sentence that begins with a verb.
    pub refused: Vec<(MessageId, String)>,
    /// The number of messages that the command did not reach in its time; it can be given again.
    pub not_processed: usize,
}

/// One message in full detail.
#[derive(Debug, Clone)]
pub struct MessageDetail {
    /// As in the list.
    pub view: QueuedMessage,
    /// The envelope, with the destinations that an operator chose.
    pub envelope: Arc<Envelope>,
    /// The recorded changes of recipients' states, oldest first.
    pub state_changes: Vec<StateChange>,
}

/// A change of a recipient's state.
#[derive(Debug, Clone, PartialEq)]
pub struct StateChange {
    /// Wall time of the change.
    pub time: Timestamp,
    /// The round of attempts, from 1; 0 before the first.
    pub attempt: u32,
    /// The position of the recipient in the envelope.
    pub position: usize,
    /// The state after the change.
    pub state: RecipientState,
}

/// A command goes through messages for at most this long.
const COMMAND_TIME_MAX: Duration = Duration::from_secs(15);
/// After that, it waits for attempts under way for at most this long.
const PENDING_WAIT_MAX: Duration = Duration::from_secs(2);
/// At most so much of a message is shown.
const CONTENT_SHOWN_OCTETS_MAX: u64 = 4 * 1024 * 1024;
/// At most so much of a header section is shown.
const HEADER_OCTETS_MAX: u64 = 256 * 1024;
impl QueueControl {
    pub(super) fn new(shared: Arc<QueueShared>, bounce_writer: BounceWriter, parts: &DeliveryParts) -> Self {
        let (router, couriers) = (Arc::clone(&parts.router), parts.couriers.clone());
        Self { handle: Handle::new(Arc::clone(&shared)), shared, bounce_writer, router, couriers }
    }

    /// The selected messages, oldest first, at most `limit`, read from disk.
    #[must_use]
    pub fn list(&self, selection: &Selection, limit: usize) -> Vec<QueuedMessage> {
        let end = self.shared.clock.now() + COMMAND_TIME_MAX;
        let ids = self.candidates(selection).into_iter().take_while(|_| self.shared.clock.now() < end);
        let selected = ids.filter(|id| self.is_selected(selection, id));
        selected.filter_map(|id| self.handle.message(&id)).take(limit).collect()
    }

    /// Everything about one message; `None` if it is not in the queue or cannot be read.
    #[must_use]
    pub fn detail(&self, id: &MessageId) -> Option<MessageDetail> {
        let view = self.handle.message(id)?;
        let loaded = self.shared.spool.load(id).ok()?;
        let state_changes = loaded.updates.iter().flat_map(|update| {
            let state_change = |(position, state): &(usize, RecipientState)| StateChange {
                time: update.time,
                attempt: update.attempts,
                position: *position,
                state: state.clone(),
            };
            update.states.iter().map(state_change)
        });
        Some(MessageDetail { view, state_changes: state_changes.collect(), envelope: loaded.envelope })
    }

    /// The first octets of a message as it is sent: its header section, or up to 4 MiB of all.
    ///
    /// # Errors
    /// An error of the disk; `NotFound` if the message is not in the queue.
    pub fn content(&self, id: &MessageId, is_header: bool) -> io::Result<Vec<u8>> {
        let detail = self.detail(id).ok_or(io::ErrorKind::NotFound)?;
        let message = OutgoingContent::new(self.shared.spool.extent(id)?, &detail.envelope)?;
        let mut octets = Vec::new();
        let octets_max = if is_header { HEADER_OCTETS_MAX } else { CONTENT_SHOWN_OCTETS_MAX };
        message.open()?.take(octets_max).read_to_end(&mut octets)?;
        if is_header {
            octets.truncate(HeaderFields::section_octets(&octets));
        }
        Ok(octets)
    }

    /// Changes the selected messages, and of each the selected recipients.
    pub fn change(&self, selection: Selection, change: QueueChange) -> ChangeResult {
        let (reply_to, replies) = channel();
        let end = self.shared.clock.now() + COMMAND_TIME_MAX;
        let ids = self.candidates(&selection);
        let mut command = ChangeCommand::new(self.clone(), selection, change);
        command.clear_courier_failures();
        let mut not_reached = 0;
        for (number, id) in ids.iter().enumerate() {
            if self.shared.clock.now() >= end {
                not_reached = ids.len() - number;
                break;
            }
            command.change_message(*id, &reply_to, &replies);
        }
        drop(reply_to);
        command.send_retries();
        command.wait_until(&replies, self.shared.clock.now() + PENDING_WAIT_MAX);
        let mut result = ChangeResult { not_processed: not_reached, ..command.take_result() };
        if !result.pending.is_empty() {
            // The thread ends with the last attempt, or with the manager.
            let rest = spawn("queue-command", move || command.wait_for_pending(&replies));
            if let Err(e) = rest {
                let refused =
                    result.pending.drain(..).map(|id| (id, format!("is being tried just now: {e}")));
                result.refused.extend(refused);
            }
        }
        result
    }

    fn candidates(&self, selection: &Selection) -> Vec<MessageId> {
        if selection.ids.is_empty() { self.shared.spool.ids() } else { selection.ids.clone() }
    }

    /// Whether one of the recipients is selected. Reads nothing from disk if the selection has no condition
    /// but ids.
    fn is_selected(&self, selection: &Selection, id: &MessageId) -> bool {
        if selection.has_ids_only() {
            return true;
        }
        let loaded = self.shared.spool.load(id);
        loaded.is_ok_and(|loaded| !self.positions(selection, &loaded.envelope, &loaded.progress).is_empty())
    }

    fn positions(
        &self,
        selection: &Selection,
        envelope: &Envelope,
        progress: &MessageProgress,
    ) -> Vec<usize> {
        selection.positions(envelope, progress, &self.router.load())
    }
}
