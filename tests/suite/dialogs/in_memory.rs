//! Plays the dialogs against the state machine, without a socket.

use std::collections::VecDeque;
use std::fmt::Write as _;

use postrider::inbound::{Refusal, RefusalStage};
use postrider::mail::{Failure, TlsInfo};
use postrider::observe::RefusalReference;
use postrider::smtp::{
    Answer, LineBuffer, Question, ReceiveMode, Reply, Server, ServerAction, SessionEnd, Verdict,
};
use postrider::sys::SystemRandom;

use super::notation::{Dialog, Scripted, all, parse};
use super::play::{Manner, Wire, play, wishes};

/// The state machine in memory: a session without a socket.
struct InMemory {
    server: Server,
    lines: LineBuffer,
    policy: VecDeque<Scripted>,
    is_in_body: bool,
    content: Vec<u8>,
    messages: VecDeque<(Vec<u8>, VecDeque<String>)>,
    /// Of the message that was returned last.
    wishes: VecDeque<String>,
    said: Vec<u8>,
    in_handshake: bool,
    is_closed: bool,
    complaint: Option<String>,
}

fn tls_facts() -> TlsInfo {
    TlsInfo { version: "TLSv1.3".to_owned(), cipher: "TLS_AES_128_GCM_SHA256".to_owned() }
}

impl InMemory {
    fn new(dialog: &Dialog) -> Self {
        let mut wire = Self {
            server: Server::new(dialog.settings.clone(), dialog.is_encrypted.then(tls_facts)),
            lines: LineBuffer::new(),
            policy: dialog.policy.clone().into(),
            is_in_body: false,
            content: Vec::new(),
            messages: VecDeque::new(),
            wishes: VecDeque::new(),
            said: Vec::new(),
            in_handshake: false,
            is_closed: false,
            complaint: None,
        };
        let greeting = wire.server.greeting();
        wire.act(greeting);
        wire
    }

    /// Sends a reply; a refusal with its reference, as a session does.
    fn say(&mut self, reply: Reply) {
        if reply.code < 400 {
            self.said.extend(reply.to_octets());
            return;
        }
        let (reference, stage) = (RefusalReference::draw(&SystemRandom), RefusalStage::Command);
        let subject = self.server.command_paths().clone();
        let refusal = Refusal::new(reference, stage, reply, Vec::new(), subject);
        self.said.extend(refusal.reply().to_octets());
    }

    fn act(&mut self, action: ServerAction) {
        let mut action = action;
        loop {
            match action {
                ServerAction::Ask(question) => {
                    let is_content = matches!(question, Question::Content(_));
                    let verdict = match self.policy.pop_front() {
                        Some(scripted) => scripted.verdict(&question),
                        None => Err(format!("nobody expected {question:?}")),
                    };
                    let verdict = verdict.unwrap_or_else(|complaint| {
                        self.complaint.get_or_insert(complaint);
                        Verdict::refused(Failure::transient(3, 0, "not in the dialog"))
                    });
                    let message = std::mem::take(&mut self.content);
                    if is_content && matches!(verdict.answer, Answer::Queued(_)) {
                        let transaction = self.server.transaction().expect("there is a transaction");
                        assert!(!transaction.recipients.is_empty(), "a message without recipients");
                        let parameters = &transaction.parameters;
                        let wishes =
                            wishes(parameters.ret, parameters.envid.as_deref(), &transaction.recipients);
                        self.messages.push_back((message, wishes));
                    }
                    action = self.server.answer(verdict);
                    continue;
                }
                ServerAction::Reply(reply) => self.say(reply),
                ServerAction::Receive { reply, mode: part } => {
                    reply.into_iter().for_each(|reply| self.say(reply));
                    if part != ReceiveMode::Continue {
                        self.content.clear();
                    }
                    self.is_in_body = true;
                }
                ServerAction::StartTls(reply) => {
                    self.say(reply);
                    self.lines.clear();
                    self.in_handshake = true;
                }
                ServerAction::ReplyAndClose(reply) | ServerAction::RejectForeignProtocol { reply, .. } => {
                    self.say(reply);
                    self.is_closed = true;
                }
                ServerAction::Continue => {}
                ServerAction::Close => self.is_closed = true,
            }
            return;
        }
    }
}

impl Wire for InMemory {
    fn send(&mut self, octets: &[u8]) {
        if self.in_handshake {
            return;
        }
        self.lines.push(octets);
        while !self.is_closed && !self.in_handshake {
            if self.is_in_body {
                let (pending, content) = (self.lines.pending(), &mut self.content);
                let octets = pending.len();
                let fed = self.server.body(pending, &mut |octets| content.extend_from_slice(octets));
                let Some((used, action)) = fed else {
                    self.lines.consume(octets);
                    return;
                };
                self.lines.consume(used);
                self.is_in_body = false;
                self.act(action);
                continue;
            }
            let has_line = self.lines.has_line();
            let line = self.lines.next_line(self.server.line_octets_max());
            assert_eq!(has_line, line.is_some());
            let Some(line) = line else { return };
            let action = self.server.line(line);
            self.act(action);
        }
    }

    fn receive(&mut self) -> Option<String> {
        let end = self.said.iter().position(|octet| *octet == b'\n')?;
        let line: Vec<u8> = self.said.drain(..=end).collect();
        let line = String::from_utf8(line).expect("replies are UTF-8");
        Some(line.strip_suffix("\r\n").expect("replies end with CRLF").to_owned())
    }

    fn handshake(&mut self, is_good: bool) {
        assert!(self.in_handshake, "no handshake is due");
        self.in_handshake = false;
        let action = self.server.handshake_done(is_good.then(tls_facts));
        self.act(action);
    }

    fn happens(&mut self, end: SessionEnd) -> bool {
        let action = self.server.end(end);
        self.act(action);
        true
    }

    fn is_closed(&mut self) -> bool {
        self.is_closed && self.said.is_empty()
    }

    fn message(&mut self) -> Option<Vec<u8>> {
        let (message, wishes) = self.messages.pop_front()?;
        self.wishes = wishes;
        Some(message)
    }

    fn wish(&mut self) -> Option<String> {
        self.wishes.pop_front()
    }

    fn complaint(&mut self) -> Option<String> {
        let said = self.said.escape_ascii().to_string();
        self.complaint
            .take()
            .or_else(|| (!said.is_empty()).then(|| format!("the server also said {said}")))
            .or_else(|| self.policy.front().map(|left| format!("nobody asked for {left:?}")))
            .or_else(|| {
                (!self.messages.is_empty()).then(|| "a message was queued that nobody expected".to_owned())
            })
    }
}

#[test]
fn every_dialog_is_the_same_in_lines_octets_and_one_segment() {
    let dialogs = all();
    assert!(dialogs.len() > 30, "only {} dialogs were found", dialogs.len());
    let mut failures = String::new();
    for dialog in &dialogs {
        for manner in [Manner::LineByLine, Manner::OctetByOctet, Manner::OneSegment] {
            if manner == Manner::OneSegment && !dialog.is_pipelined {
                continue;
            }
            if let Err(failure) = play(dialog, &mut InMemory::new(dialog), manner) {
                let _ = writeln!(failures, "{} ({manner:?}): {failure}", dialog.name);
            }
        }
    }
    assert!(failures.is_empty(), "\n{failures}");
}

#[test]
fn a_dialog_that_is_wrong_fails() {
    for (text, complaint) in [
        ("# RFC x\nS: 221 *", "expected"),
        ("# RFC x\nS: 220 *\nS: 220 *", "received nothing"),
        ("# RFC x\nS: 220 *\nC: NOOP", "also said"),
        ("# RFC x\nS: 220 *\nend", "still open"),
        ("# RFC x\npolicy: sender ok\nS: 220 *", "nobody asked"),
        ("# RFC x\nS: 220 *\nC: HELO a\nS: 250 *\nC: MAIL FROM:<>\nS: 451 *", "nobody expected"),
    ] {
        let dialog = parse("test", text);
        let failure = play(&dialog, &mut InMemory::new(&dialog), Manner::LineByLine).unwrap_err();
        assert!(failure.contains(complaint), "{text}: {failure}");
    }
}
