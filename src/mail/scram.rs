//! The keys by which a SCRAM client proves that it knows a password.
//!
//! `auth` makes and stores them, `smtp` checks proofs with them.

use std::fmt;

/// Keys of the mechanism SCRAM-SHA-256 (RFC 5802 §3, RFC 7677). They allow to guess the password offline,
/// so that they must be protected like a hash.
#[derive(Clone, PartialEq, Eq)]
pub struct ScramKeys {
    /// The salt, which every client gets.
    pub salt: Vec<u8>,
    /// The rounds of PBKDF2, which every client gets.
    pub iterations: u32,
    /// H(ClientKey), which checks the proof of the client.
    pub stored_key: [u8; 32],
    /// The key of the proof that the server sends.
    pub server_key: [u8; 32],
}

/// Omits the keys.
impl fmt::Debug for ScramKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ScramKeys").field("iterations", &self.iterations).finish_non_exhaustive()
    }
}
