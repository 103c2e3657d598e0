//! Conversations, as the RFCs write them.
//!
//! `testdata/dialogs/README.md` describes the notation. Each dialog is played against the machine
//! in memory line by line, one octet at a time, and in one segment where it says so;
//! `dialogs_on_sockets` plays the same files on another [`Wire`].

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use postrider::mail::{
    Domain, Failure, ForwardPath, Mailbox, MessageId, Notify, Recipient, Ret, ScramKeys, SenderFacts,
    Timestamp, TlsInfo,
};
use postrider::smtp::{
    Answer, BareLineEndPolicy, EnhancedStatus, Evidence, LineBuffer, Question, ReceiveMode, Reply,
    ScramStart, Server, ServerAction, ServerKind, SessionEnd, Settings, Verdict,
};

/// The name of the server in all dialogs.
pub const HOSTNAME: &str = "here.example";

/// One conversation.
pub struct Dialog {
    /// Its file, below `testdata/dialogs`.
    pub name: String,
    /// What the server knows of its house.
    pub settings: Settings,
    /// The connection is encrypted from its first octet.
    pub is_encrypted: bool,
    /// All client input may arrive in one segment.
    pub is_pipelined: bool,
    /// What the policy says, in this order.
    pub policy: Vec<Scripted>,
    pub steps: Vec<Step>,
}

/// One answer of the policy.
#[derive(Debug, Clone, PartialEq)]
pub struct Scripted {
    /// `sender`, `recipient`, `login` or `content`.
    pub question: String,
    /// The path or user that must have been asked about, if the dialog tells.
    pub about: Option<String>,
    /// A status and text, a reply, `ok` with or without words, or `wrong`.
    pub answer: String,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Step {
    /// The client sends this in one segment.
    Client(Vec<u8>),
    /// The server says a line of this form; without its line end.
    Server(String),
    /// A message with these octets has been queued.
    Message(Vec<u8>),
    /// And its envelope has this; see [`wishes`].
    Envelope(String),
    /// The handshake is made; or fails.
    Handshake { is_good: bool },
    /// Something happens to the connection.
    Happens(SessionEnd),
    /// The server has closed the connection.
    Closed,
}

/// Something that a dialog can be played on.
pub trait Wire {
    /// The client sends octets, in one segment if that can be had.
    fn send(&mut self, octets: &[u8]);
    /// The server's next line, without CRLF; `None` if it has closed the connection, or will
    /// certainly say no more.
    fn receive(&mut self) -> Option<String>;
    /// Makes the handshake after STARTTLS, or lets it fail.
    fn handshake(&mut self, is_good: bool);
    /// Makes this happen; false if it cannot be had here.
    fn happens(&mut self, end: SessionEnd) -> bool;
    /// The server has closed the connection, and all that it said has been received.
    fn is_closed(&mut self) -> bool;
    /// The next message that was queued.
    fn message(&mut self) -> Option<Vec<u8>>;
    /// The next line of that message's [`wishes`].
    fn wish(&mut self) -> Option<String>;
    /// What went wrong beside the conversation: a question too many, an answer not asked for.
    fn complaint(&mut self) -> Option<String>;
}

/// How the client's octets are cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Manner {
    LineByLine,
    OctetByOctet,
    OneSegment,
}

/// Plays a dialog.
///
/// # Errors
/// What was not as it should be.
pub fn play(dialog: &Dialog, wire: &mut dyn Wire, manner: Manner) -> Result<(), String> {
    let steps = match manner {
        Manner::OneSegment => grouped(&dialog.steps),
        _ => dialog.steps.clone(),
    };
    let mut checker = StatusChecker::default();
    for step in &steps {
        match step {
            Step::Client(octets) if manner == Manner::OctetByOctet => {
                octets.chunks(1).for_each(|octet| wire.send(octet));
            }
            Step::Client(octets) => wire.send(octets),
            Step::Server(pattern) => {
                let said = wire.receive().ok_or_else(|| format!("expected {pattern:?}, heard nothing"))?;
                if !fits(&said, pattern) {
                    return Err(format!("expected {pattern:?}, heard {said:?}"));
                }
                checker.check(&said)?;
            }
            Step::Message(octets) => {
                let message = wire.message().ok_or("no message was queued")?;
                if message != *octets {
                    let (want, have) = (octets.escape_ascii(), message.escape_ascii());
                    return Err(format!("expected the message {want}, there is {have}"));
                }
            }
            Step::Envelope(line) => {
                let wish = wire.wish();
                if wish.as_ref() != Some(line) {
                    return Err(format!("expected {line:?} in the envelope, there is {wish:?}"));
                }
            }
            Step::Handshake { is_good } => wire.handshake(*is_good),
            Step::Happens(end) => {
                if !wire.happens(*end) {
                    return Ok(());
                }
            }
            Step::Closed => {
                if !wire.is_closed() {
                    return Err("the connection is still open".to_owned());
                }
            }
        }
    }
    wire.complaint().map_or(Ok(()), Err)
}

/// All that the client sends between two events in one segment, before the server says anything.
fn grouped(steps: &[Step]) -> Vec<Step> {
    let mut groups = Vec::new();
    let (mut sent, mut rest) = (Vec::new(), Vec::new());
    let mut finish = |sent: &mut Vec<u8>, rest: &mut Vec<Step>| {
        if !sent.is_empty() {
            groups.push(Step::Client(std::mem::take(sent)));
        }
        groups.append(rest);
    };
    for step in steps {
        match step {
            Step::Client(octets) => sent.extend_from_slice(octets),
            Step::Handshake { .. } | Step::Happens(_) => {
                rest.push(step.clone());
                finish(&mut sent, &mut rest);
            }
            Step::Server(_) | Step::Message(_) | Step::Envelope(_) | Step::Closed => rest.push(step.clone()),
        }
    }
    finish(&mut sent, &mut rest);
    groups
}

/// A pattern is the line itself, or its beginning and `*`.
fn fits(said: &str, pattern: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(beginning) => said.starts_with(beginning),
        None => said == pattern,
    }
}

/// RFC 2034 §4, RFC 5321 §4.2: every reply line that passes by in any dialog.
#[derive(Default)]
struct StatusChecker {
    has_greeted: bool,
    /// The lines so far of a reply that goes on.
    open: Vec<String>,
}

impl StatusChecker {
    fn check(&mut self, line: &str) -> Result<(), String> {
        if line.len() + 2 > 512 {
            return Err(format!("longer than RFC 5321 §4.5.3.1.5 allows: {line:?}"));
        }
        let (code, rest) = line.split_at(3.min(line.len()));
        let has_code = code.len() == 3 && code.bytes().all(|b| b.is_ascii_digit());
        if !has_code || !matches!(rest.as_bytes().first(), Some(b' ' | b'-')) {
            return Err(format!("no reply line: {line:?}"));
        }
        if self.open.first().is_some_and(|first| first[..3] != *code) {
            return Err(format!("codes differ within a reply: {line:?}"));
        }
        let text = &rest[1..];
        let status = text.split(' ').next().unwrap_or_default();
        let has_status = status.split('.').count() == 3
            && status.split('.').all(|group| group.parse::<u16>().is_ok())
            && !text.starts_with(HOSTNAME);
        let is_hello = match self.open.first() {
            Some(first) => first[4..] == *HOSTNAME,
            None => code == "250" && text == HOSTNAME,
        };
        // The greeting is 220; what a server says instead of it is a refusal like any other.
        let is_greeting = !self.has_greeted && code == "220";
        let wants_status = !is_greeting && !is_hello && !code.starts_with('3');
        self.has_greeted = true;
        if has_status != wants_status {
            return Err(format!("enhanced status present: {has_status}, wanted: {wants_status}: {line:?}"));
        }
        if has_status && status.as_bytes()[0] != code.as_bytes()[0] {
            return Err(format!("class and code disagree: {line:?}"));
        }
        if rest.starts_with('-') {
            self.open.push(line.to_owned());
        } else {
            self.open.clear();
        }
        Ok(())
    }
}

impl Scripted {
    /// The policy's answer to a question.
    ///
    /// # Errors
    /// It is not the question that the dialog expects.
    pub fn verdict(&self, question: &Question) -> Result<Verdict, String> {
        let (kind, about) = match question {
            Question::Sender { reverse_path, .. } => ("sender", reverse_path.to_string()),
            Question::Recipient(forward_path) => ("recipient", forward_path.to_string()),
            Question::Login(login) => {
                let authorization = login.authorization_identity.as_deref().unwrap_or_default();
                let evidence = match &login.evidence {
                    Evidence::Password(password) => password,
                    Evidence::Proof { is_valid: true } => "right proof",
                    Evidence::Proof { is_valid: false } => "wrong proof",
                };
                ("login", format!("<{authorization}/{}/{evidence}>", login.authentication_identity))
            }
            Question::ScramStart { user } => ("scram", format!("<{user}>")),
            Question::Content(facts) => {
                let eight = if facts.has_8bit { ",8bit" } else { "" };
                let long = if facts.has_long_lines { ",long" } else { "" };
                ("content", format!("<{}{eight}{long}>", facts.octets))
            }
        };
        if self.question != kind || self.about.as_ref().is_some_and(|expected| *expected != about) {
            return Err(format!("asked about {kind} {about}, but the dialog has {self:?}"));
        }
        let (word, rest) = self.answer.split_once(' ').unwrap_or((&self.answer, ""));
        Ok(Verdict::new(match (word, question) {
            ("ok", Question::Sender { .. }) => Answer::Sender(SenderFacts::default()),
            ("ok", Question::Recipient(forward_path)) => Answer::Recipients(match (rest, forward_path) {
                ("", ForwardPath::Mailbox(mailbox)) => vec![Recipient::for_mailbox(mailbox.clone())],
                ("", ForwardPath::Postmaster) => vec![recipient("postmaster@here.example")],
                ("nobody", _) => Vec::new(),
                (names, _) => names.split(' ').map(recipient).collect(),
            }),
            ("ok", Question::Login(_)) => Answer::User(Mailbox::parse(rest).unwrap()),
            ("ok", Question::ScramStart { .. }) => Answer::ScramStart(Box::new(scram_start(rest))),
            ("ok", Question::Content(_)) => Answer::Queued(MessageId::new(Timestamp::from_millis(0), 1)),
            ("wrong", _) => Answer::WrongLogin,
            ("misfit", _) => Answer::WrongLogin,
            ("reply", _) => {
                let (code, rest) = rest.split_once(' ').unwrap();
                let (status, text) = rest.split_once(' ').unwrap();
                let [class, subject, detail] = groups(status);
                let mut reply = Reply::new(code.parse().unwrap(), 0, 0, text);
                reply.status = Some(EnhancedStatus { class, subject, detail });
                Answer::RefusedWith(reply)
            }
            (status, _) => match groups(status) {
                [4, subject, detail] => Answer::Refused(Failure::transient(subject, detail, rest)),
                [5, subject, detail] => Answer::Refused(Failure::permanent(subject, detail, rest)),
                other => panic!("{other:?} is no refusal"),
            },
        })
        .with_reason("the dialog says so"))
    }
}

/// The keys of RFC 7677 §3, whose password is `pencil`. `NONCE`, or `NONCE BINDING`, 32 octets of one
/// value.
fn scram_start(words: &str) -> ScramStart {
    let (nonce, binding) = words.split_once(' ').unwrap_or((words, ""));
    let key = |text: &str| STANDARD.decode(text).unwrap();
    ScramStart {
        keys: ScramKeys {
            salt: key("W22ZaJ0SNY7soEsUEjb6gQ=="),
            iterations: 4096,
            stored_key: key("WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=").try_into().unwrap(),
            server_key: key("wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=").try_into().unwrap(),
        },
        nonce: nonce.to_owned(),
        channel_binding: binding.parse().ok().map(|octet: u8| vec![octet; 32]),
    }
}

/// What an envelope keeps of the sender's wishes (RFC 3461): a line for the message, if there is
/// something to be said, and one for each recipient.
pub fn wishes(ret: Option<Ret>, envid: Option<&str>, recipients: &[Recipient]) -> VecDeque<String> {
    let mut message = Vec::new();
    message.extend(ret.map(|ret| match ret {
        Ret::Full => "RET=FULL".to_owned(),
        Ret::Headers => "RET=HDRS".to_owned(),
    }));
    message.extend(envid.map(|envid| format!("ENVID={envid}")));
    let of_recipient = |recipient: &Recipient| {
        let mut line = recipient.final_mailbox().to_string();
        match recipient.notify {
            Notify::Unspecified => {}
            Notify::Never => line.push_str(" NOTIFY=NEVER"),
            Notify::When { success, failure, delay } => {
                let words = [(success, "SUCCESS"), (failure, "FAILURE"), (delay, "DELAY")];
                let words: Vec<_> = words.iter().filter(|(is_asked, _)| *is_asked).map(|(_, w)| *w).collect();
                let _ = write!(line, " NOTIFY={}", words.join(","));
            }
        }
        if let Some(orcpt) = &recipient.orcpt {
            let _ = write!(line, " ORCPT={orcpt}");
        }
        line
    };
    let message = (!message.is_empty()).then(|| message.join(" "));
    message.into_iter().chain(recipients.iter().map(of_recipient)).collect()
}

fn recipient(address: &str) -> Recipient {
    Recipient::for_mailbox(Mailbox::parse(address).unwrap())
}

fn groups(status: &str) -> [u16; 3] {
    let groups: Vec<_> = status.split('.').map(|group| group.parse().unwrap()).collect();
    groups.try_into().unwrap()
}

/// The machine in memory: what a session does, without a socket.
struct InMemory {
    server: Server,
    lines: LineBuffer,
    policy: VecDeque<Scripted>,
    is_in_body: bool,
    content: Vec<u8>,
    messages: VecDeque<(Vec<u8>, VecDeque<String>)>,
    /// Of the message that the dialog has been told of last.
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
                ServerAction::Reply(reply) => self.said.extend(reply.to_octets()),
                ServerAction::Receive { reply, mode: part } => {
                    self.said.extend(reply.iter().flat_map(Reply::to_octets));
                    if part != ReceiveMode::Continue {
                        self.content.clear();
                    }
                    self.is_in_body = true;
                }
                ServerAction::StartTls(reply) => {
                    self.said.extend(reply.to_octets());
                    self.lines.clear();
                    self.in_handshake = true;
                }
                ServerAction::ReplyAndClose(reply) | ServerAction::RejectForeignProtocol { reply, .. } => {
                    self.said.extend(reply.to_octets());
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

/// Reads one file. What it does not understand is a fault of the file, and stops the test.
pub fn parse(name: &str, text: &str) -> Dialog {
    let mut dialog = Dialog {
        name: name.to_owned(),
        settings: Settings {
            hostname: Domain::parse(HOSTNAME).unwrap(),
            kind: ServerKind::Smtp,
            message_octets_max: 1_000_000,
            recipients_max: 100,
            bare_line_ends: BareLineEndPolicy::Reject,
            has_tls: true,
            has_users: true,
            has_scram: false,
            errors_max: 20,
        },
        is_encrypted: false,
        is_pipelined: false,
        policy: Vec::new(),
        steps: Vec::new(),
    };
    assert!(text.starts_with("# RFC "), "{name}: the first line names the RFC and the section");
    for (number, line) in text.lines().enumerate() {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let place = format!("{name}:{}", number + 1);
        let (key, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match (key, value) {
            ("C", _) => dialog.steps.push(Step::Client([value.as_bytes(), b"\r\n"].concat())),
            ("C-raw", _) => dialog.steps.push(Step::Client(unescape(value, &place))),
            ("S", _) => dialog.steps.push(Step::Server(value.to_owned())),
            ("message", _) => dialog.steps.push(Step::Message(unescape(value, &place))),
            ("envelope", _) => dialog.steps.push(Step::Envelope(value.to_owned())),
            ("end", "") => dialog.steps.push(Step::Closed),
            ("tls", "handshake") => dialog.steps.push(Step::Handshake { is_good: true }),
            ("tls", "handshake fails") => dialog.steps.push(Step::Handshake { is_good: false }),
            ("client", "is gone") => dialog.steps.push(Step::Happens(SessionEnd::InputEnded)),
            ("client", "says nothing") => dialog.steps.push(Step::Happens(SessionEnd::TimedOut)),
            ("server", "stops") => dialog.steps.push(Step::Happens(SessionEnd::Stopping)),
            ("tls", "on") => dialog.is_encrypted = true,
            ("tls", "none") => dialog.settings.has_tls = false,
            ("logins", "scram") => dialog.settings.has_scram = true,
            ("logins", "none") => dialog.settings.has_users = false,
            ("line-ends", "mended") => dialog.settings.bare_line_ends = BareLineEndPolicy::Normalize,
            ("kind", "submission") => dialog.settings.kind = ServerKind::Submission,
            ("pipelined", "yes") => dialog.is_pipelined = true,
            ("limits", limit) => {
                let (limit, n) =
                    limit.split_once(' ').unwrap_or_else(|| panic!("{place}: a limit has a number"));
                let n: u32 = n.parse().unwrap_or_else(|_| panic!("{place}: a limit is a number"));
                match limit {
                    "recipients-max" => dialog.settings.recipients_max = n as usize,
                    "message-octets-max" => dialog.settings.message_octets_max = n.into(),
                    "errors-max" => dialog.settings.errors_max = n,
                    other => panic!("{place}: there is no limit {other}"),
                }
            }
            ("policy", answer) => {
                let (question, rest) =
                    answer.split_once(' ').unwrap_or_else(|| panic!("{place}: an answer is missing"));
                let about = rest.starts_with('<').then(|| rest.rsplit_once("> ").unwrap());
                dialog.policy.push(Scripted {
                    question: question.to_owned(),
                    about: about.map(|(path, _)| format!("{path}>")),
                    answer: about.map_or(rest, |(_, answer)| answer).to_owned(),
                });
            }
            _ => panic!("{place}: {line:?} is not in the notation"),
        }
    }
    dialog
}

/// `\r`, `\n`, `\0`, `\\`, `\xHH`, and `\{x*80}` for eighty times `x`.
fn unescape(text: &str, place: &str) -> Vec<u8> {
    let mut octets = Vec::new();
    let mut rest = text;
    while let Some((before, escape)) = rest.split_once('\\') {
        octets.extend_from_slice(before.as_bytes());
        let mut chars = escape.chars();
        rest = match chars.next() {
            Some('r') => {
                octets.push(b'\r');
                chars.as_str()
            }
            Some('n') => {
                octets.push(b'\n');
                chars.as_str()
            }
            Some('0') => {
                octets.push(0);
                chars.as_str()
            }
            Some('\\') => {
                octets.push(b'\\');
                chars.as_str()
            }
            Some('x') => {
                octets.push(u8::from_str_radix(&escape[1..3], 16).unwrap());
                &escape[3..]
            }
            Some('{') => {
                let (inside, behind) = escape[1..].split_once('}').unwrap();
                let (what, times) = inside.rsplit_once('*').unwrap();
                octets.extend(what.repeat(times.parse().unwrap()).bytes());
                behind
            }
            other => panic!("{place}: {other:?} is not an escape"),
        };
    }
    octets.extend_from_slice(rest.as_bytes());
    octets
}

/// Every dialog, by name.
pub fn all() -> Vec<Dialog> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/dialogs");
    let mut files = Vec::new();
    collect(&root, &mut files);
    files.sort();
    let named = |file: &PathBuf| {
        let name = file.strip_prefix(&root).unwrap().display().to_string();
        parse(&name, &std::fs::read_to_string(file).unwrap())
    };
    files.iter().map(named).collect()
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "dialog") {
            files.push(path);
        }
    }
}

#[test]
fn every_dialog_goes_as_it_is_written_however_it_is_cut() {
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
        ("# RFC x\nS: 220 *\nS: 220 *", "heard nothing"),
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

#[test]
fn every_reply_line_is_checked_against_rfc_2034() {
    let check = |lines: &[&str]| {
        let mut checker = StatusChecker::default();
        lines.iter().try_for_each(|line| checker.check(line))
    };
    check(&["220 here.example ESMTP", "250-here.example", "250 HELP", "354 go", "221 2.0.0 bye"]).unwrap();
    for wrong in [
        &["220 2.0.0 hi"][..],
        &["220 hi", "250 ok"],
        &["220 hi", "250 5.0.0 ok"],
        &["220 hi", "354 3.0.0 go"],
        &["220 hi", "250-here.example", "251 HELP"],
        &["220 hi", "250-here.example", "250 2.0.0 HELP"],
        &["220 hi", "25x"],
        &["220 hi", "221"],
    ] {
        assert!(check(wrong).is_err(), "{wrong:?}");
    }
}
