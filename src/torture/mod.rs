//! What a promise of this program is worth, and what it is worth on this disk.
//!
//! Behind `postrider torture`, and the tests that hold the queue to its first promise: a 250 after
//! DATA means that the message is safe.
//!
//! - `post_office`: a queue without threads, on a disk, a clock and couriers of the test's
//! - `scenario`: a day that passes through every state of the spool
//! - `model`: the machine stops after every single disk operation of that day, and starts again
//! - `server`: the real program in a folder of its own
//! - `load`: clients that hand in letters, and note which were promised
//! - `next_hops`: hosts that take no mail, and then do
//! - `blows`: the real program on a real disk, killed at random moments under load
//! - `backlog`: the same, killed while much mail waits
//! - `trial_error`: why a trial did not end well
//! - `worth`: how fast a disk is, and whether what it says can be believed

mod backlog;
mod blows;
mod load;
mod model;
mod next_hops;
mod post_office;
mod scenario;
mod server;
mod trial_error;
mod worth;

pub use backlog::{Backlog, Recovery};
pub use blows::{Blows, Tally};
pub use load::Load;
pub use model::{Stops, stop_everywhere, stopped, ways_to_stop};
pub use post_office::{MINUTE, PostOffice, deferred, delivered, failed, letter_to, settings};
pub use scenario::{Ledger, complaint, scenario};
pub use server::Trial;
pub use trial_error::TrialError;
pub use worth::{Trust, Worth, measure};
