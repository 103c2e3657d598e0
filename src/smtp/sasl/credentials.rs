//! The result of an exchange: credentials, or a mistake of the client.

use std::fmt;

/// The identity that a client claims, with its proof.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SaslCredentials {
    /// The user that the client wants to act as; `None` if it is the authenticated user (RFC 4422 §2).
    pub authorization_identity: Option<String>,
    /// The user name, as the client sent it. Not empty.
    pub authentication_identity: String,
    /// The proof.
    pub evidence: Evidence,
}

/// How a client proves its identity.
#[derive(Clone, PartialEq, Eq)]
pub enum Evidence {
    /// A password. Not empty; never shown, not even by `Debug`.
    Password(String),
    /// A SCRAM proof, already checked with the keys of [`super::ScramStart`].
    Proof {
        /// The client knows the password of the keys.
        is_valid: bool,
    },
}

/// Omits the password.
impl fmt::Debug for Evidence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Password(_) => f.write_str("Password(…)"),
            Self::Proof { is_valid: is_right } => write!(f, "Proof({is_right})"),
        }
    }
}

/// Why a message of the client is refused; the client is at fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SaslError {
    /// Not base64 (RFC 4954 §4).
    #[error("The response is not base64")]
    Base64,
    /// Not the three parts of RFC 4616 §2, or one of them is empty that must not be.
    #[error("The response does not follow PLAIN")]
    Plain,
    /// Not a user name or a password.
    #[error("The response does not follow LOGIN")]
    Login,
    /// Not the message of RFC 5802 §7 that must come now.
    #[error("The response is not the expected SCRAM message")]
    Scram,
    /// Another channel binding than tls-exporter (RFC 9266), or one without the mechanism -PLUS.
    #[error("Channel binding requires tls-exporter and SCRAM-SHA-256-PLUS")]
    ChannelBinding,
    /// The client did not see all offered mechanisms (RFC 5802 §6): a third party removed some.
    #[error("Channel binding was offered, but a third party removed it from the list of mechanisms")]
    Downgrade,
    /// A message where an empty one must come (RFC 4954 §4).
    #[error("The last response must be empty")]
    NotEmpty,
}
