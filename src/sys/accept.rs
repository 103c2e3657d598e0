//! Waits for clients of a listening socket until the server stops.
//!
//! The wait is by poll(2), and the socket is never shut down: a socket that the service manager passed is
//! shared with the next process. A shortage of file descriptors or memory is logged, at most once a second,
//! and accepting goes on. `inbound`, `control` and `monitor` accept their clients here.

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::Duration;

use super::clock::{Clock as _, SystemClock};
use super::log_throttle::LogThrottle;
use super::stop_flag::{StopFlag, WaitResult};
use super::thread_activity::ThreadActivity;

/// Time until accepting is tried again after a failure, which is most often a shortage of descriptors.
const RETRY_DELAY: Duration = Duration::from_millis(100);

/// A socket that is bound and listens.
pub trait StreamListener: AsFd {
    /// The connection to one client.
    type Stream;
    /// The client's address.
    type Address;

    /// Whether `accept_client` waits.
    ///
    /// # Errors
    /// As the system says.
    fn set_nonblocking(&self, is_nonblocking: bool) -> io::Result<()>;

    /// Accepts one client; the connection blocks.
    ///
    /// # Errors
    /// As accept(2) says.
    fn accept_client(&self) -> io::Result<(Self::Stream, Self::Address)>;
}

impl StreamListener for TcpListener {
    type Stream = TcpStream;
    type Address = SocketAddr;

    fn set_nonblocking(&self, is_nonblocking: bool) -> io::Result<()> {
        Self::set_nonblocking(self, is_nonblocking)
    }

    fn accept_client(&self) -> io::Result<(TcpStream, SocketAddr)> {
        self.accept()
    }
}

impl StreamListener for UnixListener {
    type Stream = UnixStream;
    type Address = ();

    fn set_nonblocking(&self, is_nonblocking: bool) -> io::Result<()> {
        Self::set_nonblocking(self, is_nonblocking)
    }

    fn accept_client(&self) -> io::Result<(UnixStream, ())> {
        self.accept().map(|(stream, _)| (stream, ()))
    }
}

/// The clients of one listening socket, one after the other.
pub struct AcceptLoop<'a, L: StreamListener> {
    listener: &'a L,
    stop: &'a StopFlag,
    name: String,
    activity: Option<&'a ThreadActivity>,
    failures: LogThrottle,
}

impl<'a, L: StreamListener> AcceptLoop<'a, L> {
    /// Accepts clients of `listener` until `stop` is raised; `name` is for the log, such as `the smtp port`.
    ///
    /// # Errors
    /// When the socket cannot be made non-blocking.
    pub fn new(listener: &'a L, stop: &'a StopFlag, name: impl Into<String>) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        Ok(Self { listener, stop, name: name.into(), activity: None, failures: LogThrottle::default() })
    }

    /// Marks the thread as idle while it waits for a client, and as busy otherwise.
    #[must_use]
    pub fn with_activity(self, activity: &'a ThreadActivity) -> Self {
        Self { activity: Some(activity), ..self }
    }

    /// Waits for the next client; nothing once the server stops.
    pub fn next_client(&mut self) -> Option<(L::Stream, L::Address)> {
        loop {
            let accepted = match self.wait() {
                Ok(WaitResult::StopRequested) => return None,
                Ok(WaitResult::TimedOut) => continue,
                Ok(WaitResult::Ready) => self.pending_client(),
                Err(e) => Err(e),
            };
            match accepted {
                Ok(Some(client)) => return Some(client),
                Ok(None) => {}
                Err(e) => {
                    self.log_failure(&e);
                    if self.stop.wait(RETRY_DELAY) {
                        self.mark_idle();
                        return None;
                    }
                }
            }
        }
    }

    /// A client that has connected already, if there is one. Does not wait, and does not ask whether the
    /// server stops.
    ///
    /// # Errors
    /// As accept(2) says, unless the client is gone again.
    pub fn pending_client(&self) -> io::Result<Option<(L::Stream, L::Address)>> {
        match self.listener.accept_client() {
            Ok(client) => Ok(Some(client)),
            Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::ConnectionAborted) => {
                Ok(None)
            }
            Err(e) => Err(e),
        }
    }

    fn wait(&self) -> io::Result<WaitResult> {
        self.mark_idle();
        let result = self.stop.wait_until_readable(self.listener.as_fd(), None);
        if let (Some(activity), false) = (self.activity, matches!(result, Ok(WaitResult::StopRequested))) {
            activity.set_busy();
        }
        result
    }

    fn mark_idle(&self) {
        if let Some(activity) = self.activity {
            activity.set_idle();
        }
    }

    fn log_failure(&mut self, error: &io::Error) {
        if let Some(times) = self.failures.record(SystemClock.now()) {
            log::error!(
                "cannot accept on {} ({times} times): {error}; raise LimitNOFILE if this goes on",
                self.name
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::os::fd::BorrowedFd;

    use super::*;

    /// Has no descriptors for the first clients.
    struct FailingListener {
        inner: UnixListener,
        failures: Cell<u32>,
    }

    impl AsFd for FailingListener {
        fn as_fd(&self) -> BorrowedFd<'_> {
            self.inner.as_fd()
        }
    }

    impl StreamListener for FailingListener {
        type Stream = UnixStream;
        type Address = ();

        fn set_nonblocking(&self, is_nonblocking: bool) -> io::Result<()> {
            self.inner.set_nonblocking(is_nonblocking)
        }

        fn accept_client(&self) -> io::Result<(UnixStream, ())> {
            match self.failures.get() {
                0 => self.inner.accept_client(),
                left => {
                    self.failures.set(left - 1);
                    Err(nix::errno::Errno::EMFILE.into())
                }
            }
        }
    }

    #[test]
    fn accepting_goes_on_after_a_shortage_and_ends_at_a_stop() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        let inner = UnixListener::bind(&path).unwrap();
        let listener = FailingListener { inner, failures: Cell::new(2) };
        let (stop, activity) = (StopFlag::new().unwrap(), ThreadActivity::new("listener"));
        let mut clients = AcceptLoop::new(&listener, &stop, "the socket").unwrap().with_activity(&activity);
        let _client = UnixStream::connect(&path).unwrap();
        assert!(clients.next_client().is_some());
        assert_eq!(listener.failures.get(), 0);
        assert!(activity.is_stuck(Duration::ZERO), "busy with the client");
        assert!(clients.pending_client().unwrap().is_none());
        stop.raise();
        assert!(clients.next_client().is_none());
        assert!(!activity.is_stuck(Duration::ZERO), "idle for ever");
    }

    #[test]
    fn a_client_in_the_backlog_can_be_accepted_after_a_stop() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        let listener = UnixListener::bind(&path).unwrap();
        let stop = StopFlag::new().unwrap();
        let clients = AcceptLoop::new(&listener, &stop, "the socket").unwrap();
        let _client = UnixStream::connect(&path).unwrap();
        stop.raise();
        assert!(clients.pending_client().unwrap().is_some());
    }
}
