//! Servers beside us that keep users or mailboxes: Dovecot's authentication, an LMTP server.

use std::sync::Arc;
use std::time::Duration;

use crate::auth::{Dovecot, DovecotSettings};
use crate::config::{Config, Local};
use crate::observe::Metrics;
use crate::sys::{Clock as _, Dial as _, DialUntilStop, Stop, SystemClock, SystemRandom};

/// How long a server may take to accept a connection that only shows that it is there.
const PATIENCE: Duration = Duration::from_secs(5);

/// The Dovecot that is asked for users and passwords, if one is.
pub(super) fn dovecot(config: &Config, metrics: &Metrics, stop: &Arc<Stop>) -> Option<Arc<Dovecot>> {
    let config = &config.dovecot;
    config.is_asked.then(|| {
        let settings = DovecotSettings {
            client: config.client.clone(),
            userdb: config.userdb.clone(),
            ..DovecotSettings::default()
        };
        let dial = Arc::new(DialUntilStop::new(Arc::clone(stop)));
        let (clock, random) = (Arc::new(SystemClock), Arc::new(SystemRandom));
        Arc::new(Dovecot::new(settings, dial, clock, random, metrics))
    })
}

/// What those servers do not do for us just now, a sentence each. No reason not to start: they may
/// start after us, and are tried at each use. Waits for them, for seconds each.
pub fn absent_neighbours(config: &Config, stop: &Arc<Stop>) -> Vec<String> {
    let dovecot = dovecot(config, &Metrics::default(), stop);
    let mut complaints = dovecot.map(|dovecot| dovecot.complaints()).unwrap_or_default();
    if let Local::Lmtp(lmtp) = &config.delivery.local
        && let Err(error) =
            DialUntilStop::new(Arc::clone(stop)).dial(&lmtp.address, SystemClock.now() + PATIENCE)
    {
        let address = &lmtp.address;
        complaints.push(format!(
            "no connection to {address}: {error}; until there is, mail for local mailboxes waits"
        ));
    }
    complaints
}
