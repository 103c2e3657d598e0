//! The octets between the server and a program: what the program reads and what it prints.

use std::io::{self, PipeReader, Read, Write as _};
use std::process::ChildStdin;

/// The output of a program.
pub(super) struct CapturedOutput {
    /// `None` after the end of the output.
    pub(super) pipe: Option<PipeReader>,
    pub(super) captured: Vec<u8>,
    octets_max: usize,
}

impl CapturedOutput {
    pub(super) fn new(pipe: Option<PipeReader>, octets_max: usize) -> Self {
        Self { pipe, captured: Vec::new(), octets_max }
    }

    /// Reads what the program has printed so far.
    pub(super) fn read_available(&mut self) {
        let Some(pipe) = &mut self.pipe else { return };
        let mut buffer = [0; 4096];
        // Bounded, so that a program that prints without end does not delay the check of its deadline.
        for _ in 0..64 {
            match pipe.read(&mut buffer) {
                Ok(count) if count > 0 => {
                    let room = self.octets_max.saturating_sub(self.captured.len());
                    self.captured.extend_from_slice(buffer.get(..count.min(room)).unwrap_or_default());
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return,
                Ok(_) | Err(_) => {
                    self.pipe = None;
                    return;
                }
            }
        }
    }
}

/// Input that was read and not yet written to the program.
pub(super) struct InputBuffer {
    octets: Vec<u8>,
    start: usize,
    end: usize,
}

/// Half of a Linux pipe, so that the pipe has room for the next piece while it is read.
const INPUT_BUFFER_OCTETS: usize = 32 * 1024;

impl InputBuffer {
    pub(super) fn new() -> Self {
        Self { octets: vec![0; INPUT_BUFFER_OCTETS], start: 0, end: 0 }
    }

    /// Writes as much as the pipe takes; false when there is no more to write. An error comes from `input`:
    /// a program that does not read its standard input is not an error.
    pub(super) fn write_some(&mut self, input: &mut dyn Read, stdin: &mut ChildStdin) -> io::Result<bool> {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
            self.end = loop {
                match input.read(&mut self.octets) {
                    Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                    other => break other?,
                }
            };
        }
        if self.start == self.end {
            return Ok(false);
        }
        match stdin.write(self.octets.get(self.start..self.end).unwrap_or_default()) {
            Ok(count) => self.start += count,
            Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
            Err(_) => return Ok(false),
        }
        Ok(true)
    }
}
