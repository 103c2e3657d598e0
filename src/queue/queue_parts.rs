//! What the queue is opened with.

use std::path::PathBuf;
use std::sync::Arc;

use super::settings::Settings;
use crate::observe::Metrics;
use crate::spool::SpoolParts;
use crate::sys::{Clock, Disk, Random};

/// What the queue needs to keep messages.
pub struct QueueParts {
    /// The disk on which the spool is.
    pub disk: Arc<dyn Disk>,
    /// The data directory; the spool is `spool` below it.
    pub data_dir: PathBuf,
    /// Wall time, uptime and deadlines.
    pub clock: Arc<dyn Clock>,
    /// The source of ids, salts and jitter.
    pub random: Arc<dyn Random>,
    /// Where counters are registered.
    pub metrics: Arc<Metrics>,
    /// Limits, delays and numbers of threads.
    pub settings: Settings,
}

impl QueueParts {
    pub(super) fn spool_parts(&self) -> SpoolParts {
        SpoolParts {
            disk: Arc::clone(&self.disk),
            data_dir: self.data_dir.clone(),
            clock: Arc::clone(&self.clock),
            random: Arc::clone(&self.random),
            metrics: Arc::clone(&self.metrics),
            segment_octets: self.settings.segment_octets,
        }
    }
}
