//! Serves the watchdog of systemd (sd_watchdog_enabled(3)). It is notified only while the threads on which
//! all others depend are not stuck: the queue manager and the listeners. Without notifications systemd
//! restarts the server.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use sd_notify::NotifyState;

use super::service_manager;
use crate::sys::{self, StopFlag, ThreadActivity};

/// Notifications in one interval of systemd, so that a lost one does no harm.
const NOTIFICATIONS_PER_INTERVAL: u32 = 3;

/// Starts the watchdog thread, if systemd asks for it. It runs until the process ends, also during a stop.
///
/// # Errors
/// When the host has no thread or file descriptor left.
pub(super) fn start(activities: Vec<Arc<ThreadActivity>>) -> io::Result<()> {
    let Some(interval) = sd_notify::watchdog_enabled() else { return Ok(()) };
    let never = StopFlag::new()?;
    sys::spawn("watchdog", move || {
        let mut is_healthy = true;
        loop {
            is_healthy = check_activities(&activities, interval, is_healthy);
            never.wait(interval / NOTIFICATIONS_PER_INTERVAL);
        }
    })
    .map(drop)
}

/// Notifies systemd if no thread is stuck; logs the stuck threads once.
fn check_activities(activities: &[Arc<ThreadActivity>], interval: Duration, was_healthy: bool) -> bool {
    let stuck: Vec<_> = activities
        .iter()
        .filter(|activity| activity.is_stuck(interval))
        .map(|activity| activity.name())
        .collect();
    if stuck.is_empty() {
        service_manager::notify_blocking(NotifyState::Watchdog);
        return true;
    }
    if was_healthy {
        log::error!(
            "stuck for {interval:?}: {}; the service manager is not told any more that all is well, and \
             will restart us",
            stuck.join(", ")
        );
    }
    false
}
