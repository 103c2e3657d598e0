//! Bounds the time of a stop.
//!
//! Work under way has the time of `grace` but the last moments, in which the process logs the result and
//! closes its sockets. Then the process ends, whatever a thread still waits for: what was accepted is on
//! disk.

use std::io;
use std::process::exit;
use std::time::Duration;

use crossbeam_channel::{Sender, after, bounded};

use crate::inbound::SessionLimits;
use crate::sys::{self, Clock as _, Moment, Program, StopFlag, SystemClock};

/// Time for everything after the end of work under way.
const CLEANUP_TIME: Duration = Duration::from_millis(500);
/// Time for a session without a message under way to send its last reply.
const IDLE_SESSION_TIME_MAX: Duration = Duration::from_millis(500);

/// A stop under way.
pub(super) struct Shutdown {
    /// The moment at which work under way must have ended.
    pub(super) work_deadline: Moment,
    earlier_end: Sender<Moment>,
}

impl Shutdown {
    /// Starts now. The process ends after `grace`, or after half a second if that is longer.
    ///
    /// # Errors
    /// When the host has no thread left.
    pub(super) fn start(grace: Duration) -> io::Result<Self> {
        let now = SystemClock.now();
        let work_deadline = now + grace.saturating_sub(CLEANUP_TIME.min(grace / 4));
        let (earlier_end, receiver) = bounded::<Moment>(1);
        sys::spawn("shutdown", move || {
            // Also without any grace, unsynced data gets a moment.
            let mut end = now + grace.max(CLEANUP_TIME);
            if let Ok(earlier_end) = receiver.recv_timeout(end.since(SystemClock.now())) {
                end = end.min(earlier_end);
            }
            let _ = after(end.since(SystemClock.now())).recv();
            Program::kill_all();
            exit(0)
        })?;
        Ok(Self { work_deadline, earlier_end })
    }

    /// Work under way has ended, or its time is over. Programs are killed, and the process ends soon.
    pub(super) fn work_finished(&self) {
        let _ = self.earlier_end.try_send(SystemClock.now() + CLEANUP_TIME);
        Program::kill_all();
    }

    /// The time left for work under way.
    pub(super) fn remaining_time(&self) -> Duration {
        self.work_deadline.since(SystemClock.now())
    }

    /// Waits for sessions with a message under way until the deadline, and for the others for a moment.
    /// Returns whether no message is under way.
    pub(super) fn wait_for_sessions(&self, session_limits: &SessionLimits) -> bool {
        const POLL_INTERVAL: Duration = Duration::from_millis(10);
        let Ok(never) = StopFlag::new() else { return false };
        let idle_deadline = self.work_deadline.min(SystemClock.now() + IDLE_SESSION_TIME_MAX);
        loop {
            let (now, is_busy) = (SystemClock.now(), session_limits.busy_count() > 0);
            let is_over = now >= if is_busy { self.work_deadline } else { idle_deadline };
            if session_limits.session_count() == 0 {
                return true;
            }
            if is_over {
                return !is_busy;
            }
            never.wait(POLL_INTERVAL);
        }
    }
}
