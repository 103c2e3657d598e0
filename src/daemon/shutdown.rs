//! The time that a stop may take.
//!
//! The end of `grace` is computed here and nowhere else. What is under way has all of it but the last
//! moments, in which the process says how it went and closes its sockets. Then the process ends, whatever a
//! thread of ours still waits for: the disk is the truth, and what was promised is on it.

use std::io;
use std::process::exit;
use std::time::Duration;

use crossbeam_channel::{Sender, after, bounded};

use crate::inbound::SessionLimits;
use crate::sys::{self, Clock as _, Moment, Program, StopFlag, SystemClock};

/// What everything may take that comes when nothing is under way any more.
const CLEANUP_TIME: Duration = Duration::from_millis(500);
/// How long a session outside a message has to say goodbye, whatever it waits for.
const IDLE_SESSION_TIME_MAX: Duration = Duration::from_millis(500);

/// A stop under way.
pub(super) struct Shutdown {
    /// By when work under way must have ended.
    pub(super) work_deadline: Moment,
    earlier_end: Sender<Moment>,
}

impl Shutdown {
    /// Begins now: the process ends within `grace`, or half a second if that is more.
    ///
    /// # Errors
    /// When the host has no thread to give.
    pub(super) fn start(grace: Duration) -> io::Result<Self> {
        let now = SystemClock.now();
        let work_end = now + grace.saturating_sub(CLEANUP_TIME.min(grace / 4));
        let (sooner, told) = bounded::<Moment>(1);
        sys::spawn("shutdown", move || {
            // Also without any grace, what is owed to the disk has a moment.
            let mut end = now + grace.max(CLEANUP_TIME);
            if let Ok(sooner) = told.recv_timeout(end.since(SystemClock.now())) {
                end = end.min(sooner);
            }
            let _ = after(end.since(SystemClock.now())).recv();
            Program::kill_all();
            exit(0)
        })?;
        Ok(Self { work_deadline: work_end, earlier_end: sooner })
    }

    /// Nothing is under way any more, or its time is over: only the last moments are left. No program
    /// runs from now on.
    pub(super) fn work_finished(&self) {
        let _ = self.earlier_end.try_send(SystemClock.now() + CLEANUP_TIME);
        Program::kill_all();
    }

    /// The time that is left for work under way.
    pub(super) fn remaining_time(&self) -> Duration {
        self.work_deadline.since(SystemClock.now())
    }

    /// Waits for sessions: for those inside a message as long as there is time, for the others no longer than
    /// it takes to say goodbye. Says whether no message is under way.
    pub(super) fn wait_for_sessions(&self, doors: &SessionLimits) -> bool {
        const POLL_INTERVAL: Duration = Duration::from_millis(10);
        let Ok(never) = StopFlag::new() else { return false };
        let farewell = self.work_deadline.min(SystemClock.now() + IDLE_SESSION_TIME_MAX);
        loop {
            let (now, is_busy) = (SystemClock.now(), doors.busy_count() > 0);
            let is_over = now >= if is_busy { self.work_deadline } else { farewell };
            if doors.session_count() == 0 {
                return true;
            }
            if is_over {
                return !is_busy;
            }
            never.wait(POLL_INTERVAL);
        }
    }
}
