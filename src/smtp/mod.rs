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
mod extension;
mod line;
mod parameters;
mod patience;
mod refusal;
mod replies;
mod reply;
mod sasl;
mod server;
mod transaction;

pub use action::{Action, Answer, End, Language, Part, Question, Subject, Verdict};
pub use body::{BodyEnd, BodyFacts, BodyReader, DotStuffer, LineEnds};
pub use command::{Command, Hello};
pub use extension::{Extensions, Limits};
pub use line::{LineBuffer, LineError};
pub use parameters::{MailParameters, RecipientParameters};
pub use replies::Replies;
pub use reply::{Reply, ReplyError, Status};
pub use sasl::{Evidence, Login, SaslError, ScramStart};
pub use server::{Kind, Server, Settings};
pub use transaction::Transaction;
