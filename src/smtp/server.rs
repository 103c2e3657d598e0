//! The SMTP server, as a machine without a socket.
//!
//! Lines go in, and the octets of messages; actions come out. The machine knows the order in which
//! commands may come (RFC 5321 §4.1.4) and the reply to each. It knows nothing of sockets, clocks,
//! users or disks: whatever it cannot decide by itself it asks, as a [`Question`]. What is not said
//! here stands in a file for each subject: `greeting`, `auth`, `envelope`, `content`.
//!
//! One call yields exactly one [`Action`]: there is no buffer to drain and no callback, so a test
//! is a list of pairs and a fuzz target is ten lines.
//!
//! Owned by one session thread. Standards: RFC 5321, 1870 (SIZE), 2034 (enhanced codes),
//! 2920 (PIPELINING), 3030 (CHUNKING), 3207 (STARTTLS), 3461 (DSN), 6152 (8BITMIME), 6531 (SMTPUTF8),
//! 9422 (LIMITS); `auth` has its own.

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

/// What a server needs to know of its house. Shared by all sessions of a listener.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Our name, in the greeting and in EHLO; said in A-labels.
    pub hostname: Domain,
    /// Who is expected on this port.
    pub kind: ServerKind,
    /// Largest message in octets, as SIZE counts them (RFC 1870 §5); 0 is no limit.
    pub message_octets_max: u64,
    /// Forward-paths in one transaction; at least 100 (RFC 5321 §4.5.3.1.8) outside of tests.
    pub recipients_max: usize,
    /// What is done about a CR or LF by itself in a message.
    pub bare_line_ends: BareLineEndPolicy,
    /// There is a certificate, so that STARTTLS can be offered.
    pub has_tls: bool,
    /// There are users who could log in, so that AUTH can be offered.
    pub has_users: bool,
    /// Each of them has SCRAM keys, so that it can be offered.
    pub has_scram: bool,
    /// 5yz replies a client may earn between two messages that we take; the next one is 421, and
    /// the end. 4yz replies and commands that lead nowhere have limits of their own.
    pub errors_max: u32,
}

/// Who is expected on a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServerKind {
    /// Other servers, with mail for us (RFC 5321).
    Smtp,
    /// Our users, who log in first (RFC 6409 §4.3).
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

/// How the client introduced itself.
#[derive(Debug)]
struct ReceivedHello {
    hello: HelloName,
    is_esmtp: bool,
}

/// What comes next.
#[derive(Debug)]
enum ServerStage {
    Command,
    /// The client's response to 334.
    AuthResponse(Exchange),
    Handshake,
    /// The message behind 354.
    Message(BodyReader),
    /// What is left of a chunk of the transaction's message.
    Chunk {
        octets: u64,
        is_last: bool,
    },
    /// What is left of a chunk that nobody wants, and what comes then.
    DiscardedChunk {
        octets: u64,
        then: ServerAction,
    },
    Answer(PendingQuestion),
    Closed,
}

/// Which question is open.
#[derive(Debug)]
enum PendingQuestion {
    Sender(ReversePath, MailParameters),
    Recipient(RecipientParameters),
    /// And what is said to the client before it hears that it is the user.
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
    /// A server for a connection that has just been accepted; `tls` if its handshake is already
    /// done (RFC 8314 §3.3).
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

    /// A line that is about to be given to [`Self::line`], as it may be logged and traced.
    #[must_use]
    pub fn printable_line(&self, line: &[u8]) -> String {
        match self.stage {
            ServerStage::AuthResponse(_) => "(response not shown)".to_owned(),
            _ => Command::printable_line(line),
        }
    }

    /// The transaction under way: recipients, and all that the stamp needs. It is gone once the
    /// question about its content is answered.
    #[must_use]
    pub fn transaction(&self) -> Option<&Transaction> {
        self.transaction.as_ref()
    }

    /// The next line is a response in an authentication exchange, not a command.
    #[must_use]
    pub fn is_authenticating(&self) -> bool {
        matches!(self.stage, ServerStage::AuthResponse(_))
    }

    /// A message is on its way: between its first octet and its last, or between two chunks of it.
    #[must_use]
    pub fn is_receiving(&self) -> bool {
        matches!(self.stage, ServerStage::Message(_))
            || self.transaction.as_ref().is_some_and(|transaction| transaction.chunk_reader.is_some())
    }

    /// Whom the last action is about, for the log line of a refusal: by then the transaction may be
    /// gone, or may never have begun.
    #[must_use]
    pub fn command_paths(&self) -> &CommandPaths {
        &self.command_paths
    }

    /// The user that has logged in.
    #[must_use]
    pub fn login(&self) -> Option<&Mailbox> {
        self.login.as_ref()
    }

    /// What the client calls itself.
    #[must_use]
    pub fn hello(&self) -> Option<&HelloName> {
        self.hello.as_ref().map(|greeted| &greeted.hello)
    }

    /// The TLS session, if there is one.
    #[must_use]
    pub fn tls_facts(&self) -> Option<&TlsInfo> {
        self.tls.as_ref()
    }

    /// The next line came in, without its line end.
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
            // Like Postfix, and like us inside of a message: the end, because after this nobody
            // knows where the other side thinks that its lines end.
            (Err(LineError::BareLineEnd), _) => self.close(table::BARE_LINE_END),
            (Err(LineError::TlsHandshake), _) => self.reject_foreign_protocol(ForeignProtocol::Tls),
            (Err(LineError::TooLong), Some(_)) => self.refuse(table::RESPONSE_TOO_LONG),
            (Err(LineError::TooLong), None) => self.refuse(table::LINE_TOO_LONG),
            (Ok(line), Some(exchange)) => self.auth_response(exchange, line),
            (Ok(line), None) => match Command::parse(line) {
                Ok(command) => self.command(command),
                // What is behind this line are octets of a message, and we do not know how many: read
                // as commands, they would be somebody else's.
                Err(reply) if Command::verb(line) == "BDAT" => self.close(reply),
                Err(reply) => self.refuse(reply),
            },
        }
    }

    /// The policy answered the last [`Action::Ask`].
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
            (PendingQuestion::Login(ours), Answer::User(user)) => self.authenticated(user, ours),
            (PendingQuestion::ScramStart(first), Answer::ScramStart(start)) => {
                self.scram_start(*first, *start)
            }
            (PendingQuestion::Login(_), Answer::WrongLogin) => self.refuse(table::WRONG_LOGIN),
            (PendingQuestion::Content, Answer::Queued(id)) => {
                self.transaction = None;
                self.error_limits.reset();
                ServerAction::Reply(table::queued(id))
            }
            // RFC 5321 §4.1.1.4: the buffers are cleared, however it ends. Counted, but never
            // replaced: 421 would call the client back with what we will not have.
            (PendingQuestion::Content, Answer::Refused(failure)) => {
                self.refuse_content(failure_reply(&failure, QuestionKind::Content))
            }
            (PendingQuestion::Content, Answer::RefusedWith(reply)) => {
                self.refuse_content(with_valid_status(reply))
            }
            (asked, Answer::Refused(failure)) => self.refuse(failure_reply(&failure, asked.kind())),
            (_, Answer::RefusedWith(reply)) => self.refuse(with_valid_status(reply)),
            // A fault of ours: an answer to another question.
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

    /// The conversation is over, and not because of QUIT.
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
            Command::Quit => self.close(table::goodbye(self.hostname())),
            Command::Vrfy => ServerAction::Reply(table::NOT_VERIFIED.into()),
            Command::Expn => self.refuse(table::NO_EXPN),
            Command::Help => ServerAction::Reply(table::HELP.into()),
            Command::StartTls => self.starttls(),
            Command::Auth { mechanism, initial } => self.auth(&mechanism, initial.as_deref()),
            // A form in a web page could otherwise be made to speak SMTP, one line at a time.
            Command::Http => self.reject_foreign_protocol(ForeignProtocol::Http),
        }
    }

    fn ask(&mut self, question: Question, asked: PendingQuestion) -> ServerAction {
        self.stage = ServerStage::Answer(asked);
        ServerAction::Ask(question)
    }

    /// Says no, and counts.
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

    /// Says no to a message. RFC 5321 §4.1.1.4: its transaction is over, however it ends. Counted,
    /// but never replaced: 421 would call the client back with what we will not have.
    fn refuse_content(&mut self, reply: impl Into<Reply>) -> ServerAction {
        let reply = reply.into();
        self.transaction = None;
        if reply.code == 421 {
            return self.close(reply);
        }
        // The next refusal may be the last.
        let _ = self.error_limits.count_refusal(&reply);
        ServerAction::Reply(reply)
    }

    /// RFC 5321 §7.8: a client may not keep us busy for ever.
    fn close_at_limit(&mut self, exhausted: ErrorLimitReached) -> ServerAction {
        self.close(table::closing(7, 0, self.hostname(), exhausted.reply_text()))
    }

    fn close(&mut self, reply: impl Into<Reply>) -> ServerAction {
        self.stage = ServerStage::Closed;
        self.transaction = None;
        ServerAction::ReplyAndClose(reply.into())
    }

    fn reject_foreign_protocol(&mut self, speaks: ForeignProtocol) -> ServerAction {
        self.stage = ServerStage::Closed;
        self.transaction = None;
        let reply = match speaks {
            ForeignProtocol::Http => table::HTTP_CLIENT,
            ForeignProtocol::Tls => table::TLS_CLIENT,
        };
        ServerAction::RejectForeignProtocol { reply: reply.into(), protocol: speaks }
    }

    /// The shell did what it may not, or something else broke: the client may try again later.
    fn close_with_fault(&mut self) -> ServerAction {
        self.close(table::closing(3, 0, self.hostname(), "internal error, try again later"))
    }

    fn hostname(&self) -> &str {
        self.settings.hostname.as_ascii()
    }

    fn is_esmtp(&self) -> bool {
        self.hello.as_ref().is_some_and(|greeted| greeted.is_esmtp)
    }

    /// From here on it is at most about the transaction.
    fn reset_command_paths(&mut self) {
        let reverse_path = self.transaction.as_ref().map(|transaction| transaction.reverse_path.clone());
        self.command_paths = CommandPaths { reverse_path, forward_path: None };
    }

    /// Counted until a message is queued. RCPT, DATA and BDAT are not: they need a transaction, which
    /// takes a MAIL, and are bounded by what it may hold; but for chunks of nothing, and of nobody's
    /// message. AUTH and STARTTLS end in a refusal or once for all.
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
