//! What the attempts of one SMTP courier share.

use std::collections::BTreeMap;
use std::sync::Arc;

use arc_swap::ArcSwap;

use super::connection_pool::ConnectionPool;
use super::settings::Settings;
use super::unresponsive_hosts::UnresponsiveHosts;
use crate::dns::Resolver;
use crate::domaininfo::DomainInfo;
use crate::observe::{Counter, CounterFamily, Metrics};
use crate::route::Router;
use crate::smtp::client::Credentials;
use crate::sys::{Clock, Connector, Random};
use crate::tls::TlsClient;

/// What the courier works with.
pub struct SmtpCourierParts {
    /// Looks up MX hosts and addresses.
    pub resolver: Arc<dyn Resolver>,
    /// Opens connections.
    pub dial: Arc<dyn Connector>,
    /// Keeps the best level seen on connections to each domain.
    pub domaininfo: Arc<DomainInfo>,
    /// Encrypts.
    pub tls: Arc<TlsClient>,
    /// Shuffles MX hosts of equal preference.
    pub random: Arc<dyn Random>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// The credentials for named hosts; read once for each attempt.
    pub credentials: Arc<ArcSwap<CredentialsByName>>,
    /// The local domains; read once for each attempt.
    pub router: Arc<ArcSwap<Router>>,
}

/// Credentials by the names that the operator gives them.
pub type CredentialsByName = BTreeMap<String, Credentials>;

/// State that outlives an attempt.
pub(super) struct CourierState {
    /// Read once for each attempt.
    pub(super) settings: Arc<ArcSwap<Settings>>,
    pub(super) parts: SmtpCourierParts,
    pub(super) counters: Counters,
    pub(super) connection_pool: ConnectionPool,
    pub(super) unresponsive_hosts: UnresponsiveHosts,
}

/// What the courier counts.
pub(super) struct Counters {
    pub(super) attempts: Counter,
    pub(super) tls: CounterFamily,
    pub(super) level_check: CounterFamily,
}

impl Counters {
    pub(super) fn new(metrics: &Metrics) -> Self {
        Self {
            attempts: metrics.counter("smtp_out_attempts", "Attempts to carry a message to another server"),
            tls: metrics.counter_family(
                "smtp_out_tls",
                "Connections to other servers, by level of TLS",
                "level",
            ),
            level_check: metrics.counter_family(
                "smtp_out_level_check",
                "Comparisons of a connection with the level known of its domain, by result",
                "result",
            ),
        }
    }
}
