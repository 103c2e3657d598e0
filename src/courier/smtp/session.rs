//! One connection: what the client machine wants done, with a real stream.
//!
//! A blocking shell. It reads, writes, waits until a deadline and starts TLS; what a reply means it
//! does not know. It ends by closing the connection, on every path: the stream is its own. Only where
//! all is decided and the peer waits for the next command, the connection is handed back, for the next
//! message or for a goodbye.

use std::io::{self, Read as _, Write as _};
use std::time::Duration;

use super::settings::Timeouts;
use super::visit::Method;
use crate::courier::Message;
use crate::mail::{Domain, Failure, printable};
use crate::observe::Trace;
use crate::smtp::client::{Answer, Client, Plan, Step, Wait};
use crate::smtp::{DotStuffer, Replies, Reply};
use crate::sys::{Clock, Moment, Stream};
use crate::tls::{HandshakeError, Level, Secured, TlsClient};

/// What a connection needs besides its stream.
pub(in crate::courier) struct Session<'a> {
    pub(in crate::courier) clock: &'a dyn Clock,
    pub(in crate::courier) timeouts: &'a Timeouts,
    /// When the attempt must be over.
    pub(in crate::courier) deadline: Moment,
    pub(in crate::courier) trace: &'a Trace,
    pub(in crate::courier) message: &'a dyn Message,
    /// Who does the handshake; nobody where the plan is never to encrypt.
    pub(in crate::courier) security: Option<Security<'a>>,
}

/// What a handshake needs.
pub(in crate::courier) struct Security<'a> {
    pub(super) tls: &'a TlsClient,
    pub(super) method: Method,
    /// The name that the certificate should bear.
    pub(super) host: &'a Domain,
}

/// A connection on which all is decided, and the peer waits for the next command.
pub(in crate::courier) struct Open {
    stream: Box<dyn Stream>,
    pub(super) client: Client,
    replies: Replies,
    level: Level,
    /// When it was opened.
    pub(super) began: Moment,
    /// Messages that it was used for.
    pub(super) messages: u32,
    goodbye: Vec<u8>,
}

impl Open {
    /// Says QUIT.
    ///
    /// # Errors
    /// The peer is gone already.
    pub(super) fn quit(&mut self, until: Moment) -> io::Result<()> {
        self.stream.set_deadline(until);
        self.stream.write_all(&self.goodbye).and_then(|()| self.stream.flush())
    }

    /// RFC 5321 §4.1.1.10: waits for the reply to QUIT; but nothing depends on that any more.
    pub(super) fn await_goodbye(mut self, until: Moment) {
        if read_reply(&mut self.stream, &mut self.replies, until).is_err() {
            self.stream.abort();
        }
    }
}

/// How a conversation ended.
pub(in crate::courier) struct Ended {
    /// One for each recipient of the plan, in order.
    pub(in crate::courier) answers: Vec<Answer>,
    /// STARTTLS was agreed and did not work out.
    pub(in crate::courier) handshake_error: Option<HandshakeError>,
    /// The connection had been kept and was of no more use: nothing is to be concluded.
    pub(super) is_stale: bool,
    /// Nobody said a word.
    pub(super) is_silent: bool,
    /// The connection, if it still is one.
    pub(super) open: Option<Open>,
}

/// Octets read from the message at once, and from the peer.
const BLOCK_OCTETS: usize = 16 * 1024;
const REPLY_OCTETS: usize = 2 * 1024;

impl Session<'_> {
    /// Talks to the end, goodbye included. `check` is asked once, when it is known what the connection
    /// is worth, and may withhold recipients.
    pub(in crate::courier) fn talk(
        &self,
        stream: Box<dyn Stream>,
        plan: Plan,
        check: impl Fn(Level, &mut Client),
    ) -> Vec<Answer> {
        let ended = self.begin(stream, plan, check);
        if let Some(mut open) = ended.open {
            let until = self.until(self.timeouts.goodbye);
            if open.quit(until).is_ok() {
                open.await_goodbye(until);
            }
        }
        ended.answers
    }

    /// The first message on a connection.
    pub(super) fn begin(
        &self,
        stream: Box<dyn Stream>,
        plan: Plan,
        check: impl Fn(Level, &mut Client),
    ) -> Ended {
        let (client, step) = Client::new(plan);
        let (replies, began) = (Replies::default(), self.clock.now());
        let open =
            Open { stream, client, replies, level: Level::Plain, began, messages: 0, goodbye: Vec::new() };
        self.converse(open, step, check)
    }

    /// The next one.
    pub(super) fn go_on(&self, mut open: Open, plan: Plan, check: impl Fn(Level, &mut Client)) -> Ended {
        let step = open.client.begin(plan);
        self.converse(open, step, check)
    }

    fn converse(&self, open: Open, mut step: Step, check: impl Fn(Level, &mut Client)) -> Ended {
        let Open { mut stream, mut client, mut replies, mut level, began, messages, .. } = open;
        let mut dot_by = None;
        loop {
            step = match step {
                Step::Receive(wait) => {
                    self.receive(&mut stream, &mut replies, &mut client, self.by(wait, &mut dot_by))
                }
                Step::Send(ref octets, wait) | Step::SendSecret(ref octets, wait) => {
                    self.trace.event(match step {
                        Step::SendSecret(..) => "> what is needed to log in".to_owned(),
                        _ => format!("> {}", shown(octets)),
                    });
                    match self.send(&mut stream, octets, self.timeouts.of(wait)) {
                        Ok(()) => {
                            self.receive(&mut stream, &mut replies, &mut client, self.by(wait, &mut dot_by))
                        }
                        Err(error) => client.interrupted(&words(&error)),
                    }
                }
                Step::StartTls => {
                    self.forget(&mut replies);
                    let Some(security) = &self.security else {
                        step = client.handshake_failed("it is not wanted here");
                        continue;
                    };
                    match self.secure(stream, security) {
                        Ok(secured) => {
                            (stream, level) = (secured.stream, secured.level);
                            client.secured()
                        }
                        Err(error) => {
                            let _ = client.handshake_failed(&error.to_string());
                            return Ended { handshake_error: Some(error), ..Ended::of(&client) };
                        }
                    }
                }
                Step::Settled => {
                    check(level, &mut client);
                    client.go_ahead()
                }
                Step::SendMessage => {
                    dot_by = None;
                    self.send_message(&mut stream, &mut replies, &mut client)
                }
                Step::Quit(goodbye) => {
                    let ended = Ended::of(&client);
                    let messages = messages + 1;
                    let open = Open { stream, client, replies, level, began, messages, goodbye };
                    return Ended { open: Some(open), ..ended };
                }
                Step::Close => {
                    stream.abort();
                    return Ended::of(&client);
                }
            };
        }
    }

    fn until(&self, timeout: Duration) -> Moment {
        self.deadline.min(self.clock.now() + timeout)
    }

    /// When the wait for a reply is over.
    fn by(&self, wait: Wait, dot_by: &mut Option<Moment>) -> Moment {
        match wait {
            // RFC 5321 §4.5.3.2.6, RFC 1047: who gives up on this one sends the message twice. It has
            // its ten minutes, though the attempt's time may be over; LMTP's replies to it have them
            // together.
            Wait::Dot => *dot_by.get_or_insert_with(|| self.clock.now() + self.timeouts.dot),
            other => self.until(self.timeouts.of(other)),
        }
    }

    fn send(&self, stream: &mut Box<dyn Stream>, octets: &[u8], timeout: Duration) -> io::Result<()> {
        stream.set_deadline(self.until(timeout));
        stream.write_all(octets)?;
        stream.flush()
    }

    fn receive(
        &self,
        stream: &mut Box<dyn Stream>,
        replies: &mut Replies,
        client: &mut Client,
        deadline: Moment,
    ) -> Step {
        match self.read_reply(stream, replies, deadline) {
            Ok(reply) => client.reply(&reply),
            Err(why) => {
                self.trace.error(format!("no reply: {why}"));
                client.interrupted(&why)
            }
        }
    }

    /// One reply, or why there is none.
    fn read_reply(
        &self,
        stream: &mut Box<dyn Stream>,
        replies: &mut Replies,
        deadline: Moment,
    ) -> Result<Reply, String> {
        let reply = read_reply(stream, replies, deadline)?;
        // It is printable already; a long one is cut for the trace only.
        self.trace.event(format!("< {reply}").chars().take(500).collect::<String>());
        Ok(reply)
    }

    /// RFC 3207 §4.2: what was read behind the reply to STARTTLS came before the encryption did, and
    /// an honest server sends nothing there.
    fn forget(&self, replies: &mut Replies) {
        let ahead = replies.discard();
        if ahead > 0 {
            self.trace.error(format!("threw away {ahead} octets that came before TLS began"));
        }
    }

    fn secure(
        &self,
        mut stream: Box<dyn Stream>,
        security: &Security<'_>,
    ) -> Result<Secured, HandshakeError> {
        stream.set_deadline(self.until(self.timeouts.handshake));
        let result = match security.method {
            // A connection in plain text has no STARTTLS; were there one, this would be its way.
            Method::Tls | Method::Plain => security.tls.handshake(stream, security.host),
            #[cfg(feature = "legacy-tls")]
            Method::LegacyTls => crate::tls::legacy::handshake(stream, security.host),
        };
        match &result {
            Ok(Secured { level, facts, because, .. }) => {
                self.trace.event(format!("{facts}; {level}: {because}"));
            }
            Err(error) => self.trace.error(format!("TLS handshake failed: {error}")),
        }
        result
    }

    fn send_message(&self, stream: &mut Box<dyn Stream>, replies: &mut Replies, client: &mut Client) -> Step {
        // A reply that is here already cannot be about a message that is not written yet.
        if let Ok(Some(reply)) = replies.take() {
            self.trace.error(format!("< {reply}, before the message"));
            return client.reply(&reply);
        }
        match self.write_message(stream) {
            Ok(octets) => {
                self.trace.event(format!("> the message, {octets} octets, and the final dot"));
                client.message_sent()
            }
            Err(Trouble::Ours(why)) => {
                self.trace.error(format!("the message cannot be read: {why}"));
                client.abandon(&Failure::transient(3, 0, format!("the message cannot be read here: {why}")))
            }
            Err(Trouble::Theirs(error)) => {
                let why = words(&error);
                self.trace.error(format!("the message cannot be written: {why}"));
                // A peer that stops reading often has said why.
                match self.read_reply(stream, replies, self.until(self.timeouts.goodbye)) {
                    Ok(reply) => client.reply(&reply),
                    Err(_) => client.interrupted(&why),
                }
            }
        }
    }

    /// Streams the message and ends it with the dot, unless it turns out to be incomplete.
    fn write_message(&self, stream: &mut Box<dyn Stream>) -> Result<u64, Trouble> {
        let ours = |error: io::Error| Trouble::Ours(error.to_string());
        let mut message = self.message.open().map_err(ours)?;
        let mut stuffer = DotStuffer::new();
        let mut block = vec![0; BLOCK_OCTETS];
        let mut out = Vec::with_capacity(BLOCK_OCTETS * 2);
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
            return Err(Trouble::Ours(format!("it ends after {total} of {whole} octets")));
        }
        stuffer.finish(&mut |part| out.extend_from_slice(part));
        self.write_block(stream, &out)?;
        Ok(total)
    }

    fn write_block(&self, stream: &mut Box<dyn Stream>, octets: &[u8]) -> Result<(), Trouble> {
        stream.set_deadline(self.until(self.timeouts.block));
        stream.write_all(octets).and_then(|()| stream.flush()).map_err(Trouble::Theirs)
    }
}

impl Ended {
    /// As the client machine sees it.
    fn of(client: &Client) -> Self {
        Self {
            answers: client.answers(),
            handshake_error: None,
            is_stale: client.is_stale(),
            is_silent: !client.has_heard(),
            open: None,
        }
    }
}

/// Why the message was not written to its end.
enum Trouble {
    Ours(String),
    Theirs(io::Error),
}

fn read_reply(
    stream: &mut Box<dyn Stream>,
    replies: &mut Replies,
    deadline: Moment,
) -> Result<Reply, String> {
    stream.set_deadline(deadline);
    let mut octets = [0; REPLY_OCTETS];
    loop {
        if let Some(reply) = replies.take().map_err(|error| error.to_string())? {
            return Ok(reply);
        }
        match stream.read(&mut octets) {
            Ok(0) => return Err("the other side closed the connection".to_owned()),
            Ok(count) => replies.feed(octets.get(..count).unwrap_or_default()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(words(&error)),
        }
    }
}

/// An error in plain words, without the number that the system has for it.
pub(in crate::courier) fn words(error: &io::Error) -> String {
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
fn shown(octets: &[u8]) -> String {
    let text = String::from_utf8_lossy(octets);
    printable(text.trim_end().replace("\r\n", " | ").as_bytes(), 500)
}
