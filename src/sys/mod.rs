//! The operating system, behind small traits.
//!
//! The only place that asks for the time, for randomness, for files that must be durable, for
//! connections, programs and threads. Everything above takes these as values, so that a test can
//! turn the clock, forget what was not synced, or answer in a peer's name.
//!
//! - `channel`: channels between threads
//! - `below`: files below an open directory, without following links
//! - `clock`: now, on the clock that does not jump, on the one that people read, and since the host started
//! - `random`: octets that nobody can guess
//! - `disk`: the verbs of which durable files are made
//! - `scheduled`: the lock of test builds
//! - `scheduler`: which thread runs next, by a seed, in a test
//! - `fingerprint`: whether a file is still the one that was read
//! - `hook`: whether a program of the operator's is there
//! - `host`: the host's own name
//! - `line_ends`: CR LF becomes LF for programs and files
//! - `lock`: one process at a time
//! - `net`: connections with a deadline
//! - `open_dir`: changes to files where others may write
//! - `process`: programs, started without a shell and ended in time
//! - `pulse`: whether a thread is stuck
//! - `access`: which user the process runs as, and what that user may not reach
//! - `privilege`: what the process may do beyond what its user may
//! - `rooted_disk`: the disk below one directory, wherever that is moved
//! - `stop`: a request to stop that can be waited for together with sockets
//! - `thread`: named threads with small stacks, and a lock that survives a panic

#![expect(
    clippy::disallowed_methods,
    reason = "the fences keep others out; this is where the real calls are made"
)]

mod capabilities;
mod channel;
mod clock;
mod dir_entry;
mod disk;
mod file_lock;
mod fingerprint;
mod hook_file;
mod host;
mod line_ends;
mod line_reader;
mod net;
mod open_dir;
mod openat;
mod plain_mutex;
mod process;
mod random;
mod rooted_disk;
#[cfg(any(test, feature = "fakes"))]
mod scheduled_mutex;
#[cfg(any(test, feature = "fakes"))]
mod scheduler;
mod service_user;
mod stop_flag;
mod system_disk;
mod thread;
mod thread_activity;

pub use capabilities::drop_capabilities;
pub use channel::{Receiver, RecvError, RecvTimeoutError, SendError, Sender, TryRecvError, channel};
pub use clock::{Clock, Moment, SystemClock};
pub use dir_entry::DirEntry;
pub use disk::{Disk, DiskFile, FileIdentity, create_dir_all, replace_file};
pub use file_lock::FileLock;
pub use fingerprint::{FileFingerprint, has_changed_within, is_unchanged_for};
pub use hook_file::is_hook_present;
pub use host::host_name;
pub use line_ends::LfReader;
pub use line_reader::LineReader;
pub use net::{
    Connector, ReadInterrupt, StoppableConnector, Stream, SystemConnector, interruptible_stream,
    is_own_address, stopping_error,
};
pub use open_dir::{ExistingFile, Exposure, OpenDir};
#[cfg(not(any(test, feature = "fakes")))]
pub use plain_mutex::{PlainCondvar as Condvar, PlainMutex as Mutex};
pub use plain_mutex::{PlainCondvar, PlainMutex};
pub use process::{Program, ProgramExit};
pub use random::{Random, SystemRandom};
pub use rooted_disk::RootedDisk;
#[cfg(any(test, feature = "fakes"))]
pub use scheduled_mutex::{Condvar, Mutex, MutexGuard};
#[cfg(any(test, feature = "fakes"))]
pub use scheduler::{ScheduleEnd, Scheduler};
pub use service_user::{ServiceUser, first_inaccessible_dir, is_root};
#[cfg(not(any(test, feature = "fakes")))]
pub use std::sync::MutexGuard;
pub use stop_flag::{OnStop, StopFlag, WaitResult};
pub use system_disk::{SystemDisk, read_text};
pub use thread::{catch_panic, join, run_on_temporary_thread, scheduling_point, spawn};
pub use thread_activity::ThreadActivity;
