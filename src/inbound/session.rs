//! One session with a client: the connection around the protocol state machine `smtp::Server`.
//!
//! The session reads octets, gives lines to the server, and does what the returned action says: it sends a
//! reply, makes a TLS handshake, asks the policy, or streams a message into the queue. The rules of SMTP are
//! in `smtp::server`. Each session runs on its own thread; every wait has a deadline, and so has the session.
//!
//! Most sessions are idle, in `next_line` below `perform`, and each of them keeps the stack frames of these
//! two functions. So code that is rarely run and needs room is not inlined into them.

use std::io::{self, Read as _};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use super::accepted_client::AcceptedClient;
use super::circumstances::Circumstances;
use super::content::{Arrival, MessageContext, queue_refusal};
use super::listener_role::ListenerRole;
use super::refusal::{Refusal, RefusalStage};
use super::reply_buffer::ReplyBuffer;
use super::server_settings::server_settings;
use super::services::SessionServices;
use super::session_limits::SessionSlot;
use super::settings::Settings;
use crate::mail::Failure;
use crate::observe::Trace;
use crate::queue::PutError;
use crate::smtp::{
    self, Answer, Command, LineBuffer, Question, ReceiveMode, Reply, Server, ServerAction, SessionEnd,
    Verdict,
};
use crate::sys::{Moment, Stream};
use crate::tls::{AcceptedTls, is_not_tls};

/// A session with one client.
pub(super) struct Session {
    /// `None` once the connection is lost in a handshake.
    stream: Option<Box<dyn Stream>>,
    /// The channel binding of the TLS connection (RFC 9266).
    channel_binding: Option<[u8; 32]>,
    address: SocketAddr,
    role: ListenerRole,
    slot: SessionSlot,
    services: Arc<SessionServices>,
    /// As they were when the session began.
    settings: Arc<Settings>,
    trace: Trace,
    line_buffer: LineBuffer,
    reply_buffer: ReplyBuffer,
    /// The part of the session, for a refusal.
    stage: RefusalStage,
    /// The reasons for the next reply, if it is a refusal.
    because: Vec<String>,
    session_deadline: Moment,
    /// The message that arrives, or that is complete and waits for the question about its content.
    message: Option<Arrival>,
    /// The message must be complete by then.
    message_deadline: Moment,
}

/// Octets read at once while waiting for commands: on the stack of an idle session.
const COMMAND_READ_OCTETS: usize = 1024;
/// Octets read at once inside a message; the buffer is dropped at the end of the message or chunk.
const BODY_READ_OCTETS: usize = 32 * 1024;
/// Longest time of a TLS handshake, if the time for a command is longer.
const HANDSHAKE_TIMEOUT_MAX: Duration = Duration::from_mins(1);
/// For how long, and for how many octets, the input is read after the last reply.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);
const CLOSE_OCTETS_MAX: usize = 1024 * 1024;

impl Session {
    pub(super) fn new(client: AcceptedClient, address: SocketAddr) -> Self {
        let AcceptedClient { stream, role, slot, services, settings, peer: _ } = client;
        let trace = services.traces.begin("session", format!("{} {address}", role.name()));
        let session_deadline = services.clock.now() + settings.session_timeout;
        Self {
            stream: Some(stream),
            channel_binding: None,
            address,
            role,
            slot,
            services,
            settings,
            trace,
            line_buffer: LineBuffer::new(),
            reply_buffer: ReplyBuffer::default(),
            stage: RefusalStage::Command,
            because: Vec::new(),
            session_deadline,
            message: None,
            message_deadline: session_deadline,
        }
    }

    /// Serves the client until one side closes the connection.
    pub(super) fn run(mut self) {
        let tls_info = if self.role.is_implicit_tls() {
            match self.accept_tls() {
                Ok(tls_info) => Some(tls_info),
                Err(_) => return,
            }
        } else {
            None
        };
        let settings = server_settings(&self.services, &self.settings, self.role, self.address.ip());
        let mut server = Server::new(settings, tls_info);
        let mut action =
            if self.slot.handle.is_stopping() { self.stop(&mut server) } else { server.greeting() };
        while let Some(next) = self.perform(&mut server, action) {
            action = next;
        }
    }

    /// Does what an action says; the next action, or `None` at the end.
    fn perform(&mut self, server: &mut Server, action: ServerAction) -> Option<ServerAction> {
        match action {
            ServerAction::Reply(reply) => Some(match self.add_reply(server, reply) {
                Ok(()) => self.next_line(server),
                Err(e) => self.end(server, &e),
            }),
            ServerAction::Continue => Some(self.next_line(server)),
            ServerAction::Ask(question) => {
                let verdict = self.answer_question(server, &question);
                Some(server.answer(verdict))
            }
            ServerAction::Receive { reply, mode } => {
                self.slot.handle.mark_busy();
                // Before 354 is sent: from then on the client may finish the message, even if the server
                // stops before its first octet.
                self.begin_message(mode);
                let sent = reply.map_or(Ok(()), |reply| self.add_reply(server, reply));
                Some(match sent.and_then(|()| self.receive(server)) {
                    Ok(action) => action,
                    Err(e) => self.end(server, &e),
                })
            }
            ServerAction::StartTls(reply) => {
                if let Err(e) = self.add_reply(server, reply).and_then(|()| self.flush()) {
                    return Some(self.end(server, &e));
                }
                // RFC 3207 §4.2: input that came in plain text is discarded.
                self.line_buffer.clear();
                let tls_info = self.accept_tls();
                Some(server.handshake_done(tls_info.ok()))
            }
            ServerAction::ReplyAndClose(reply) => {
                self.reply_and_close(server, reply);
                None
            }
            ServerAction::RejectForeignProtocol { reply, protocol } => {
                self.services.counters.non_smtp_clients.add_one(protocol.name());
                self.reply_and_close(server, reply);
                None
            }
            ServerAction::Close => None,
        }
    }

    /// Waits for a line and gives it to the server.
    fn next_line(&mut self, server: &mut Server) -> ServerAction {
        if !server.is_receiving() {
            self.message = None;
            if self.slot.handle.is_stopping() {
                // Lines that the client has sent ahead are not answered.
                return self.stop(server);
            }
            if !self.line_buffer.has_line() {
                self.slot.handle.mark_idle();
            }
        }
        // The deadline is for the whole line, however slowly its octets come.
        let deadline = self.deadline(self.settings.command_timeout, self.session_deadline);
        loop {
            if let Some(line) = self.line_buffer.next_line(server.line_octets_max()) {
                let verb = line.ok().map(Command::verb);
                if !server.is_authenticating() {
                    self.stage = verb.map_or(RefusalStage::Command, RefusalStage::of_verb);
                }
                if let Some(verb) = verb {
                    self.services.counters.commands.add_one(verb);
                }
                if let Ok(line) = line {
                    self.trace.add_event(server.printable_line(line));
                }
                return server.line(line);
            }
            self.line_buffer.release_if_empty();
            let mut buffer = [0; COMMAND_READ_OCTETS];
            match self.flush().and_then(|()| self.read(&mut buffer, deadline)) {
                Ok(octets) => self.line_buffer.push(buffer.get(..octets).unwrap_or_default()),
                Err(e) => return self.end(server, &e),
            }
        }
    }

    fn begin_message(&mut self, mode: ReceiveMode) {
        self.message = match mode {
            ReceiveMode::Begin => Some(Arrival::begin(&self.services.queue)),
            ReceiveMode::Continue => return,
            ReceiveMode::Discard => None,
        };
        self.message_deadline =
            (self.services.clock.now() + self.settings.message_timeout).min(self.session_deadline);
    }

    /// Streams octets through the server into the queue, until the server returns an action.
    #[inline(never)]
    fn receive(&mut self, server: &mut Server) -> io::Result<ServerAction> {
        let mut message = self.message.take();
        let mut sink = |octets: &[u8]| {
            if let Some(arrival) = &mut message {
                arrival.append(octets);
            }
        };
        let mut buffer = Vec::new();
        let action = loop {
            let pending = self.line_buffer.pending();
            let octets = pending.len();
            if let Some((used, action)) = server.body(pending, &mut sink) {
                self.line_buffer.consume(used);
                break action;
            }
            self.line_buffer.consume(octets);
            buffer.resize(BODY_READ_OCTETS, 0);
            let deadline = self.deadline(self.settings.command_timeout, self.message_deadline);
            let octets = self.flush().and_then(|()| self.read(&mut buffer, deadline))?;
            self.line_buffer.push(buffer.get(..octets).unwrap_or_default());
        };
        self.message = message;
        Ok(action)
    }

    #[inline(never)]
    fn answer_question(&mut self, server: &Server, question: &Question) -> Verdict {
        let mut verdict = self.verdict(server, question);
        match verdict.answer {
            // The reasons are recorded with the reply.
            Answer::Refused(_) | Answer::RefusedWith(_) | Answer::WrongLogin => {
                self.because = std::mem::take(&mut verdict.reasons);
            }
            Answer::Sender(_)
            | Answer::Recipients(_)
            | Answer::User(_)
            | Answer::ScramStart(_)
            | Answer::Queued(_) => {
                verdict.reasons.iter().for_each(|reason| self.trace.add_event(reason.as_str()));
            }
        }
        verdict
    }

    fn verdict(&mut self, server: &Server, question: &Question) -> Verdict {
        let message = if matches!(question, Question::Content(_)) { self.message.take() } else { None };
        let circumstances = self.circumstances(server);
        let services = &self.services;
        match question {
            // There is no room for the message: refused before the client sends it.
            Question::Sender { .. } if services.queue.is_disk_full() => queue_refusal(&PutError::Full),
            Question::Sender { reverse_path, .. } => {
                services.policy.check_sender(&circumstances, reverse_path)
            }
            Question::Recipient(forward_path) => {
                let verdict = services.policy.check_recipient(&circumstances, forward_path);
                services.hooks.run_rcpt_hook(&circumstances, forward_path, verdict, &self.trace)
            }
            Question::Login(login) => services.policy.check_login(&circumstances, login),
            Question::ScramStart { user } => services.policy.scram_start(&circumstances, user),
            Question::Content(body_facts) => {
                let (Some(transaction), Some(arrival)) = (server.transaction(), message) else {
                    let text = "Local error, try again later";
                    return Verdict::refused(Failure::transient(3, 0, text));
                };
                let trace = &self.trace;
                let settings = &self.settings;
                let context =
                    MessageContext { services, settings, trace, circumstances, transaction, body_facts };
                match arrival.commit(&context) {
                    Ok(id) => Verdict::new(Answer::Queued(id)),
                    Err(refusal) => refusal,
                }
            }
        }
    }

    /// What the session has learned about its client so far.
    fn circumstances<'a>(&'a self, server: &'a Server) -> Circumstances<'a> {
        let transaction = server.transaction();
        Circumstances {
            peer: self.address,
            is_in_relay_networks: self.settings.is_in_relay_networks(self.address.ip()),
            hello: server.hello().map_or("", smtp::HelloName::as_str),
            is_esmtp: transaction.is_some_and(|transaction| transaction.is_esmtp),
            tls: server.tls_facts(),
            channel_binding: self.channel_binding.as_ref().map(<[u8; 32]>::as_slice),
            login: server.login(),
            reverse_path: transaction.map(|transaction| &transaction.reverse_path),
            sender: transaction.map(|transaction| &transaction.sender),
        }
    }

    fn add_reply(&mut self, server: &Server, reply: Reply) -> io::Result<()> {
        self.services.counters.replies.add_one(&reply.code.to_string());
        if reply.code >= 400 {
            self.add_refusal(server, reply);
        } else {
            self.trace.add_event(reply.printable_text());
            self.reply_buffer.add(&reply.to_octets());
        }
        if self.reply_buffer.is_full() { self.flush() } else { Ok(()) }
    }

    #[inline(never)]
    fn add_refusal(&mut self, server: &Server, reply: Reply) {
        let reference = self.services.traces.new_reference(&*self.services.random);
        let because = std::mem::take(&mut self.because);
        let refusal = Refusal::new(reference, self.stage, reply, because, server.command_paths().clone());
        refusal.record(self.address.ip(), Some(&self.trace));
        self.reply_buffer.add(&refusal.reply().to_octets());
    }

    /// Sends the collected replies. After the end of the session's time there is a little more for the last.
    fn flush(&mut self) -> io::Result<()> {
        let end = self.session_deadline.max(self.services.clock.now() + CLOSE_TIMEOUT);
        let deadline = self.deadline(self.settings.command_timeout, end);
        let stream = self.stream.as_mut().ok_or(io::ErrorKind::NotConnected)?;
        self.reply_buffer.send(stream, deadline)
    }

    fn reply_and_close(&mut self, server: &Server, reply: Reply) {
        // The client may have closed the connection already.
        let _ =
            self.add_reply(server, reply).and_then(|()| self.flush()).and_then(|()| self.close_and_drain());
    }

    /// Ends the output, then reads until the client closes: closing a socket with unread octets resets the
    /// connection, and the client may lose the last reply.
    fn close_and_drain(&mut self) -> io::Result<()> {
        self.stream()?.shutdown_write()?;
        let mut buffer = [0; COMMAND_READ_OCTETS];
        let deadline = self.services.clock.now() + CLOSE_TIMEOUT;
        let mut left = CLOSE_OCTETS_MAX;
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

    fn accept_tls(&mut self) -> io::Result<crate::mail::TlsInfo> {
        let timeout = self.settings.command_timeout.min(HANDSHAKE_TIMEOUT_MAX);
        let deadline = self.deadline(timeout, self.session_deadline);
        let mut stream = self.stream.take().ok_or(io::ErrorKind::NotConnected)?;
        stream.set_deadline(deadline);
        match self.services.tls.accept(stream) {
            Ok(AcceptedTls { stream, tls_info, channel_binding }) => {
                self.services.counters.tls.add_one("succeeded");
                self.trace.add_event(tls_info.to_string());
                self.stream = Some(stream);
                self.channel_binding = channel_binding;
                Ok(tls_info)
            }
            Err(e) => {
                self.services.counters.tls.add_one("failed");
                if is_not_tls(&e) {
                    self.services.counters.non_smtp_clients.add_one("plain-text");
                }
                self.trace.add_error(format!("the TLS handshake failed: {e}"));
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

    /// Ends the session because of an error of its connection.
    fn end(&mut self, server: &mut Server, error: &io::Error) -> ServerAction {
        match error.kind() {
            _ if self.slot.handle.is_stopping() => self.stop(server),
            io::ErrorKind::TimedOut => {
                self.end_because(server, SessionEnd::TimedOut, "a deadline has passed")
            }
            _ => server.end(SessionEnd::InputEnded),
        }
    }

    fn stop(&mut self, server: &mut Server) -> ServerAction {
        self.end_because(server, SessionEnd::Stopping, "the server is stopping")
    }

    fn end_because(&mut self, server: &mut Server, end: SessionEnd, because: &str) -> ServerAction {
        self.stage = RefusalStage::End;
        self.because = vec![because.to_owned()];
        server.end(end)
    }
}
