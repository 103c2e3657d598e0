//! Mail that we have promised to look after.
//!
//! - `handle`: what other modules hold: put, list, retry, remove, count, stop
//! - `age_clock`: the clock by which messages age, which goes on across restarts
//! - `item`: one queued message: its recipients, and what became of each
//! - `spool`: items on disk; the table of states is at its head
//! - `journal`: append-only segments with a shared sync, for what is small and soon gone
//! - `frame`: one record of the journal, with its checksum
//! - `parcel`: a message in a plain file of its own, for what is large or must wait
//! - `octets`: a message as a courier reads it
//! - `recovery`: what a start finds in the spool
//! - `schedule`: what is due next
//! - `platform`: the legs that could leave now, and whose turn it is
//! - `destination`: who waits for one destination, and what its results have taught us
//! - `job`: one attempt to be made, and the message that it is about
//! - `manager`: the thread that decides when and whither
//! - `culprit`: a message over which the manager stumbled
//! - `worker`: the threads: opening, starting, stopping
//! - `attempt`: one attempt, and what is written down of it
//! - `bounce`: when a report is owed, about whom, and what of
//! - `claims`: messages that an operator's command has for itself
//! - `clerk`: writes reports and puts them
//! - `operator`: what a person does to messages that wait
//! - `selection`: which messages a person means
//! - `own_mail`: the one door for mail that we write ourselves

mod attempt;
mod bounce;
mod bounce_writer;
mod claims;
mod crash_loop_guard;
mod delivery_threads;
mod destination_state;
mod generated_mail;
mod handle;
mod job;
mod manager;
mod operator;
mod outgoing_content;
mod ready_queue;
mod schedule;
mod selection;
#[cfg(test)]
mod tests;

pub use crate::spool::{MessageProgress, OpenError, RecipientState};
pub use delivery_threads::{
    Couriers, DeliveryParts, OpenQueue, QueueParts, RunningQueue, SteppedQueue, StopResult, open,
    open_unlocked,
};
pub use generated_mail::{AliasesResolved, GeneratedMail, OutgoingBounce, QueuedDirectly, RecipientResolver};
pub use handle::{Handle, IncomingMessage, PutError, QueuedMessage, QueuedRecipient};
pub use job::AttemptJob;
pub use manager::Manager;
pub use operator::{ChangeResult, MessageDetail, Operator, QueueChange, StateChange};
pub use schedule::{DeliveryPool, Settings};
pub use selection::{AddressPattern, AddressPatternError, Selection};
