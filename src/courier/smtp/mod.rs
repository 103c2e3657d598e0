//! To the MX hosts of a domain, or to hosts named by an alias.
//!
//! One attempt walks the hosts and their addresses in order, until every recipient has an answer,
//! the hosts are used up or the time is. What a host said of a recipient stands; where a host gave
//! no answer (no connection, a refusal before the transaction, a connection that broke before the
//! final dot, a level of TLS below what we know of the domain) the next one is asked.
//!
//! Promises: the message is streamed through a small buffer, never held; a message that cannot be
//! read to its end is never ended with a dot; the connection in use is closed on every path; whatever
//! a peer does, the attempt is back by its deadline, as far as the operating system lets it.
//!
//! Does not retry later or convert 8-bit messages.
//!
//! Called by the delivery threads. Standards: RFC 5321 §4.5.3.2 and §5.1, 3207, 6531, 7505.
//!
//! - `attempt`: the courier, and its way from host to host
//! - `visit`: one address: TLS, the legacy TLS library, plain text; and what is known of the domain
//! - `session`: one connection: what the client machine wants done, with a real stream; also LMTP's
//! - `kept`: connections that may carry the next message, and goodbyes
//! - `absent`: hosts that did not answer a moment ago
//! - `hello`: the name that we say in EHLO
//! - `settings`: what the operator may change
mod address_attempt;
mod attempt;
mod connection_pool;
mod hello;
mod session;
mod settings;
mod unresponsive_hosts;

pub use crate::smtp::client::Credentials;
pub(super) use attempt::MessageFacts;
pub use attempt::{CredentialsByName, SmtpCourier, SmtpCourierParts};
pub(super) use session::{ClientSession, describe_io_error};
pub use settings::{HelloMode, Settings, Timeouts};
