//! The server machine, and answers to its questions, for the targets that run it.

use std::sync::Arc;

use postrider::mail::{Domain, Mailbox, MessageId, Recipient, ScramKeys, SenderFacts, Timestamp};
use postrider::smtp::{
    Answer, BareLineEndPolicy, Evidence, Question, ScramStart, Server, ServerKind, Settings,
};

/// A server with users, to which a client has just connected.
#[must_use]
pub fn server() -> Option<Server> {
    let settings = Settings {
        hostname: Domain::parse("here.example").ok()?,
        kind: ServerKind::Smtp,
        message_octets_max: 1000,
        recipients_max: 5,
        bare_line_ends: BareLineEndPolicy::Reject,
        has_tls: true,
        has_users: true,
        has_scram: true,
        errors_max: 10,
    };
    Some(Server::new(Arc::new(settings), None))
}

/// The answers of a policy that accepts almost everything.
#[must_use]
pub fn answer(question: &Question) -> Option<Answer> {
    let ana = Mailbox::parse("ana@here.example").ok()?;
    Some(match question {
        Question::Sender { .. } => Answer::Sender(SenderFacts::default()),
        Question::Recipient(_) => Answer::Recipients(vec![Recipient::for_mailbox(ana)]),
        Question::Login(login) => match &login.evidence {
            Evidence::Password(password) if password == "secret" => Answer::User(ana),
            // No input can contain the right proof, but the code after it must be reached.
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
