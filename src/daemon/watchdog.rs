//! The service manager's watchdog (sd_watchdog_enabled(3)): it hears that all is well only while the
//! threads are well that everything else waits for, the queue manager and those that accept. Once it
//! hears nothing it restarts us, and the disk is the truth.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use sd_notify::NotifyState;

use super::service_manager;
use crate::sys::{self, StopFlag, ThreadActivity};

/// The service manager's interval is cut into so many parts: one word lost is not the end.
const NOTIFICATIONS_PER_INTERVAL: u32 = 3;

/// Starts the watch, if the service manager asked for one. It goes on while we stop, until the
/// process ends.
///
/// # Errors
/// When the host has no thread or descriptor to give.
pub(super) fn start(pulses: Vec<Arc<ThreadActivity>>) -> io::Result<()> {
    let Some(interval) = sd_notify::watchdog_enabled() else { return Ok(()) };
    let never = StopFlag::new()?;
    sys::spawn("watchdog", move || {
        let mut is_well = true;
        loop {
            is_well = check_pulses(&pulses, interval, is_well);
            never.wait(interval / NOTIFICATIONS_PER_INTERVAL);
        }
    })
    .map(drop)
}

/// Tells the service manager that all is well, or the log once who is not.
fn check_pulses(pulses: &[Arc<ThreadActivity>], interval: Duration, was_well: bool) -> bool {
    let stuck: Vec<_> =
        pulses.iter().filter(|pulse| pulse.is_stuck(interval)).map(|pulse| pulse.name()).collect();
    if stuck.is_empty() {
        service_manager::notify_blocking(NotifyState::Watchdog);
        return true;
    }
    if was_well {
        log::error!(
            "stuck for {interval:?}: {}; the service manager is not told any more that all is well, and \
             will restart us",
            stuck.join(", ")
        );
    }
    false
}
