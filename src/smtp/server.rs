//! The SMTP server as a state machine without a socket.
//!
//! It takes lines and the octets of messages, and returns actions. It decides the order of commands (RFC
//! 5321 §4.1.4) and the reply to each. Everything about users, addresses and the queue it asks its caller,
//! as a [`Question`]. Each subject has a file: `greeting`, `auth`, `envelope` and `content`.
//!
//! One call returns exactly one [`ServerAction`], so that there is no buffer to drain and no callback.
//!
//! Owned by one session thread. Standards: RFC 5321, 1870 (SIZE), 2034 (enhanced codes), 2920 (PIPELINING),
//! 3030 (CHUNKING), 3207 (STARTTLS), 3461 (DSN), 6152 (8BITMIME), 6531 (SMTPUTF8), 9422 (LIMITS); those of
//! AUTH are in `auth`.

mod auth;
mod content;
mod envelope;
mod greeting;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use crate::mail::{Domain, Mailbox, ReversePath, TlsInfo};

use super::action::{Answer, CommandPaths, ForeignProtocol, Question, ServerAction, SessionEnd, Verdict};
use super::body::{BareLineEndPolicy, BodyReader};
use super::command::{Command, HelloName};
use super::error_limits::{ErrorLimitReached, ErrorLimits};
use super::line::{LineBuffer, LineError};
use super::parameters::{MailParameters, RecipientParameters};
use super::refusal::{QuestionKind, failure_reply, with_valid_status};
use super::reply::Reply;
use super::reply_table as table;
use super::sasl::{Exchange, ScramFirst};
use super::transaction::Transaction;

/// The settings of a server, shared by all sessions of a listener.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The name of this server, in the greeting and in the reply to EHLO; sent in A-labels.
    pub hostname: Domain,
    /// Which clients the port is for.
    pub kind: ServerKind,
    /// Largest message in octets, as SIZE counts them (RFC 1870 §5); 0 is no limit.
    pub message_octets_max: u64,
    /// Forward-paths in one transaction; at least 100 (RFC 5321 §4.5.3.1.8) outside of tests.
    pub recipients_max: usize,
    /// What the server does with a CR or LF by itself in a message.
    pub bare_line_ends: BareLineEndPolicy,
    /// There is a certificate, so that STARTTLS can be offered.
    pub has_tls: bool,
    /// There are users who can log in, so that AUTH can be offered.
    pub has_users: bool,
    /// Every user has SCRAM keys, so that SCRAM can be offered.
    pub has_scram: bool,
    /// Most 5yz replies between two queued messages; instead of the next one the client gets 421 and the
    /// connection is closed. 4yz replies and commands without a message have fixed limits.
    pub errors_max: u32,
}

/// Which clients a port is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServerKind {
    /// Other servers, with mail for local recipients (RFC 5321).
    Smtp,
    /// Users, who log in first (RFC 6409 §4.3).
    Submission,
}

/// The server's side of one connection.
#[derive(Debug)]
pub struct Server {
    settings: Arc<Settings>,
    tls: Option<TlsInfo>,
    hello: Option<ReceivedHello>,
    login: Option<Mailbox>,
    transaction: Option<Transaction>,
    command_paths: CommandPaths,
    stage: ServerStage,
    error_limits: ErrorLimits,
}

/// The name from HELO or EHLO.
#[derive(Debug)]
struct ReceivedHello {
    hello: HelloName,
    is_esmtp: bool,
}

/// What the server waits for.
#[derive(Debug)]
enum ServerStage {
    Command,
    /// The client's response to 334.
    AuthResponse(Exchange),
    Handshake,
    /// The message after 354.
    Message(BodyReader),
    /// The rest of a chunk of the message.
    Chunk {
        octets: u64,
        is_last: bool,
    },
    /// The rest of a chunk that is discarded, and the action after it.
    DiscardedChunk {
        octets: u64,
        then: ServerAction,
    },
    Answer(PendingQuestion),
    Closed,
}

/// The question that the caller has not answered yet.
#[derive(Debug)]
enum PendingQuestion {
    Sender(ReversePath, MailParameters),
    Recipient(RecipientParameters),
    /// With the message of the server that must reach the client before success is reported.
    Login(Option<Vec<u8>>),
    ScramStart(Box<ScramFirst>),
    Content,
}

impl PendingQuestion {
    fn kind(&self) -> QuestionKind {
        match self {
            Self::Sender(..) => QuestionKind::Sender,
            Self::Recipient(_) => QuestionKind::Recipient,
            Self::Login(_) | Self::ScramStart(_) => QuestionKind::Login,
            Self::Content => QuestionKind::Content,
        }
    }
}

impl Server {
    /// A server for a connection that has just been accepted; `tls` if its handshake is already done (RFC
    /// 8314 §3.3).
    #[must_use]
    pub fn new(settings: impl Into<Arc<Settings>>, tls: Option<TlsInfo>) -> Self {
        let settings = settings.into();
        Self {
            error_limits: ErrorLimits::new(settings.errors_max),
            settings,
            tls,
            hello: None,
            login: None,
            transaction: None,
            command_paths: CommandPaths::default(),
            stage: ServerStage::Command,
        }
    }

    /// Longest line in octets, with its CRLF, that may come now.
    #[must_use]
    pub fn line_octets_max(&self) -> usize {
        match self.stage {
            ServerStage::AuthResponse(_) => LineBuffer::AUTH_OCTETS_MAX,
            _ => LineBuffer::COMMAND_OCTETS_MAX,
        }
    }

    /// A line for [`Self::line`] as it may be logged: without secrets.
    #[must_use]
    pub fn printable_line(&self, line: &[u8]) -> String {
        match self.stage {
            ServerStage::AuthResponse(_) => "(response not shown)".to_owned(),
            _ => Command::printable_line(line),
        }
    }

    /// The open transaction. It ends when the question about its content is answered.
    #[must_use]
    pub fn transaction(&self) -> Option<&Transaction> {
        self.transaction.as_ref()
    }

    /// The next line is a response in an authentication exchange, not a command.
    #[must_use]
    pub fn is_authenticating(&self) -> bool {
        matches!(self.stage, ServerStage::AuthResponse(_))
    }

    /// A message is being received: from its first octet to its last, or between two of its chunks.
    #[must_use]
    pub fn is_receiving(&self) -> bool {
        matches!(self.stage, ServerStage::Message(_))
            || self.transaction.as_ref().is_some_and(|transaction| transaction.chunk_reader.is_some())
    }

    /// The paths that the last action is about, for the log line of a refusal, when the transaction may
    /// have ended or may not have begun.
    #[must_use]
    pub fn command_paths(&self) -> &CommandPaths {
        &self.command_paths
    }

    /// The user that has logged in.
    #[must_use]
    pub fn login(&self) -> Option<&Mailbox> {
        self.login.as_ref()
    }

    /// The name from HELO or EHLO.
    #[must_use]
    pub fn hello(&self) -> Option<&HelloName> {
        self.hello.as_ref().map(|greeted| &greeted.hello)
    }

    /// The TLS session, if there is one.
    #[must_use]
    pub fn tls_facts(&self) -> Option<&TlsInfo> {
        self.tls.as_ref()
    }

    /// Takes the next line, without its line end.
    pub fn line(&mut self, line: Result<&[u8], LineError>) -> ServerAction {
        let exchange = match std::mem::replace(&mut self.stage, ServerStage::Command) {
            ServerStage::Command => None,
            ServerStage::AuthResponse(exchange) => Some(exchange),
            ServerStage::Handshake
            | ServerStage::Message(_)
            | ServerStage::Chunk { .. }
            | ServerStage::DiscardedChunk { .. }
            | ServerStage::Answer(_)
            | ServerStage::Closed => return self.close_with_fault(),
        };
        self.reset_command_paths();
        match (line, exchange) {
            // The session ends, as in Postfix: the two sides may disagree about where lines end.
            (Err(LineError::BareLineEnd), _) => self.close(table::BARE_LINE_END),
            (Err(LineError::TlsHandshake), _) => self.reject_foreign_protocol(ForeignProtocol::Tls),
            (Err(LineError::TooLong), Some(_)) => self.refuse(table::RESPONSE_TOO_LONG),
            (Err(LineError::TooLong), None) => self.refuse(table::LINE_TOO_LONG),
            (Ok(line), Some(exchange)) => self.auth_response(exchange, line),
            (Ok(line), None) => match Command::parse(line) {
                Ok(command) => self.command(command),
                // The octets after this line belong to a message, and their number is unknown. They must
                // not be read as commands.
                Err(reply) if Command::verb(line) == "BDAT" => self.close(reply),
                Err(reply) => self.refuse(reply),
            },
        }
    }

    /// Takes the answer to the last [`ServerAction::Ask`].
    pub fn answer(&mut self, verdict: Verdict) -> ServerAction {
        let asked = match std::mem::replace(&mut self.stage, ServerStage::Command) {
            ServerStage::Answer(asked) => asked,
            _ => return self.close_with_fault(),
        };
        match (asked, verdict.answer) {
            (PendingQuestion::Sender(reverse_path, parameters), Answer::Sender(facts)) => {
                self.begin_transaction(reverse_path, parameters, facts)
            }
            (PendingQuestion::Recipient(parameters), Answer::Recipients(recipients)) => {
                self.accept_recipients(recipients, &parameters)
            }
            (PendingQuestion::Login(server_proof), Answer::User(user)) => {
                self.authenticated(user, server_proof)
            }
            (PendingQuestion::ScramStart(first), Answer::ScramStart(start)) => {
                self.scram_start(*first, *start)
            }
            (PendingQuestion::Login(_), Answer::WrongLogin) => self.refuse(table::WRONG_LOGIN),
            (PendingQuestion::Content, Answer::Queued(id)) => {
                self.transaction = None;
                self.error_limits.reset();
                ServerAction::Reply(table::queued(id))
            }
            // RFC 5321 §4.1.1.4: the transaction ends in any case. The refusal is counted but never
            // replaced: after 421 the client would try again with a message that is refused for good.
            (PendingQuestion::Content, Answer::Refused(failure)) => {
                self.refuse_content(failure_reply(&failure, QuestionKind::Content))
            }
            (PendingQuestion::Content, Answer::RefusedWith(reply)) => {
                self.refuse_content(with_valid_status(reply))
            }
            (asked, Answer::Refused(failure)) => self.refuse(failure_reply(&failure, asked.kind())),
            (_, Answer::RefusedWith(reply)) => self.refuse(with_valid_status(reply)),
            // A fault of the caller: an answer to another question.
            (
                PendingQuestion::Content,
                Answer::Sender(_)
                | Answer::Recipients(_)
                | Answer::User(_)
                | Answer::WrongLogin
                | Answer::ScramStart(_),
            ) => self.refuse_content(table::LOCAL_ERROR),
            (
                PendingQuestion::Sender(..)
                | PendingQuestion::Recipient(_)
                | PendingQuestion::Login(_)
                | PendingQuestion::ScramStart(_),
                Answer::Sender(_)
                | Answer::Recipients(_)
                | Answer::User(_)
                | Answer::WrongLogin
                | Answer::ScramStart(_)
                | Answer::Queued(_),
            ) => self.refuse(table::LOCAL_ERROR),
        }
    }

    /// Ends the session without QUIT.
    pub fn end(&mut self, end: SessionEnd) -> ServerAction {
        if matches!(self.stage, ServerStage::Handshake) {
            self.stage = ServerStage::Closed;
            return ServerAction::Close;
        }
        self.reset_command_paths();
        let name = self.hostname().to_owned();
        match end {
            SessionEnd::InputEnded => {
                self.stage = ServerStage::Closed;
                self.transaction = None;
                ServerAction::Close
            }
            SessionEnd::TimedOut => self.close(table::closing(4, 2, &name, "timed out")),
            SessionEnd::Stopping => self.close(table::closing(3, 2, &name, "the server is shutting down")),
            SessionEnd::RateLimited => {
                self.close(table::closing(7, 0, &name, "too many connections, try again later"))
            }
            SessionEnd::TooManySessions => {
                self.close(table::closing(3, 2, &name, "too many sessions, try again later"))
            }
            SessionEnd::SpokeBeforeGreeting => self.close(table::EARLY_TALKER),
        }
    }

    fn command(&mut self, command: Command) -> ServerAction {
        if self.is_junk_command(&command)
            && let Err(exhausted) = self.error_limits.count_junk_command()
        {
            return self.close_at_limit(exhausted);
        }
        match command {
            Command::Helo(hello) => self.helo(hello),
            Command::Ehlo(hello) => self.ehlo(hello),
            Command::Mail { reverse_path, parameters, is_ascii } => {
                self.mail(reverse_path, parameters, is_ascii)
            }
            Command::Rcpt { forward_path, parameters, is_ascii } => {
                self.rcpt(forward_path, parameters, is_ascii)
            }
            Command::Data => self.data(),
            Command::Bdat { octets, is_last } => self.bdat(octets, is_last),
            Command::Rset => {
                self.transaction = None;
                ServerAction::Reply(table::OK.into())
            }
            Command::Noop => ServerAction::Reply(table::OK.into()),
            Command::Quit => self.close(table::quit_accepted(self.hostname())),
            Command::Vrfy => ServerAction::Reply(table::NOT_VERIFIED.into()),
            Command::Expn => self.refuse(table::NO_EXPN),
            Command::Help => ServerAction::Reply(table::HELP.into()),
            Command::StartTls => self.starttls(),
            Command::Auth { mechanism, initial } => self.auth(&mechanism, initial.as_deref()),
            // A form in a web page could otherwise speak SMTP, one line at a time.
            Command::Http => self.reject_foreign_protocol(ForeignProtocol::Http),
        }
    }

    fn ask(&mut self, question: Question, asked: PendingQuestion) -> ServerAction {
        self.stage = ServerStage::Answer(asked);
        ServerAction::Ask(question)
    }

    /// Refuses a command, and counts the refusal.
    fn refuse(&mut self, reply: impl Into<Reply>) -> ServerAction {
        let reply = reply.into();
        if reply.code == 421 {
            return self.close(reply);
        }
        match self.error_limits.count_refusal(&reply) {
            Ok(()) => ServerAction::Reply(reply),
            Err(exhausted) => self.close_at_limit(exhausted),
        }
    }

    /// Refuses a message. RFC 5321 §4.1.1.4: its transaction ends in any case. The refusal is counted but
    /// never replaced: after 421 the client would try again with a message that is refused for good.
    fn refuse_content(&mut self, reply: impl Into<Reply>) -> ServerAction {
        let reply = reply.into();
        self.transaction = None;
        if reply.code == 421 {
            return self.close(reply);
        }
        // The limit holds for the next refusal.
        let _ = self.error_limits.count_refusal(&reply);
        ServerAction::Reply(reply)
    }

    /// RFC 5321 §7.8: a client may not keep the server busy for ever.
    fn close_at_limit(&mut self, exhausted: ErrorLimitReached) -> ServerAction {
        self.close(table::closing(7, 0, self.hostname(), exhausted.reply_text()))
    }

    fn close(&mut self, reply: impl Into<Reply>) -> ServerAction {
        self.stage = ServerStage::Closed;
        self.transaction = None;
        ServerAction::ReplyAndClose(reply.into())
    }

    fn reject_foreign_protocol(&mut self, protocol: ForeignProtocol) -> ServerAction {
        self.stage = ServerStage::Closed;
        self.transaction = None;
        let reply = match protocol {
            ForeignProtocol::Http => table::HTTP_CLIENT,
            ForeignProtocol::Tls => table::TLS_CLIENT,
        };
        ServerAction::RejectForeignProtocol { reply: reply.into(), protocol }
    }

    /// The caller broke the protocol of this type, or something else failed: the client may try again
    /// later.
    fn close_with_fault(&mut self) -> ServerAction {
        self.close(table::closing(3, 0, self.hostname(), "internal error, try again later"))
    }

    fn hostname(&self) -> &str {
        self.settings.hostname.as_ascii()
    }

    fn is_esmtp(&self) -> bool {
        self.hello.as_ref().is_some_and(|greeted| greeted.is_esmtp)
    }

    /// From now on an action is at most about the transaction.
    fn reset_command_paths(&mut self) {
        let reverse_path = self.transaction.as_ref().map(|transaction| transaction.reverse_path.clone());
        self.command_paths = CommandPaths { reverse_path, forward_path: None };
    }

    /// Which commands count until a message is queued. RCPT, DATA and BDAT do not: they need a transaction,
    /// which takes a MAIL, and their number in it is limited. A BDAT of no octets, or without a
    /// transaction, does count. AUTH and STARTTLS succeed once or are refused.
    fn is_junk_command(&self, command: &Command) -> bool {
        match command {
            Command::Helo(_)
            | Command::Ehlo(_)
            | Command::Mail { .. }
            | Command::Rset
            | Command::Noop
            | Command::Vrfy
            | Command::Help => true,
            Command::Bdat { octets, is_last } => self.transaction.is_none() || (*octets == 0 && !is_last),
            Command::Rcpt { .. }
            | Command::Data
            | Command::Quit
            | Command::Expn
            | Command::StartTls
            | Command::Auth { .. }
            | Command::Http => false,
        }
    }
}
