//! One connection: what the client machine wants done, with a real stream.
//!
//! A blocking shell. It reads, writes, waits until a deadline and starts TLS; what a reply means it
//! does not know. It ends by closing the connection, on every path: the stream is its own. Only where
//! all is decided and the peer waits for the next command, the connection is handed back, for the next
//! message or for a goodbye.

use std::io::{self, Read as _, Write as _};
use std::time::Duration;

use super::address_attempt::TlsMethod;
use super::settings::Timeouts;
use crate::courier::Message;
use crate::mail::{Domain, Failure, printable};
use crate::observe::Trace;
use crate::smtp::client::{Client, ClientStep, Plan, RecipientResult, Wait};
use crate::smtp::{DotStuffer, Reply, ReplyReader};
use crate::sys::{Clock, Moment, Stream};
use crate::tls::{HandshakeError, SecuredConnection, SecurityLevel, TlsClient};

/// What a connection needs besides its stream.
pub(in crate::courier) struct ClientSession<'a> {
    pub(in crate::courier) clock: &'a dyn Clock,
    pub(in crate::courier) timeouts: &'a Timeouts,
    /// When the attempt must be over.
    pub(in crate::courier) deadline: Moment,
    pub(in crate::courier) trace: &'a Trace,
    pub(in crate::courier) message: &'a dyn Message,
    /// Who does the handshake; nobody where the plan is never to encrypt.
    pub(in crate::courier) handshake: Option<HandshakeContext<'a>>,
}

/// What a handshake needs.
pub(in crate::courier) struct HandshakeContext<'a> {
    pub(super) tls: &'a TlsClient,
    pub(super) method: TlsMethod,
    /// The name that the certificate should bear.
    pub(super) host: &'a Domain,
}

/// A connection on which all is decided, and the peer waits for the next command.
pub(in crate::courier) struct OpenConnection {
    stream: Box<dyn Stream>,
    pub(super) client: Client,
    replies: ReplyReader,
    level: SecurityLevel,
    /// When it was opened.
    pub(super) opened_at: Moment,
    /// Messages that it was used for.
    pub(super) message_count: u32,
    quit_octets: Vec<u8>,
}

impl OpenConnection {
    /// Says QUIT.
    ///
    /// # Errors
    /// The peer is gone already.
    pub(super) fn send_quit(&mut self, until: Moment) -> io::Result<()> {
        self.stream.set_deadline(until);
        self.stream.write_all(&self.quit_octets).and_then(|()| self.stream.flush())
    }

    /// RFC 5321 §4.1.1.10: waits for the reply to QUIT; but nothing depends on that any more.
    pub(super) fn await_quit_reply(mut self, until: Moment) {
        if read_reply(&mut self.stream, &mut self.replies, until).is_err() {
            self.stream.abort();
        }
    }
}

/// How a conversation ended.
pub(in crate::courier) struct SessionResult {
    /// One for each recipient of the plan, in order.
    pub(in crate::courier) results: Vec<RecipientResult>,
    /// STARTTLS was agreed and did not work out.
    pub(in crate::courier) handshake_error: Option<HandshakeError>,
    /// The connection had been kept and was of no more use: nothing is to be concluded.
    pub(super) is_stale: bool,
    /// Nobody said a word.
    pub(super) is_silent: bool,
    /// The connection, if it still is one.
    pub(super) connection: Option<OpenConnection>,
}

/// Octets read from the message at once, and from the peer.
const MESSAGE_BLOCK_OCTETS: usize = 16 * 1024;
const REPLY_BLOCK_OCTETS: usize = 2 * 1024;

impl ClientSession<'_> {
    /// Talks to the end, goodbye included. `check` is asked once, when it is known what the connection
    /// is worth, and may withhold recipients.
    pub(in crate::courier) fn deliver_and_quit(
        &self,
        stream: Box<dyn Stream>,
        plan: Plan,
        check: impl Fn(SecurityLevel, &mut Client),
    ) -> Vec<RecipientResult> {
        let ended = self.deliver_first(stream, plan, check);
        if let Some(mut open) = ended.connection {
            let until = self.deadline_after(self.timeouts.quit);
            if open.send_quit(until).is_ok() {
                open.await_quit_reply(until);
            }
        }
        ended.results
    }

    /// The first message on a connection.
    pub(super) fn deliver_first(
        &self,
        stream: Box<dyn Stream>,
        plan: Plan,
        check: impl Fn(SecurityLevel, &mut Client),
    ) -> SessionResult {
        let (client, step) = Client::new(plan);
        let (replies, began) = (ReplyReader::default(), self.clock.now());
        let open = OpenConnection {
            stream,
            client,
            replies,
            level: SecurityLevel::Plain,
            opened_at: began,
            message_count: 0,
            quit_octets: Vec::new(),
        };
        self.run(open, step, check)
    }

    /// The next one.
    pub(super) fn deliver_next(
        &self,
        mut open: OpenConnection,
        plan: Plan,
        check: impl Fn(SecurityLevel, &mut Client),
    ) -> SessionResult {
        let step = open.client.begin_message(plan);
        self.run(open, step, check)
    }

    fn run(
        &self,
        open: OpenConnection,
        mut step: ClientStep,
        check: impl Fn(SecurityLevel, &mut Client),
    ) -> SessionResult {
        let OpenConnection {
            mut stream,
            mut client,
            mut replies,
            mut level,
            opened_at: began,
            message_count: messages,
            ..
        } = open;
        let mut dot_by = None;
        loop {
            step = match step {
                ClientStep::Receive(wait) => self.receive(
                    &mut stream,
                    &mut replies,
                    &mut client,
                    self.reply_deadline(wait, &mut dot_by),
                ),
                ClientStep::Send(ref octets, wait) | ClientStep::SendSecret(ref octets, wait) => {
                    self.trace.add_event(match step {
                        ClientStep::SendSecret(..) => "> what is needed to log in".to_owned(),
                        _ => format!("> {}", printable_commands(octets)),
                    });
                    match self.send(&mut stream, octets, self.timeouts.for_reply_to(wait)) {
                        Ok(()) => self.receive(
                            &mut stream,
                            &mut replies,
                            &mut client,
                            self.reply_deadline(wait, &mut dot_by),
                        ),
                        Err(error) => client.interrupted(&describe_io_error(&error)),
                    }
                }
                ClientStep::StartTls => {
                    self.discard_early_input(&mut replies);
                    let Some(security) = &self.handshake else {
                        step = client.handshake_failed("it is not wanted here");
                        continue;
                    };
                    match self.start_tls(stream, security) {
                        Ok(secured) => {
                            (stream, level) = (secured.stream, secured.level);
                            client.handshake_succeeded()
                        }
                        Err(error) => {
                            let _ = client.handshake_failed(&error.to_string());
                            return SessionResult {
                                handshake_error: Some(error),
                                ..SessionResult::from_client(&client)
                            };
                        }
                    }
                }
                ClientStep::CheckEncryption => {
                    check(level, &mut client);
                    client.begin_transactions()
                }
                ClientStep::SendMessage => {
                    dot_by = None;
                    self.send_message(&mut stream, &mut replies, &mut client)
                }
                ClientStep::Quit(goodbye) => {
                    let ended = SessionResult::from_client(&client);
                    let messages = messages + 1;
                    let open = OpenConnection {
                        stream,
                        client,
                        replies,
                        level,
                        opened_at: began,
                        message_count: messages,
                        quit_octets: goodbye,
                    };
                    return SessionResult { connection: Some(open), ..ended };
                }
                ClientStep::Close => {
                    stream.abort();
                    return SessionResult::from_client(&client);
                }
            };
        }
    }

    fn deadline_after(&self, timeout: Duration) -> Moment {
        self.deadline.min(self.clock.now() + timeout)
    }

    /// When the wait for a reply is over.
    fn reply_deadline(&self, wait: Wait, dot_by: &mut Option<Moment>) -> Moment {
        match wait {
            // RFC 5321 §4.5.3.2.6, RFC 1047: who gives up on this one sends the message twice. It has
            // its ten minutes, though the attempt's time may be over; LMTP's replies to it have them
            // together.
            Wait::Dot => *dot_by.get_or_insert_with(|| self.clock.now() + self.timeouts.final_dot),
            other => self.deadline_after(self.timeouts.for_reply_to(other)),
        }
    }

    fn send(&self, stream: &mut Box<dyn Stream>, octets: &[u8], timeout: Duration) -> io::Result<()> {
        stream.set_deadline(self.deadline_after(timeout));
        stream.write_all(octets)?;
        stream.flush()
    }

    fn receive(
        &self,
        stream: &mut Box<dyn Stream>,
        replies: &mut ReplyReader,
        client: &mut Client,
        deadline: Moment,
    ) -> ClientStep {
        match self.read_reply(stream, replies, deadline) {
            Ok(reply) => client.reply(&reply),
            Err(why) => {
                self.trace.add_error(format!("no reply: {why}"));
                client.interrupted(&why)
            }
        }
    }

    /// One reply, or why there is none.
    fn read_reply(
        &self,
        stream: &mut Box<dyn Stream>,
        replies: &mut ReplyReader,
        deadline: Moment,
    ) -> Result<Reply, String> {
        let reply = read_reply(stream, replies, deadline)?;
        // It is printable already; a long one is cut for the trace only.
        self.trace.add_event(format!("< {reply}").chars().take(500).collect::<String>());
        Ok(reply)
    }

    /// RFC 3207 §4.2: what was read behind the reply to STARTTLS came before the encryption did, and
    /// an honest server sends nothing there.
    fn discard_early_input(&self, replies: &mut ReplyReader) {
        let ahead = replies.discard();
        if ahead > 0 {
            self.trace.add_error(format!("threw away {ahead} octets that came before TLS began"));
        }
    }

    fn start_tls(
        &self,
        mut stream: Box<dyn Stream>,
        security: &HandshakeContext<'_>,
    ) -> Result<SecuredConnection, HandshakeError> {
        stream.set_deadline(self.deadline_after(self.timeouts.handshake));
        let result = match security.method {
            // A connection in plain text has no STARTTLS; were there one, this would be its way.
            TlsMethod::Tls | TlsMethod::Plain => security.tls.handshake(stream, security.host),
            #[cfg(feature = "legacy-tls")]
            TlsMethod::LegacyTls => crate::tls::legacy::handshake(stream, security.host),
        };
        match &result {
            Ok(SecuredConnection { level, tls_info: facts, level_reason: because, .. }) => {
                self.trace.add_event(format!("{facts}; {level}: {because}"));
            }
            Err(error) => self.trace.add_error(format!("TLS handshake failed: {error}")),
        }
        result
    }

    fn send_message(
        &self,
        stream: &mut Box<dyn Stream>,
        replies: &mut ReplyReader,
        client: &mut Client,
    ) -> ClientStep {
        // A reply that is here already cannot be about a message that is not written yet.
        if let Ok(Some(reply)) = replies.next_reply() {
            self.trace.add_error(format!("< {reply}, before the message"));
            return client.reply(&reply);
        }
        match self.write_message(stream) {
            Ok(octets) => {
                self.trace.add_event(format!("> the message, {octets} octets, and the final dot"));
                client.message_sent()
            }
            Err(TransferError::MessageUnreadable(why)) => {
                self.trace.add_error(format!("the message cannot be read: {why}"));
                client.abandon(&Failure::transient(3, 0, format!("the message cannot be read here: {why}")))
            }
            Err(TransferError::WriteFailed(error)) => {
                let why = describe_io_error(&error);
                self.trace.add_error(format!("the message cannot be written: {why}"));
                // A peer that stops reading often has said why.
                match self.read_reply(stream, replies, self.deadline_after(self.timeouts.quit)) {
                    Ok(reply) => client.reply(&reply),
                    Err(_) => client.interrupted(&why),
                }
            }
        }
    }

    /// Streams the message and ends it with the dot, unless it turns out to be incomplete.
    fn write_message(&self, stream: &mut Box<dyn Stream>) -> Result<u64, TransferError> {
        let ours = |error: io::Error| TransferError::MessageUnreadable(error.to_string());
        let mut message = self.message.open().map_err(ours)?;
        let mut stuffer = DotStuffer::new();
        let mut block = vec![0; MESSAGE_BLOCK_OCTETS];
        let mut out = Vec::with_capacity(MESSAGE_BLOCK_OCTETS * 2);
        let mut total = 0;
        loop {
            let count = match message.read(&mut block) {
                Ok(0) => break,
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(ours(error)),
            };
            total += count as u64;
            stuffer.feed(block.get(..count).unwrap_or_default(), &mut |part| out.extend_from_slice(part));
            self.write_block(stream, &out)?;
            out.clear();
        }
        if total != self.message.octets() {
            let whole = self.message.octets();
            return Err(TransferError::MessageUnreadable(format!("it ends after {total} of {whole} octets")));
        }
        stuffer.finish(&mut |part| out.extend_from_slice(part));
        self.write_block(stream, &out)?;
        Ok(total)
    }

    fn write_block(&self, stream: &mut Box<dyn Stream>, octets: &[u8]) -> Result<(), TransferError> {
        stream.set_deadline(self.deadline_after(self.timeouts.write_block));
        stream.write_all(octets).and_then(|()| stream.flush()).map_err(TransferError::WriteFailed)
    }
}

impl SessionResult {
    /// As the client machine sees it.
    fn from_client(client: &Client) -> Self {
        Self {
            results: client.results(),
            handshake_error: None,
            is_stale: client.is_stale(),
            is_silent: !client.has_received_reply(),
            connection: None,
        }
    }
}

/// Why the message was not written to its end.
enum TransferError {
    MessageUnreadable(String),
    WriteFailed(io::Error),
}

fn read_reply(
    stream: &mut Box<dyn Stream>,
    replies: &mut ReplyReader,
    deadline: Moment,
) -> Result<Reply, String> {
    stream.set_deadline(deadline);
    let mut octets = [0; REPLY_BLOCK_OCTETS];
    loop {
        if let Some(reply) = replies.next_reply().map_err(|error| error.to_string())? {
            return Ok(reply);
        }
        match stream.read(&mut octets) {
            Ok(0) => return Err("the other side closed the connection".to_owned()),
            Ok(count) => replies.feed(octets.get(..count).unwrap_or_default()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(describe_io_error(&error)),
        }
    }
}

/// An error in plain words, without the number that the system has for it.
pub(in crate::courier) fn describe_io_error(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::TimedOut => "timed out".to_owned(),
        io::ErrorKind::UnexpectedEof => "the other side closed the connection".to_owned(),
        kind if error.get_ref().is_none() && !kind.to_string().starts_with("uncategorized") => {
            kind.to_string()
        }
        _ => printable(error.to_string().as_bytes(), 300),
    }
}

/// Commands on one line, for the trace.
fn printable_commands(octets: &[u8]) -> String {
    let text = String::from_utf8_lossy(octets);
    printable(text.trim_end().replace("\r\n", " | ").as_bytes(), 500)
}
