//! Plays the dialogs over a real socket, with the same replies as in memory.
//!
//! The listener, its session threads, TLS on both sides and the queue are real. The policy is scripted.
//! A message is compared where it leaves the queue, without the fields that the
//! session added.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt::Write as _;
use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use arc_swap::ArcSwap;
use postrider::courier::CourierProfile;
use postrider::fakes::{RecordedAttempt, ScriptedCourier, WithProfile};
use postrider::inbound::{
    Circumstances, Counters, Decision, HookFallback, HourlyLimits, Listener, ListenerRole, LocalRecipients,
    OriginatorField, Policy, RateLimits, SessionHookSettings, SessionHooks, SessionLimitSettings,
    SessionLimits, SessionServices, Settings,
};
use postrider::mail::{Domain, Failure, ForwardPath, Mailbox, MessageId, Recipient, ReversePath};
use postrider::observe::{Metrics, Traces};
use postrider::queue::{
    self, Couriers, DeliveryParts, GeneratedMail, Handle, QueueParts, SteppedQueue, WithoutAliases,
};
use postrider::route::Router;
use postrider::smtp::{
    BareLineEndPolicy, MailParameters, Question, SaslCredentials, ServerKind, SessionEnd, Verdict,
};
use postrider::sys::{
    Clock as _, Connector as _, StopFlag, Stream, SystemClock, SystemConnector, SystemDisk, SystemRandom,
    ThreadActivity,
};
use postrider::tls::{CertificateAndKey, CertificateResolver, CertificateSet, TlsClient, TlsServer};

use crate::dialogs::{Dialog, HOSTNAME, Manner, Scripted, Step, Wire, all, parse, play, wishes};
use crate::test_server::WAIT_TIMEOUT;

/// Dialogs that cannot be played on a socket: each with the reason.
const NOT_PLAYED: &[(&str, &str)] = &[
    ("data/content_is_against_policy.dialog", CONTENT),
    ("data/content_is_refused.dialog", CONTENT),
    ("limits/errors_are_forgotten_after_a_message.dialog", CONTENT),
];
const CONTENT: &str = "content is judged by the session and the queue, not by the policy";

/// How long a client may be silent in a dialog about silence, and in others.
const SHORT_SILENCE: Duration = Duration::from_secs(2);
const LONG_SILENCE: Duration = Duration::from_secs(300);

/// Parts that all conversations share.
pub struct SocketFixture {
    handle: Handle,
    stepped: SteppedQueue,
    courier: Arc<ScriptedCourier>,
    /// Messages that a dialog has been seen of.
    seen: BTreeSet<MessageId>,
    certs: Arc<CertificateResolver>,
    no_certs: Arc<CertificateResolver>,
    client_tls: TlsClient,
    metrics: Arc<Metrics>,
    traces: Arc<Traces>,
    dir: tempfile::TempDir,
}

impl SocketFixture {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let metrics = Arc::new(Metrics::default());
        let traces = Traces::new(Arc::new(SystemClock));
        let (handle, opened) = queue::open(QueueParts {
            disk: Arc::new(SystemDisk),
            data_dir: dir.path().to_owned(),
            clock: Arc::new(SystemClock),
            random: Arc::new(SystemRandom),
            metrics: metrics.clone(),
            settings: queue::Settings::default(),
        })
        .unwrap();
        let courier = Arc::new(ScriptedCourier::default());
        let stepped = opened.into_stepped(DeliveryParts {
            router: Arc::new(ArcSwap::from_pointee(Router::new([hostname()]))),
            couriers: Couriers {
                local: Arc::new(WithProfile(courier.clone(), CourierProfile::MAILBOXES)),
                program: Arc::new(WithProfile(courier.clone(), CourierProfile::PROGRAMS)),
                smtp: courier.clone(),
            },
            generated_mail: GeneratedMail::new(handle.clone(), Arc::new(WithoutAliases)),
            traces: traces.clone(),
            hostname: hostname(),
        });
        let made = rcgen::generate_simple_self_signed(vec![HOSTNAME.to_owned()]).unwrap();
        let certs = dir.path().join("certs");
        std::fs::create_dir_all(certs.join("here")).unwrap();
        std::fs::write(certs.join("here/fullchain.pem"), made.cert.pem()).unwrap();
        std::fs::write(certs.join("here/privkey.pem"), made.signing_key.serialize_pem()).unwrap();
        let pair =
            CertificateAndKey::read(&certs.join("here"), &mut |file: &Path| std::fs::read(file).map(Some))
                .unwrap();
        Self {
            handle,
            stepped,
            courier,
            seen: BTreeSet::new(),
            certs: CertificateResolver::new(CertificateSet::new([("here", &pair)], &hostname())),
            no_certs: CertificateResolver::new(CertificateSet::new([], &hostname())),
            client_tls: TlsClient::with_roots(rustls::RootCertStore::empty()),
            metrics,
            traces,
            dir,
        }
    }

    /// Everything that left the queue and that no dialog has been seen of; without the reports that
    /// we write ourselves.
    fn arrived(&mut self) -> BTreeMap<MessageId, RecordedAttempt> {
        self.stepped.run();
        let mut carried: BTreeMap<_, _> =
            self.courier.attempts().into_iter().map(|one| (one.envelope.id, one)).collect();
        carried.retain(|id, one| one.envelope.client.is_some() && !self.seen.contains(id));
        carried
    }

    fn services(&self, dialog: &Dialog, script: &Arc<Script>) -> SessionServices {
        let settings = &dialog.settings;
        SessionServices {
            settings: Arc::new(ArcSwap::from_pointee(Settings {
                hostname: settings.hostname.clone(),
                message_octets_max: settings.message_octets_max,
                recipients_max: settings.recipients_max,
                line_end_repair_networks: match settings.bare_line_ends {
                    BareLineEndPolicy::Reject => Vec::new(),
                    BareLineEndPolicy::Normalize => vec!["127.0.0.0/8".parse().unwrap()],
                },
                received_max: 100,
                relay_networks: Vec::new(),
                errors_max: settings.errors_max,
                greeting_delay: Duration::ZERO,
                command_timeout: if is_about_silence(dialog) { SHORT_SILENCE } else { LONG_SILENCE },
                message_timeout: LONG_SILENCE,
                session_timeout: LONG_SILENCE,
            })),
            policy: Arc::clone(script) as Arc<dyn Policy>,
            hooks: SessionHooks::new(
                SessionHookSettings {
                    config_dir: self.dir.path().to_owned(),
                    fallback: HookFallback::Defer,
                    rcpt_timeout: LONG_SILENCE,
                    post_data_timeout: LONG_SILENCE,
                    stop: Arc::new(StopFlag::new().unwrap()),
                },
                Arc::clone(script) as Arc<dyn LocalRecipients>,
                &self.metrics,
            ),
            queue: self.handle.clone(),
            tls: TlsServer::new(Arc::clone(if settings.has_tls { &self.certs } else { &self.no_certs }))
                .unwrap(),
            clock: Arc::new(SystemClock),
            random: Arc::new(SystemRandom),
            traces: Arc::clone(&self.traces),
            counters: Counters::new(&self.metrics),
        }
    }
}

fn hostname() -> Domain {
    Domain::parse(HOSTNAME).unwrap()
}

/// The policy of a dialog.
struct Script {
    logins_exist: bool,
    scram_available: bool,
    state: Mutex<ScriptState>,
}

struct ScriptState {
    /// Without those about content, which are not questions to the policy.
    answers: VecDeque<Scripted>,
    complaint: Option<String>,
}

impl Script {
    fn answer(&self, question: &Question) -> Verdict {
        let mut state = self.state.lock().unwrap();
        let verdict = match state.answers.pop_front() {
            Some(scripted) => scripted.verdict(question),
            None => Err(format!("nobody expected {question:?}")),
        };
        verdict.unwrap_or_else(|complaint| {
            state.complaint.get_or_insert(complaint);
            Verdict::refused(Failure::transient(3, 0, "not in the dialog"))
        })
    }
}

impl Policy for Script {
    fn has_logins(&self) -> bool {
        self.logins_exist
    }
    fn all_have_scram(&self) -> bool {
        self.scram_available
    }
    fn check_sender(&self, _circumstances: &Circumstances<'_>, reverse_path: &ReversePath) -> Verdict {
        let parameters = MailParameters::default();
        self.answer(&Question::Sender { reverse_path: reverse_path.clone(), parameters })
    }
    fn check_recipient(&self, _circumstances: &Circumstances<'_>, forward_path: &ForwardPath) -> Verdict {
        self.answer(&Question::Recipient(forward_path.clone()))
    }
    fn check_originator(&self, _user: &Mailbox, _field: &OriginatorField) -> Decision {
        Decision::allowed()
    }
    fn check_login(&self, _circumstances: &Circumstances<'_>, login: &SaslCredentials) -> Verdict {
        self.answer(&Question::Login(login.clone()))
    }
    fn scram_start(&self, _circumstances: &Circumstances<'_>, user: &str) -> Verdict {
        self.answer(&Question::ScramStart { user: user.to_owned() })
    }
}

/// Only hooks use it, and there are none.
impl LocalRecipients for Script {
    fn is_local(&self, _domain: &Domain) -> bool {
        false
    }
    fn expand(&self, _mailbox: &Mailbox) -> Result<Vec<Recipient>, String> {
        Ok(Vec::new())
    }
    fn postmaster_domain(&self) -> Domain {
        hostname()
    }
}

/// One conversation with a listener of its own.
pub struct OnSocket<'a> {
    /// Where the listener is.
    pub address: SocketAddr,
    fixture: &'a mut SocketFixture,
    script: Arc<Script>,
    /// The dialog's messages, in order.
    contents: VecDeque<Scripted>,
    /// Ids in the server's replies, in their order: ids of one millisecond have none.
    queued: VecDeque<MessageId>,
    /// Of the message that the dialog has been seen of last.
    wishes: VecDeque<String>,
    session_limits: Arc<SessionLimits>,
    stop: Arc<StopFlag>,
    listener: Option<JoinHandle<()>>,
    /// `None` while a handshake takes it.
    stream: Option<Box<dyn Stream>>,
    received: Vec<u8>,
    /// From now on the server's octets are TLS that we cannot read.
    is_unreadable: bool,
    complaint: Option<String>,
}

impl<'a> OnSocket<'a> {
    fn new(fixture: &'a mut SocketFixture, dialog: &Dialog) -> Self {
        Self::with(fixture, dialog, |_| {})
    }

    /// With other services than the dialog's.
    pub fn with(
        fixture: &'a mut SocketFixture,
        dialog: &Dialog,
        adjust: impl FnOnce(&mut SessionServices),
    ) -> Self {
        let (contents, answers) = dialog.policy.iter().cloned().partition(|one| one.question == "content");
        let script = Arc::new(Script {
            logins_exist: dialog.settings.has_users,
            scram_available: dialog.settings.has_scram,
            state: Mutex::new(ScriptState { answers, complaint: None }),
        });
        let role = match dialog.settings.kind {
            ServerKind::Smtp => ListenerRole::Smtp,
            ServerKind::Submission if dialog.is_encrypted => ListenerRole::Submissions,
            ServerKind::Submission => ListenerRole::Submission,
        };
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        let limit_settings = SessionLimitSettings {
            sessions_max: 10,
            sessions_per_address_max: 10,
            sessions_per_network_max: 10,
        };
        let clock = Arc::new(SystemClock);
        let rates = Arc::new(RateLimits::new(HourlyLimits::default(), clock.clone(), &fixture.metrics));
        let session_limits = SessionLimits::new(limit_settings, rates, clock, &fixture.metrics);
        let mut services = fixture.services(dialog, &script);
        adjust(&mut services);
        let listener = Listener {
            socket,
            role,
            proxy_networks: Vec::new(),
            activity: ThreadActivity::new("the listener"),
            session_limits: Arc::clone(&session_limits),
            services: Arc::new(services),
        };
        let stop = Arc::new(StopFlag::new().unwrap());
        let until = Arc::clone(&stop);
        let thread = std::thread::spawn(move || listener.run(&until).unwrap());
        let stream = SystemConnector.connect(&address.into(), SystemClock.now() + WAIT_TIMEOUT).unwrap();
        let mut wire = Self {
            address,
            fixture,
            script,
            contents,
            queued: VecDeque::new(),
            wishes: VecDeque::new(),
            session_limits,
            stop,
            listener: Some(thread),
            stream: Some(stream),
            received: Vec::new(),
            is_unreadable: false,
            complaint: None,
        };
        match role {
            ListenerRole::Submissions => wire.encrypt(),
            // There is no port 25 with TLS from the first octet. After STARTTLS everything begins
            // again except the greeting, which is kept for the dialog.
            ListenerRole::Smtp if dialog.is_encrypted => {
                let greeting = wire.receive().expect("a greeting");
                wire.send(b"STARTTLS\r\n");
                assert!(wire.receive().expect("an answer").starts_with("220 "));
                wire.encrypt();
                wire.received = format!("{greeting}\r\n").into_bytes();
            }
            ListenerRole::Smtp | ListenerRole::Submission => {}
        }
        wire
    }

    fn encrypt(&mut self) {
        if !self.received.is_empty() {
            let received = self.received.escape_ascii().to_string();
            self.complaint.get_or_insert(format!("said in plain text before the handshake: {received}"));
        }
        let stream = self.stream.take().unwrap();
        let secured = self.fixture.client_tls.handshake(stream, &hostname());
        self.stream = Some(secured.expect("a handshake").stream);
    }

    fn read(&mut self) -> io::Result<usize> {
        let mut buffer = [0; 4096];
        let stream = self.stream.as_mut().unwrap();
        stream.set_deadline(SystemClock.now() + WAIT_TIMEOUT);
        let octets = stream.read(&mut buffer)?;
        self.received.extend_from_slice(&buffer[..octets]);
        Ok(octets)
    }

    /// Reads until the server has closed the connection.
    fn read_to_end(&mut self) -> io::Result<()> {
        while self.read()? > 0 {}
        Ok(())
    }
}

/// A server that closes the connection in the middle of input resets it: that counts as closed.
fn is_closed_by(end: &io::Result<()>) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
    match end {
        Ok(()) => true,
        Err(e) => matches!(e.kind(), BrokenPipe | ConnectionAborted | ConnectionReset | UnexpectedEof),
    }
}

impl Wire for OnSocket<'_> {
    fn send(&mut self, octets: &[u8]) {
        let stream = self.stream.as_mut().unwrap();
        stream.set_deadline(SystemClock.now() + WAIT_TIMEOUT);
        // The server may have closed the connection; the dialog then continues with that.
        let _ = stream.write_all(octets).and_then(|()| stream.flush());
    }

    fn receive(&mut self) -> Option<String> {
        loop {
            if let Some(end) = self.received.iter().position(|octet| *octet == b'\n') {
                let line: Vec<u8> = self.received.drain(..=end).collect();
                let line = String::from_utf8(line).expect("replies are UTF-8");
                let line = line.strip_suffix("\r\n").expect("replies end with CRLF");
                self.queued
                    .extend(line.split_once("Queued as ").map(|(_, id)| id.parse::<MessageId>().unwrap()));
                return Some(line.to_owned());
            }
            if self.read().unwrap_or(0) == 0 {
                return None;
            }
        }
    }

    fn handshake(&mut self, is_good: bool) {
        if is_good {
            self.encrypt();
        } else {
            self.send(b"this is no handshake\r\n");
            self.is_unreadable = true;
        }
    }

    fn happens(&mut self, end: SessionEnd) -> bool {
        match end {
            SessionEnd::InputEnded => {
                self.stream.as_mut().unwrap().shutdown_write().unwrap();
                true
            }
            SessionEnd::TimedOut => true,
            SessionEnd::Stopping => {
                self.session_limits.stop_sessions();
                true
            }
            SessionEnd::TooManySessions | SessionEnd::RateLimited | SessionEnd::SpokeBeforeGreeting => false,
        }
    }

    fn is_closed(&mut self) -> bool {
        let end = self.read_to_end();
        if self.is_unreadable {
            // A TLS alert, which is no reply.
            assert!(!self.received.starts_with(b"4") && !self.received.starts_with(b"5"), "plain text");
            self.received.clear();
        }
        is_closed_by(&end) && self.received.is_empty()
    }

    fn message(&mut self) -> Option<Vec<u8>> {
        let id = self.queued.pop_front()?;
        let carried = self.fixture.arrived().remove(&id)?;
        self.fixture.seen.insert(id);
        let envelope = &carried.envelope;
        self.wishes = wishes(envelope.ret, envelope.envid.as_deref(), &envelope.recipients);
        let content = carried.octets.strip_prefix(carried.envelope.added_text().as_bytes());
        let content = content.expect("the stamp is on top").to_vec();
        let eight = if carried.envelope.has_8bit { ",8bit" } else { "" };
        let about = format!("<{}{eight}>", content.len());
        match self.contents.pop_front() {
            Some(scripted) if scripted.about.as_ref().is_none_or(|expected| *expected == about) => {}
            other => drop(self.complaint.get_or_insert(format!("{about} was queued, expected {other:?}"))),
        }
        Some(content)
    }

    fn wish(&mut self) -> Option<String> {
        self.wishes.pop_front()
    }

    fn complaint(&mut self) -> Option<String> {
        // When the client ends its side, the server sends no further reply.
        let _ = self.stream.as_mut().unwrap().shutdown_write();
        let end = self.read_to_end();
        let said = self.received.escape_ascii().to_string();
        let state = self.script.state.lock().unwrap();
        (self.complaint.take().or_else(|| state.complaint.clone()))
            .or_else(|| (!is_closed_by(&end)).then(|| format!("the connection stayed open: {end:?}")))
            .or_else(|| (!said.is_empty()).then(|| format!("the server also said {said}")))
            .or_else(|| state.answers.front().map(|left| format!("nobody asked for {left:?}")))
            .or_else(|| {
                let left = self.fixture.arrived();
                self.fixture.seen.extend(left.keys());
                (left.len() != self.contents.len())
                    .then(|| format!("{} messages were queued, expected {:?}", left.len(), self.contents))
            })
    }
}

impl Drop for OnSocket<'_> {
    fn drop(&mut self) {
        self.stream = None;
        self.stop.raise();
        let ended = self.listener.take().map(JoinHandle::join);
        assert!(std::thread::panicking() || matches!(ended, Some(Ok(()))), "the listener panicked");
    }
}

/// Octets after STARTTLS in one segment are dropped; octet by octet some of them would
/// arrive later, as the beginning of a handshake.
fn has_more_behind_starttls(dialog: &Dialog) -> bool {
    dialog.steps.iter().any(|step| match step {
        Step::Client(octets) => octets.starts_with(b"STARTTLS\r\n") && octets.len() > 10,
        _ => false,
    })
}

fn is_about_silence(dialog: &Dialog) -> bool {
    dialog.steps.contains(&Step::Happens(SessionEnd::TimedOut))
}

fn may_be_played(dialog: &Dialog, manner: Manner) -> bool {
    match manner {
        Manner::LineByLine => true,
        Manner::OctetByOctet => !has_more_behind_starttls(dialog) && !is_about_silence(dialog),
        Manner::OneSegment => dialog.is_pipelined,
    }
}

#[test]
fn every_dialog_is_the_same_over_a_real_socket() {
    let mut fixture = SocketFixture::new();
    let mut failures = String::new();
    let mut played = 0;
    for dialog in all() {
        if NOT_PLAYED.iter().any(|(name, _)| *name == dialog.name) {
            continue;
        }
        played += 1;
        for manner in [Manner::LineByLine, Manner::OctetByOctet, Manner::OneSegment] {
            if !may_be_played(&dialog, manner) {
                continue;
            }
            if let Err(failure) = play(&dialog, &mut OnSocket::new(&mut fixture, &dialog), manner) {
                let _ = writeln!(failures, "{} ({manner:?}): {failure}", dialog.name);
            }
            let left = fixture.arrived();
            fixture.seen.extend(left.into_keys());
        }
    }
    assert!(failures.is_empty(), "\n{failures}");
    assert!(played >= 80, "only {played} dialogs were played");
}

#[test]
fn only_dialogs_that_need_a_scripted_content_are_not_played_on_a_socket() {
    let refuses_content = |dialog: &Dialog| {
        dialog.policy.iter().any(|one| one.question == "content" && !one.answer.starts_with("ok"))
    };
    let left_out: Vec<_> = all().into_iter().filter(refuses_content).map(|dialog| dialog.name).collect();
    let named: Vec<_> = NOT_PLAYED.iter().map(|(name, _)| *name).collect();
    assert_eq!(named, left_out, "{CONTENT}");
}

#[test]
fn a_dialog_that_is_wrong_fails_on_a_socket_too() {
    let mut fixture = SocketFixture::new();
    let transaction = "C: HELO a\nS: 250 *\nC: MAIL FROM:<a@b.example>\nS: 250 *\nC: RCPT TO:<c@here.example>\n\
                  S: 250 *\nC: DATA\nS: 354 *\nC: x\nC: .\nS: 250 2.0.0 *\n";
    let policy = "policy: sender ok\npolicy: recipient ok\n";
    for (text, complaint) in [
        ("# RFC x\nS: 221 *".to_owned(), "expected"),
        ("# RFC x\nS: 220 *\nC: QUIT\nS: 221 *\nS: 220 *".to_owned(), "received nothing"),
        ("# RFC x\nS: 220 *\nC: NOOP".to_owned(), "also said"),
        ("# RFC x\npolicy: sender ok\nS: 220 *".to_owned(), "nobody asked"),
        ("# RFC x\nS: 220 *\nC: HELO a\nS: 250 *\nC: MAIL FROM:<>\nS: 451 *".to_owned(), "nobody expected"),
        (format!("# RFC x\n{policy}S: 220 *\n{transaction}"), "1 messages were queued"),
        (
            format!("# RFC x\n{policy}policy: content <9> ok\nS: 220 *\n{transaction}message: x\\r\\n"),
            "<3> was queued",
        ),
        (
            format!("# RFC x\n{policy}policy: content ok\nS: 220 *\n{transaction}message: y\\r\\n"),
            "expected the message y",
        ),
    ] {
        let dialog = parse("test", &text);
        let failure =
            play(&dialog, &mut OnSocket::new(&mut fixture, &dialog), Manner::LineByLine).unwrap_err();
        assert!(failure.contains(complaint), "{text}: {failure}");
    }
}
