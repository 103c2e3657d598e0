//! The local socket that the subcommands speak to.
//!
//! A Unix socket, one JSON line each way, each with `"version":1`:
//!
//! ```text
//! {"version":1,"request":"queue-retry","which":"all"}
//! {"version":1,"answer":{"retried":3}}
//! {"version":1,"error":"no message 01ktv… is in the queue"}
//! ```
//!
//! A command that changes what the daemon keeps goes this way, so that nobody writes the daemon's
//! files behind its back. Only the user that the daemon runs as, and root, are answered: the
//! socket's mode says so, and the kernel's word about the peer is checked besides. What an answer
//! holds is the business of whoever gives it (`daemon`) and whoever asks (`cli`).
//!
//! - `request`: what can be asked, and the two lines
//! - `server`: answers, in the daemon
//! - `client`: asks, in a subcommand

mod client;
mod request;
mod server;

pub use client::{ControlError, send_request};
pub use request::{ControlRequest, MessagePart};
pub use server::{ControlServer, RequestHandler, StartError};
