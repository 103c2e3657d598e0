//! Notifications to systemd (sd_notify(3)), which delay neither a start nor a stop.
//!
//! The socket of systemd has room for a few messages, and systemd may not read them. So a thread of its own
//! sends them in order, and callers wait for a moment only.

use std::io;
use std::time::Duration;

use crossbeam_channel::{Sender, bounded, unbounded};
use sd_notify::NotifyState;

use crate::sys;

/// Time that a caller waits for its message to be sent.
const NOTIFY_TIMEOUT: Duration = Duration::from_millis(100);

/// systemd, if it started this process.
pub(super) struct ServiceManager(Option<Sender<Notification>>);

struct Notification {
    state: NotifyState<'static>,
    sent: Sender<()>,
}

impl ServiceManager {
    /// Connects to the socket that the environment names.
    ///
    /// # Errors
    /// When the host has no thread left.
    pub(super) fn from_env() -> io::Result<Self> {
        if std::env::var_os("NOTIFY_SOCKET").is_none() {
            return Ok(Self(None));
        }
        let (sender, messages) = unbounded::<Notification>();
        sys::spawn("sd-notify", move || {
            for Notification { state, sent } in messages {
                notify_blocking(state);
                let _ = sent.send(());
            }
        })?;
        Ok(Self(Some(sender)))
    }

    /// Sends the state, now or when systemd reads.
    pub(super) fn notify(&self, state: NotifyState<'static>) {
        let Some(sender) = &self.0 else { return };
        let (sent, is_sent) = bounded(1);
        if sender.send(Notification { state, sent }).is_ok() {
            let _ = is_sent.recv_timeout(NOTIFY_TIMEOUT);
        }
    }
}

/// Sends the state, and waits until the socket has room for it.
pub(super) fn notify_blocking(state: NotifyState<'_>) {
    if let Err(e) = sd_notify::notify(&[state]) {
        log::debug!("the service manager does not listen: {e}");
    }
}
