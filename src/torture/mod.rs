//! Tests of the guarantee that a message is safe after the 250 to DATA, and a measurement of the disk.
//!
//! For `postrider torture`, and for tests that use the same parts.
//!
//! - `simulated_queue`: a queue without threads, on the disk, clock and couriers of a test
//! - `scenario`: messages that pass through every state of the spool
//! - `crash_test`: the scenario with a stop after each disk operation, followed by a restart
//! - `test_server`: the real program in a directory of its own
//! - `load_message`: messages that have a number and can be recognised as complete
//! - `load_generator`: clients that send such messages, and record which were accepted
//! - `next_hops`: hosts that refuse connections, and later accept mail
//! - `kill_test`: the real program, killed at random moments under load
//! - `backlog_test`: the real program, killed while many messages wait
//! - `torture_error`: why a test failed
//! - `disk_benchmark`: how fast a disk is, and whether its syncs can be trusted

mod backlog_test;
mod crash_test;
mod disk_benchmark;
mod kill_test;
mod load_generator;
mod load_message;
mod next_hops;
mod scenario;
mod simulated_queue;
mod test_server;
mod torture_error;

pub use backlog_test::{BacklogTest, BacklogTestResult};
pub use crash_test::{CrashTestResult, crash_plans, run_crash_test, run_with_crashes};
pub use disk_benchmark::{DiskBenchmark, SyncTrust, measure_disk};
pub use kill_test::{KillTest, KillTestResult};
pub use load_generator::LoadGenerator;
pub use scenario::{SentMail, find_delivery_fault, run_scenario};
pub use simulated_queue::{MINUTE, SimulatedQueue, deferred, delivered, failed, parse_recipient, settings};
pub use test_server::TortureSetup;
pub use torture_error::TortureError;
