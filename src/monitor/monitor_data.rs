//! The data that the pages show.

use std::time::Duration;

use serde_json::Value;

use crate::mail::Domain;
use crate::observe::{Metrics, Traces};
use crate::queue::QueuedMessage;

/// The source of the data. Called anew for each page.
pub trait MonitorData: Send + Sync {
    /// The server as a whole.
    fn status(&self) -> ServerStatus;

    /// The oldest messages in the queue, up to a limit.
    fn queue(&self) -> Vec<QueuedMessage>;

    /// The queue as `/queue.json` shows it and `postrider queue list --json` prints it.
    fn queue_json(&self) -> Value;

    /// The counters.
    fn metrics(&self) -> &Metrics;

    /// The recent sessions and attempts.
    fn traces(&self) -> &Traces;
}

/// The expiry of the certificate that expires first.
#[derive(Debug, Clone, Copy)]
pub struct CertificateExpiry {
    /// Time until then.
    pub remaining: Duration,
    /// The certificate should have been renewed by now.
    pub is_near: bool,
}

/// The server as a whole.
#[derive(Debug, Clone)]
pub struct ServerStatus {
    /// The version of the program.
    pub version: &'static str,
    /// The name of this host. Requests may use it.
    pub hostname: Domain,
    /// Time since the start.
    pub uptime: Duration,
    /// SMTP sessions under way.
    pub sessions: usize,
    /// Messages in the queue.
    pub queue: usize,
    /// The first certificate to expire, if there is a certificate.
    pub certificate: Option<CertificateExpiry>,
}
