//! The address of a server: TCP, or a Unix socket of this host.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

/// The address of a server.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Endpoint {
    /// By TCP.
    Tcp(SocketAddr),
    /// At a Unix socket.
    Unix(PathBuf),
}

/// The text is neither `unix:PATH` nor an address with a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("is neither unix:PATH nor an address with a port")]
pub struct EndpointError;

impl From<SocketAddr> for Endpoint {
    fn from(address: SocketAddr) -> Self {
        Self::Tcp(address)
    }
}

impl FromStr for Endpoint {
    type Err = EndpointError;

    fn from_str(raw: &str) -> Result<Self, EndpointError> {
        match raw.strip_prefix("unix:") {
            Some("") => Err(EndpointError),
            Some(path) => Ok(Self::Unix(path.into())),
            None => raw.parse().map(Self::Tcp).map_err(|_| EndpointError),
        }
    }
}

/// In the form that [`FromStr`] parses.
impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shown_form_is_parsed_again() {
        for raw in ["unix:/run/dovecot/lmtp", "unix:run/lmtp", "127.0.0.1:24", "[::1]:24"] {
            assert_eq!(raw.parse::<Endpoint>().unwrap().to_string(), raw);
        }
        for raw in ["", "unix:", "/run/dovecot/lmtp", "127.0.0.1", "mail.here.example:24"] {
            assert_eq!(raw.parse::<Endpoint>(), Err(EndpointError), "{raw}");
        }
    }
}
