//! Stand-ins for the seams, for tests only.
//!
//! - `clock`: a clock that a test turns
//! - `disk`: a disk in memory that keeps only what was synced
//! - `random`: numbers from a seed

mod clock;
mod disk;
mod random;

pub use clock::TestClock;
pub use disk::{Crash, SimulatedDisk};
pub use random::SeededRandom;
