//! Stand-ins for the seams, for tests only.
//!
//! - `clock`: a clock that a test turns
//! - `disk`: a disk in memory that keeps only what was synced
//! - `dns_server`: a name server on loopback that serves a zone file
//! - `random`: numbers from a seed

mod clock;
mod disk;
mod dns_server;
mod random;

pub use clock::TestClock;
pub use disk::{Crash, SimulatedDisk};
pub use dns_server::DnsServer;
pub use random::SeededRandom;
