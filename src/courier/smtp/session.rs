//! One conversation: does on a real stream what the client machine asks for.
//!
//! A blocking shell. It reads, writes, waits until a deadline and starts TLS; it does not interpret
//! replies. A conversation has two parts: up to the point at which the level of TLS is known, where the
//! caller decides whether mail may go over the connection, and the transfer. The connection is closed on
//! every path, except where every recipient has an answer and the peer waits for a command: there the
//! caller gets it back, for the next message or for QUIT.

use std::io;
use std::time::Duration;

use super::open_connection::{OpenConnection, describe_io_error};
use super::settings::Timeouts;
use super::tls_method::TlsMethod;
use crate::courier::Message;
use crate::mail::{Domain, Failure, printable};
use crate::observe::Trace;
use crate::smtp::client::{Client, ClientStep, Plan, RecipientResult, Wait};
use crate::smtp::{DotStuffer, Reply};
use crate::sys::{Clock, Moment, Stream};
use crate::tls::{HandshakeError, SecuredConnection, TlsClient};

/// What a conversation needs besides its connection.
pub(in crate::courier) struct SmtpConversation<'a> {
    pub(in crate::courier) clock: &'a dyn Clock,
    pub(in crate::courier) timeouts: &'a Timeouts,
    /// When the attempt must be over.
    pub(in crate::courier) deadline: Moment,
    pub(in crate::courier) trace: &'a Trace,
    pub(in crate::courier) message: &'a dyn Message,
    /// `None` where the plan is never to encrypt.
    pub(in crate::courier) handshake: Option<HandshakeContext<'a>>,
}

/// What a handshake needs.
pub(in crate::courier) struct HandshakeContext<'a> {
    pub(super) tls: &'a TlsClient,
    pub(super) method: TlsMethod,
    /// The name that the certificate should bear.
    pub(super) host: &'a Domain,
}

/// How far a conversation has come.
pub(in crate::courier) enum SessionProgress {
    /// The level of the connection is known and nothing has been said about the message:
    /// [`SmtpConversation::transfer`] goes on. The caller may withhold recipients before.
    LevelKnown(OpenConnection),
    /// The conversation is over.
    Ended(SessionResult),
}

/// How a conversation ended.
pub(in crate::courier) struct SessionResult {
    /// One for each recipient of the plan, in order.
    pub(in crate::courier) results: Vec<RecipientResult>,
    /// The handshake that the peer agreed to failed.
    pub(super) handshake_error: Option<HandshakeError>,
    /// The connection had carried a message before and could not carry this one: the result says nothing
    /// about the recipients.
    pub(super) is_stale: bool,
    /// The peer has sent no reply.
    pub(super) is_silent: bool,
    /// The connection, if it is still open.
    pub(super) connection: Option<OpenConnection>,
}

/// Octets read from the message at once.
const MESSAGE_BLOCK_OCTETS: usize = 16 * 1024;

impl SmtpConversation<'_> {
    /// The whole conversation, QUIT included, at whatever level the connection has.
    pub(in crate::courier) fn deliver_and_quit(
        &self,
        stream: Box<dyn Stream>,
        plan: Plan,
    ) -> Vec<RecipientResult> {
        let ended = match self.begin(stream, plan) {
            SessionProgress::LevelKnown(open) => self.transfer(open),
            SessionProgress::Ended(ended) => ended,
        };
        if let Some(mut open) = ended.connection {
            let deadline = self.deadline_after(self.timeouts.quit);
            if open.send_quit(deadline).is_ok() {
                open.await_quit_reply(deadline);
            }
        }
        ended.results
    }

    /// Begins the first message of a connection: greeting, EHLO, STARTTLS.
    pub(super) fn begin(&self, stream: Box<dyn Stream>, plan: Plan) -> SessionProgress {
        let (client, step) = Client::new(plan);
        self.run(OpenConnection::new(stream, client, self.clock.now()), step)
    }

    /// Begins the next message of a connection.
    pub(super) fn begin_next(&self, mut open: OpenConnection, plan: Plan) -> SessionProgress {
        let step = open.client.begin_message(plan);
        self.run(open, step)
    }

    /// Carries the message to all recipients that were not withheld.
    pub(super) fn transfer(&self, mut open: OpenConnection) -> SessionResult {
        loop {
            let step = open.client.begin_transactions();
            match self.run(open, step) {
                SessionProgress::Ended(ended) => return ended,
                // The machine asks once for each message.
                SessionProgress::LevelKnown(again) => open = again,
            }
        }
    }

    fn run(&self, mut open: OpenConnection, mut step: ClientStep) -> SessionProgress {
        let mut dot_deadline = None;
        loop {
            step = match step {
                ClientStep::Receive(wait) => {
                    self.receive(&mut open, self.reply_deadline(wait, &mut dot_deadline))
                }
                ClientStep::Send(ref octets, wait) | ClientStep::SendSecret(ref octets, wait) => {
                    self.trace.add_event(match step {
                        ClientStep::SendSecret(..) => "> what is needed to log in".to_owned(),
                        _ => format!("> {}", printable_commands(octets)),
                    });
                    match open.send(octets, self.deadline_after(self.timeouts.for_reply_to(wait))) {
                        Ok(()) => self.receive(&mut open, self.reply_deadline(wait, &mut dot_deadline)),
                        Err(error) => open.client.interrupted(&describe_io_error(&error)),
                    }
                }
                ClientStep::StartTls => {
                    self.discard_early_input(&mut open);
                    let Some(handshake) = &self.handshake else {
                        step = open.client.handshake_failed("it is not wanted here");
                        continue;
                    };
                    match self.start_tls(open.stream, handshake) {
                        Ok(secured) => {
                            (open.stream, open.level) = (secured.stream, secured.level);
                            open.client.handshake_succeeded()
                        }
                        Err(error) => {
                            let _ = open.client.handshake_failed(&error.to_string());
                            return SessionProgress::Ended(SessionResult {
                                handshake_error: Some(error),
                                ..SessionResult::from_client(&open.client)
                            });
                        }
                    }
                }
                ClientStep::CheckEncryption => return SessionProgress::LevelKnown(open),
                ClientStep::SendMessage => {
                    dot_deadline = None;
                    self.send_message(&mut open)
                }
                ClientStep::Quit(quit_octets) => {
                    let ended = SessionResult::from_client(&open.client);
                    open.message_count += 1;
                    open.quit_octets = quit_octets;
                    return SessionProgress::Ended(SessionResult { connection: Some(open), ..ended });
                }
                ClientStep::Close => {
                    open.stream.abort();
                    return SessionProgress::Ended(SessionResult::from_client(&open.client));
                }
            };
        }
    }

    fn deadline_after(&self, timeout: Duration) -> Moment {
        self.deadline.min(self.clock.now() + timeout)
    }

    /// When the wait for a reply is over.
    fn reply_deadline(&self, wait: Wait, dot_deadline: &mut Option<Moment>) -> Moment {
        match wait {
            // RFC 5321 §4.5.3.2.6, RFC 1047: a client that gives up on the reply to the final dot sends
            // the message twice. The wait is ten minutes even if the attempt's time is over; in LMTP the
            // replies to one dot share them.
            Wait::Dot => *dot_deadline.get_or_insert_with(|| self.clock.now() + self.timeouts.final_dot),
            Wait::Greeting | Wait::Hello | Wait::Mail | Wait::Rcpt | Wait::Data => {
                self.deadline_after(self.timeouts.for_reply_to(wait))
            }
        }
    }

    fn receive(&self, open: &mut OpenConnection, deadline: Moment) -> ClientStep {
        match self.read_reply(open, deadline) {
            Ok(reply) => open.client.reply(&reply),
            Err(why) => {
                self.trace.add_error(format!("no reply: {why}"));
                open.client.interrupted(&why)
            }
        }
    }

    /// One reply, or why there is none.
    fn read_reply(&self, open: &mut OpenConnection, deadline: Moment) -> Result<Reply, String> {
        let reply = open.read_reply(deadline)?;
        // The reply is printable; a long one is cut for the trace only.
        self.trace.add_event(format!("< {reply}").chars().take(500).collect::<String>());
        Ok(reply)
    }

    /// RFC 3207 §4.2: octets behind the reply to STARTTLS came before the encryption, and a server
    /// that follows the standard sends none.
    fn discard_early_input(&self, open: &mut OpenConnection) {
        let octets = open.replies.discard();
        if octets > 0 {
            self.trace.add_error(format!("threw away {octets} octets that came before TLS began"));
        }
    }

    fn start_tls(
        &self,
        mut stream: Box<dyn Stream>,
        handshake: &HandshakeContext<'_>,
    ) -> Result<SecuredConnection, HandshakeError> {
        stream.set_deadline(self.deadline_after(self.timeouts.handshake));
        let result = match handshake.method {
            // The method Plain starts TLS only on a port where TLS comes before the greeting.
            TlsMethod::Tls | TlsMethod::Plain => handshake.tls.handshake(stream, handshake.host),
            #[cfg(feature = "legacy-tls")]
            TlsMethod::LegacyTls => crate::tls::legacy::handshake(stream, handshake.host),
        };
        match &result {
            Ok(SecuredConnection { level, tls_info, level_reason, .. }) => {
                self.trace.add_event(format!("{tls_info}; {level}: {level_reason}"));
            }
            Err(error) => self.trace.add_error(format!("TLS handshake failed: {error}")),
        }
        result
    }

    fn send_message(&self, open: &mut OpenConnection) -> ClientStep {
        // A reply that was read before the message is written cannot be about the message.
        if let Ok(Some(reply)) = open.replies.next_reply() {
            self.trace.add_error(format!("< {reply}, before the message"));
            return open.client.reply(&reply);
        }
        match self.write_message(open) {
            Ok(octets) => {
                self.trace.add_event(format!("> the message, {octets} octets, and the final dot"));
                open.client.message_sent()
            }
            Err(TransferError::MessageUnreadable(why)) => {
                self.trace.add_error(format!("the message cannot be read: {why}"));
                let text = format!("the message cannot be read here: {why}");
                open.client.abandon(&Failure::transient(3, 0, text))
            }
            Err(TransferError::WriteFailed(error)) => {
                let why = describe_io_error(&error);
                self.trace.add_error(format!("the message cannot be written: {why}"));
                // A peer that stops reading has often sent a reply that says why.
                match self.read_reply(open, self.deadline_after(self.timeouts.quit)) {
                    Ok(reply) => open.client.reply(&reply),
                    Err(_) => open.client.interrupted(&why),
                }
            }
        }
    }

    /// Streams the message and ends it with the dot, unless the message is incomplete.
    fn write_message(&self, open: &mut OpenConnection) -> Result<u64, TransferError> {
        let unreadable = |error: io::Error| TransferError::MessageUnreadable(error.to_string());
        let mut message = self.message.open().map_err(unreadable)?;
        let mut stuffer = DotStuffer::new();
        let mut block = vec![0; MESSAGE_BLOCK_OCTETS];
        let mut out = Vec::with_capacity(MESSAGE_BLOCK_OCTETS * 2);
        let mut total = 0;
        loop {
            let count = match message.read(&mut block) {
                Ok(0) => break,
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(unreadable(error)),
            };
            total += count as u64;
            stuffer.feed(block.get(..count).unwrap_or_default(), &mut |part| out.extend_from_slice(part));
            self.write_block(open, &out)?;
            out.clear();
        }
        if total != self.message.octets() {
            let whole = self.message.octets();
            return Err(TransferError::MessageUnreadable(format!("it ends after {total} of {whole} octets")));
        }
        stuffer.finish(&mut |part| out.extend_from_slice(part));
        self.write_block(open, &out)?;
        Ok(total)
    }

    fn write_block(&self, open: &mut OpenConnection, octets: &[u8]) -> Result<(), TransferError> {
        open.send(octets, self.deadline_after(self.timeouts.write_block)).map_err(TransferError::WriteFailed)
    }
}

impl SessionResult {
    /// The results of the client machine.
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

/// Commands on one line, for the trace.
fn printable_commands(octets: &[u8]) -> String {
    let text = String::from_utf8_lossy(octets);
    printable(text.trim_end().replace("\r\n", " | ").as_bytes(), 500)
}
