//! Stand-ins for the traits of `sys` and for a courier.
//!
//! For tests. Those that `postrider torture` needs as well are in the shipped program, the others are not.
//!
//! - `clock`: a clock that a test advances
//! - `connector`: peers that follow a script
//! - `courier`: a courier that follows a script
//! - `disk`: a disk in memory that keeps only what was synced
//! - `dns_server`: a name server on loopback that serves a zone file
//! - `golden`: files that pin a format
//! - `random`: numbers from a seed
//! - `watched_disk`: a disk whose operations a test observes

mod clock;
#[cfg(any(test, feature = "fakes"))]
mod connector;
mod courier;
mod disk;
#[cfg(any(test, feature = "fakes"))]
mod dns_server;
#[cfg(test)]
mod golden;
mod random;
#[cfg(any(test, feature = "fakes"))]
mod watched_disk;

pub use clock::TestClock;
#[cfg(any(test, feature = "fakes"))]
pub use connector::{PeerLog, ScriptedConnector};
pub use courier::{RecordedAttempt, ScriptedCourier, WithProfile};
pub use disk::{Crash, SimulatedDisk};
#[cfg(any(test, feature = "fakes"))]
pub use dns_server::DnsServer;
#[cfg(test)]
pub(crate) use golden::assert_golden;
pub use random::SeededRandom;
#[cfg(any(test, feature = "fakes"))]
pub use watched_disk::WatchedDisk;
