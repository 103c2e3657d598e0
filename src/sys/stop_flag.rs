//! A request to stop that can be waited for together with sockets.
//!
//! The flag is a pipe. To raise it, the writing end is closed: every thread that polls the reading end wakes
//! up, and later polls return at once.
//!
//! The request has a deadline for work that is under way. Work that waits for a program, another service or a
//! client also waits for the request. It then ends at once, or before the deadline; work that has not ended by
//! the deadline ends with the process.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::OnceLock;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::clock::{Clock as _, Moment, SystemClock};
use super::plain_mutex::PlainMutex as Mutex;

/// A request to stop, which cannot be taken back.
#[derive(Debug)]
pub struct StopFlag {
    reader: OwnedFd,
    writer: Mutex<Option<OwnedFd>>,
    /// Set before the writing end is closed.
    deadline: OnceLock<Moment>,
}

/// What happens to work that waits for others when the server stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnStop {
    /// The work ends at once: no accepted message depends on it.
    EndAtOnce,
    /// The work may go on until the deadline of the request.
    FinishByDeadline,
}

/// How a wait ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WaitResult {
    /// The descriptor is ready.
    Ready,
    /// The flag is raised.
    StopRequested,
    /// Neither happened within the timeout.
    TimedOut,
}

/// Longest wait if poll(2) fails, because such a wait does not notice the request.
const POLL_FAILURE_WAIT_MAX: Duration = Duration::from_millis(100);

impl StopFlag {
    /// A flag that is not raised.
    ///
    /// # Errors
    /// When the host has no descriptors left.
    pub fn new() -> io::Result<Self> {
        // A program that the server starts must not inherit the writing end: no thread would wake up before
        // that program ends.
        let (reader, writer) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC)?;
        Ok(Self { reader, writer: Mutex::new(Some(writer)), deadline: OnceLock::new() })
    }

    /// Requests a stop at once: the deadline is now.
    pub fn raise(&self) {
        self.raise_with_deadline(SystemClock.now());
    }

    /// Requests a stop, with the deadline `end` for work that may be finished. Later calls change nothing.
    pub fn raise_with_deadline(&self, end: Moment) {
        self.deadline.get_or_init(|| end);
        drop(self.writer.lock().take());
    }

    /// When work under way must have ended; `None` while the flag is not raised.
    #[must_use]
    pub fn deadline(&self) -> Option<Moment> {
        self.deadline.get().copied().filter(|_| self.is_raised())
    }

    /// A descriptor that is readable once the flag is raised.
    pub(super) fn descriptor(&self) -> BorrowedFd<'_> {
        self.reader.as_fd()
    }

    /// The flag is raised.
    #[must_use]
    pub fn is_raised(&self) -> bool {
        self.writer.lock().is_none()
    }

    /// Waits until `descriptor` is readable, the flag is raised, or `timeout` has passed.
    ///
    /// # Errors
    /// As poll(2) says; an interrupted wait is [`WaitResult::TimedOut`].
    pub fn wait_until_readable(
        &self,
        descriptor: BorrowedFd<'_>,
        timeout: Option<Duration>,
    ) -> io::Result<WaitResult> {
        self.poll_with(PollFd::new(descriptor, PollFlags::POLLIN), timeout)
    }

    /// Waits until `descriptor` is writable or connected, the flag is raised, or `timeout` has passed.
    pub(super) fn wait_until_writable(
        &self,
        descriptor: BorrowedFd<'_>,
        timeout: Option<Duration>,
    ) -> io::Result<WaitResult> {
        self.poll_with(PollFd::new(descriptor, PollFlags::POLLOUT), timeout)
    }

    fn poll_with(&self, other: PollFd<'_>, timeout: Option<Duration>) -> io::Result<WaitResult> {
        let mut waiting = [PollFd::new(self.reader.as_fd(), PollFlags::POLLIN), other];
        let timeout = match timeout {
            Some(timeout) => PollTimeout::try_from(timeout).unwrap_or(PollTimeout::MAX),
            None => PollTimeout::NONE,
        };
        match poll(&mut waiting, timeout) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(e) => return Err(e.into()),
        }
        let [stop, ready] = waiting.map(|one| one.any().unwrap_or(false));
        Ok(match (stop, ready) {
            (true, _) => WaitResult::StopRequested,
            (false, true) => WaitResult::Ready,
            (false, false) => WaitResult::TimedOut,
        })
    }

    /// Waits for `timeout`, or until the flag is raised; true if it is raised.
    pub fn wait(&self, timeout: Duration) -> bool {
        match self.wait_until_readable(self.reader.as_fd(), Some(timeout)) {
            Ok(woken) => woken == WaitResult::StopRequested,
            // If poll(2) fails, for want of memory, the caller must not loop without a pause.
            Err(_) => {
                std::thread::sleep(timeout.min(POLL_FAILURE_WAIT_MAX));
                self.is_raised()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn a_raised_flag_wakes_every_wait_and_later_waits_return_at_once() {
        let stop = Arc::new(StopFlag::new().unwrap());
        assert!(!stop.wait(Duration::from_millis(1)));
        let theirs = Arc::clone(&stop);
        let waiter =
            super::super::spawn("waits", move || assert!(theirs.wait(Duration::from_secs(60)))).unwrap();
        stop.raise();
        waiter.join().unwrap();
        assert!(stop.is_raised() && stop.wait(Duration::from_secs(60)));
    }
}
