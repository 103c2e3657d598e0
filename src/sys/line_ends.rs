//! Line ends for local programs and files: LF instead of CR LF.
//!
//! A message has CR LF in the spool and on the wire; local programs and mailbox files use LF.

use std::io::{self, BufRead as _, BufReader, Read};

/// Reads from another reader and replaces each CR LF by LF. A CR without LF stays.
pub struct LfReader<R> {
    inner: BufReader<R>,
    /// The last octet read was a CR, and the next octet is not known yet.
    has_pending_cr: bool,
}

impl<R: Read> LfReader<R> {
    /// Reads `inner`.
    #[must_use]
    pub fn new(inner: R) -> Self {
        Self { inner: BufReader::with_capacity(BUFFER_OCTETS, inner), has_pending_cr: false }
    }
}

impl<R: Read> Read for LfReader<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let mut written = 0;
        while let Some(room) = into.get_mut(written..).filter(|room| !room.is_empty()) {
            if written > 0 && self.inner.buffer().is_empty() {
                // The next read may fail: return first what was read.
                break;
            }
            let available = self.inner.fill_buf()?;
            if self.has_pending_cr {
                self.has_pending_cr = false;
                if let (false, Some(slot)) = (available.first() == Some(&b'\n'), room.first_mut()) {
                    *slot = b'\r';
                    written += 1;
                }
                continue;
            }
            match memchr::memchr(b'\r', available) {
                None if available.is_empty() => break,
                Some(0) => {
                    self.has_pending_cr = true;
                    self.inner.consume(1);
                }
                before_cr => {
                    let count = before_cr.unwrap_or(available.len()).min(room.len());
                    let (Some(from), Some(to)) = (available.get(..count), room.get_mut(..count)) else {
                        break;
                    };
                    to.copy_from_slice(from);
                    self.inner.consume(count);
                    written += count;
                }
            }
        }
        Ok(written)
    }
}

/// Octets read at a time.
const BUFFER_OCTETS: usize = 16 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives one octet at a time, so that every CR LF is split.
    struct OneOctetReader<'a>(&'a [u8]);

    impl Read for OneOctetReader<'_> {
        fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
            let count = into.len().min(1);
            self.0.read(&mut into[..count])
        }
    }

    #[test]
    fn crlf_becomes_lf_wherever_a_read_splits_it() {
        let wire = b"a\r\n\r\nb\rc\r\r\nd\ne\r";
        let file = b"a\n\nb\rc\r\nd\ne\r";
        for room in 1..12 {
            for reader in [Box::new(OneOctetReader(wire)) as Box<dyn Read>, Box::new(&wire[..])] {
                let mut reader = LfReader::new(reader);
                let mut read = Vec::new();
                let mut into = vec![0; room];
                loop {
                    match reader.read(&mut into).unwrap() {
                        0 => break,
                        count => read.extend_from_slice(&into[..count]),
                    }
                }
                assert_eq!(read, file, "{room} at a time");
            }
        }
    }
}
