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
