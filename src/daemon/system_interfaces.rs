//! The real clock, disk, network and counters, as every part gets them.

use std::sync::Arc;

use crate::config::Config;
use crate::dns;
use crate::observe::Metrics;
use crate::sys::{
    Clock, Connector, Disk, Random, StopFlag, SystemClock, SystemConnector, SystemDisk, SystemRandom,
};

/// What parts share; cloned into each.
pub(super) struct SystemInterfaces {
    pub(super) clock: Arc<dyn Clock>,
    pub(super) random: Arc<dyn Random>,
    pub(super) disk: Arc<dyn Disk>,
    pub(super) connector: Arc<dyn Connector>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) stop: Arc<StopFlag>,
}

impl SystemInterfaces {
    /// Those of this host. Work that waits for others also waits for `stop`.
    pub(super) fn new(stop: &Arc<StopFlag>) -> Self {
        Self {
            clock: Arc::new(SystemClock),
            random: Arc::new(SystemRandom),
            disk: Arc::new(SystemDisk),
            connector: Arc::new(SystemConnector),
            metrics: Arc::new(Metrics::default()),
            stop: Arc::clone(stop),
        }
    }

    /// A resolver of its own for each use: one for attempts, and one for sessions, whose look-ups end when
    /// the server stops.
    pub(super) fn stub_resolver(&self, config: &Config) -> dns::StubResolver {
        let settings = dns::Settings { servers: config.dns.servers.clone(), ..dns::Settings::default() };
        dns::StubResolver::new(
            settings,
            Arc::clone(&self.clock),
            Arc::clone(&self.random),
            Arc::clone(&self.connector),
        )
    }
}
