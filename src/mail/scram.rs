//! What is kept of a password so that its owner can prove to know it.
//!
//! Facts only: `auth` makes and keeps them, `smtp` checks a proof with them.

use std::fmt;

/// Keys of the mechanism SCRAM-SHA-256 (RFC 5802 §3, RFC 7677). Whoever has them can find the
/// password by trying, so they are kept like a hash.
#[derive(Clone, PartialEq, Eq)]
pub struct ScramKeys {
    /// Said to everybody who asks.
    pub salt: Vec<u8>,
    /// Rounds of PBKDF2; said too.
    pub iterations: u32,
    /// H(ClientKey): checks the client.
    pub stored_key: [u8; 32],
    /// Proves to the client that we know it.
    pub server_key: [u8; 32],
}

/// Without the keys.
impl fmt::Debug for ScramKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ScramKeys").field("iterations", &self.iterations).finish_non_exhaustive()
    }
}
