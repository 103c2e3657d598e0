//! Servers beside us that keep users or mailboxes: Dovecot's authentication, an LMTP server.

use std::sync::Arc;
use std::time::Duration;

use crate::auth::{DovecotAuth, DovecotSettings};
use crate::config::{Config, LocalDelivery};
use crate::observe::Metrics;
use crate::sys::{Clock as _, Connector as _, StopFlag, StoppableConnector, SystemClock, SystemRandom};

/// How long a server may take to accept a connection that only shows that it is there.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// The Dovecot that is asked for users and passwords, if one is.
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

/// What those servers do not do for us just now, a sentence each. No reason not to start: they may
/// start after us, and are tried at each use. Waits for them, for seconds each.
pub fn unavailable_services(config: &Config, stop: &Arc<StopFlag>) -> Vec<String> {
    let dovecot = dovecot_client(config, &Metrics::default(), stop);
    let mut complaints = dovecot.map(|dovecot| dovecot.socket_problems()).unwrap_or_default();
    if let LocalDelivery::Lmtp(lmtp) = &config.delivery.local
        && let Err(error) = StoppableConnector::new(Arc::clone(stop))
            .connect(&lmtp.address, SystemClock.now() + CONNECT_TIMEOUT)
    {
        let address = &lmtp.address;
        complaints.push(format!(
            "no connection to {address}: {error}; until there is, mail for local mailboxes waits"
        ));
    }
    complaints
}
