//! The roles of listening sockets: which protocol is spoken, and who is expected.

use crate::smtp::ServerKind;

/// The protocol on a listening socket, and the clients that are expected there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ListenerRole {
    /// Mail from other servers; port 25.
    Smtp,
    /// Mail from users; port 587 (RFC 6409).
    Submission,
    /// Mail from users, TLS from the first octet; port 465 (RFC 8314 §3.3).
    Submissions,
}

impl ListenerRole {
    /// As in the configuration, in logs and in counters.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Smtp => "smtp",
            Self::Submission => "submission",
            Self::Submissions => "submissions",
        }
    }

    /// The first octets are a handshake.
    #[must_use]
    pub fn is_implicit_tls(self) -> bool {
        match self {
            Self::Smtp | Self::Submission => false,
            Self::Submissions => true,
        }
    }

    pub(super) fn kind(self) -> ServerKind {
        match self {
            Self::Smtp => ServerKind::Smtp,
            Self::Submission | Self::Submissions => ServerKind::Submission,
        }
    }
}
