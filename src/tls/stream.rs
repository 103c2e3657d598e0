//! A rustls connection over one of our streams, as client or as server.

use std::fmt::{self, Debug};
use std::io::{self, Read, Write};
use std::ops::DerefMut;
use std::time::Duration;

use rustls::{ConnectionCommon, SideData, StreamOwned};

use crate::sys::{Clock as _, Moment, Stream, SystemClock};

/// Time to send close_notify when a stream is dropped.
pub(super) const CLOSE_NOTIFY_TIMEOUT: Duration = Duration::from_secs(5);

/// Encrypts. Sends close_notify when it is dropped, unless it was aborted.
pub(super) struct TlsStream<C, S>
where
    C: DerefMut<Target = ConnectionCommon<S>>,
    S: SideData,
{
    inner: StreamOwned<C, Box<dyn Stream>>,
    is_closed: bool,
}

impl<C, S> TlsStream<C, S>
where
    C: DerefMut<Target = ConnectionCommon<S>>,
    S: SideData,
{
    /// The stream of a connection after its handshake.
    pub(super) fn new(connection: C, stream: Box<dyn Stream>) -> Self {
        Self { inner: StreamOwned::new(connection, stream), is_closed: false }
    }

    /// RFC 8446 §6.1: without close_notify the peer cannot distinguish an end from a truncation. The peer may
    /// have closed the connection, so errors are ignored.
    fn send_close_notify_once(&mut self) {
        if !self.is_closed {
            self.is_closed = true;
            self.inner.conn.send_close_notify();
            let _ = self.inner.flush();
        }
    }
}

impl<C, S> Read for TlsStream<C, S>
where
    C: DerefMut<Target = ConnectionCommon<S>>,
    S: SideData,
{
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.inner.read(buffer)
    }
}

impl<C, S> Write for TlsStream<C, S>
where
    C: DerefMut<Target = ConnectionCommon<S>>,
    S: SideData,
{
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        self.inner.write(octets)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

impl<C, S> Stream for TlsStream<C, S>
where
    C: DerefMut<Target = ConnectionCommon<S>> + Send,
    S: SideData,
{
    fn set_deadline(&mut self, deadline: Moment) {
        self.inner.sock.set_deadline(deadline);
    }

    fn shutdown_write(&mut self) -> io::Result<()> {
        self.send_close_notify_once();
        self.inner.sock.shutdown_write()
    }

    fn abort(&mut self) {
        self.is_closed = true;
        self.inner.sock.abort();
    }
}

impl<C, S> Debug for TlsStream<C, S>
where
    C: DerefMut<Target = ConnectionCommon<S>>,
    S: SideData,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TlsStream({:?})", self.inner.sock)
    }
}

impl<C, S> Drop for TlsStream<C, S>
where
    C: DerefMut<Target = ConnectionCommon<S>>,
    S: SideData,
{
    fn drop(&mut self) {
        if !self.is_closed {
            self.inner.sock.set_deadline(SystemClock.now() + CLOSE_NOTIFY_TIMEOUT);
            self.send_close_notify_once();
        }
    }
}
