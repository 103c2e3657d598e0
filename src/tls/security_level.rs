//! How well a connection was protected.
//!
//! Pure. Levels are ordered, so that "at least as good as the level known of the domain" is one comparison.
//! Files, logs and pages show the names that are defined here.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The protection of a connection that we opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SecurityLevel {
    /// No TLS.
    #[default]
    Plain,
    /// TLS with a certificate that is not trusted, or that has another name.
    TlsUnverified,
    /// TLS with a certificate that has a chain to the system's roots and the name of the MX host or
    /// of the named host.
    TlsVerified,
}

/// The protection of a connection that a client opened. Clients have no certificate, so none is verified.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum IncomingSecurityLevel {
    /// No TLS.
    #[default]
    Plain,
    /// TLS.
    Tls,
}

impl fmt::Display for SecurityLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Plain => "plain",
            Self::TlsUnverified => "tls-unverified",
            Self::TlsVerified => "tls-verified",
        })
    }
}

impl fmt::Display for IncomingSecurityLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Plain => "plain",
            Self::Tls => "tls",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_ordered_and_shown_as_they_are_stored() {
        assert!(
            SecurityLevel::Plain < SecurityLevel::TlsUnverified
                && SecurityLevel::TlsUnverified < SecurityLevel::TlsVerified
        );
        assert!(IncomingSecurityLevel::Plain < IncomingSecurityLevel::Tls);
        for level in [SecurityLevel::Plain, SecurityLevel::TlsUnverified, SecurityLevel::TlsVerified] {
            assert_eq!(serde_json::to_string(&level).unwrap(), format!("\"{level}\""));
        }
        for level in [IncomingSecurityLevel::Plain, IncomingSecurityLevel::Tls] {
            assert_eq!(serde_json::to_string(&level).unwrap(), format!("\"{level}\""));
        }
    }
}
