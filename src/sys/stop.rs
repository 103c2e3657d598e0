//! A request to stop that can be waited for together with sockets.
//!
//! A pipe whose writing end is closed: everyone who polls the other end wakes up, and stays awake.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::thread::PlainMutex as Mutex;

/// Asked once, heard by everyone, for ever.
#[derive(Debug)]
pub struct Stop {
    reader: OwnedFd,
    writer: Mutex<Option<OwnedFd>>,
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
        Ok(Self { reader, writer: Mutex::new(Some(writer)) })
    }

    /// Everyone is to stop.
    pub fn ask(&self) {
        drop(self.writer.lock().take());
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
        let mut waiting =
            [PollFd::new(self.reader.as_fd(), PollFlags::POLLIN), PollFd::new(descriptor, PollFlags::POLLIN)];
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
