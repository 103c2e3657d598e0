//! What a spool is made of.

use std::path::PathBuf;
use std::sync::Arc;

use crate::observe::Metrics;
use crate::sys::{Clock, Disk, Random};

/// What a spool is opened with.
pub(crate) struct SpoolParts {
    pub(crate) disk: Arc<dyn Disk>,
    /// The data directory; the spool is `spool` below it.
    pub(crate) data_dir: PathBuf,
    pub(crate) clock: Arc<dyn Clock>,
    /// The source of salts and of temporary names.
    pub(crate) random: Arc<dyn Random>,
    pub(crate) metrics: Arc<Metrics>,
    /// A journal segment is closed when it is this long, in octets.
    pub(crate) segment_octets: u64,
}

/// The directories of a spool, apart from the journal's.
pub(super) struct SpoolDirs {
    pub(super) incoming: PathBuf,
    pub(super) waiting: PathBuf,
    pub(super) damaged: PathBuf,
}
