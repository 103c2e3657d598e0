//! One client, from greeting to goodbye: the blocking shell around the server machine.
//!
//! Reads octets, hands lines to the machine, and does what it says: writes, waits, shakes hands,
//! asks the policy, streams a message into the queue. It knows no reply code and compares no
//! command; whatever is SMTP is in `smtp::server`.
//!
//! Runs on a thread of its own. Every wait has a deadline, and the session as a whole has one.
//!
//! Most sessions are idle, in `next_line` below `perform`, and what the frames of these two hold is held
//! by every one of them. So whatever is called seldom and needs room is not inlined into them.

use std::cell::OnceCell;
use std::fmt;
use std::io::{self, Read as _};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use super::content::{About, Arrival, not_queued};
use super::doors::Ticket;
use super::hook::{Hooks, Occasion};
use super::outbox::Outbox;
use super::policy::{Client as Asking, Policy};
use super::reverse::ReverseNames;
use crate::mail::{Client, Domain, Failure, Network, ReversePath};
use crate::observe::{Counter, CounterFamily, Metrics, Trace, Traces, maillog};
use crate::queue::{self, PutError};
use crate::smtp::{
    self, Action, Answer, BodyFacts, Command, End, Kind, LineBuffer, LineEnds, Part, Question, Reply, Server,
    Transaction, Verdict,
};
use crate::sys::{Clock, Moment, Stream};
use crate::tls::{Accepted, ServerTls, is_plain_text};

/// What is spoken on a listening socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Mail from other servers; port 25.
    Smtp,
    /// Mail from our users; port 587 (RFC 6409).
    Submission,
    /// Mail from our users, TLS from the first octet; port 465 (RFC 8314 §3.3).
    Submissions,
}

impl Role {
    /// As in the configuration, in logs and in counters.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Smtp => "smtp",
            Self::Submission => "submission",
            Self::Submissions => "submissions",
        }
    }

    /// The first octets are a handshake.
    #[must_use]
    pub fn is_tls_from_the_start(self) -> bool {
        match self {
            Self::Smtp | Self::Submission => false,
            Self::Submissions => true,
        }
    }

    fn kind(self) -> Kind {
        match self {
            Self::Smtp => Kind::Smtp,
            Self::Submission | Self::Submissions => Kind::Submission,
        }
    }
}

/// The settings of every session.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Our name.
    pub hostname: Domain,
    /// Largest message taken, in octets (RFC 1870 §5).
    pub message_octets_max: u64,
    /// Forward-paths in one transaction.
    pub recipients_max: usize,
    /// Clients whose lone CRs and LFs in a message are mended, see [`LineEnds::Mended`]; all others'
    /// are refused.
    pub mended_networks: Vec<Network>,
    /// Received fields in a message before it is a loop (RFC 5321 §6.3).
    pub received_max: usize,
    /// Clients whose messages are submissions without a login.
    pub relay_networks: Vec<Network>,
    /// Replies 5yz between two messages before we hang up.
    pub errors_max: u32,
    /// Wait before the greeting on the smtp port, for clients that do not; zero is not at all.
    pub greeting_delay: Duration,
    /// Wait for a whole command, or for some octets of a message, or for a handshake (at most a minute).
    pub command_timeout: Duration,
    /// A whole message must arrive within this.
    pub message_timeout: Duration,
    /// A whole session.
    pub session_timeout: Duration,
}

impl Settings {
    fn line_ends_of(&self, client: IpAddr) -> LineEnds {
        match self.mended_networks.iter().any(|network| network.contains(client)) {
            true => LineEnds::Mended,
            false => LineEnds::Strict,
        }
    }
}

/// What a session needs of the house. Shared by all of them.
pub struct Services {
    /// Limits and names.
    pub settings: Settings,
    /// Answers what a session cannot know.
    pub policy: Arc<dyn Policy>,
    /// Finds the names of clients.
    pub reverse_names: ReverseNames,
    /// The operator's own rules.
    pub hooks: Hooks,
    /// Where messages go.
    pub queue: queue::Handle,
    /// Encrypts.
    pub tls: ServerTls,
    /// Tells the time.
    pub clock: Arc<dyn Clock>,
    /// Remembers what sessions did.
    pub traces: Arc<Traces>,
    /// Counts.
    pub counters: Counters,
}

impl Services {
    /// What the machine needs to know of the house, for a session that begins now.
    pub(super) fn machine_settings(&self, role: Role) -> smtp::Settings {
        smtp::Settings {
            hostname: self.settings.hostname.clone(),
            kind: role.kind(),
            message_octets_max: self.settings.message_octets_max,
            recipients_max: self.settings.recipients_max,
            line_ends: LineEnds::Strict,
            tls_available: self.tls.is_available(),
            logins_exist: self.policy.has_logins(),
            scram_available: self.policy.all_have_scram(),
            errors_max: self.settings.errors_max,
        }
    }
}

/// What sessions count.
pub struct Counters {
    commands: CounterFamily,
    replies: CounterFamily,
    tls: CounterFamily,
    proxied: CounterFamily,
    pub(super) early_talkers: Counter,
    strangers: CounterFamily,
    pub(super) messages: Counter,
    pub(super) loops: Counter,
}

impl Counters {
    /// Registers them.
    #[must_use]
    pub fn new(metrics: &Metrics) -> Self {
        Self {
            commands: metrics.family("session_command", "Commands of clients, by verb", "verb"),
            replies: metrics.family("session_reply", "Replies given to clients, by code", "code"),
            tls: metrics.family("session_tls", "TLS handshakes with clients, by result", "result"),
            early_talkers: metrics
                .counter("session_spoke_first", "Clients that did not wait for the greeting"),
            proxied: metrics.family(
                "session_proxied",
                "Connections by proxies, by whom they bring",
                "brings",
            ),
            strangers: metrics.family(
                "session_stranger",
                "Clients turned away because they speak something else, by what they speak",
                "speaks",
            ),
            messages: metrics.counter("session_message", "Messages taken from clients"),
            loops: metrics.counter("session_loop", "Messages refused because they went round in circles"),
        }
    }

    pub(super) fn proxied(&self, brings: &str) {
        self.proxied.add_one(brings);
    }
}

/// One client's session.
pub(super) struct Session {
    /// `None` once the connection is lost in a handshake.
    stream: Option<Box<dyn Stream>>,
    /// Of the encrypted connection (RFC 9266).
    channel_binding: Option<[u8; 32]>,
    address: SocketAddr,
    /// Looked for at the first MAIL of a client that has not logged in.
    reverse_name: OnceCell<Option<Domain>>,
    role: Role,
    ticket: Ticket,
    services: Arc<Services>,
    trace: Trace,
    lines: LineBuffer,
    outbox: Outbox,
    session_end: Moment,
    /// A message that is coming in, or has come and waits for the machine's question about it.
    message: Option<Arrival>,
    /// By then all of it must be here.
    message_end: Moment,
}

/// Octets read at once while waiting for commands: on the stack of an idle session.
const COMMAND_READ_OCTETS: usize = 1024;
/// Octets read at once inside a message; the buffer goes when it ends, or its chunk.
const BODY_READ_OCTETS: usize = 32 * 1024;
/// How long a whole handshake may take, where a silent client may take longer.
const HANDSHAKE_PATIENCE: Duration = Duration::from_mins(1);
/// How long, and for how many octets, a client is listened to after our goodbye.
const GOODBYE_PATIENCE: Duration = Duration::from_secs(2);
const GOODBYE_OCTETS_MAX: usize = 1024 * 1024;

impl Session {
    pub(super) fn new(
        stream: Box<dyn Stream>,
        address: SocketAddr,
        role: Role,
        ticket: Ticket,
        services: Arc<Services>,
    ) -> Self {
        let trace = services.traces.begin("session", format!("{} {address}", role.name()));
        let session_end = services.clock.now() + services.settings.session_timeout;
        Self {
            stream: Some(stream),
            channel_binding: None,
            address,
            reverse_name: OnceCell::new(),
            role,
            ticket,
            services,
            trace,
            lines: LineBuffer::new(),
            outbox: Outbox::default(),
            session_end,
            message: None,
            message_end: session_end,
        }
    }

    /// Serves the client until one of us hangs up.
    pub(super) fn run(mut self) {
        let facts = if self.role.is_tls_from_the_start() {
            match self.shake_hands() {
                Ok(facts) => Some(facts),
                Err(_) => return,
            }
        } else {
            None
        };
        let settings = smtp::Settings {
            line_ends: self.services.settings.line_ends_of(self.address.ip()),
            ..self.services.machine_settings(self.role)
        };
        let mut server = Server::new(settings, facts);
        let mut action =
            if self.ticket.guest.is_leaving() { server.end(End::Stopping) } else { server.greeting() };
        while let Some(next) = self.perform(&mut server, action) {
            action = next;
        }
    }

    /// Does what the machine says; the machine's next word, or `None` at the end.
    fn perform(&mut self, server: &mut Server, action: Action) -> Option<Action> {
        match action {
            Action::Reply(reply) => Some(match self.say(server, &reply) {
                Ok(()) => self.next_line(server),
                Err(e) => server.end(self.end_of(&e)),
            }),
            Action::Continue => Some(self.next_line(server)),
            Action::Ask(question) => {
                let verdict = self.decide(server, &question);
                verdict.because.iter().for_each(|reason| self.trace.event(reason.as_str()));
                Some(server.answer(verdict))
            }
            Action::Receive { reply, part } => {
                self.ticket.guest.busy();
                // Before the client hears 354: from then on it may finish, even if we are told to
                // stop before its first octet.
                self.prepare(part);
                let said = reply.map_or(Ok(()), |reply| self.say(server, &reply));
                Some(match said.and_then(|()| self.receive(server)) {
                    Ok(action) => action,
                    Err(e) => server.end(self.end_of(&e)),
                })
            }
            Action::StartTls(reply) => {
                if let Err(e) = self.say(server, &reply).and_then(|()| self.flush()) {
                    return Some(server.end(self.end_of(&e)));
                }
                // RFC 3207 §4.2: nothing that came in plain text survives.
                self.lines.clear();
                let facts = self.shake_hands();
                Some(server.tls(facts.ok()))
            }
            Action::ReplyAndClose(reply) => {
                self.say_goodbye(server, &reply);
                None
            }
            Action::TurnAway { reply, speaks } => {
                self.services.counters.strangers.add_one(speaks.name());
                self.say_goodbye(server, &reply);
                None
            }
            Action::Close => None,
        }
    }

    /// Waits for a line and gives it to the machine.
    fn next_line(&mut self, server: &mut Server) -> Action {
        if !server.is_receiving() {
            self.message = None;
            if self.ticket.guest.is_leaving() {
                // What a client has sent ahead does not keep it here.
                return server.end(End::Stopping);
            }
            if !self.lines.has_line() {
                self.ticket.guest.idle();
            }
        }
        // For the whole line: one octet now and then is not a command.
        let deadline = self.deadline(self.services.settings.command_timeout, self.session_end);
        loop {
            if let Some(line) = self.lines.next_line(server.line_octets_max()) {
                if let Ok(line) = line {
                    self.services.counters.commands.add_one(Command::verb(line));
                    self.trace.event(server.shown(line));
                }
                return server.line(line);
            }
            self.lines.release_if_empty();
            let mut buffer = [0; COMMAND_READ_OCTETS];
            match self.flush().and_then(|()| self.read(&mut buffer, deadline)) {
                Ok(octets) => self.lines.push(buffer.get(..octets).unwrap_or_default()),
                Err(e) => return server.end(self.end_of(&e)),
            }
        }
    }

    fn prepare(&mut self, part: Part) {
        self.message = match part {
            Part::First => Some(Arrival::begin(&self.services.queue)),
            Part::Next => return,
            Part::Unwanted => None,
        };
        self.message_end =
            (self.services.clock.now() + self.services.settings.message_timeout).min(self.session_end);
    }

    /// Streams octets through the machine into the queue's hands, until the machine says what is next.
    #[inline(never)]
    fn receive(&mut self, server: &mut Server) -> io::Result<Action> {
        let mut message = self.message.take();
        let mut sink = |octets: &[u8]| {
            if let Some(arrival) = &mut message {
                arrival.take(octets);
            }
        };
        let mut buffer = Vec::new();
        let action = loop {
            let pending = self.lines.pending();
            let octets = pending.len();
            if let Some((used, action)) = server.body(pending, &mut sink) {
                self.lines.consume(used);
                break action;
            }
            self.lines.consume(octets);
            buffer.resize(BODY_READ_OCTETS, 0);
            let deadline = self.deadline(self.services.settings.command_timeout, self.message_end);
            let octets = self.flush().and_then(|()| self.read(&mut buffer, deadline))?;
            self.lines.push(buffer.get(..octets).unwrap_or_default());
        };
        self.message = message;
        Ok(action)
    }

    #[inline(never)]
    fn decide(&mut self, server: &Server, question: &Question) -> Verdict {
        let asking = Asking {
            address: self.address.ip(),
            hello: server.hello().map_or("", smtp::Hello::as_str),
            is_encrypted: server.tls_facts().is_some(),
            login: server.login(),
            channel_binding: self.channel_binding.as_ref().map(<[u8; 32]>::as_slice),
        };
        match question {
            // Before the client has sent a message for which there is no room.
            Question::Sender { .. } if self.services.queue.is_disk_full() => {
                Verdict::refused(not_queued(&PutError::Full))
            }
            Question::Sender { reverse_path, .. } => {
                if asking.login.is_none() {
                    self.reverse_name.get_or_init(|| self.services.reverse_names.confirmed(asking.address));
                }
                self.services.policy.sender(&asking, reverse_path)
            }
            Question::Recipient(forward_path) => {
                let verdict = self.services.policy.recipient(&asking, forward_path);
                let occasion = Occasion {
                    peer: self.address,
                    reverse_name: self.reverse_name.get().and_then(Option::as_ref),
                    hello: asking.hello,
                    reverse_path: server.transaction().map_or(&ReversePath::Null, |t| &t.reverse_path),
                    login: asking.login,
                    is_encrypted: asking.is_encrypted,
                };
                self.services.hooks.recipient(&occasion, forward_path, verdict, &self.trace)
            }
            Question::Login(login) => self.services.policy.login(&asking, login),
            Question::ScramStart { user } => self.services.policy.scram_start(&asking, user),
            Question::Content(facts) => self.content(server, facts),
        }
    }

    fn content(&mut self, server: &Server, facts: &BodyFacts) -> Verdict {
        let (Some(transaction), Some(arrival)) = (server.transaction(), self.message.take()) else {
            return Verdict::refused(Failure::transient(3, 0, "Something is wrong here, try again later"));
        };
        let address = self.address.ip();
        let may_relay = |networks: &[Network]| networks.iter().any(|network| network.contains(address));
        let about = About {
            transaction,
            facts,
            client: self.client(transaction),
            peer: self.address,
            reverse_name: self.reverse_name.get().and_then(Option::as_ref),
            is_submission: transaction.login.is_some() || may_relay(&self.services.settings.relay_networks),
        };
        match arrival.promise(&self.services, &self.trace, &about) {
            Ok(id) => Verdict::new(Answer::Queued(id)),
            Err(failure) => Verdict::refused(failure),
        }
    }

    fn client(&self, transaction: &Transaction) -> Client {
        Client {
            address: self.address.ip(),
            hello: transaction.hello.as_str().to_owned(),
            tls: transaction.tls.clone(),
        }
    }

    fn say(&mut self, server: &Server, reply: &Reply) -> io::Result<()> {
        self.services.counters.replies.add_one(&reply.code.to_string());
        if reply.code >= 400 {
            self.trace.error(reply.said());
            let subject = server.subject();
            let forward_path = subject.forward_path.as_ref().map(|path| path as &dyn fmt::Display);
            maillog::refused(self.address.ip(), subject.reverse_path.as_ref(), forward_path, &reply.said());
        } else {
            self.trace.event(reply.said());
        }
        self.outbox.add(&reply.to_octets());
        if self.outbox.is_full() { self.flush() } else { Ok(()) }
    }

    /// Sends what was said. A session whose time is over may still be told so.
    fn flush(&mut self) -> io::Result<()> {
        let end = self.session_end.max(self.services.clock.now() + GOODBYE_PATIENCE);
        let deadline = self.deadline(self.services.settings.command_timeout, end);
        let stream = self.stream.as_mut().ok_or(io::ErrorKind::NotConnected)?;
        self.outbox.send(stream, deadline)
    }

    fn say_goodbye(&mut self, server: &Server, reply: &Reply) {
        // The client may be gone; that is its right.
        let _ = self.say(server, reply).and_then(|()| self.flush()).and_then(|()| self.hang_up());
    }

    /// Says that nothing more will come, and lets the client hear it: closing a socket with unread
    /// octets resets the connection, and may take our last reply with it.
    fn hang_up(&mut self) -> io::Result<()> {
        self.stream()?.finish()?;
        let mut buffer = [0; COMMAND_READ_OCTETS];
        let deadline = self.services.clock.now() + GOODBYE_PATIENCE;
        let mut left = GOODBYE_OCTETS_MAX;
        while left > 0 {
            left = left.saturating_sub(self.read(&mut buffer, deadline)?);
        }
        Ok(())
    }

    fn read(&mut self, buffer: &mut [u8], deadline: Moment) -> io::Result<usize> {
        let stream = self.stream()?;
        stream.set_deadline(deadline);
        loop {
            match stream.read(buffer) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                other => return other,
            }
        }
    }

    fn shake_hands(&mut self) -> io::Result<crate::mail::TlsFacts> {
        let timeout = self.services.settings.command_timeout.min(HANDSHAKE_PATIENCE);
        let deadline = self.deadline(timeout, self.session_end);
        let mut stream = self.stream.take().ok_or(io::ErrorKind::NotConnected)?;
        stream.set_deadline(deadline);
        match self.services.tls.accept(stream) {
            Ok(Accepted { stream, facts, channel_binding }) => {
                self.services.counters.tls.add_one("done");
                self.trace.event(facts.to_string());
                self.stream = Some(stream);
                self.channel_binding = channel_binding;
                Ok(facts)
            }
            Err(e) => {
                self.services.counters.tls.add_one("failed");
                if is_plain_text(&e) {
                    self.services.counters.strangers.add_one("plain-text");
                }
                self.trace.error(format!("the TLS handshake failed: {e}"));
                log::info!(target: "tls", "{}: the handshake failed: {e}", self.address.ip());
                Err(e)
            }
        }
    }

    fn stream(&mut self) -> io::Result<&mut Box<dyn Stream>> {
        self.stream.as_mut().ok_or_else(|| io::ErrorKind::NotConnected.into())
    }

    fn deadline(&self, timeout: Duration, end: Moment) -> Moment {
        (self.services.clock.now() + timeout).min(end)
    }

    /// What an error of the connection means for the conversation.
    fn end_of(&self, error: &io::Error) -> End {
        match error.kind() {
            _ if self.ticket.guest.is_leaving() => End::Stopping,
            io::ErrorKind::TimedOut => End::TimedOut,
            _ => End::InputOver,
        }
    }
}
