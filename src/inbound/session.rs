//! One client, from greeting to goodbye: the blocking shell around the server machine.
//!
//! Reads octets, hands lines to the machine, and does what it says: writes, waits, shakes hands,
//! asks the policy, streams a message into the queue. It knows no reply code and compares no
//! command; whatever is SMTP is in `smtp::server`.
//!
//! Runs on a thread of its own. Every wait has a deadline, and the session as a whole has one.

use std::fmt;
use std::io::{self, Read as _};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use super::content::HeaderWatch;
use super::doors::Ticket;
use super::outbox::Outbox;
use super::policy::{Client as Asking, Policy};
use super::stamp::{self, Passage};
use crate::mail::{Client, Domain, Envelope, Failure, ForwardPath, MessageId, ReversePath};
use crate::observe::{Counter, CounterFamily, Metrics, Trace, Traces, maillog};
use crate::queue::{self, Incoming, PutError};
use crate::smtp::{
    self, Action, Answer, BodyEnd, BodyFacts, BodyReader, Command, End, Kind, LineBuffer, Question, Reply,
    Server, Transaction, Verdict,
};
use crate::sys::{Clock, Moment, Stream};
use crate::tls::ServerTls;

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
    /// Received fields in a message before it is a loop (RFC 5321 §6.3).
    pub received_max: usize,
    /// Replies 5yz between two messages before we hang up.
    pub errors_max: u32,
    /// Wait for a command, or for some octets of a message, or for a handshake.
    pub command_timeout: Duration,
    /// A whole message must arrive within this.
    pub message_timeout: Duration,
    /// A whole session.
    pub session_timeout: Duration,
}

/// What a session needs of the house. Shared by all of them.
pub struct Services {
    /// Limits and names.
    pub settings: Settings,
    /// Answers what a session cannot know.
    pub policy: Arc<dyn Policy>,
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
            tls_available: self.tls.is_available(),
            logins_exist: self.policy.has_logins(),
            errors_max: self.settings.errors_max,
        }
    }
}

/// What sessions count.
pub struct Counters {
    commands: CounterFamily,
    replies: CounterFamily,
    tls: CounterFamily,
    messages: Counter,
    loops: Counter,
}

impl Counters {
    /// Registers them.
    #[must_use]
    pub fn new(metrics: &Metrics) -> Self {
        Self {
            commands: metrics.family("session_command", "Commands of clients, by verb", "verb"),
            replies: metrics.family("session_reply", "Replies given to clients, by code", "code"),
            tls: metrics.family("session_tls", "TLS handshakes with clients, by result", "result"),
            messages: metrics.counter("session_message", "Messages taken from clients"),
            loops: metrics.counter("session_loop", "Messages refused because they went round in circles"),
        }
    }
}

/// One client's session.
pub(super) struct Session {
    /// `None` once the connection is lost in a handshake.
    stream: Option<Box<dyn Stream>>,
    address: SocketAddr,
    role: Role,
    ticket: Ticket,
    services: Arc<Services>,
    trace: Trace,
    lines: LineBuffer,
    outbox: Outbox,
    session_end: Moment,
    /// A message that has come in and waits for the machine's question about it.
    message: Option<Arrived>,
    /// Whom the last question was about, until the machine has said what follows from the answer.
    asked: Asked,
}

/// Whom a question was about, for the log line of a refusal: by then the machine may have
/// forgotten.
#[derive(Debug, Default)]
struct Asked {
    reverse_path: Option<ReversePath>,
    forward_path: Option<ForwardPath>,
}

impl Asked {
    fn about(server: &Server, question: &Question) -> Self {
        let reverse_path = server.transaction().map(|transaction| transaction.reverse_path.clone());
        match question {
            Question::Sender { reverse_path, .. } => {
                Self { reverse_path: Some(reverse_path.clone()), forward_path: None }
            }
            Question::Recipient(forward_path) => {
                Self { reverse_path, forward_path: Some(forward_path.clone()) }
            }
            Question::Content(_) => Self { reverse_path, forward_path: None },
            Question::Login(_) => Self::default(),
        }
    }
}

/// A message between its last octet and the promise.
struct Arrived {
    incoming: Result<Incoming, PutError>,
    received_fields: usize,
}

/// Octets read at once while waiting for commands: on the stack of an idle session.
const COMMAND_READ_OCTETS: usize = 2048;
/// Octets read at once inside DATA; the buffer goes when the message ends.
const BODY_READ_OCTETS: usize = 32 * 1024;
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
            address,
            role,
            ticket,
            services,
            trace,
            lines: LineBuffer::new(),
            outbox: Outbox::default(),
            session_end,
            message: None,
            asked: Asked::default(),
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
        let mut server = Server::new(self.services.machine_settings(self.role), facts);
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
                self.asked = Asked::about(server, &question);
                let verdict = self.decide(server, &question);
                verdict.because.iter().for_each(|reason| self.trace.event(reason.as_str()));
                Some(server.answer(verdict))
            }
            Action::ReceiveBody { reply, octets_max } => {
                self.ticket.guest.busy();
                // Before the client hears 354: from then on it may finish, even if we are told to
                // stop before its first octet.
                let incoming = self.services.queue.begin();
                let said = self.say(server, &reply).and_then(|()| self.flush());
                // The transaction of a message that is too big is over before anybody is asked.
                self.asked.reverse_path =
                    server.transaction().map(|transaction| transaction.reverse_path.clone());
                Some(match said.and_then(|()| self.receive(incoming, octets_max)) {
                    Ok(end) => server.body(end),
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
                // The client may be gone; that is its right.
                let _ = self.say(server, &reply).and_then(|()| self.flush()).and_then(|()| self.hang_up());
                None
            }
            Action::Close => None,
        }
    }

    /// Waits for a line and gives it to the machine.
    fn next_line(&mut self, server: &mut Server) -> Action {
        if !self.lines.has_line() {
            self.ticket.guest.idle();
        }
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
            let deadline = self.deadline(self.services.settings.command_timeout, self.session_end);
            match self.flush().and_then(|()| self.read(&mut buffer, deadline)) {
                Ok(octets) => self.lines.push(buffer.get(..octets).unwrap_or_default()),
                Err(e) => return server.end(self.end_of(&e)),
            }
        }
    }

    /// Streams a message into the queue's hands. After an error of the queue's the rest is read and
    /// thrown away, so that the client hears why.
    fn receive(&mut self, mut incoming: Result<Incoming, PutError>, octets_max: u64) -> io::Result<BodyEnd> {
        let mut reader = BodyReader::new(octets_max);
        let mut watch = HeaderWatch::default();
        let mut sink = |octets: &[u8]| {
            watch.feed(octets);
            if let Ok(open) = &mut incoming
                && let Err(e) = open.append(octets)
            {
                incoming = Err(e);
            }
        };
        let message_end =
            (self.services.clock.now() + self.services.settings.message_timeout).min(self.session_end);
        let mut buffer = Vec::new();
        let end = loop {
            let pending = self.lines.pending();
            let octets = pending.len();
            if let Some((used, end)) = reader.feed(pending, &mut sink) {
                self.lines.consume(used);
                break end;
            }
            self.lines.consume(octets);
            buffer.resize(BODY_READ_OCTETS, 0);
            let deadline = self.deadline(self.services.settings.command_timeout, message_end);
            let octets = self.read(&mut buffer, deadline)?;
            self.lines.push(buffer.get(..octets).unwrap_or_default());
        };
        self.message = Some(Arrived { incoming, received_fields: watch.received() });
        Ok(end)
    }

    fn decide(&mut self, server: &Server, question: &Question) -> Verdict {
        let asking = Asking {
            address: self.address.ip(),
            hello: server.hello().map_or("", smtp::Hello::as_str),
            is_encrypted: server.tls_facts().is_some(),
            login: server.login(),
        };
        match question {
            Question::Sender { reverse_path, .. } => self.services.policy.sender(&asking, reverse_path),
            Question::Recipient(forward_path) => self.services.policy.recipient(&asking, forward_path),
            Question::Login(login) => {
                let verdict = self.services.policy.login(&asking, login);
                maillog::login(self.address.ip(), &login.authentication, login_outcome(&verdict.answer));
                verdict
            }
            Question::Content(facts) => {
                let Some(transaction) = server.transaction() else {
                    return Verdict::refused(Failure::transient(
                        3,
                        0,
                        "Something is wrong here, try again later",
                    ));
                };
                match self.promise(transaction, facts) {
                    Ok(id) => Verdict::new(Answer::Queued(id)),
                    Err(failure) => Verdict::refused(failure),
                }
            }
        }
    }

    /// Puts the message into the queue. When this returns an id, the message is safe on disk.
    fn promise(&mut self, transaction: &Transaction, facts: &BodyFacts) -> Result<MessageId, Failure> {
        let Some(Arrived { incoming, received_fields }) = self.message.take() else {
            return Err(Failure::transient(3, 0, "Something is wrong here, try again later"));
        };
        let received_max = self.services.settings.received_max;
        if received_fields > received_max {
            self.services.counters.loops.add_one();
            let text =
                format!("This message has passed {received_fields} servers, so it goes round in circles");
            return Err(Failure::permanent(4, 6, text));
        }
        let incoming = incoming.map_err(|e| not_queued(&e))?;
        let (id, octets) = (incoming.id(), incoming.octets());
        let envelope = self.envelope(id, transaction, facts);
        incoming.commit(envelope.clone()).map_err(|e| not_queued(&e))?;
        self.services.counters.messages.add_one();
        self.trace.event(format!("{id}: {octets} octets safe on disk"));
        maillog::queued(&envelope, octets);
        Ok(id)
    }

    fn envelope(&self, id: MessageId, transaction: &Transaction, facts: &BodyFacts) -> Envelope {
        let arrived = self.services.clock.wall();
        let client = Client {
            address: self.address.ip(),
            hello: transaction.hello.as_str().to_owned(),
            tls: transaction.tls.clone(),
        };
        let stamp = stamp::received(&Passage {
            client: &client,
            is_authenticated: transaction.login.is_some(),
            is_extended: transaction.is_esmtp,
            is_smtputf8: transaction.parameters.smtputf8,
            hostname: &self.services.settings.hostname,
            id,
            arrived,
        });
        Envelope {
            stamp,
            body: transaction.parameters.body,
            has_8bit: facts.has_8bit,
            has_long_lines: facts.has_long_lines,
            smtputf8: transaction.parameters.smtputf8,
            login: transaction.login.clone(),
            client: Some(client),
            ..Envelope::new(id, arrived, transaction.reverse_path.clone(), transaction.recipients.clone())
        }
    }

    fn say(&mut self, server: &Server, reply: &Reply) -> io::Result<()> {
        self.services.counters.replies.add_one(&reply.code.to_string());
        let Asked { reverse_path, forward_path } = std::mem::take(&mut self.asked);
        if reply.code >= 400 {
            self.trace.error(reply.said());
            let transaction = server.transaction();
            let reverse_path = reverse_path.as_ref().or(transaction.map(|t| &t.reverse_path));
            let forward_path = forward_path.as_ref().map(|path| path as &dyn fmt::Display);
            maillog::refused(self.address.ip(), reverse_path, forward_path, &reply.said());
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
        let deadline = self.deadline(self.services.settings.command_timeout, self.session_end);
        let mut stream = self.stream.take().ok_or(io::ErrorKind::NotConnected)?;
        stream.set_deadline(deadline);
        match self.services.tls.accept(stream) {
            Ok((stream, facts)) => {
                self.services.counters.tls.add_one("done");
                self.trace.event(facts.to_string());
                self.stream = Some(stream);
                Ok(facts)
            }
            Err(e) => {
                self.services.counters.tls.add_one("failed");
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

/// For the log: only what is the client's doing counts against it.
fn login_outcome(answer: &Answer) -> maillog::Login {
    match answer {
        Answer::User(_) => maillog::Login::Succeeded,
        Answer::WrongLogin | Answer::Refused(Failure::Permanent(_)) => maillog::Login::Failed,
        Answer::RefusedWith(reply) if reply.is_permanent() => maillog::Login::Failed,
        Answer::Refused(Failure::Transient(_))
        | Answer::RefusedWith(_)
        | Answer::Accepted
        | Answer::Recipients(_)
        | Answer::Queued(_) => maillog::Login::Unavailable,
    }
}

fn not_queued(error: &PutError) -> Failure {
    log::error!("a message was not taken: {error}");
    match error {
        PutError::Full => Failure::transient(3, 1, "There is no room for your message now, try again later"),
        PutError::Io(_) => Failure::transient(3, 0, "Your message could not be stored, try again later"),
        PutError::Stopping => Failure::transient(3, 2, "The server is stopping, try again later"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_overload_of_ours_does_not_count_against_a_user() {
        let busy = Answer::Refused(Failure::transient(7, 0, "too many logins at once"));
        assert_eq!(login_outcome(&busy), maillog::Login::Unavailable);
        assert_eq!(login_outcome(&Answer::WrongLogin), maillog::Login::Failed);
    }
}
