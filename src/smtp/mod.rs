//! The language of the wire, without a wire.
//!
//! Both sides of SMTP as values that are fed and say what to do next; sockets, clocks, users and
//! disks are other people's. Standards: RFC 5321, 1870, 2034, 2920, 3030, 3207, 3461, 4616, 4954,
//! 6152, 6531, 9422.
//!
//! - `line`: octets become command lines
//! - `command`: one command line, understood
//! - `parameters`: what MAIL and RCPT ask for beside their paths
//! - `reply`: one reply, ours or a peer's
//! - `client`: the machine that speaks to a server
//! - `replies`: octets from a peer become replies
//! - `extension`: what EHLO announces
//! - `body`: the message behind DATA or BDAT, in and out
//! - `sasl`: what a client says to prove who it is
//! - `action`: what the server machine wants done, and what it wants to know
//! - `transaction`: what MAIL and RCPT have said so far
//! - `server`: the machine that listens
//! - `refusal`: which code goes with which of its refusals
//! - `patience`: how much a client may do that brings no mail nearer

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
