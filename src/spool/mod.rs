//! Accepted messages on disk: put, load, record progress, settle, clean up, and recover at a start.
//!
//! ```text
//! DATA/lock                                 held while a process owns the spool
//! DATA/spool/version                        a start refuses any other than 2
//! DATA/spool/clock                          how the age clock continues: `age_clock`
//! DATA/spool/crash-loop                     messages over which the queue manager panicked
//! DATA/spool/journal/NUMBER-SALT.journal    small messages and notes about them: `journal_record`, `journal`
//! DATA/spool/journal/NUMBER-SALT.spare      the file of a removed segment, to be written over
//! DATA/spool/journal/reserve                room for notes when the disk is full
//! DATA/spool/incoming/ID.NUMBER             a message file that is being written: not accepted
//! DATA/spool/waiting/ID.OCTETS              a message in a file of its own: `message_file`
//! DATA/spool/damaged/                       what could not be read; set aside, never removed by the server
//! ```
//!
//! | state | what is on disk | next, by which thread | after a crash |
//! |---|---|---|---|
//! | arriving, small | nothing (memory) | session: journaled | nothing: not accepted |
//! | arriving, large | `incoming/ID.NUMBER` | session: waiting | removed: not accepted |
//! | journaled | `put`, synced | delivery thread: noted, settled or waiting; manager: waiting | all recipients are tried again |
//! | noted (some recipients settled) | `put`, `note` | as above | the other recipients are tried again |
//! | moving | `put`, `incoming/ID.NUMBER` | the same thread: waiting | journaled; `incoming/ID.NUMBER` is removed |
//! | waiting, on disk twice | `put`, `waiting/ID.N`, synced with its directory | the same thread notes `moved` | the file counts, the `put` does not; `moved` is noted again |
//! | waiting | `put` and `moved`, or no `put`; `waiting/ID.N` | delivery thread: adds an update, or settles | tried again when due |
//! | settled, journaled | `put`, `done` | manager: the segment becomes a spare or is removed when nothing in it is left | gone; before `done` is synced, delivered twice |
//! | settled, waiting | no file, `moved` (synced before the file is removed) | manager: as above | gone; if the removal is undone, delivered twice |
//! | damaged | `damaged/…` | the operator | unchanged |
//!
//! A message is *accepted* when it is journaled or waiting. Before the put returns, the message is durable,
//! and its file is where its path leads. `moved` must be durable before the message file is removed;
//! otherwise the `put` would count again. Usually the sync of a later message has made it durable; on an idle
//! host one sync is made for it.
//!
//! What may happen twice: a delivery whose record a crash undid (`done`, the removal of a message file), and
//! a message that was answered 451 because a sync failed, although its octets reached the disk. What may not
//! happen: that an accepted message is lost, or half of one is delivered.
//!
//! When *some* recipients of a message in a file are settled, the update is synced at once, because the
//! others may wait for days.
//!
//! - `parts`: what a spool is made of
//! - `open_error`: why a spool cannot be opened
//! - `open`: opens the spool and lists the messages in it
//! - `recovery`: what a start finds in the spool's directories
//! - `message_store`: the spool in memory; puts messages
//! - `index`: which messages are in the spool, and where each of them is
//! - `lease`: the right to change one message, which one thread has at a time
//! - `load`: reads a message
//! - `record_update`: writes down what an attempt or a command changed
//! - `settle`: removes a message of which nothing is left to do
//! - `sweep`: removes what settled messages leave behind, and moves messages out of old segments
//! - `set_aside`: moves a message that cannot be read to `damaged`
//! - `journal`: append-only segments with a shared sync, for small messages that are soon gone
//! - `journal_record`: one record of the journal, with its checksums
//! - `message_file`: a message in a file of its own, for large ones and those that wait
//! - `message_progress`: the states of all recipients of a message, and when it is due
//! - `recipient_state`: the state of one recipient
//! - `progress_update`: one change of a message's progress, as it is written
//! - `extent`: where the octets of a message are
//! - `age_clock`: the clock for the ages of messages, which continues across restarts

mod age_clock;
mod extent;
mod index;
mod journal;
mod journal_record;
mod lease;
mod load;
mod message_file;
mod message_progress;
mod message_store;
mod open;
mod open_error;
mod parts;
mod progress_update;
mod recipient_state;
mod record_update;
mod recovery;
mod set_aside;
mod settle;
mod sweep;
#[cfg(test)]
mod tests;

pub(crate) use age_clock::AgeClock;
pub(crate) use extent::Extent;
pub(crate) use journal::is_disk_full_error;
pub(crate) use lease::{Lease, Leases};
pub(crate) use load::LoadError;
pub(crate) use message_file::MessageFileWriter;
pub use message_progress::MessageProgress;
pub(crate) use message_store::Spool;
pub(crate) use open::RecoveredMessage;
pub use open_error::OpenError;
pub(crate) use parts::SpoolParts;
pub(crate) use progress_update::ProgressUpdate;
pub use recipient_state::{Notice, RecipientState};
pub(crate) use sweep::SweepResult;
