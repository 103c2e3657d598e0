//! The operating system behind small traits: time, randomness, durable files, connections, programs, threads.
//!
//! Other modules take these as values, so that a test can advance the clock, lose what was not synced, or
//! play the peer of a connection. Only `torture`, which tests the real program from outside, calls the
//! operating system itself.
//!
//! Time and randomness:
//! - `clock`: monotonic time, wall time, and time since the host was started
//! - `random`: unpredictable octets
//!
//! Files:
//! - `disk`: the operations on durable files
//! - `dir_entry`: one file in the listing of a directory
//! - `system_disk`: the whole file system of the host
//! - `rooted_disk`: the file system below one open directory, also after the directory is moved
//! - `openat`: system calls on files below an open directory
//! - `open_dir`: changes to files in a directory that other users may write
//! - `file_lock`: a lock file that one process holds at a time
//! - `fingerprint`: whether a file has changed since it was read
//! - `line_ends`: CR LF becomes LF for programs and files
//!
//! Connections:
//! - `accept`: waits for clients until the server stops
//! - `net`: connections with a deadline
//! - `line_reader`: lines of bounded length from a stream
//! - `host`: the name of this host
//!
//! Programs and rights:
//! - `process`: runs programs without a shell and with a deadline
//! - `program_path`: the directories in which programs are searched
//! - `hook_file`: whether a hook of the operator exists and can be run
//! - `hook_run`: runs a hook of the operator
//! - `service_user`: which user the process runs as, and which directories that user may not enter
//! - `capabilities`: gives up rights that the process no longer needs
//!
//! Threads:
//! - `thread`: named threads with small stacks
//! - `plain_mutex`: the mutex of a release build
//! - `channel`: channels between threads
//! - `stop_flag`: a request to stop that can be waited for together with sockets
//! - `thread_activity`: whether a thread is stuck
//! - `log_throttle`: writes a repeated log line once in a while
//! - `scheduler`: in a test, chooses by a seed which thread runs next
//! - `scheduled_mutex`: the mutex of a test build, at which the scheduler may switch threads

#![expect(clippy::disallowed_methods, reason = "clippy.toml keeps these calls out of all other modules")]

mod accept;
mod capabilities;
mod channel;
mod clock;
mod dir_entry;
mod disk;
mod file_lock;
mod fingerprint;
mod hook_file;
mod hook_run;
mod host;
mod line_ends;
mod line_reader;
mod log_throttle;
mod net;
mod open_dir;
mod openat;
mod plain_mutex;
mod process;
mod program_path;
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

pub use accept::{AcceptLoop, StreamListener};
pub use capabilities::drop_capabilities;
pub use channel::{Receiver, RecvError, RecvTimeoutError, SendError, Sender, TryRecvError, channel};
pub use clock::{Clock, Moment, SystemClock};
pub use dir_entry::DirEntry;
pub use disk::{Disk, DiskFile, FileIdentity, create_dir_all, replace_file};
pub use file_lock::FileLock;
pub use fingerprint::{FileFingerprint, has_changed_within, is_unchanged_for};
pub use hook_file::is_hook_present;
pub use hook_run::{HookExit, nonempty_lines, run_hook};
pub use host::host_name;
pub use line_ends::LfReader;
pub use line_reader::LineReader;
pub use log_throttle::LogThrottle;
pub use net::{
    Connector, ReadInterrupt, StoppableConnector, Stream, SystemConnector, interruptible_stream,
    is_own_address, stopping_error, unix_stream,
};
pub use open_dir::{ExistingFile, Exposure, OpenDir};
#[cfg(not(any(test, feature = "fakes")))]
pub use plain_mutex::{PlainCondvar as Condvar, PlainMutex as Mutex};
pub use plain_mutex::{PlainCondvar, PlainMutex};
pub use process::{Program, ProgramExit};
pub use program_path::PROGRAM_SEARCH_PATH;
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
