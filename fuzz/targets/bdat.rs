//! Messages in chunks: the result does not depend on the segments in which the octets arrive, and the line after
//! the last chunk is read as a command.
#![no_main]

use libfuzzer_sys::fuzz_target;
use postrider::smtp::{LineBuffer, ServerAction, Verdict};
use postrider_fuzz::{answer, server};

fuzz_target!(|input: (u8, Vec<Vec<u8>>)| {
    let (cut, mut chunks) = input;
    // The server ends a session with too many commands without a message.
    chunks.truncate(50);
    let mut wire = b"EHLO x\r\nMAIL FROM:<>\r\nRCPT TO:<ana@here.example>\r\n".to_vec();
    for (number, chunk) in chunks.iter().enumerate() {
        let last = if number + 1 == chunks.len() { " LAST" } else { "" };
        wire.extend_from_slice(format!("BDAT {}{last}\r\n", chunk.len()).as_bytes());
        wire.extend_from_slice(chunk);
    }
    wire.extend_from_slice(b"NOOP\r\n");
    let whole = talk(&wire, wire.len());
    let cut = talk(&wire, usize::from(cut) + 1);
    assert_eq!(cut.0, whole.0);
    // A part of a message that is refused may have gone to the sink.
    if whole.0.iter().rev().nth(1) == Some(&250) {
        assert_eq!(cut.1, whole.1);
    }
    // The greeting, and one reply for each command.
    assert_eq!(whole.0.len(), chunks.len() + 5);
    assert_eq!(whole.0.last(), Some(&250));
});

/// The codes of all replies, and the octets of the message.
fn talk(wire: &[u8], cut: usize) -> (Vec<u16>, Vec<u8>) {
    let (mut codes, mut message) = (Vec::new(), Vec::new());
    let Some(mut server) = server() else { return (codes, message) };
    let mut lines = LineBuffer::new();
    let mut segments = wire.chunks(cut);
    let mut action = server.greeting();
    loop {
        action = match action {
            ServerAction::Reply(_) | ServerAction::Continue => {
                if let ServerAction::Reply(reply) = action {
                    codes.push(reply.code);
                }
                loop {
                    if let Some(line) = lines.next_line(server.line_octets_max()) {
                        break server.line(line);
                    }
                    let Some(segment) = segments.next() else { return (codes, message) };
                    lines.push(segment);
                }
            }
            ServerAction::Ask(question) => match answer(&question) {
                Some(answer) => server.answer(Verdict::new(answer)),
                None => return (codes, message),
            },
            ServerAction::Receive { .. } => loop {
                let pending = lines.pending();
                let octets = pending.len();
                if let Some((used, action)) =
                    server.body(pending, &mut |kept| message.extend_from_slice(kept))
                {
                    lines.consume(used);
                    break action;
                }
                lines.consume(octets);
                let Some(segment) = segments.next() else { return (codes, message) };
                lines.push(segment);
            },
            other => panic!("{other:?}"),
        };
    }
}
