//! What the server asks of its caller, and the answers that it takes.

use crate::mail::{Failure, ForwardPath, Mailbox, MessageId, Recipient, ReversePath, SenderFacts};

use super::body::BodyFacts;
use super::parameters::MailParameters;
use super::reply::Reply;
use super::sasl::{SaslCredentials, ScramStart};

/// What the caller does next. One call of the server returns exactly one action.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServerAction {
    /// Send the reply, at the latest before waiting for more input; then go on with the next line.
    Reply(Reply),
    /// Find the answer, and call [`super::Server::answer`].
    Ask(Question),
    /// Send the reply, if there is one, at once. Then pass the octets that come to [`super::Server::body`]
    /// until it returns an action; call it also if no octets have come yet.
    Receive {
        /// 354.
        reply: Option<Reply>,
        /// What to do with the octets.
        mode: ReceiveMode,
    },
    /// Send the reply at once, discard all buffered input, make the handshake, and call
    /// [`super::Server::handshake_done`].
    StartTls(Reply),
    /// Send the reply and close the connection.
    ReplyAndClose(Reply),
    /// Send the reply to a client that does not speak SMTP, count the client, and close the connection.
    RejectForeignProtocol {
        /// The reply; such a client may not understand it.
        reply: Reply,
        /// The protocol of the client.
        protocol: ForeignProtocol,
    },
    /// Go on with the next line, without a reply. After a handshake the client speaks first.
    Continue,
    /// Close the connection without a reply.
    Close,
}

/// What the caller does with the octets of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReceiveMode {
    /// A message begins. Keep its octets until [`Question::Content`] is answered; discard them when
    /// [`super::Server::is_receiving`] becomes false without that question.
    Begin,
    /// The message continues.
    Continue,
    /// Discard the octets.
    Discard,
}

/// The protocol of a client that came to the wrong port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ForeignProtocol {
    /// HTTP, from a browser or a scanner.
    Http,
    /// TLS on a port that starts in plain text.
    Tls,
}

impl ForeignProtocol {
    /// The name in counters.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Tls => "tls",
        }
    }
}

/// The paths that an action is about.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CommandPaths {
    /// The reverse-path of the transaction, or of the MAIL command that failed to begin one.
    pub reverse_path: Option<ReversePath>,
    /// The forward-path of the last command.
    pub forward_path: Option<ForwardPath>,
}

/// A question that the server asks its caller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Question {
    /// May a client send mail with this reverse-path? Answered by [`Answer::Sender`].
    Sender {
        /// The reverse-path of MAIL.
        reverse_path: ReversePath,
        /// The parameters of MAIL.
        parameters: MailParameters,
    },
    /// Which recipients stand behind this forward-path? Answered by [`Answer::Recipients`].
    Recipient(ForwardPath),
    /// Are these credentials right? Answered by [`Answer::User`] or [`Answer::WrongLogin`]; a transient
    /// failure means that they cannot be checked now.
    Login(SaslCredentials),
    /// What a SCRAM exchange for this user starts with. Answered by [`Answer::ScramStart`], also for a user
    /// that does not exist.
    ScramStart {
        /// The user name as the client sent it.
        user: String,
    },
    /// The message is complete: may it be queued? The caller puts it into the queue, synced, before it
    /// answers with [`Answer::Queued`].
    Content(BodyFacts),
}

/// The answer to a [`Question`], with its reasons.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// The answer.
    pub answer: Answer,
    /// Reasons in order, one sentence each, for the log and the trace. The server ignores them.
    pub reasons: Vec<String>,
}

/// An answer to a [`Question`]. One that does not fit its question is a fault of the caller; the client
/// gets 451 4.3.0.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// The reverse-path is accepted. The facts are kept in the transaction.
    Sender(SenderFacts),
    /// The recipients behind the forward-path, after aliases. An empty list means that it does not exist.
    Recipients(Vec<Recipient>),
    /// The login is right, and belongs to this user.
    User(Mailbox),
    /// The login is wrong. An unknown user and a wrong password get the same reply.
    WrongLogin,
    /// The keys and the nonce of a SCRAM exchange.
    ScramStart(Box<ScramStart>),
    /// The message is in the queue under this id, synced.
    Queued(MessageId),
    /// Refused; the server makes the reply.
    Refused(Failure),
    /// Refused with this reply, a 4yz or 5yz. After 421 the connection is closed.
    RefusedWith(Reply),
}

impl Verdict {
    /// An answer without reasons.
    #[must_use]
    pub fn new(answer: Answer) -> Self {
        Self { answer, reasons: Vec::new() }
    }

    /// A refusal without reasons.
    #[must_use]
    pub fn refused(failure: Failure) -> Self {
        Self::new(Answer::Refused(failure))
    }

    /// Adds a reason.
    #[must_use]
    pub fn with_reason(mut self, reason: impl Into<String>) -> Self {
        self.reasons.push(reason.into());
        self
    }
}

/// Why a session ends without QUIT.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SessionEnd {
    /// The client closed the connection.
    InputEnded,
    /// The client sent nothing, or not enough, until the deadline.
    TimedOut,
    /// The server is shutting down.
    Stopping,
    /// There are too many sessions, in all or from this address. Before the greeting.
    TooManySessions,
    /// There were too many connections from this address. Before the greeting.
    RateLimited,
    /// The client sent octets before the greeting.
    SpokeBeforeGreeting,
}
