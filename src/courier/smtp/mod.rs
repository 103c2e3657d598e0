//! To the MX hosts of a domain, or to hosts that the operator names.
//!
//! One attempt tries the hosts and their addresses in order, until every recipient has an answer or
//! hosts or time are used up. A host's reply about a recipient is final for the attempt. Where a host gives
//! no answer (no connection, a refusal before the transaction, a connection that broke before the
//! final dot, a level of TLS below what is demanded) the next host is tried.
//!
//! Guarantees: the message is streamed through a small buffer, never held in memory; a message that cannot
//! be read to its end is never ended with a dot; the connection in use is closed on every path; whatever
//! a peer does, the attempt ends by its deadline, except for the reply to the final dot.
//!
//! Does not retry later and does not convert 8-bit messages.
//!
//! Called by the delivery threads. Standards: RFC 5321 §4.5.3.2 and §5.1, 1047, 3207, 6531, 7505, 8314
//! §7.3, 9422.
//!
//! - `smtp_courier`: the courier
//! - `parts`: what the attempts of one courier share
//! - `context`: what is the same for every connection of one attempt
//! - `attempt`: from host to host
//! - `address_attempt`: one address: TLS, the legacy TLS library, plain text
//! - `demand`: what a connection must offer before mail goes over it
//! - `tls_method`: how a connection is encrypted
//! - `session`: one conversation; also LMTP's
//! - `open_connection`: a connection with its client machine
//! - `connection_pool`: connections that may carry the next message
//! - `unresponsive_hosts`: addresses that did not answer a moment ago
//! - `recipient_answer`: what the hosts have answered about one recipient
//! - `hello`: the name in EHLO
//! - `settings`: what the operator may change
mod address_attempt;
mod attempt;
mod connection_pool;
mod context;
mod demand;
mod hello;
mod open_connection;
mod parts;
mod recipient_answer;
mod session;
mod settings;
mod smtp_courier;
mod tls_method;
mod unresponsive_hosts;

pub use crate::smtp::client::Credentials;
pub(super) use open_connection::describe_io_error;
pub use parts::{CredentialsByName, SmtpCourierParts};
pub(super) use session::SmtpConversation;
pub use settings::{HelloMode, Settings, Timeouts};
pub use smtp_courier::SmtpCourier;
