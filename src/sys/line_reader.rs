//! Reads lines from a stream, of which the other side may be slow, silent or hostile.
//!
//! A line ends with LF. Its length is bounded; for how long a read may wait is a matter of the stream, see
//! [`super::Stream::set_deadline`]. Not for SMTP, where a line ends with CRLF and nothing else:
//! `smtp::LineBuffer` reads that.

use std::io::{self, Read};

/// Octets read at a time.
const READ_OCTETS: usize = 4096;

/// Reads lines that end with LF.
#[derive(Debug)]
pub struct LineReader<R> {
    stream: R,
    octets_max: usize,
    unread: Vec<u8>,
    /// The first octets of `unread`, in which there is no line end.
    scanned: usize,
}

impl<R: Read> LineReader<R> {
    /// Reads lines of at most `octets_max` octets, the line end not counted.
    pub fn new(stream: R, octets_max: usize) -> Self {
        Self { stream, octets_max, unread: Vec::new(), scanned: 0 }
    }

    /// The stream, to write to it.
    pub fn stream_mut(&mut self) -> &mut R {
        &mut self.stream
    }

    /// The next line, without its end.
    ///
    /// # Errors
    /// As the stream fails; [`io::ErrorKind::UnexpectedEof`] if the stream ends before the line does, see
    /// [`Self::take_rest`]; [`io::ErrorKind::InvalidData`] for a line that is too long.
    pub fn read_line(&mut self) -> io::Result<Vec<u8>> {
        let mut block = [0; READ_OCTETS];
        loop {
            let end = memchr::memchr(b'\n', self.unread.get(self.scanned..).unwrap_or_default());
            let end = end.map(|at| self.scanned + at);
            if end.unwrap_or(self.unread.len()) > self.octets_max {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "a line is too long"));
            }
            if let Some(end) = end {
                self.scanned = 0;
                let mut line: Vec<u8> = self.unread.drain(..=end).collect();
                line.pop();
                return Ok(line);
            }
            self.scanned = self.unread.len();
            match self.stream.read(&mut block) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(count) => self.unread.extend_from_slice(block.get(..count).unwrap_or_default()),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
    }

    /// The octets that were read and are not part of a line that was returned.
    pub fn take_rest(&mut self) -> Vec<u8> {
        self.scanned = 0;
        std::mem::take(&mut self.unread)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives one octet at a time, and an interrupted read before each.
    struct OneOctetReader<'a>(&'a [u8], bool);

    impl Read for OneOctetReader<'_> {
        fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
            self.1 = !self.1;
            if self.1 {
                return Err(io::ErrorKind::Interrupted.into());
            }
            let count = into.len().min(1);
            self.0.read(&mut into[..count])
        }
    }

    #[test]
    fn lines_are_the_same_however_they_arrive() {
        let text = b"one\n\ntwo\r\nrest";
        for stream in [Box::new(OneOctetReader(text, false)) as Box<dyn Read>, Box::new(&text[..])] {
            let mut lines = LineReader::new(stream, 4);
            for expected in [&b"one"[..], b"", b"two\r"] {
                assert_eq!(lines.read_line().unwrap(), expected);
            }
            assert_eq!(lines.read_line().unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
            assert_eq!(lines.take_rest(), b"rest");
            assert_eq!(lines.take_rest(), b"");
        }
    }

    #[test]
    fn a_line_is_refused_as_soon_as_it_is_too_long() {
        let endless = io::repeat(b'x');
        let mut lines = LineReader::new(endless, 100_000);
        assert_eq!(lines.read_line().unwrap_err().kind(), io::ErrorKind::InvalidData);
        assert!(lines.take_rest().len() <= 100_000 + READ_OCTETS);
        assert_eq!(LineReader::new(&b"12345\n"[..], 5).read_line().unwrap(), b"12345");
        let error = LineReader::new(&b"123456\n"[..], 5).read_line().unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    }
}
