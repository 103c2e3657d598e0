//! Properties of the server under any input; conversations are in `testdata/dialogs`.

use proptest::prelude::*;

use super::*;
use crate::mail::{Failure, ForwardPath, MessageId, Recipient, ScramKeys, SenderFacts, SpfResult, Timestamp};
use crate::smtp::{EnhancedStatus, ReceiveMode, ScramStart};

fn server() -> Server {
    let settings = Settings {
        hostname: Domain::parse("bücher.example").unwrap(),
        kind: ServerKind::Smtp,
        message_octets_max: 1000,
        recipients_max: 3,
        bare_line_ends: BareLineEndPolicy::Reject,
        has_tls: true,
        has_users: true,
        has_scram: true,
        errors_max: 5,
    };
    Server::new(settings, None)
}

fn facts() -> TlsInfo {
    TlsInfo { version: "TLSv1.3".to_owned(), cipher: "TLS_AES_128_GCM_SHA256".to_owned() }
}

fn reply(action: ServerAction) -> Reply {
    match action {
        ServerAction::Reply(reply) => reply,
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_greeting_has_the_hostname_in_a_labels() {
    let ServerAction::Reply(greeting) = server().greeting() else { panic!() };
    assert!(greeting.lines[0].starts_with("xn--bcher-kva.example "));
}

#[test]
fn a_transaction_holds_what_the_envelope_needs() {
    let mut server = server();
    server.line(Ok(b"STARTTLS"));
    assert_eq!(server.handshake_done(Some(facts())), ServerAction::Continue);
    server.line(Ok(b"EHLO there.example"));
    server.line(Ok(b"AUTH PLAIN AGFuYQBzZWNyZXQ="));
    let ana = Mailbox::parse("ana@here.example").unwrap();
    assert_eq!(reply(server.answer(Verdict::new(Answer::User(ana.clone())))).code, 235);
    server.line(Ok(b"MAIL FROM:<> BODY=8BITMIME SMTPUTF8"));
    assert!(server.transaction().is_none(), "the transaction begins when the question is answered");
    let sender = SenderFacts { spf: Some(SpfResult::Pass), ..SenderFacts::default() };
    server.answer(Verdict::new(Answer::Sender(sender.clone())));
    server.line(Ok(b"RCPT TO:<bo@here.example>"));
    let bo = Recipient::for_mailbox(Mailbox::parse("bo@here.example").unwrap());
    server.answer(Verdict::new(Answer::Recipients(vec![bo.clone(), bo.clone()])));
    let transaction = server.transaction().unwrap();
    assert!(transaction.reverse_path.is_null() && transaction.parameters.smtputf8 && transaction.is_esmtp);
    assert_eq!(transaction.recipients, [bo]);
    assert_eq!(transaction.hello.as_str(), "there.example");
    assert_eq!((&transaction.login, &transaction.tls), (&Some(ana), &Some(facts())));
    assert_eq!(transaction.sender, sender);
    server.line(Ok(b"RSET"));
    assert!(server.transaction().is_none(), "the facts about a sender end with its transaction");
}

#[test]
fn a_password_is_not_shown_in_either_form_of_auth() {
    let mut server = Server { tls: Some(facts()), ..server() };
    server.line(Ok(b"EHLO there.example"));
    assert!(!server.printable_line(b"AUTH PLAIN AGFuYQBzZWNyZXQ=").contains("AGFu"));
    server.line(Ok(b"AUTH PLAIN"));
    assert!(!server.printable_line(b"AGFuYQBzZWNyZXQ=").contains("AGFu"));
}

#[test]
fn a_caller_that_breaks_the_protocol_gets_421() {
    let mut asked = server();
    asked.line(Ok(b"HELO there.example"));
    asked.line(Ok(b"MAIL FROM:<>"));
    for action in [
        asked.line(Ok(b"NOOP")),
        server().answer(Verdict::new(Answer::Sender(SenderFacts::default()))),
        server().body(b"x", &mut |_| {}).unwrap().1,
        server().handshake_done(Some(facts())),
    ] {
        assert!(matches!(action, ServerAction::ReplyAndClose(reply) if reply.code == 421));
    }
}

#[test]
fn every_line_of_a_refusal_has_the_status_of_its_class() {
    let mut server = server();
    server.line(Ok(b"HELO there.example"));
    server.line(Ok(b"MAIL FROM:<>"));
    let status = Some(EnhancedStatus { class: 4, subject: 7, detail: 1 });
    let lines = vec!["one".to_owned(), "two".to_owned()];
    let no = Answer::RefusedWith(Reply { code: 550, status, lines });
    let reply = reply(server.answer(Verdict::new(no).with_reason("it is Monday")));
    assert_eq!(reply.to_octets(), b"550-5.7.1 one\r\n550 5.7.1 two\r\n");
}

/// How many of the lines are answered before 421 4.7.0.
fn answered<'a>(server: &mut Server, lines: impl IntoIterator<Item = &'a [u8]>) -> usize {
    let mut count = 0;
    for line in lines {
        let mut action = server.line(Ok(line));
        while let ServerAction::Ask(question) = &action {
            action = server.answer(verdict(question, 7));
        }
        match action {
            ServerAction::Reply(_) => count += 1,
            ServerAction::ReplyAndClose(reply) => {
                assert_eq!((reply.code, reply.status.unwrap().subject), (421, 7));
                return count;
            }
            other => panic!("{other:?}"),
        }
    }
    panic!("the session does not end");
}

#[test]
fn commands_without_a_message_are_limited() {
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
fn a_client_that_sends_messages_is_not_limited() {
    let mut server = server();
    let mut queued = 0;
    for line in
        [b"EHLO a".as_slice(), b"MAIL FROM:<>", b"RCPT TO:<c@d.example>", b"DATA"].iter().cycle().take(800)
    {
        let mut action = server.line(Ok(line));
        loop {
            action = match action {
                ServerAction::Ask(question) => server.answer(verdict(&question, 7)),
                ServerAction::Receive { .. } => {
                    queued += 1;
                    server.body(b".\r\n", &mut |_| {}).unwrap().1
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
fn recipients_above_the_limit_are_deferred_a_thousand_times_and_no_more() {
    let mut server = server();
    let lines = [b"EHLO a".as_slice(), b"MAIL FROM:<>"];
    let recipients = std::iter::repeat_n(b"RCPT TO:<c@d.example>".as_slice(), 10_000);
    assert_eq!(answered(&mut server, lines.into_iter().chain(recipients)), 2 + 3 + 1000);
}

/// What a random client sends: about half of it makes sense.
fn line() -> impl Strategy<Value = Vec<u8>> {
    let known: Vec<&[u8]> = vec![
        b"EHLO a",
        b"HELO a",
        b"MAIL FROM:<>",
        b"MAIL FROM:<a@b.example> SIZE=9999",
        b"RCPT TO:<c@d.example>",
        b"DATA",
        b"BDAT 5",
        b"BDAT 5 LAST",
        b"BDAT 2 LAST",
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
        (_, Question::Sender { .. }) => Answer::Sender(SenderFacts::default()),
        (_, Question::Recipient(ForwardPath::Mailbox(mailbox))) => {
            Answer::Recipients(vec![Recipient::for_mailbox(mailbox.clone())])
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
                    ServerAction::Ask(question) => {
                        if matches!(question, Question::Content(_)) {
                            prop_assert!(!server.transaction().unwrap().recipients.is_empty());
                        }
                        server.answer(verdict(&question, luck))
                    }
                    ServerAction::Receive { reply, mode } => {
                        prop_assert!(reply.is_none_or(|reply| reply.status.is_none()));
                        if mode != ReceiveMode::Discard {
                            prop_assert!(!server.transaction().unwrap().recipients.is_empty());
                        }
                        server.body(b"\r\n.\r\n", &mut |_| {}).unwrap().1
                    }
                    ServerAction::StartTls(_) => {
                        let action = server.handshake_done(Some(facts()));
                        prop_assert!(server.hello().is_none() && server.transaction().is_none());
                        action
                    }
                    ServerAction::Reply(reply) => {
                        prop_assert!(reply.status.is_none_or(|status| status.class == reply.code / 100));
                        prop_assert!(reply.status.is_some() || matches!(reply.code, 250 | 334));
                        break;
                    }
                    ServerAction::Continue => break,
                    ServerAction::ReplyAndClose(_) | ServerAction::RejectForeignProtocol { .. } | ServerAction::Close => return Ok(()),
                };
            }
        }
    }

    #[test]
    fn a_conversation_is_the_same_however_it_is_cut(
        steps in prop::collection::vec(group(), 1..12),
        size in 1..40_usize,
    ) {
        let wire: Vec<u8> = steps.concat();
        let one_segment = converse(&wire, wire.len());
        prop_assert_eq!(&converse(&wire, 1), &one_segment);
        prop_assert_eq!(&converse(&wire, size), &one_segment);
    }

    #[test]
    fn a_message_does_not_tell_how_it_was_cut_into_chunks(
        content in "[ab.]{0,9}(\r\n[ab.]{0,9}){0,6}",
        cuts in prop::collection::vec(0..20_usize, 0..12),
    ) {
        let mut rest = content.as_bytes();
        let mut wire = b"EHLO a\r\nMAIL FROM:<>\r\nRCPT TO:<c@d.example>\r\n".to_vec();
        for cut in cuts {
            let (chunk, behind) = rest.split_at(cut.min(rest.len()));
            wire.extend_from_slice(&[format!("BDAT {cut}\r\n", cut = chunk.len()).as_bytes(), chunk].concat());
            rest = behind;
        }
        wire.extend_from_slice(&[format!("BDAT {} LAST\r\n", rest.len()).as_bytes(), rest].concat());
        let (_, messages) = converse(&wire, wire.len());
        let is_open = !content.is_empty() && !content.ends_with("\r\n");
        prop_assert_eq!(messages, [format!("{content}{}", if is_open { "\r\n" } else { "" }).into_bytes()]);
    }
}

/// Groups of commands, chunks and messages: most of them make sense, in some order.
fn group() -> impl Strategy<Value = Vec<u8>> {
    let begin: &[u8] = b"RSET\r\nMAIL FROM:<>\r\nRCPT TO:<c@d.example>\r\n";
    let content = prop::collection::vec(prop::sample::select(b"..\r\n\r\n\r\nab\xfc".to_vec()), 0..30);
    prop_oneof![
        3 => Just(begin.to_vec()),
        1 => prop::sample::select(vec![&b"EHLO a\r\n"[..], b"DATA\r\n", b"BDAT x\r\n"]).prop_map(<[u8]>::to_vec),
        2 => content.clone().prop_map(|content| [b"DATA\r\n", &content[..], b"\r\n.\r\n"].concat()),
        6 => (content, any::<bool>()).prop_map(|(content, is_last)| {
            let last = if is_last { " LAST" } else { "" };
            [format!("BDAT {}{last}\r\n", content.len()).as_bytes(), &content].concat()
        }),
    ]
}

/// All replies and all queued messages of a session, when `wire` arrives in pieces of `size`.
fn converse(wire: &[u8], size: usize) -> (Vec<Reply>, Vec<Vec<u8>>) {
    let mut server = server();
    let mut lines = LineBuffer::new();
    let (mut replies, mut messages, mut content) = (Vec::new(), Vec::new(), Vec::new());
    let mut action = server.line(Ok(b"EHLO a"));
    let mut pieces = wire.chunks(size.max(1));
    loop {
        action = match action {
            ServerAction::Ask(question) => {
                if matches!(question, Question::Content(_)) {
                    messages.push(std::mem::take(&mut content));
                }
                server.answer(verdict(&question, 7))
            }
            ServerAction::Receive { reply, mode: part } => {
                replies.extend(reply);
                if part != ReceiveMode::Continue {
                    content.clear();
                }
                loop {
                    let octets = lines.pending().len();
                    match server.body(lines.pending(), &mut |octets| content.extend_from_slice(octets)) {
                        Some((used, action)) => {
                            lines.consume(used);
                            break action;
                        }
                        None => lines.consume(octets),
                    }
                    let Some(piece) = pieces.next() else { return (replies, messages) };
                    lines.push(piece);
                }
            }
            ServerAction::ReplyAndClose(reply) => {
                replies.push(reply);
                return (replies, messages);
            }
            ServerAction::Reply(reply) => {
                replies.push(reply);
                loop {
                    if let Some(line) = lines.next_line(server.line_octets_max()) {
                        break server.line(line);
                    }
                    let Some(piece) = pieces.next() else { return (replies, messages) };
                    lines.push(piece);
                }
            }
            ServerAction::StartTls(_)
            | ServerAction::RejectForeignProtocol { .. }
            | ServerAction::Continue
            | ServerAction::Close => {
                panic!("{action:?}")
            }
        };
    }
}

#[test]
fn empty_chunks_are_limited() {
    let begin = "MAIL FROM:<>\r\nRCPT TO:<c@d.example>\r\n";
    for wire in [
        "BDAT 0\r\n".repeat(1000),
        "BDAT 0 LAST\r\n".repeat(1000),
        begin.to_owned() + &"BDAT 0\r\n".repeat(1000),
    ] {
        let (replies, _) = converse(wire.as_bytes(), 100);
        assert!(replies.len() <= 103, "{} replies", replies.len());
        assert_eq!(replies.last().unwrap().code, 421);
    }
}

#[test]
fn a_refusal_has_the_paths_that_it_is_about() {
    let mut server = server();
    let about = |server: &Server| {
        let subject = server.command_paths().clone();
        (subject.reverse_path.map(|path| path.to_string()), subject.forward_path.map(|path| path.to_string()))
    };
    let ana = Some("<ana@there.example>".to_owned());
    server.line(Ok(b"EHLO a"));
    assert_eq!(reply(server.line(Ok(b"MAIL FROM:<ana@there.example> SIZE=9999"))).code, 552);
    assert_eq!(about(&server), (ana.clone(), None), "no transaction has begun");
    assert_eq!(reply(server.line(Ok(b"NONSENSE"))).code, 500);
    assert_eq!(about(&server), (None, None));
    server.line(Ok(b"MAIL FROM:<ana@there.example>"));
    server.answer(Verdict::new(Answer::Sender(SenderFacts::default())));
    server.line(Ok(b"RCPT TO:<bo@here.example>"));
    let bo = Recipient::for_mailbox(Mailbox::parse("bo@here.example").unwrap());
    server.answer(Verdict::new(Answer::Recipients(vec![bo])));
    assert_eq!(about(&server), (ana.clone(), Some("<bo@here.example>".to_owned())));
    server.line(Ok(b"BDAT 2000"));
    let (_, action) = server.body(&[b'x'; 2000], &mut |_| {}).unwrap();
    assert_eq!(reply(action).code, 552);
    assert_eq!(about(&server), (ana, None), "the transaction is over");
}
