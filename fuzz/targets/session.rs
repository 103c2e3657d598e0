//! Whole conversations with the server machine: it answers each line, and never more than that.
#![no_main]

use libfuzzer_sys::fuzz_target;
use postrider::mail::TlsFacts;
use postrider::smtp::{Action, LineBuffer, Verdict};
use postrider_fuzz::{answer, server};

fuzz_target!(|octets: &[u8]| {
    let Some(mut server) = server() else { return };
    let mut lines = LineBuffer::new();
    lines.push(octets);
    let mut action = server.greeting();
    loop {
        action = match action {
            Action::Reply(reply) => {
                assert!(!reply.lines.iter().any(|line| line.contains(['\r', '\n'])), "{reply:?}");
                match lines.next_line(server.line_octets_max()) {
                    Some(line) => server.line(line),
                    None => return,
                }
            }
            Action::Continue => match lines.next_line(server.line_octets_max()) {
                Some(line) => server.line(line),
                None => return,
            },
            Action::Ask(question) => match answer(&question) {
                Some(answer) => server.answer(Verdict::new(answer)),
                None => return,
            },
            Action::Receive { .. } => match server.body(lines.pending(), &mut |_| {}) {
                Some((used, action)) => {
                    lines.consume(used);
                    action
                }
                None => return,
            },
            Action::StartTls(_) => {
                let facts = TlsFacts { version: "TLSv1.3".to_owned(), cipher: "X".to_owned() };
                server.tls(Some(facts))
            }
            Action::ReplyAndClose(_) | Action::TurnAway { .. } | Action::Close => return,
        };
    }
});
