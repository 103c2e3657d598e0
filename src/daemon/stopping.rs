//! The time that a stop may take.
//!
//! The end of `grace` is computed here and nowhere else. What is under way has all of it but the last
//! moments, in which the process says how it went and closes its sockets. Then the process ends, whatever a
//! thread of ours still waits for: the disk is the truth, and what was promised is on it.

use std::io;
use std::process::exit;
use std::time::Duration;

use crossbeam_channel::{Sender, after, bounded};

use crate::inbound::Doors;
use crate::sys::{self, Clock as _, Moment, Program, Stop, SystemClock};

/// What everything may take that comes when nothing is under way any more.
const LAST_MOMENTS: Duration = Duration::from_millis(500);
/// How long a session outside a message has to say goodbye, whatever it waits for.
const FAREWELL: Duration = Duration::from_millis(500);

/// A stop under way.
pub(super) struct Stopping {
    /// By when work under way must have ended.
    pub(super) work_end: Moment,
    sooner: Sender<Moment>,
}

impl Stopping {
    /// Begins now: the process ends within `grace`, or half a second if that is more.
    ///
    /// # Errors
    /// When the host has no thread to give.
    pub(super) fn within(grace: Duration) -> io::Result<Self> {
        let now = SystemClock.now();
        let work_end = now + grace.saturating_sub(LAST_MOMENTS.min(grace / 4));
        let (sooner, told) = bounded::<Moment>(1);
        sys::spawn("stopping", move || {
            // Also without any grace, what is owed to the disk has a moment.
            let mut end = now + grace.max(LAST_MOMENTS);
            if let Ok(sooner) = told.recv_timeout(end.since(SystemClock.now())) {
                end = end.min(sooner);
            }
            let _ = after(end.since(SystemClock.now())).recv();
            Program::end_all();
            exit(0)
        })?;
        Ok(Self { work_end, sooner })
    }

    /// Nothing is under way any more, or its time is over: only the last moments are left. No program
    /// runs from now on.
    pub(super) fn nearly_done(&self) {
        let _ = self.sooner.try_send(SystemClock.now() + LAST_MOMENTS);
        Program::end_all();
    }

    /// The time that is left for work under way.
    pub(super) fn left(&self) -> Duration {
        self.work_end.since(SystemClock.now())
    }

    /// Waits for sessions: for those inside a message as long as there is time, for the others no longer than
    /// it takes to say goodbye. Says whether no message is under way.
    pub(super) fn wait_for_sessions(&self, doors: &Doors) -> bool {
        const LOOK: Duration = Duration::from_millis(10);
        let Ok(never) = Stop::new() else { return false };
        let farewell = self.work_end.min(SystemClock.now() + FAREWELL);
        loop {
            let (now, is_busy) = (SystemClock.now(), doors.busy() > 0);
            let is_over = now >= if is_busy { self.work_end } else { farewell };
            if doors.count() == 0 {
                return true;
            }
            if is_over {
                return !is_busy;
            }
            never.wait(LOOK);
        }
    }
}
