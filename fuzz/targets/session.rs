//! Whole conversations with the server machine: it answers each line, and never more than that.
#![no_main]

use std::sync::Arc;

use libfuzzer_sys::fuzz_target;
use postrider::mail::{Domain, Mailbox, MessageId, Recipient, ScramKeys, Timestamp, TlsFacts};
use postrider::smtp::{
    Action, Answer, Evidence, Kind, LineBuffer, LineEnds, Question, ScramStart, Server, Settings, Verdict,
};

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

fn server() -> Option<Server> {
    let settings = Settings {
        hostname: Domain::parse("here.example").ok()?,
        kind: Kind::Smtp,
        message_octets_max: 1000,
        recipients_max: 5,
        line_ends: LineEnds::Strict,
        tls_available: true,
        logins_exist: true,
        scram_available: true,
        errors_max: 10,
    };
    Some(Server::new(Arc::new(settings), None))
}

fn answer(question: &Question) -> Option<Answer> {
    let ana = Mailbox::parse("ana@here.example").ok()?;
    Some(match question {
        Question::Sender { .. } => Answer::Accepted,
        Question::Recipient(_) => Answer::Recipients(vec![Recipient::mailbox(ana)]),
        Question::Login(login) => match &login.evidence {
            Evidence::Password(password) if password == "secret" => Answer::User(ana),
            // No input finds the right one; what follows it is to be reached all the same.
            Evidence::Proof { .. } => Answer::User(ana),
            Evidence::Password(_) => Answer::WrongLogin,
        },
        Question::ScramStart { .. } => Answer::ScramStart(Box::new(ScramStart {
            keys: ScramKeys { salt: vec![7; 16], iterations: 4096, stored_key: [7; 32], server_key: [8; 32] },
            nonce: "nonce".to_owned(),
            channel_binding: Some(vec![9; 32]),
        })),
        Question::Content(_) => Answer::Queued(MessageId::new(Timestamp::from_millis(0), 1)),
    })
}
