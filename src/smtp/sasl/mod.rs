//! SASL (RFC 4422): what a client says to prove who it is.
//!
//! Only the octets are understood here; whether a password is right is the policy's to say, and
//! so is the form in which names are compared.
//!
//! - `plain`: the mechanism PLAIN

mod plain;

pub use plain::{Login, SaslError};
