//! What the pages need to know, and from whom.

use std::time::Duration;

use serde_json::Value;

use crate::mail::Domain;
use crate::observe::{Metrics, Traces};
use crate::queue::QueuedMessage;

/// Whoever knows how the server is. Asked anew for each page.
pub trait MonitorData: Send + Sync {
    /// The server as a whole.
    fn status(&self) -> ServerStatus;

    /// The oldest messages in the queue, as many as one look may cost.
    fn queue(&self) -> Vec<QueuedMessage>;

    /// The queue as `/queue.json` shows it: in the form that the subcommands are given.
    fn queue_json(&self) -> Value;

    /// What was counted.
    fn metrics(&self) -> &Metrics;

    /// What was done.
    fn traces(&self) -> &Traces;
}

/// When the first of our certificates ends.
#[derive(Debug, Clone, Copy)]
pub struct CertificateExpiry {
    /// How long it still holds.
    pub remaining: Duration,
    /// A renewed one should have been there by now.
    pub is_near: bool,
}

/// The server as a whole.
#[derive(Debug, Clone)]
pub struct ServerStatus {
    /// Of the program.
    pub version: &'static str,
    /// Our name; pages are shown to who asks for it.
    pub hostname: Domain,
    /// Since the start.
    pub uptime: Duration,
    /// Clients connected now.
    pub sessions: usize,
    /// Messages in the queue now.
    pub queue: usize,
    /// The first end of a certificate, if there is one.
    pub certificate: Option<CertificateExpiry>,
}
