//! What the server machine wants done, what it wants to know, and how it is told.

use crate::mail::{Failure, ForwardPath, Mailbox, MessageId, Recipient, ReversePath, SenderFacts};

use super::body::BodyFacts;
use super::parameters::MailParameters;
use super::reply::Reply;
use super::sasl::{SaslCredentials, ScramStart};

/// What the shell does next. One call of the machine yields exactly one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServerAction {
    /// Send it, at the latest before waiting for more input; then go on with the next line.
    Reply(Reply),
    /// Find out, and call [`super::Server::answer`].
    Ask(Question),
    /// Send the reply, if there is one, at once; then give what comes to [`super::Server::body`], also
    /// if nothing has come yet, until it says what is next.
    Receive {
        /// 354.
        reply: Option<Reply>,
        /// What the octets are for.
        mode: ReceiveMode,
    },
    /// Send it, at once; throw away all input that is buffered; make the handshake and call
    /// [`super::Server::tls`].
    StartTls(Reply),
    /// Send it and close the connection.
    ReplyAndClose(Reply),
    /// The same to a client that does not speak SMTP, and count it.
    RejectForeignProtocol {
        /// What it may or may not understand.
        reply: Reply,
        /// What it speaks.
        protocol: ForeignProtocol,
    },
    /// Nothing to say; go on with the next line. After a handshake it is the client's turn.
    Continue,
    /// Close the connection; there is nobody to talk to.
    Close,
}

/// What octets are for that the shell gives to the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReceiveMode {
    /// A message begins. It is the shell's to keep until its content is asked about; it is thrown away
    /// when [`super::Server::is_receiving`] says no without that.
    Begin,
    /// The message goes on.
    Continue,
    /// Nothing of them is kept.
    Discard,
}

/// What a client speaks that has come to the wrong port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ForeignProtocol {
    /// HTTP: somebody's browser, or a scanner.
    Http,
    /// TLS, where plain text comes first.
    Tls,
}

impl ForeignProtocol {
    /// As in counters.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Tls => "tls",
        }
    }
}

/// Whom an action is about.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CommandPaths {
    /// The transaction's, or the one that wanted to begin it.
    pub reverse_path: Option<ReversePath>,
    /// The one that the last command named.
    pub forward_path: Option<ForwardPath>,
}

/// What the machine cannot know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Question {
    /// May this reverse-path send here? [`Answer::Sender`].
    Sender {
        /// Null or a mailbox.
        reverse_path: ReversePath,
        /// What the client asks for.
        parameters: MailParameters,
    },
    /// Do we take mail for it, and who is behind it? [`Answer::Recipients`].
    Recipient(ForwardPath),
    /// Is this the user? [`Answer::User`], [`Answer::WrongLogin`]; a failure that is transient
    /// says that we cannot tell now.
    Login(SaslCredentials),
    /// What does SCRAM need to know of this user? [`Answer::ScramStart`], whether the user exists or
    /// not.
    ScramStart {
        /// In the client's words.
        user: String,
    },
    /// The message is complete, and has gone where the shell keeps it: may it be queued? If so it
    /// is put into the queue, synced, before this is answered with [`Answer::Queued`].
    Content(BodyFacts),
}

/// The answer to a [`Question`], and how it came about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// What the machine goes on with.
    pub answer: Answer,
    /// Reasons in order, one sentence each, for the log and the trace. The machine does not
    /// look at them.
    pub reasons: Vec<String>,
}

/// What the machine may be told. One that does not fit its question is a fault of ours: the
/// client hears 451 4.3.0.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// The reverse-path may send here. The facts are kept in the transaction.
    Sender(SenderFacts),
    /// Recipients behind the forward-path, after aliases. If there are none, it is as unknown.
    Recipients(Vec<Recipient>),
    /// The login is right: this user of ours.
    User(Mailbox),
    /// The login is wrong. Who is unknown and whose password is wrong hear the same.
    WrongLogin,
    /// What a SCRAM exchange goes on with.
    ScramStart(Box<ScramStart>),
    /// The message is in the queue by this name; the promise may be given.
    Queued(MessageId),
    /// No. The machine makes the reply.
    Refused(Failure),
    /// No, in these words; a 4yz or 5yz. After 421 the connection is closed.
    RefusedWith(Reply),
}

impl Verdict {
    /// An answer, without reasons so far.
    #[must_use]
    pub fn new(answer: Answer) -> Self {
        Self { answer, reasons: Vec::new() }
    }

    /// A refusal.
    #[must_use]
    pub fn refused(failure: Failure) -> Self {
        Self::new(Answer::Refused(failure))
    }

    /// The same, with one more reason.
    #[must_use]
    pub fn with_reason(mut self, reason: impl Into<String>) -> Self {
        self.reasons.push(reason.into());
        self
    }
}

/// Why a conversation ends that the client did not end with QUIT.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SessionEnd {
    /// The client is gone.
    InputEnded,
    /// It said nothing, or not enough, until the deadline.
    TimedOut,
    /// We are stopping.
    Stopping,
    /// There are too many sessions, in all or from its address. Instead of a greeting.
    TooManySessions,
    /// It has come too often. Instead of a greeting.
    RateLimited,
    /// It spoke before it was greeted. Instead of a greeting.
    SpokeBeforeGreeting,
}
