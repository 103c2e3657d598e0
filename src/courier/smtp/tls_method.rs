//! How a connection is encrypted: by rustls, by the legacy TLS library, or not at all.

use crate::smtp::client::Encryption;
use crate::tls::SecurityLevel;

/// How a connection is to be encrypted, from the best method to the weakest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TlsMethod {
    /// STARTTLS if offered, with rustls.
    Tls,
    /// STARTTLS if offered, with OpenSSL.
    #[cfg(feature = "legacy-tls")]
    LegacyTls,
    /// No STARTTLS.
    Plain,
}

impl TlsMethod {
    /// The best level that this method can reach.
    pub(super) const fn best_level(self) -> SecurityLevel {
        match self {
            Self::Tls => SecurityLevel::TlsVerified,
            #[cfg(feature = "legacy-tls")]
            Self::LegacyTls => SecurityLevel::TlsUnverified,
            Self::Plain => SecurityLevel::Plain,
        }
    }

    /// The method to try on a new connection after a handshake by this one has failed.
    pub(super) const fn next_weaker(self) -> Option<Self> {
        match self {
            #[cfg(feature = "legacy-tls")]
            Self::Tls => Some(Self::LegacyTls),
            #[cfg(not(feature = "legacy-tls"))]
            Self::Tls => Some(Self::Plain),
            #[cfg(feature = "legacy-tls")]
            Self::LegacyTls => Some(Self::Plain),
            Self::Plain => None,
        }
    }

    /// What the client machine does about STARTTLS.
    pub(super) const fn encryption(self) -> Encryption {
        match self {
            Self::Tls => Encryption::Opportunistic,
            #[cfg(feature = "legacy-tls")]
            Self::LegacyTls => Encryption::Opportunistic,
            Self::Plain => Encryption::Never,
        }
    }
}
