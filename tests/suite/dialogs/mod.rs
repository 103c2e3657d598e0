//! The conversations of `testdata/dialogs`, played against the SMTP server.
//!
//! - `notation`: reads the dialogs
//! - `play`: plays one of them, line by line, one octet at a time, or in one segment
//! - `in_memory`: plays them against the state machine, without a socket
//! - `on_sockets`: plays them against a listener on loopback

mod in_memory;
mod notation;
pub mod on_sockets;
mod play;

pub use notation::{Dialog, HOSTNAME, Scripted, Step, all, parse};
pub use play::{Manner, Wire, play, wishes};
