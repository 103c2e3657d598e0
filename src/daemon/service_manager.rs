//! What the service manager is told (sd_notify(3)), and that nobody waits for it.
//!
//! Its socket has room for a few messages. One that does not read must hold up neither the start nor the
//! stop, so a thread of its own sends, in order, and whoever has something to say waits for a moment only.

use std::io;
use std::time::Duration;

use crossbeam_channel::{Sender, bounded, unbounded};
use sd_notify::NotifyState;

use crate::sys;

/// How long the sender of a message waits for it to be on its way: all of it, usually.
const NOTIFY_TIMEOUT: Duration = Duration::from_millis(100);

/// The service manager, if there is one.
pub(super) struct ServiceManager(Option<Sender<Notification>>);

struct Notification {
    state: NotifyState<'static>,
    sent: Sender<()>,
}

impl ServiceManager {
    /// The one that the environment names.
    ///
    /// # Errors
    /// When the host has no thread to give.
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

    /// Says so, now or as soon as it reads.
    pub(super) fn notify(&self, state: NotifyState<'static>) {
        let Some(sender) = &self.0 else { return };
        let (sent, is_sent) = bounded(1);
        if sender.send(Notification { state, sent }).is_ok() {
            let _ = is_sent.recv_timeout(NOTIFY_TIMEOUT);
        }
    }
}

/// Says so, and waits until there is room for it.
pub(super) fn notify_blocking(state: NotifyState<'_>) {
    if let Err(e) = sd_notify::notify(&[state]) {
        log::debug!("the service manager does not listen: {e}");
    }
}
