//! SASL (RFC 4422): what a client says to prove who it is.
//!
//! Only the octets are understood here; whether a password is right is the policy's to say, and
//! so is the form in which names are compared. Pure: nonces, keys and channel-binding data are
//! given.
//!
//! - `exchange`: the mechanisms, and one exchange with a client
//! - `plain`: the mechanism PLAIN
//! - `login`: the mechanism LOGIN
//! - `scram`: the mechanisms SCRAM-SHA-256 and SCRAM-SHA-256-PLUS

mod exchange;
mod login;
mod plain;
mod scram;

pub use exchange::{Evidence, SaslCredentials, SaslError};
pub(super) use exchange::{Exchange, Mechanism, SaslStep, decode, encode};
pub(super) use scram::ScramFirst;
pub use scram::ScramStart;
