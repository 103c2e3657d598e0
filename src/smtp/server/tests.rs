//! What the server machine keeps to, whatever is said to it; conversations are in `testdata/dialogs`.

use proptest::prelude::*;

use super::*;
use crate::mail::{Failure, MessageId, Recipient, ScramKeys, Timestamp};
use crate::smtp::{BodyFacts, ScramStart, Status};

fn server() -> Server {
    let settings = Settings {
        hostname: Domain::parse("bücher.example").unwrap(),
        kind: Kind::Smtp,
        message_octets_max: 1000,
        recipients_max: 3,
        tls_available: true,
        logins_exist: true,
        scram_available: true,
        errors_max: 5,
    };
    Server::new(settings, None)
}

fn facts() -> TlsFacts {
    TlsFacts { version: "TLSv1.3".to_owned(), cipher: "TLS_AES_128_GCM_SHA256".to_owned() }
}

fn reply(action: Action) -> Reply {
    match action {
        Action::Reply(reply) => reply,
        other => panic!("{other:?}"),
    }
}

#[test]
fn we_call_ourselves_by_a_labels() {
    let Action::Reply(greeting) = server().greeting() else { panic!() };
    assert!(greeting.lines[0].starts_with("xn--bcher-kva.example "));
}

#[test]
fn a_transaction_knows_what_the_stamp_needs() {
    let mut server = server();
    server.line(Ok(b"STARTTLS"));
    assert_eq!(server.tls(Some(facts())), Action::Continue);
    server.line(Ok(b"EHLO there.example"));
    server.line(Ok(b"AUTH PLAIN AGFuYQBzZWNyZXQ="));
    let ana = Mailbox::parse("ana@here.example").unwrap();
    assert_eq!(reply(server.answer(Verdict::new(Answer::User(ana.clone())))).code, 235);
    server.line(Ok(b"MAIL FROM:<> BODY=8BITMIME SMTPUTF8"));
    assert!(server.transaction().is_none(), "nothing has begun before the policy has agreed");
    server.answer(Verdict::new(Answer::Accepted));
    server.line(Ok(b"RCPT TO:<bo@here.example>"));
    let bo = Recipient::mailbox(Mailbox::parse("bo@here.example").unwrap());
    server.answer(Verdict::new(Answer::Recipients(vec![bo.clone(), bo.clone()])));
    let transaction = server.transaction().unwrap();
    assert!(transaction.reverse_path.is_null() && transaction.parameters.smtputf8 && transaction.is_esmtp);
    assert_eq!(transaction.recipients, [bo]);
    assert_eq!(transaction.hello.as_str(), "there.example");
    assert_eq!((&transaction.login, &transaction.tls), (&Some(ana), &Some(facts())));
}

#[test]
fn a_password_is_not_shown_on_either_way_in() {
    let mut server = Server { tls: Some(facts()), ..server() };
    server.line(Ok(b"EHLO there.example"));
    assert!(!server.shown(b"AUTH PLAIN AGFuYQBzZWNyZXQ=").contains("AGFu"));
    server.line(Ok(b"AUTH PLAIN"));
    assert!(!server.shown(b"AGFuYQBzZWNyZXQ=").contains("AGFu"));
}

#[test]
fn a_shell_that_does_not_follow_is_told_to_stop() {
    let mut asked = server();
    asked.line(Ok(b"HELO there.example"));
    asked.line(Ok(b"MAIL FROM:<>"));
    for action in [
        asked.line(Ok(b"NOOP")),
        server().answer(Verdict::new(Answer::Accepted)),
        server().body(BodyEnd::TooBig),
        server().tls(Some(facts())),
    ] {
        assert!(matches!(action, Action::ReplyAndClose(reply) if reply.code == 421));
    }
}

#[test]
fn the_status_stands_on_every_line_of_a_refusal_and_agrees_with_it() {
    let mut server = server();
    server.line(Ok(b"HELO there.example"));
    server.line(Ok(b"MAIL FROM:<>"));
    let status = Some(Status { class: 4, subject: 7, detail: 1 });
    let lines = vec!["one".to_owned(), "two".to_owned()];
    let no = Answer::RefusedWith(Reply { code: 550, status, lines });
    let reply = reply(server.answer(Verdict::new(no).because("it is Monday")));
    assert_eq!(reply.to_octets(), b"550-5.7.1 one\r\n550 5.7.1 two\r\n");
}

/// How many of the lines are answered before 421 4.7.0.
fn answered<'a>(server: &mut Server, lines: impl IntoIterator<Item = &'a [u8]>) -> usize {
    let mut count = 0;
    for line in lines {
        let mut action = server.line(Ok(line));
        while let Action::Ask(question) = &action {
            action = server.answer(verdict(question, 7));
        }
        match action {
            Action::Reply(_) => count += 1,
            Action::ReplyAndClose(reply) => {
                assert_eq!((reply.code, reply.status.unwrap().subject), (421, 7));
                return count;
            }
            other => panic!("{other:?}"),
        }
    }
    panic!("it goes on for ever");
}

#[test]
fn commands_that_lead_nowhere_come_to_an_end() {
    let lines: [&[&[u8]]; 6] = [
        &[b"NOOP"],
        &[b"RSET"],
        &[b"VRFY ana"],
        &[b"HELP", b"NOOP"],
        &[b"EHLO there.example", b"HELO there.example"],
        &[b"EHLO there.example", b"MAIL FROM:<>", b"RSET"],
    ];
    for lines in lines {
        assert_eq!(answered(&mut server(), lines.iter().copied().cycle().take(10_000)), 100, "{lines:?}");
    }
}

#[test]
fn a_client_that_brings_mail_may_go_on() {
    let mut server = server();
    let mut queued = 0;
    for line in
        [b"EHLO a".as_slice(), b"MAIL FROM:<>", b"RCPT TO:<c@d.example>", b"DATA"].iter().cycle().take(800)
    {
        let mut action = server.line(Ok(line));
        loop {
            action = match action {
                Action::Ask(question) => server.answer(verdict(&question, 7)),
                Action::ReceiveBody { .. } => {
                    queued += 1;
                    server.body(BodyEnd::Complete(BodyFacts::default()))
                }
                other => {
                    assert_eq!(reply(other).code, 250);
                    break;
                }
            }
        }
    }
    assert_eq!(queued, 200);
}

#[test]
fn recipients_above_the_limit_are_put_off_a_thousand_times_and_no_more() {
    let mut server = server();
    let lines = [b"EHLO a".as_slice(), b"MAIL FROM:<>"];
    let recipients = std::iter::repeat_n(b"RCPT TO:<c@d.example>".as_slice(), 10_000);
    assert_eq!(answered(&mut server, lines.into_iter().chain(recipients)), 2 + 3 + 1000);
}

/// What a random client sends: half of it makes sense.
fn line() -> impl Strategy<Value = Vec<u8>> {
    let known: Vec<&[u8]> = vec![
        b"EHLO a",
        b"HELO a",
        b"MAIL FROM:<>",
        b"MAIL FROM:<a@b.example> SIZE=9999",
        b"RCPT TO:<c@d.example>",
        b"DATA",
        b"RSET",
        b"STARTTLS",
        b"AUTH PLAIN",
        b"AUTH PLAIN AGFuYQBzZWNyZXQ=",
        b"AUTH LOGIN",
        b"YW5h",
        b"AUTH SCRAM-SHA-256",
        // n,,n=ana,r=abc and then c=biws,r=abcd,p=… with a wrong proof.
        b"AUTH SCRAM-SHA-256 biwsbj1hbmEscj1hYmM=",
        b"Yz1iaXdzLHI9YWJjZCxwPWRIemJaYXBXSWs0alVoTitVdGU5eXRhZzl6amZNSGdzcW1taXo3QW5kVlE9",
        b"",
        b"*",
        b"NOOP",
        b"QUIT",
    ];
    prop_oneof![
        9 => prop::sample::select(known).prop_map(<[u8]>::to_vec),
        1 => prop::collection::vec(any::<u8>(), 0..20),
    ]
}

fn verdict(question: &Question, luck: u8) -> Verdict {
    Verdict::new(match (luck % 8, question) {
        (0, _) => Answer::Refused(Failure::transient(3, 0, "not now")),
        (1, _) => Answer::Refused(Failure::permanent(7, 1, "never")),
        (2, _) => Answer::RefusedWith(Reply::plain(250, "odd")),
        (_, Question::Sender { .. }) => Answer::Accepted,
        (_, Question::Recipient(ForwardPath::Mailbox(mailbox))) => {
            Answer::Recipients(vec![Recipient::mailbox(mailbox.clone())])
        }
        (_, Question::Recipient(ForwardPath::Postmaster)) => Answer::Recipients(Vec::new()),
        (_, Question::ScramStart { .. }) => Answer::ScramStart(Box::new(ScramStart {
            keys: ScramKeys { salt: vec![7; 16], iterations: 4096, stored_key: [7; 32], server_key: [8; 32] },
            nonce: "d".to_owned(),
            channel_binding: None,
        })),
        (_, Question::Login(_)) => Answer::User(Mailbox::parse("ana@here.example").unwrap()),
        (_, Question::Content(_)) => Answer::Queued(MessageId::new(Timestamp::from_millis(0), 0)),
    })
}

proptest! {
    #[test]
    fn whatever_comes_there_is_one_sound_reply(
        steps in prop::collection::vec((line(), any::<u8>()), 0..60),
    ) {
        let mut server = server();
        for (line, luck) in steps {
            let mut action = server.line(Ok(&line));
            loop {
                action = match action {
                    Action::Ask(question) => {
                        if matches!(question, Question::Content(_)) {
                            prop_assert!(!server.transaction().unwrap().recipients.is_empty());
                        }
                        server.answer(verdict(&question, luck))
                    }
                    Action::ReceiveBody { reply, .. } => {
                        prop_assert_eq!(reply.status, None);
                        prop_assert!(!server.transaction().unwrap().recipients.is_empty());
                        server.body(BodyEnd::Complete(BodyFacts::default()))
                    }
                    Action::StartTls(_) => {
                        let action = server.tls(Some(facts()));
                        prop_assert!(server.hello().is_none() && server.transaction().is_none());
                        action
                    }
                    Action::Reply(reply) => {
                        prop_assert!(reply.status.is_none_or(|status| status.class == reply.code / 100));
                        prop_assert!(reply.status.is_some() || matches!(reply.code, 250 | 334));
                        break;
                    }
                    Action::Continue => break,
                    Action::ReplyAndClose(_) | Action::Close => return Ok(()),
                };
            }
        }
    }
}
