//! Decides when each accepted message is attempted and by which route, and makes the attempts.
//!
//! - `handle`: the queue as other modules use it: put a message, show one, count, stop
//! - `incoming_message`: a message that arrives and is not accepted yet
//! - `queued_message`: a queued message, as an operator sees it
//! - `queue_control`: shows queued messages to an operator and changes them
//! - `selection`: selects messages and recipients for an operator
//! - `open`: opens the queue and starts its threads
//! - `running_queue`, `stepped_queue`: the queue with threads, and without them for tests
//! - `delivery_threads`: the main functions of the manager's thread and of the delivery threads
//! - `manager`: the queue manager, which decides when each message is attempted
//! - `manager_event`: the events that the queue manager handles
//! - `claims`: messages that an operator's command changes
//! - `schedule`: what is due next
//! - `ready_queue`: the batches of one pool that can be tried now, and their order
//! - `destination_state`: whether a destination answers, and how many attempts it may have at once
//! - `sender_queue`: the batches that wait for one destination, by sender
//! - `recipient_batch`: the recipients of one message that are tried in one attempt
//! - `active_message`: a message in memory, with the right to change it on disk
//! - `attempt_job`: one attempt to be made, and its result
//! - `attempt`: makes one attempt and records its outcomes
//! - `outgoing_content`: the octets of a message as a courier reads them
//! - `bounce`: decides which bounces an attempt leads to
//! - `bounce_writer`: writes bounces and queues them
//! - `generated_mail`: queues messages that the server generates
//! - `crash_loop_guard`: sets aside a message over which the manager panicked twice
//! - `settings`, `queue_parts`, `delivery_parts`: what the queue is configured with and opened with
//! - `queue_shared`: what all handles and threads share
//! - `jitter`, `panic_message`: small parts of the others

mod active_message;
mod attempt;
mod attempt_job;
mod bounce;
mod bounce_writer;
mod claims;
mod crash_loop_guard;
mod delivery_parts;
mod delivery_threads;
mod destination_state;
mod generated_mail;
mod handle;
mod incoming_message;
mod jitter;
mod manager;
mod manager_event;
mod open;
mod outgoing_content;
mod panic_message;
mod queue_control;
mod queue_parts;
mod queue_shared;
mod queued_message;
mod ready_queue;
mod recipient_batch;
mod running_queue;
mod schedule;
mod selection;
mod sender_queue;
mod settings;
mod stepped_queue;
#[cfg(test)]
mod tests;

pub use self::open::{OpenQueue, open, open_unlocked};
pub use crate::spool::{MessageProgress, OpenError, RecipientState};
pub use attempt_job::AttemptJob;
pub use delivery_parts::{Couriers, DeliveryParts};
pub use generated_mail::{GeneratedMail, OutgoingBounce, RecipientResolver, WithoutAliases};
pub use handle::Handle;
pub use incoming_message::{IncomingMessage, PutError};
pub use manager::Manager;
pub use queue_control::{ChangeResult, MessageDetail, QueueChange, QueueControl, StateChange};
pub use queue_parts::QueueParts;
pub use queued_message::{QueuedMessage, QueuedRecipient};
pub use running_queue::{RunningQueue, StopResult};
pub use selection::{AddressPattern, AddressPatternError, Selection};
pub use settings::Settings;
pub use stepped_queue::SteppedQueue;
