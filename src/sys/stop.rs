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
use super::thread::PlainMutex as Mutex;

/// Asked once, heard by everyone, for ever.
#[derive(Debug)]
pub struct Stop {
    reader: OwnedFd,
    writer: Mutex<Option<OwnedFd>>,
    /// Set before the writing end is closed.
    end: OnceLock<Moment>,
}

/// What work that waits for others does when the server stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AtStop {
    /// It ends at once: nothing that we have promised depends on it.
    End,
    /// It may go on until the moment that the request names.
    Finish,
}

/// What a wait ended with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Woken {
    /// The descriptor can be read or accepted from.
    Ready,
    /// It is time to stop.
    Stop,
    /// Nothing happened in the time given.
    Nothing,
}

/// How long a wait is that cannot hear the request.
const BLIND_WAIT: Duration = Duration::from_millis(100);

impl Stop {
    /// Not asked yet.
    ///
    /// # Errors
    /// When the host has no descriptors left.
    pub fn new() -> io::Result<Self> {
        // A program that we start must not hold the writing end: nobody would wake until it ends.
        let (reader, writer) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC)?;
        Ok(Self { reader, writer: Mutex::new(Some(writer)), end: OnceLock::new() })
    }

    /// Everyone is to stop, and nothing may go on.
    pub fn ask(&self) {
        self.ask_by(SystemClock.now());
    }

    /// Everyone is to stop; what may be finished must be by `end`. The first request counts.
    pub fn ask_by(&self, end: Moment) {
        self.end.get_or_init(|| end);
        drop(self.writer.lock().take());
    }

    /// By when work under way must have ended; nothing before it was asked.
    #[must_use]
    pub fn end(&self) -> Option<Moment> {
        self.end.get().copied().filter(|_| self.is_asked())
    }

    /// Can be read when it was asked, and from then on.
    pub(super) fn descriptor(&self) -> BorrowedFd<'_> {
        self.reader.as_fd()
    }

    /// It was asked.
    #[must_use]
    pub fn is_asked(&self) -> bool {
        self.writer.lock().is_none()
    }

    /// Waits until `descriptor` has something, or it is time to stop, or `timeout` is over.
    ///
    /// # Errors
    /// As poll(2) says; an interrupted wait is [`Woken::Nothing`].
    pub fn wait_for(&self, descriptor: BorrowedFd<'_>, timeout: Option<Duration>) -> io::Result<Woken> {
        self.wait_with(PollFd::new(descriptor, PollFlags::POLLIN), timeout)
    }

    /// The same, until `descriptor` can be written to, or is connected.
    pub(super) fn wait_to_write(
        &self,
        descriptor: BorrowedFd<'_>,
        timeout: Option<Duration>,
    ) -> io::Result<Woken> {
        self.wait_with(PollFd::new(descriptor, PollFlags::POLLOUT), timeout)
    }

    fn wait_with(&self, other: PollFd<'_>, timeout: Option<Duration>) -> io::Result<Woken> {
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
            (true, _) => Woken::Stop,
            (false, true) => Woken::Ready,
            (false, false) => Woken::Nothing,
        })
    }

    /// Waits for `timeout`; true if it is time to stop.
    pub fn wait(&self, timeout: Duration) -> bool {
        // The pipe itself is the only descriptor of interest.
        match self.wait_for(self.reader.as_fd(), Some(timeout)) {
            Ok(woken) => woken == Woken::Stop,
            // Without poll(2), for want of memory, the caller must not run in circles.
            Err(_) => {
                std::thread::sleep(timeout.min(BLIND_WAIT));
                self.is_asked()
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
        let stop = Arc::new(Stop::new().unwrap());
        assert!(!stop.wait(Duration::from_millis(1)));
        let theirs = Arc::clone(&stop);
        let waiter =
            super::super::spawn("waits", move || assert!(theirs.wait(Duration::from_secs(60)))).unwrap();
        stop.ask();
        waiter.join().unwrap();
        assert!(stop.is_asked() && stop.wait(Duration::from_secs(60)));
    }
}
