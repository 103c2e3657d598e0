//! Hosts that the operator names instead of the MX hosts of a domain, and their options.
//!
//! ```text
//! smtp.relay.example:587 backup.relay.example:587 tls=verified login=relay1
//! ```
//!
//! Hosts by name or address, in the order in which they are tried, then options of the connection. The
//! notation is the same after `via` in an alias file, in `postrider.toml` and in routes. `login` is the
//! name of credentials that the courier has.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

use super::domain::Domain;

/// Named hosts and their options.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Via {
    /// Hosts in the order in which they are tried. Not empty.
    pub hosts: Vec<NextHop>,
    /// The TLS that a connection must have.
    pub tls: TlsPolicy,
    /// The name of the credentials to log in with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credentials_name: Option<String>,
}

/// A host that the operator names.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NextHop {
    /// A host name; `port` 0 is the default port of the courier.
    Name {
        /// Host name, looked up by A and AAAA.
        host: Domain,
        /// TCP port, or 0.
        port: u16,
    },
    /// An address; port 0 is the default port of the courier.
    Address(SocketAddr),
}

/// The TLS that a connection must have before mail is sent over it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TlsPolicy {
    /// TLS if it is offered, with any certificate; otherwise plain text.
    #[default]
    Opportunistic,
    /// TLS, with any certificate.
    Required,
    /// TLS, with a certificate that is trusted, valid today, and for the name of the host.
    Verified,
}

/// What is wrong with a text, and a remedy; the writer of the text is at fault.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{problem}; {remedy}")]
pub struct ViaError {
    /// What is wrong.
    pub problem: String,
    /// The remedy.
    pub remedy: &'static str,
}

/// Most hosts in one list, which is also the most that one attempt tries.
const HOSTS_MAX: usize = 8;

const HOSTS_REMEDY: &str = "write hosts such as smtp.relay.example:587, with spaces between them";
const OPTIONS_REMEDY: &str = "write tls=opportunistic, tls=required or tls=verified, and login=NAME";

impl Via {
    /// Parses hosts and options, in this order, with spaces between them. A login without the option `tls`
    /// requires verified TLS, because the password is for one host only.
    ///
    /// # Errors
    /// Names the wrong word; see [`ViaError`].
    pub fn parse(raw: &str) -> Result<Self, ViaError> {
        let mut hosts = Vec::new();
        let mut tls = None;
        let mut login = None;
        for word in raw.split_whitespace() {
            match word.split_once('=') {
                Some(("tls", policy)) if tls.is_none() => tls = Some(TlsPolicy::parse(policy)?),
                Some(("login", name)) if login.is_none() => login = Some(parse_credentials_name(name)?),
                Some(_) => {
                    return Err(via_error(
                        format!("{word:?} is not known here, or is here twice"),
                        OPTIONS_REMEDY,
                    ));
                }
                None if tls.is_some() || login.is_some() => {
                    return Err(via_error(
                        format!("{word:?} stands behind an option"),
                        "write the hosts first",
                    ));
                }
                None => hosts.push(NextHop::parse(word)?),
            }
        }
        if hosts.is_empty() {
            return Err(via_error("there is no host", HOSTS_REMEDY));
        }
        if hosts.len() > HOSTS_MAX {
            return Err(via_error(format!("there are more than {HOSTS_MAX} hosts"), "leave some out"));
        }
        let tls = match (tls, &login) {
            (Some(TlsPolicy::Opportunistic), Some(_)) => {
                return Err(via_error(
                    "a login needs TLS, and tls=opportunistic goes without",
                    "write tls=verified, or tls=required if the host's certificate cannot be verified",
                ));
            }
            (Some(tls), _) => tls,
            (None, Some(_)) => TlsPolicy::Verified,
            (None, None) => TlsPolicy::Opportunistic,
        };
        Ok(Self { hosts, tls, credentials_name: login })
    }
}

fn via_error(problem: impl Into<String>, remedy: &'static str) -> ViaError {
    ViaError { problem: problem.into(), remedy }
}

/// Letters, digits, `-`, `_` and `.`, because the name is used in files, logs and routes.
fn parse_credentials_name(raw: &str) -> Result<String, ViaError> {
    let is_fine = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    if raw.is_empty() || raw.len() > 64 || !raw.bytes().all(is_fine) {
        return Err(via_error(
            format!("{raw:?} is not the name of a login"),
            "write the name that its section in credentials.toml has",
        ));
    }
    Ok(raw.to_owned())
}

impl NextHop {
    /// Parses `host`, `host:port`, `192.0.2.1:port`, `[2001:db8::1]:port` or an address alone.
    ///
    /// # Errors
    /// [`ViaError`] if it is none of these, or the port is 0.
    pub fn parse(raw: &str) -> Result<Self, ViaError> {
        let no_host = || via_error(format!("{raw:?} is not a host"), HOSTS_REMEDY);
        if let Ok(address) = raw.parse::<SocketAddr>() {
            return if address.port() == 0 { Err(no_host()) } else { Ok(Self::Address(address)) };
        }
        let bare = raw.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(raw);
        if let Ok(address) = bare.parse::<IpAddr>() {
            return Ok(Self::Address(SocketAddr::new(address, 0)));
        }
        let (host, port) = match raw.split_once(':') {
            Some((host, port)) => (host, port.parse().ok().filter(|port| *port > 0).ok_or_else(no_host)?),
            None => (raw, 0),
        };
        match Domain::parse(host) {
            Ok(host) if host.as_address().is_none() => Ok(Self::Name { host, port }),
            _ => Err(no_host()),
        }
    }
}

impl TlsPolicy {
    const ALL: [Self; 3] = [Self::Opportunistic, Self::Required, Self::Verified];

    fn parse(raw: &str) -> Result<Self, ViaError> {
        let found = Self::ALL.into_iter().find(|policy| policy.as_str() == raw);
        found.ok_or_else(|| via_error(format!("tls={raw} is not known"), OPTIONS_REMEDY))
    }

    const fn as_str(self) -> &'static str {
        match self {
            Self::Opportunistic => "opportunistic",
            Self::Required => "required",
            Self::Verified => "verified",
        }
    }
}

impl fmt::Display for TlsPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// In the notation that is parsed.
impl fmt::Display for NextHop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name { host, port: 0 } => f.write_str(host.as_ascii()),
            Self::Name { host, port } => write!(f, "{}:{port}", host.as_ascii()),
            Self::Address(address) if address.port() == 0 => write!(f, "{}", address.ip()),
            Self::Address(address) => address.fmt(f),
        }
    }
}

/// In the notation that is parsed; different values have different forms.
impl fmt::Display for Via {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, host) in self.hosts.iter().enumerate() {
            write!(f, "{}{host}", if position == 0 { "" } else { " " })?;
        }
        if self.tls != TlsPolicy::Opportunistic {
            write!(f, " tls={}", self.tls)?;
        }
        match &self.credentials_name {
            Some(login) => write!(f, " login={login}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shown_form_is_the_parsed_one() {
        for raw in [
            "smtp.relay.example",
            "smtp.relay.example:587 tls=verified login=relay1",
            "relay 192.0.2.1 192.0.2.1:25 [2001:db8::1]:465 tls=required",
            "2001:db8::1 localhost:2525",
        ] {
            let via = Via::parse(raw).unwrap();
            assert_eq!(via.to_string(), raw);
            let json = serde_json::to_string(&via).unwrap();
            assert_eq!(serde_json::from_str::<Via>(&json).unwrap(), via);
        }
        assert_eq!(Via::parse("  BÜCHER.example:25 ").unwrap().to_string(), "xn--bcher-kva.example:25");
    }

    #[test]
    fn a_login_requires_verified_tls_unless_an_option_allows_less() {
        assert_eq!(Via::parse("a.example login=x").unwrap().tls, TlsPolicy::Verified);
        assert_eq!(Via::parse("a.example tls=required login=x").unwrap().tls, TlsPolicy::Required);
        assert_eq!(Via::parse("a.example").unwrap().tls, TlsPolicy::Opportunistic);
        assert!(Via::parse("a.example tls=opportunistic login=x").unwrap_err().problem.contains("needs TLS"));
    }

    #[test]
    fn a_wrong_word_is_named() {
        for (raw, expected) in [
            ("", "no host"),
            ("tls=verified", "no host"),
            ("a.example:0", "a.example:0"),
            ("192.0.2.1:0", "192.0.2.1:0"),
            ("a.example:x", "a.example:x"),
            ("a..example", "a..example"),
            ("a.example/b.example", "a.example/b.example"),
            ("a.example tls=maybe", "tls=maybe"),
            ("a.example tls=verified tls=verified", "twice"),
            ("a.example user=x", "user=x"),
            ("a.example login=", "name of a login"),
            ("a.example login=a/b", "name of a login"),
            ("a.example tls=required b.example", "b.example"),
            ("a a a a a a a a a", "more than 8"),
        ] {
            let error = Via::parse(raw).unwrap_err();
            assert!(error.problem.contains(expected), "{raw}: {error}");
        }
    }
}
