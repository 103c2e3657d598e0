//! The pure parts of a session: line reader, server machine, body reader and dot-stuffer.
//!
//! `make bench T=machine`. Without input and output, so that two runs on one host agree; compare two builds in
//! turn.

#![allow(missing_docs, clippy::unwrap_used, reason = "a benchmark stops at an error")]

use std::sync::Arc;

use divan::counter::{BytesCount, ItemsCount};
use divan::{Bencher, black_box};
use postrider::mail::{Domain, Mailbox, MessageId, Recipient, SenderFacts, Timestamp};
use postrider::smtp::{
    Answer, BareLineEndPolicy, BodyReader, DotStuffer, LineBuffer, Question, Server, ServerAction,
    ServerKind, Settings, Verdict,
};

fn main() {
    divan::main();
}

/// Octets of a read of command lines.
const SEGMENT_OCTETS: usize = 2048;
/// Octets of a read of a message.
const BODY_SEGMENT_OCTETS: usize = 32 * 1024;

#[divan::bench]
fn line_reader(bencher: Bencher<'_, '_>) {
    let lines = b"RCPT TO:<somebody@here.example> NOTIFY=FAILURE,DELAY\r\n".repeat(1000);
    bencher.counter(BytesCount::of_slice(&lines)).bench(|| {
        let mut buffer = LineBuffer::new();
        for segment in lines.chunks(SEGMENT_OCTETS) {
            buffer.push(segment);
            while let Some(line) = buffer.next_line(LineBuffer::COMMAND_OCTETS_MAX) {
                black_box(line).unwrap();
            }
        }
    });
}

/// A message of 1 MiB in lines of 70 octets, one in ten with a dot to unstuff.
fn message_on_the_wire() -> Vec<u8> {
    let plain = format!("{}\r\n", "x".repeat(70));
    let mut wire = Vec::new();
    while wire.len() < 1024 * 1024 {
        wire.extend_from_slice(plain.repeat(9).as_bytes());
        wire.extend_from_slice(format!("..{}", plain).as_bytes());
    }
    wire.extend_from_slice(b".\r\n");
    wire
}

#[divan::bench]
fn body_reader(bencher: Bencher<'_, '_>) {
    let wire = message_on_the_wire();
    bencher.counter(BytesCount::of_slice(&wire)).bench(|| {
        let mut reader = BodyReader::new(0, BareLineEndPolicy::Reject);
        let mut octets = 0;
        for segment in wire.chunks(BODY_SEGMENT_OCTETS) {
            if let Some(end) = reader.feed(segment, &mut |part| octets += part.len()) {
                black_box(end);
            }
        }
        octets
    });
}

#[divan::bench]
fn dot_stuffer(bencher: Bencher<'_, '_>) {
    let mut message = Vec::new();
    BodyReader::new(0, BareLineEndPolicy::Reject)
        .feed(&message_on_the_wire(), &mut |part| message.extend_from_slice(part))
        .unwrap();
    bencher.counter(BytesCount::of_slice(&message)).bench(|| {
        let mut stuffer = DotStuffer::new();
        let mut octets = 0;
        for segment in message.chunks(BODY_SEGMENT_OCTETS) {
            stuffer.feed(segment, &mut |part| octets += part.len());
        }
        stuffer.finish(&mut |part| octets += part.len());
        octets
    });
}

fn settings() -> Arc<Settings> {
    Arc::new(Settings {
        hostname: Domain::parse("here.example").unwrap(),
        kind: ServerKind::Smtp,
        message_octets_max: 0,
        recipients_max: 100,
        bare_line_ends: BareLineEndPolicy::Reject,
        has_tls: false,
        has_users: false,
        has_scram: false,
        errors_max: 10,
    })
}

/// Transactions from MAIL to 250, in one session.
#[divan::bench]
fn session_machine(bencher: Bencher<'_, '_>) {
    const TRANSACTIONS: usize = 100;
    let settings = settings();
    let bo = Recipient::for_mailbox(Mailbox::parse("bo@here.example").unwrap());
    let id = MessageId::new(Timestamp::from_millis(0), 1);
    let decide = |question: &Question| match question {
        Question::Sender { .. } => Answer::Sender(SenderFacts::default()),
        Question::Recipient(_) => Answer::Recipients(vec![bo.clone()]),
        Question::Content(_) => Answer::Queued(id),
        Question::Login(_) | Question::ScramStart { .. } => Answer::WrongLogin,
    };
    let lines: [&[u8]; 3] =
        [b"MAIL FROM:<ana@there.example> SIZE=4096", b"RCPT TO:<bo@here.example>", b"DATA"];
    bencher.counter(ItemsCount::new(TRANSACTIONS)).bench(|| {
        let mut server = Server::new(Arc::clone(&settings), None);
        server.greeting();
        server.line(Ok(b"EHLO there.example"));
        for _ in 0..TRANSACTIONS {
            for line in lines {
                let mut action = server.line(Ok(line));
                loop {
                    action = match action {
                        ServerAction::Ask(question) => server.answer(Verdict::new(decide(&question))),
                        ServerAction::Receive { .. } => {
                            server.body(b"Subject: x\r\n\r\nx\r\n.\r\n", &mut |_| {}).unwrap().1
                        }
                        ServerAction::Reply(reply) => {
                            black_box(reply.to_octets());
                            break;
                        }
                        other => panic!("{other:?}"),
                    };
                }
            }
        }
    });
}
