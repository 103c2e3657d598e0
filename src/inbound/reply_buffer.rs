//! Replies on their way out: collected, and sent together (RFC 2920 §3.2).
//!
//! An error is remembered. Half a reply may have gone out before it, and whatever came behind that
//! half would be heard as the answer to something else.

use std::io;

use crate::sys::{Moment, Stream};

/// Collected replies are sent before there are more octets of them than this.
const BUFFERED_OCTETS_MAX: usize = 16 * 1024;

/// What is to be sent, unless the connection is lost.
#[derive(Debug, Default)]
pub(super) struct ReplyBuffer {
    octets: Vec<u8>,
    write_error: Option<io::ErrorKind>,
}

impl ReplyBuffer {
    /// To be sent with what is here already.
    pub(super) fn add(&mut self, octets: &[u8]) {
        self.octets.extend_from_slice(octets);
    }

    /// It is time to send.
    pub(super) fn is_full(&self) -> bool {
        self.octets.len() > BUFFERED_OCTETS_MAX
    }

    /// Sends everything by `deadline`.
    ///
    /// # Errors
    /// As the connection says, and from then on always.
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

    /// Takes three octets, then nothing once, then everything.
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
    fn nothing_goes_out_behind_half_a_reply() {
        let mut stream = FailingStream::default();
        let mut outbox = ReplyBuffer::default();
        let deadline = Moment::new(Duration::ZERO);
        for reply in ["250 one\r\n", "250 two\r\n", ""] {
            outbox.add(reply.as_bytes());
            let error = outbox.send(&mut stream, deadline).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        }
        assert_eq!(stream.written, b"250");
    }
}
