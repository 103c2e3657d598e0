//! The conversations of `testdata/dialogs`, played against the SMTP server.
//!
//! - `in_memory`: reads the dialogs and plays them against the state machine, without a socket
//! - `on_sockets`: plays the same dialogs against a listener on loopback

pub mod in_memory;
pub mod on_sockets;

pub use in_memory::{Dialog, HOSTNAME, Manner, Scripted, Step, Wire, all, parse, play, wishes};
