//! Messages after DATA and BDAT: the result does not depend on the segments in which the octets arrive, and a
//! message is the same after it was sent and read again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use postrider::smtp::{BareLineEndPolicy, BodyEnd, BodyReader, DotStuffer};

fuzz_target!(|input: (u8, &[u8])| {
    let (mode, octets) = input;
    let (cut, is_normalized, is_chunked) = (mode & 0x3f, mode & 0x40 != 0, mode & 0x80 != 0);
    let line_ends = if is_normalized { BareLineEndPolicy::Normalize } else { BareLineEndPolicy::Reject };
    let reader = match is_chunked {
        true => BodyReader::in_chunks(0, line_ends),
        false => BodyReader::new(0, line_ends),
    };
    let whole = read(reader.clone(), is_chunked, octets, octets.len().max(1));
    assert_eq!(read(reader, is_chunked, octets, usize::from(cut) + 1), whole);
    let (message, end) = whole;
    if let Some((used, BodyEnd::Complete(facts))) = end {
        assert!(used <= octets.len());
        assert_eq!(facts.octets, message.len() as u64);
        let mut wire = Vec::new();
        let mut stuffer = DotStuffer::new();
        stuffer.feed(&message, &mut |octets| wire.extend_from_slice(octets));
        stuffer.finish(&mut |octets| wire.extend_from_slice(octets));
        let strict = BodyReader::new(0, BareLineEndPolicy::Reject);
        let again = read(strict, false, &wire, wire.len());
        assert_eq!(again, (message, Some((wire.len(), BodyEnd::Complete(facts)))));
    }
});

fn read(
    mut reader: BodyReader,
    is_chunked: bool,
    octets: &[u8],
    cut: usize,
) -> (Vec<u8>, Option<(usize, BodyEnd)>) {
    let mut message = Vec::new();
    let mut before = 0;
    let mut sink = |octets: &[u8]| message.extend_from_slice(octets);
    let mut end = None;
    for segment in octets.chunks(cut) {
        if let Some((used, seen)) = reader.feed(segment, &mut sink) {
            end = Some((before + used, seen));
            break;
        }
        before += segment.len();
    }
    if is_chunked && end.is_none() {
        end = Some((before, reader.finish(&mut sink)));
    }
    if !matches!(end, Some((_, BodyEnd::Complete(_)))) {
        // The caller discards it.
        message.clear();
    }
    (message, end)
}
