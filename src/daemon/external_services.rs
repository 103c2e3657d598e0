//! Other servers that this one depends on: Dovecot for users, an LMTP server for mailboxes.

use std::sync::Arc;
use std::time::Duration;

use crate::auth::{DovecotAuth, DovecotSettings};
use crate::config::{Config, LocalDelivery};
use crate::observe::Metrics;
use crate::sys::{Clock as _, Connector as _, StopFlag, StoppableConnector, SystemClock, SystemRandom};

/// Time for a server to accept a connection that only tests whether it runs.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// The client of Dovecot's authentication, if the configuration uses it.
pub(super) fn dovecot_client(
    config: &Config,
    metrics: &Metrics,
    stop: &Arc<StopFlag>,
) -> Option<Arc<DovecotAuth>> {
    let config = &config.dovecot;
    config.is_enabled.then(|| {
        let settings = DovecotSettings {
            client_socket: config.client_socket.clone(),
            userdb_socket: config.userdb_socket.clone(),
            ..DovecotSettings::default()
        };
        let dial = Arc::new(StoppableConnector::new(Arc::clone(stop)));
        let (clock, random) = (Arc::new(SystemClock), Arc::new(SystemRandom));
        Arc::new(DovecotAuth::new(settings, dial, clock, random, metrics))
    })
}

/// One sentence for each of these servers that does not answer. The start goes on without them: they may
/// start later, and are tried at each use. Waits up to seconds for each.
pub fn unavailable_services(config: &Config, stop: &Arc<StopFlag>) -> Vec<String> {
    let dovecot = dovecot_client(config, &Metrics::default(), stop);
    let mut problems = dovecot.map(|dovecot| dovecot.socket_problems()).unwrap_or_default();
    if let LocalDelivery::Lmtp(lmtp) = &config.delivery.local
        && let Err(error) = StoppableConnector::new(Arc::clone(stop))
            .connect(&lmtp.address, SystemClock.now() + CONNECT_TIMEOUT)
    {
        let address = &lmtp.address;
        problems.push(format!(
            "no connection to {address}: {error}; until there is, mail for local mailboxes waits"
        ));
    }
    problems
}
