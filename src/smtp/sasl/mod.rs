//! SASL (RFC 4422): the messages by which a client proves who it is.
//!
//! These files parse and write the messages. The policy decides whether a password is right and how
//! names are compared. Pure: nonces, keys and channel-binding data are arguments.
//!
//! - `credentials`: the result of an exchange
//! - `base64_line`: messages in base64
//! - `exchange`: the mechanisms, and one exchange with a client
//! - `plain`: the mechanism PLAIN
//! - `login`: the mechanism LOGIN
//! - `scram`: the mechanisms SCRAM-SHA-256 and SCRAM-SHA-256-PLUS

mod base64_line;
mod credentials;
mod exchange;
mod login;
mod plain;
mod scram;

pub(super) use base64_line::{decode, encode};
pub use credentials::{Evidence, SaslCredentials, SaslError};
pub(super) use exchange::{Exchange, Mechanism, SaslStep};
pub(super) use scram::ScramFirst;
pub use scram::ScramStart;
