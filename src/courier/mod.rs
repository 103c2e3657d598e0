//! One attempt to carry a message one hop.
//!
//! - `contract`: what the queue and every courier agree on
//! - `maildir`: to a Maildir on this host
//! - `program_courier`: to a program
//! - `command`: the operator's delivery agent
//! - `pipe`: programs that alias files name
//! - `program`: one run of a program
//! - `lmtp`: to a server that keeps mailboxes, by LMTP
//! - `smtp`: to the MX hosts of a domain, or to hosts that the operator names
//! - `mx`: the hosts of a domain, in the order in which to try them
//! - `message_facts`: what an SMTP or LMTP client must know of a message
//! - `final_delivery`: a message as a mailbox or a program gets it
//! - `template`: texts of the operator with placeholders
//! - `test_delivery`: one attempt, for tests

mod command;
mod contract;
mod final_delivery;
mod lmtp;
mod maildir;
mod message_facts;
mod mx;
mod pipe;
mod program;
mod program_courier;
pub mod smtp;
mod template;
#[cfg(test)]
mod test_delivery;

pub use command::CommandSettings;
pub use contract::{Courier, CourierProfile, Delivery, DeliveryPool, Message};
pub use final_delivery::LineEnds;
pub use lmtp::{LmtpCourier, LmtpSettings};
pub use maildir::{MaildirCourier, MaildirSettings};
pub use mx::{Host, host_addresses, mx_hosts};
pub use pipe::PipeSettings;
pub use program::Exit75;
pub use program_courier::ProgramCourier;
