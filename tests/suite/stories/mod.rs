//! Parts of the library put together: the queue and the SMTP courier, with scripted partners.
//!
//! - `messages`: a message in the queue, with a test clock and scripted couriers
//! - `operators`: what an operator's commands do to queued messages, in the same way
//! - `reports`: which bounces are sent, when, and in which form, in the same way
//! - `crash`: the queue is stopped at every disk operation
//! - `queue`: the queue with its threads, on a real disk
//! - `courier_smtp`: one attempt of the SMTP courier, against peers that follow a script
//! - `courier_tls`: TLS in such an attempt
//! - `courier_kept`: several messages on one connection
//! - `courier_via`: hosts that the operator names: their TLS policy, and logins there

mod courier_kept;
mod courier_smtp;
mod courier_tls;
mod courier_via;
mod crash;
mod messages;
mod operators;
mod queue;
mod reports;
