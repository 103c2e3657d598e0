//! Command lines: the lines do not depend on the segments in which the octets arrive.
#![no_main]

use libfuzzer_sys::fuzz_target;
use postrider::smtp::{LineBuffer, LineError};

fuzz_target!(|input: (u8, &[u8])| {
    let (cut, octets) = input;
    assert_eq!(lines(octets, usize::from(cut) + 1), lines(octets, octets.len().max(1)));
});

fn lines(octets: &[u8], cut: usize) -> Vec<Result<Vec<u8>, LineError>> {
    let mut buffer = LineBuffer::new();
    let mut lines = Vec::new();
    for segment in octets.chunks(cut) {
        buffer.push(segment);
        while let Some(line) = buffer.next_line(64) {
            lines.push(line.map(<[u8]>::to_vec));
            // The session ends here, and the rest of the handshake does not matter.
            if lines.last() == Some(&Err(LineError::TlsHandshake)) {
                return lines;
            }
        }
    }
    lines
}
