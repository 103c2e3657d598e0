//! Collects replies and sends them together (RFC 2920 §3.2).
//!
//! After an error nothing more is sent: half a reply may be out, and the client would take the next reply for
//! its end.

use std::io;

use crate::sys::{Moment, Stream};

/// Collected replies are sent before there are more octets of them than this.
const BUFFERED_OCTETS_MAX: usize = 16 * 1024;

/// Replies to be sent, and the error that ended the sending.
#[derive(Debug, Default)]
pub(super) struct ReplyBuffer {
    octets: Vec<u8>,
    write_error: Option<io::ErrorKind>,
}

impl ReplyBuffer {
    /// Adds a reply.
    pub(super) fn add(&mut self, octets: &[u8]) {
        self.octets.extend_from_slice(octets);
    }

    /// The collected replies must be sent.
    pub(super) fn is_full(&self) -> bool {
        self.octets.len() > BUFFERED_OCTETS_MAX
    }

    /// Sends everything by `deadline`.
    ///
    /// # Errors
    /// The error of the connection, and after it always the same one.
    pub(super) fn send(&mut self, stream: &mut dyn Stream, deadline: Moment) -> io::Result<()> {
        let octets = std::mem::take(&mut self.octets);
        if let Some(lost) = self.write_error {
            return Err(lost.into());
        }
        if octets.is_empty() {
            return Ok(());
        }
        stream.set_deadline(deadline);
        let sent = stream.write_all(&octets).and_then(|()| stream.flush());
        self.write_error = sent.as_ref().err().map(io::Error::kind);
        sent
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::time::Duration;

    use super::*;

    /// Takes three octets, then fails once, then takes everything.
    #[derive(Debug, Default)]
    struct FailingStream {
        writes: usize,
        written: Vec<u8>,
    }

    impl Read for FailingStream {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Ok(0)
        }
    }

    impl Write for FailingStream {
        fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
            self.writes += 1;
            let taken = match self.writes {
                1 => octets.get(..3).unwrap(),
                2 => return Err(io::ErrorKind::TimedOut.into()),
                _ => octets,
            };
            self.written.extend_from_slice(taken);
            Ok(taken.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Stream for FailingStream {
        fn set_deadline(&mut self, _: Moment) {}

        fn shutdown_write(&mut self) -> io::Result<()> {
            Ok(())
        }

        fn abort(&mut self) {}
    }

    #[test]
    fn nothing_is_sent_after_half_a_reply() {
        let mut stream = FailingStream::default();
        let mut buffer = ReplyBuffer::default();
        let deadline = Moment::new(Duration::ZERO);
        for reply in ["250 one\r\n", "250 two\r\n", ""] {
            buffer.add(reply.as_bytes());
            let error = buffer.send(&mut stream, deadline).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        }
        assert_eq!(stream.written, b"250");
    }
}
