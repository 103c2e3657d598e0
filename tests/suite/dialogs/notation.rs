//! Reads the dialogs. `testdata/dialogs/README.md` describes their notation.

use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use postrider::mail::{
    Domain, Failure, ForwardPath, Mailbox, MessageId, Recipient, ScramKeys, SenderFacts, Timestamp,
};
use postrider::smtp::{
    Answer, BareLineEndPolicy, EnhancedStatus, Evidence, Question, Reply, ScramStart, ServerKind, SessionEnd,
    Settings, Verdict,
};

/// The name of the server in all dialogs.
pub const HOSTNAME: &str = "here.example";

/// One conversation.
pub struct Dialog {
    /// Its file, below `testdata/dialogs`.
    pub name: String,
    /// The settings of the state machine.
    pub settings: Settings,
    /// The connection is encrypted from its first octet.
    pub is_encrypted: bool,
    /// All client input may arrive in one segment.
    pub is_pipelined: bool,
    /// The answers of the policy, in this order.
    pub policy: Vec<Scripted>,
    pub steps: Vec<Step>,
}

/// One answer of the policy.
#[derive(Debug, Clone, PartialEq)]
pub struct Scripted {
    /// `sender`, `recipient`, `login` or `content`.
    pub question: String,
    /// The path or user of the question, if the dialog names it.
    pub about: Option<String>,
    /// A status and text, a reply, `ok` with or without words, or `wrong`.
    pub answer: String,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Step {
    /// The client sends this in one segment.
    Client(Vec<u8>),
    /// The server sends a line of this form; without its line end.
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
                ("content", format!("<{}{eight}>", facts.octets))
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

fn recipient(address: &str) -> Recipient {
    Recipient::for_mailbox(Mailbox::parse(address).unwrap())
}

fn groups(status: &str) -> [u16; 3] {
    let groups: Vec<_> = status.split('.').map(|group| group.parse().unwrap()).collect();
    groups.try_into().unwrap()
}

/// Reads one file. A line that is not in the notation stops the test.
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
