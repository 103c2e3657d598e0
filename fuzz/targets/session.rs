//! Whole sessions of the server machine: no line of a reply contains a line end.
#![no_main]

use libfuzzer_sys::fuzz_target;
use postrider::mail::TlsInfo;
use postrider::smtp::{LineBuffer, ServerAction, Verdict};
use postrider_fuzz::{answer, server};

fuzz_target!(|octets: &[u8]| {
    let Some(mut server) = server() else { return };
    let mut lines = LineBuffer::new();
    lines.push(octets);
    let mut action = server.greeting();
    loop {
        action = match action {
            ServerAction::Reply(reply) => {
                assert!(!reply.lines.iter().any(|line| line.contains(['\r', '\n'])), "{reply:?}");
                match lines.next_line(server.line_octets_max()) {
                    Some(line) => server.line(line),
                    None => return,
                }
            }
            ServerAction::Continue => match lines.next_line(server.line_octets_max()) {
                Some(line) => server.line(line),
                None => return,
            },
            ServerAction::Ask(question) => match answer(&question) {
                Some(answer) => server.answer(Verdict::new(answer)),
                None => return,
            },
            ServerAction::Receive { .. } => match server.body(lines.pending(), &mut |_| {}) {
                Some((used, action)) => {
                    lines.consume(used);
                    action
                }
                None => return,
            },
            ServerAction::StartTls(_) => {
                let tls = TlsInfo { version: "TLSv1.3".to_owned(), cipher: "X".to_owned() };
                server.handshake_done(Some(tls))
            }
            ServerAction::ReplyAndClose(_)
            | ServerAction::RejectForeignProtocol { .. }
            | ServerAction::Close => return,
        };
    }
});
