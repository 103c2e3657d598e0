//! What an exchange finds out: whom the client claims to be, the proof, or a mistake.

use std::fmt;

/// Who a client claims to be, and how it proves that.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SaslCredentials {
    /// Who it wants to act as; `None` if it leaves that to us (RFC 4422 §2).
    pub authorization_identity: Option<String>,
    /// Who it is, in its own words. Not empty.
    pub authentication_identity: String,
    /// How it proves that.
    pub evidence: Evidence,
}

/// How a client proves who it is.
#[derive(Clone, PartialEq, Eq)]
pub enum Evidence {
    /// By a password. Not empty; never shown, not even by `Debug`.
    Password(String),
    /// By a proof that has been checked already, with the keys that the policy gave.
    Proof {
        /// The client knows the password behind the keys.
        is_valid: bool,
    },
}

/// Without the password.
impl fmt::Debug for Evidence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Password(_) => f.write_str("Password(…)"),
            Self::Proof { is_valid: is_right } => write!(f, "Proof({is_right})"),
        }
    }
}

/// Why a message of the client's is none; the client is at fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SaslError {
    /// Not base64 (RFC 4954 §4).
    #[error("The response is not base64")]
    Base64,
    /// Not the three parts of RFC 4616 §2, or one that must not be empty is.
    #[error("The response does not follow PLAIN")]
    Plain,
    /// Not a user name or a password.
    #[error("The response does not follow LOGIN")]
    Login,
    /// Not the message of RFC 5802 §7 that is due.
    #[error("The response is not the expected SCRAM message")]
    Scram,
    /// RFC 9266 is the only one that we have, and only with the mechanism that is named for it.
    #[error("Channel binding requires tls-exporter and SCRAM-SHA-256-PLUS")]
    ChannelBinding,
    /// The client was not shown all of our mechanisms (RFC 5802 §6).
    #[error("Channel binding was offered, but a third party removed it from the list of mechanisms")]
    Downgrade,
    /// More than nothing, after the proof was right.
    #[error("The last response must be empty")]
    NotEmpty,
}
