//! Stand-ins for the seams.
//!
//! For tests; those that `postrider torture` needs as well are in the shipped program, the others
//! are not.
//!
//! - `clock`: a clock that a test turns
//! - `courier`: a courier that follows a script
//! - `disk`: a disk in memory that keeps only what was synced
//! - `dns_server`: a name server on loopback that serves a zone file
//! - `dial`: peers that follow a script
//! - `random`: numbers from a seed
//! - `watched_disk`: a disk whose verbs a test watches

mod clock;
mod courier;
#[cfg(any(test, feature = "fakes"))]
mod dial;
mod disk;
#[cfg(any(test, feature = "fakes"))]
mod dns_server;
mod random;
#[cfg(any(test, feature = "fakes"))]
mod watched_disk;

pub use clock::TestClock;
pub use courier::{Carried, ScriptedCourier};
#[cfg(any(test, feature = "fakes"))]
pub use dial::{Heard, ScriptedDial};
pub use disk::{Crash, SimulatedDisk};
#[cfg(any(test, feature = "fakes"))]
pub use dns_server::DnsServer;
pub use random::SeededRandom;
#[cfg(any(test, feature = "fakes"))]
pub use watched_disk::WatchedDisk;
