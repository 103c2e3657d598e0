//! One hop, one attempt.
//!
//! - `contract`: what the queue and every courier agree on
//! - `maildir`: to a Maildir on this host
//! - `command`: to the operator's delivery agent
//! - `lmtp`: to a server that keeps mailboxes, by LMTP
//! - `pipe`: to a program that an alias file names
//! - `program`: what `command` and `pipe` share
//! - `mailbox_form`: a message as a mailbox or a program gets it
//! - `template`: texts of the operator's with places to fill in
//! - `trial`: one attempt, for tests
//! - `mx`: the hosts of a domain, in the order in which to try them
//! - `smtp`: to the MX hosts of a domain, or to hosts named by an alias

mod command;
mod contract;
mod final_delivery;
mod lmtp;
mod maildir;
mod message_facts;
mod mx;
mod pipe;
mod program;
pub mod smtp;
mod template;
#[cfg(test)]
mod test_delivery;

pub use command::{CommandCourier, CommandSettings};
pub use contract::{Courier, Delivery, Message};
pub use final_delivery::LineEnds;
pub use lmtp::{LmtpCourier, LmtpSettings};
pub use maildir::{MaildirCourier, MaildirSettings};
pub use mx::{Host, host_addresses, mx_hosts};
pub use pipe::{Exit75, PipeCourier, PipeSettings};
