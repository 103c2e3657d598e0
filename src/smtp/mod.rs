//! SMTP on both sides, as state machines without a socket.
//!
//! Each side is a value that takes input and returns what to do next. Callers own the sockets, the clocks
//! and the disk, and answer questions about users.
//!
//! Standards: RFC 5321 and its extensions 1870 (SIZE), 2034 (enhanced status codes), 2920 (PIPELINING),
//! 3030 (CHUNKING), 3207 (STARTTLS), 3461 (DSN), 4954 (AUTH), 6152 (8BITMIME), 6531 (SMTPUTF8), 9422
//! (LIMITS); RFC 2033 (LMTP); RFC 6409 and 8314 (submission); RFC 7504 and 7505 (replies 521 and 556); the
//! mechanisms of RFC 4616, 5802, 7677 and 9266.
//!
//! - `line`: splits octets into command lines
//! - `command`: parses a command line
//! - `parameters`: parses the parameters of MAIL and RCPT
//! - `reply`: one reply, of this server or of a peer
//! - `reply_table`: the replies of the server
//! - `reply_reader`: splits octets of a peer into replies
//! - `refusal`: chooses the reply for a refusal of the policy
//! - `extension`: the extensions that EHLO announces
//! - `body`: reads and writes the octets of a message after DATA or BDAT
//! - `sasl`: the messages by which a client proves who it is
//! - `action`: what the server asks of its caller, and the answers
//! - `transaction`: what MAIL and RCPT have said so far
//! - `server`: the state machine of the server
//! - `error_limits`: limits the errors and the idle commands of a client
//! - `client`: the state machine of the client

mod action;
mod body;
pub mod client;
mod command;
mod error_limits;
mod extension;
mod line;
mod parameters;
mod refusal;
mod reply;
mod reply_reader;
mod reply_table;
mod sasl;
mod server;
mod transaction;

pub use action::{
    Answer, CommandPaths, ForeignProtocol, Question, ReceiveMode, ServerAction, SessionEnd, Verdict,
};
pub use body::{BareLineEndPolicy, BodyEnd, BodyFacts, BodyReader, DotStuffer};
pub use command::{Command, HelloName};
pub use extension::{Extensions, LimitsExtension};
pub use line::{LineBuffer, LineError};
pub use parameters::{MailParameters, RecipientParameters};
pub use reply::{EnhancedStatus, Reply, ReplyError};
pub use reply_reader::ReplyReader;
pub use sasl::{Evidence, SaslCredentials, SaslError, ScramStart};
pub use server::{Server, ServerKind, Settings};
pub use transaction::Transaction;
