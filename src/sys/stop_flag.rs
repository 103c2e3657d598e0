//! A request to stop that can be waited for together with sockets.
//!
//! A pipe whose writing end is closed: everyone who polls the other end wakes up, and stays awake.
//!
//! The request says until when work under way may go on. Work that waits for others, be it a program, a
//! neighbour or a client, waits for the request as well. It then ends at once, or in time before that
//! moment; what has not ended by then ends with the process.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::OnceLock;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::clock::{Clock as _, Moment, SystemClock};
use super::plain_mutex::PlainMutex as Mutex;

/// Asked once, heard by everyone, for ever.
#[derive(Debug)]
pub struct StopFlag {
    reader: OwnedFd,
    writer: Mutex<Option<OwnedFd>>,
    /// Set before the writing end is closed.
    deadline: OnceLock<Moment>,
}

/// What work that waits for others does when the server stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnStop {
    /// It ends at once: nothing that we have promised depends on it.
    EndAtOnce,
    /// It may go on until the moment that the request names.
    FinishByDeadline,
}

/// What a wait ended with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WaitResult {
    /// The descriptor can be read or accepted from.
    Ready,
    /// It is time to stop.
    StopRequested,
    /// Nothing happened in the time given.
    TimedOut,
}

/// How long a wait is that cannot hear the request.
const POLL_FAILURE_WAIT_MAX: Duration = Duration::from_millis(100);

impl StopFlag {
    /// Not asked yet.
    ///
    /// # Errors
    /// When the host has no descriptors left.
    pub fn new() -> io::Result<Self> {
        // A program that we start must not hold the writing end: nobody would wake until it ends.
        let (reader, writer) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC)?;
        Ok(Self { reader, writer: Mutex::new(Some(writer)), deadline: OnceLock::new() })
    }

    /// Everyone is to stop, and nothing may go on.
    pub fn raise(&self) {
        self.raise_with_deadline(SystemClock.now());
    }

    /// Everyone is to stop; what may be finished must be by `end`. The first request counts.
    pub fn raise_with_deadline(&self, end: Moment) {
        self.deadline.get_or_init(|| end);
        drop(self.writer.lock().take());
    }

    /// By when work under way must have ended; nothing before it was asked.
    #[must_use]
    pub fn deadline(&self) -> Option<Moment> {
        self.deadline.get().copied().filter(|_| self.is_raised())
    }

    /// Can be read when it was asked, and from then on.
    pub(super) fn descriptor(&self) -> BorrowedFd<'_> {
        self.reader.as_fd()
    }

    /// It was asked.
    #[must_use]
    pub fn is_raised(&self) -> bool {
        self.writer.lock().is_none()
    }

    /// Waits until `descriptor` has something, or it is time to stop, or `timeout` is over.
    ///
    /// # Errors
    /// As poll(2) says; an interrupted wait is [`Woken::Nothing`].
    pub fn wait_until_readable(
        &self,
        descriptor: BorrowedFd<'_>,
        timeout: Option<Duration>,
    ) -> io::Result<WaitResult> {
        self.poll_with(PollFd::new(descriptor, PollFlags::POLLIN), timeout)
    }

    /// The same, until `descriptor` can be written to, or is connected.
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

    /// Waits for `timeout`; true if it is time to stop.
    pub fn wait(&self, timeout: Duration) -> bool {
        // The pipe itself is the only descriptor of interest.
        match self.wait_until_readable(self.reader.as_fd(), Some(timeout)) {
            Ok(woken) => woken == WaitResult::StopRequested,
            // Without poll(2), for want of memory, the caller must not run in circles.
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
    fn everyone_who_waits_hears_the_request_and_goes_on_hearing_it() {
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
