//! Exchanges of all SASL mechanisms: each line of the input is a message of the client, before base64.
#![no_main]

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use libfuzzer_sys::fuzz_target;
use postrider::mail::TlsInfo;
use postrider::smtp::{ServerAction, Verdict};
use postrider_fuzz::{answer, server};

const MECHANISMS: [&str; 4] = ["PLAIN", "LOGIN", "SCRAM-SHA-256", "SCRAM-SHA-256-PLUS"];

fuzz_target!(|input: (u8, &[u8])| {
    let (choice, text) = input;
    let Some(mut server) = server() else { return };
    server.greeting();
    server.line(Ok(b"STARTTLS"));
    server.handshake_done(Some(TlsInfo { version: "TLSv1.3".to_owned(), cipher: "X".to_owned() }));
    server.line(Ok(b"EHLO there.example"));
    let mechanism = MECHANISMS[usize::from(choice) % MECHANISMS.len()];
    let mut messages = text.split(|&octet| octet == b'\n');
    let mut action = server.line(Ok(format!("AUTH {mechanism}").as_bytes()));
    loop {
        action = match action {
            ServerAction::Reply(reply) if reply.code == 334 => match messages.next() {
                Some(message) => server.line(Ok(STANDARD.encode(message).as_bytes())),
                None => return,
            },
            ServerAction::Reply(reply) => {
                let is_end = matches!(reply.code, 235 | 501 | 535);
                assert!(is_end, "{mechanism} ends with {reply:?}");
                assert_eq!(server.login().is_some(), reply.code == 235);
                return;
            }
            ServerAction::Ask(question) => match answer(&question) {
                Some(answer) => server.answer(Verdict::new(answer)),
                None => return,
            },
            other => panic!("{mechanism} leads to {other:?}"),
        };
    }
});
