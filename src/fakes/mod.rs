//! Stand-ins for the seams, for tests only.
//!
//! - `clock`: a clock that a test turns
//! - `courier`: a courier that follows a script
//! - `disk`: a disk in memory that keeps only what was synced
//! - `dns_server`: a name server on loopback that serves a zone file
//! - `dial`: peers that follow a script
//! - `random`: numbers from a seed

mod clock;
mod courier;
mod dial;
mod disk;
mod dns_server;
mod random;

pub use clock::TestClock;
pub use courier::{Carried, ScriptedCourier};
pub use dial::{Heard, ScriptedDial};
pub use disk::{Crash, SimulatedDisk};
pub use dns_server::DnsServer;
pub use random::SeededRandom;
