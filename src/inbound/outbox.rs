//! Replies on their way out: collected, and sent together (RFC 2920 §3.2).
//!
//! An error is remembered. Half a reply may have gone out before it, and whatever came behind that
//! half would be heard as the answer to something else.

use std::io;

use crate::sys::{Moment, Stream};

/// Collected replies are sent before there are more octets of them than this.
const OCTETS_MAX: usize = 16 * 1024;

/// What is to be sent, unless the connection is lost.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    octets: Vec<u8>,
    lost: Option<io::ErrorKind>,
}

impl Outbox {
    /// To be sent with what is here already.
    pub(super) fn add(&mut self, octets: &[u8]) {
        self.octets.extend_from_slice(octets);
    }

    /// It is time to send.
    pub(super) fn is_full(&self) -> bool {
        self.octets.len() > OCTETS_MAX
    }

    /// Sends everything by `deadline`.
    ///
    /// # Errors
    /// As the connection says, and from then on always.
    pub(super) fn send(&mut self, stream: &mut dyn Stream, deadline: Moment) -> io::Result<()> {
        let octets = std::mem::take(&mut self.octets);
        if let Some(lost) = self.lost {
            return Err(lost.into());
        }
        if octets.is_empty() {
            return Ok(());
        }
        stream.set_deadline(deadline);
        let sent = stream.write_all(&octets).and_then(|()| stream.flush());
        self.lost = sent.as_ref().err().map(io::Error::kind);
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
    struct Stumbles {
        writes: usize,
        heard: Vec<u8>,
    }

    impl Read for Stumbles {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Ok(0)
        }
    }

    impl Write for Stumbles {
        fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
            self.writes += 1;
            let taken = match self.writes {
                1 => octets.get(..3).unwrap(),
                2 => return Err(io::ErrorKind::TimedOut.into()),
                _ => octets,
            };
            self.heard.extend_from_slice(taken);
            Ok(taken.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Stream for Stumbles {
        fn set_deadline(&mut self, _: Moment) {}

        fn finish(&mut self) -> io::Result<()> {
            Ok(())
        }

        fn abort(&mut self) {}
    }

    #[test]
    fn nothing_goes_out_behind_half_a_reply() {
        let mut stream = Stumbles::default();
        let mut outbox = Outbox::default();
        let deadline = Moment::new(Duration::ZERO);
        for reply in ["250 one\r\n", "250 two\r\n", ""] {
            outbox.add(reply.as_bytes());
            let error = outbox.send(&mut stream, deadline).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        }
        assert_eq!(stream.heard, b"250");
    }
}
