//! Accepted messages on disk: put, load, record progress, remove, sweep, and recover at a start.
//!
//! ```text
//! DATA/lock                                 held while a process owns the spool
//! DATA/spool/version                        a later one is refused at the start
//! DATA/spool/clock                          how the clock for ages goes on: `age_clock`
//! DATA/spool/journal/NUMBER-SALT.journal    small messages and notes about them: `frame`, `journal`
//! DATA/spool/journal/NUMBER-SALT.spare      the file of a segment that is gone, to be written over
//! DATA/spool/journal/reserve                room for notes when the disk is full
//! DATA/spool/incoming/ID.NUMBER             a parcel that is being written: nobody's yet
//! DATA/spool/waiting/ID.OCTETS              a message in a file of its own: `parcel`
//! DATA/spool/damaged/                       what could not be read, set aside, never removed by us
//! ```
//!
//! | state | what is on disk | next, by whom | after a crash |
//! |---|---|---|---|
//! | coming, small | nothing (memory) | session: journaled | nothing: not promised |
//! | coming, large | `incoming/ID.NUMBER` | session: waiting | removed: not promised |
//! | journaled | `put`, synced | worker: noted, settled or waiting; manager: waiting | tried again from the start |
//! | noted (some recipients settled) | `put`, `note` | as above | the rest is tried again |
//! | moving | `put`, `incoming/ID.NUMBER` | the same thread: waiting | journaled; `incoming/ID.NUMBER` is removed |
//! | waiting, seen twice | `put`, `waiting/ID.N`, synced with its directory | the same thread notes `moved` | the parcel counts, the `put` does not; `moved` is noted again |
//! | waiting | `put` and `moved`, or no `put`; `waiting/ID.N` | worker: adds a record, or settles | tried again when due |
//! | settled, journaled | `put`, `done` | manager: segment becomes a spare or is removed when nothing in it is left | gone; before `done` is synced, delivered twice |
//! | settled, waiting | no parcel, `moved` (synced before the parcel is removed) | manager: as above | gone; if the removal is undone, delivered twice |
//! | damaged | `damaged/…` | the operator | as it is |
//!
//! A message is *promised* when it is journaled or waiting; both are durable, and where their paths lead,
//! before `put` returns.
//! `moved` must be durable before the parcel is removed, or the `put` would rise again. Normally it
//! long is, carried by some later message's sync; on an idle host one sync is made for it.
//!
//! What may happen twice: a delivery whose record a crash undid (`done`, a parcel's removal), and
//! a message that was answered 451 because a sync failed, whose octets reached the disk all the
//! same. What may not happen: a promised message lost, or half of one.
//!
//! What was settled for *some* recipients of a parcel is synced at once, because the rest may wait for
//! days.
//!
//! Here a message is put, noted, moved and settled. Beside it:
//!
//! - `index`: which messages are in our care, and where each of them is
//! - `lease`: the right to change one of them, which one thread has at a time
//! - `load`: a message is read
//! - `sweep`: what settled messages leave behind goes, and so does what crowds the journal
//! - `aside`: what we cannot deal with is set aside

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
mod recovery;
mod set_aside;
mod sweep;
#[cfg(test)]
mod tests;

pub(crate) use age_clock::AgeClock;
pub(crate) use extent::Extent;
pub(crate) use journal::is_disk_full_error;
pub(crate) use lease::{Lease, Leases};
pub(crate) use load::LoadError;
pub(crate) use message_file::MessageFileWriter;
pub use message_progress::{MessageProgress, RecipientState};
pub(crate) use message_progress::{Notice, ProgressUpdate};
pub use message_store::OpenError;
pub(crate) use message_store::{RecoveredMessage, Spool, SpoolParts};
pub(crate) use sweep::SweepResult;
