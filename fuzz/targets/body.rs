//! Messages after DATA: cut into any segments they are read the same, and what was read comes
//! through being written and read again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use postrider::smtp::{BodyEnd, BodyReader, DotStuffer};

fuzz_target!(|input: (u8, &[u8])| {
    let (cut, octets) = input;
    let whole = read(octets, octets.len().max(1));
    assert_eq!(read(octets, usize::from(cut) + 1), whole);
    let (message, end) = whole;
    if let Some((used, BodyEnd::Complete(facts))) = end {
        assert!(used <= octets.len());
        assert_eq!(facts.octets, message.len() as u64);
        let mut wire = Vec::new();
        let mut stuffer = DotStuffer::new();
        stuffer.feed(&message, &mut |octets| wire.extend_from_slice(octets));
        stuffer.finish(&mut |octets| wire.extend_from_slice(octets));
        assert_eq!(read(&wire, wire.len()), (message, Some((wire.len(), BodyEnd::Complete(facts)))));
    }
});

fn read(octets: &[u8], cut: usize) -> (Vec<u8>, Option<(usize, BodyEnd)>) {
    let mut reader = BodyReader::new(0);
    let mut message = Vec::new();
    let mut before = 0;
    for segment in octets.chunks(cut) {
        if let Some((used, end)) = reader.feed(segment, &mut |octets| message.extend_from_slice(octets)) {
            if !matches!(end, BodyEnd::Complete(_)) {
                message.clear(); // it is to be thrown away
            }
            return (message, Some((before + used, end)));
        }
        before += segment.len();
    }
    (message, None)
}
