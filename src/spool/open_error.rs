//! Why a spool cannot be opened.

use std::io;
use std::path::PathBuf;

/// Why the spool cannot be opened. The process should not start.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has the lock.
    #[error("{0} belongs to another postrider that is running; stop that one first")]
    Busy(PathBuf),
    /// Written by a later version.
    #[error(
        "{path} was written by a later version ({version}) of postrider; start that one, or set the file aside"
    )]
    Newer {
        /// Which file.
        path: PathBuf,
        /// Its version.
        version: String,
    },
    /// Written by an earlier version, whose envelopes this one does not read.
    #[error(
        "{path} was written by an earlier version ({version}) of postrider, whose messages this version cannot \
         read; let that version deliver them, then remove the spool directory"
    )]
    Older {
        /// Which file.
        path: PathBuf,
        /// Its version.
        version: String,
    },
    /// An error of the file system.
    #[error("the spool in {path} cannot be opened: {error}")]
    Io {
        /// Which directory.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
}
