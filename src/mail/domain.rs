//! A domain in canonical form.
//!
//! `Bücher.example`, `bücher.example` and `XN--BCHER-KVA.example` are the same domain. It is kept in
//! lower-case A-labels, as DNS and EHLO need it, and shown to people in U-labels. An address literal (RFC
//! 5321 §4.1.3) is a domain, too, because it has the same place in an address; it is never looked up in DNS
//! and never a local domain.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A domain name in canonical form, or an address literal. At most 255 octets.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Domain {
    /// Lower-case A-labels without a final dot; a literal with its brackets.
    ascii: Box<str>,
}

/// Why a text is not a domain; its writer is at fault.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DomainError {
    /// The text is empty.
    #[error("the domain is empty")]
    Empty,
    /// Longer than DNS and RFC 5321 §4.5.3.1.2 allow.
    #[error("the domain is longer than 255 octets")]
    TooLong,
    /// Brackets around something that is not an address.
    #[error("{0} is not an address literal such as [192.0.2.1] or [IPv6:2001:db8::1]")]
    InvalidLiteral(String),
    /// UTS 46 and the host name rules refuse it.
    #[error("{0} is not a domain name")]
    InvalidName(String),
}

impl Domain {
    /// Longest domain in octets (RFC 5321 §4.5.3.1.2).
    pub const OCTETS_MAX: usize = 255;

    /// Parses a domain in any case, in A-labels or U-labels, or an address literal.
    ///
    /// # Errors
    /// See [`DomainError`].
    pub fn parse(raw: &str) -> Result<Self, DomainError> {
        if raw.is_empty() {
            return Err(DomainError::Empty);
        }
        // A U-label is at most four times as long in UTF-8 as in A-labels.
        if raw.len() > Self::OCTETS_MAX * 4 {
            return Err(DomainError::TooLong);
        }
        if let Some(inside) = raw.strip_prefix('[') {
            return inside
                .strip_suffix(']')
                .and_then(parse_literal)
                .map(Self::from)
                .ok_or_else(|| DomainError::InvalidLiteral(raw.to_owned()));
        }
        // A final dot is DNS notation, not part of a mail domain (RFC 5321 §2.3.5).
        if raw.ends_with('.') {
            return Err(DomainError::InvalidName(raw.to_owned()));
        }
        let ascii = if is_canonical_ascii(raw) {
            raw.into()
        } else {
            idna::domain_to_ascii_strict(raw)
                .map_err(|_| DomainError::InvalidName(raw.to_owned()))?
                .into_boxed_str()
        };
        // An address without brackets is not a name: no top-level domain is a number.
        let is_number = |label: &str| label.bytes().all(|b| b.is_ascii_digit());
        if ascii.is_empty() || ascii.rsplit('.').next().is_some_and(is_number) {
            return Err(DomainError::InvalidName(raw.to_owned()));
        }
        if ascii.len() > Self::OCTETS_MAX {
            return Err(DomainError::TooLong);
        }
        Ok(Self { ascii })
    }

    /// Parses a host name as DNS has it. Underscores are not allowed in host names (RFC 1123 §2.1), but
    /// some MX records name hosts that have them.
    ///
    /// # Errors
    /// As [`Domain::parse`].
    pub fn parse_host(raw: &str) -> Result<Self, DomainError> {
        if !raw.contains('_') {
            return Self::parse(raw);
        }
        // Whether the rest of the name is valid does not depend on the underscores.
        Self::parse(&raw.replace('_', "x"))?;
        let is_ascii = raw.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'));
        if !is_ascii {
            return Err(DomainError::InvalidName(raw.to_owned()));
        }
        Ok(Self { ascii: raw.to_ascii_lowercase().into() })
    }

    /// Lower-case A-labels: for DNS, EHLO, TLS and file names.
    #[must_use]
    pub fn as_ascii(&self) -> &str {
        &self.ascii
    }

    /// The form for people and for local delivery: U-labels, if the domain has any.
    #[must_use]
    pub fn to_unicode(&self) -> String {
        if self.ascii.contains("xn--") {
            // A name that does not decode is shown unchanged; it was accepted before.
            let (unicode, result) = idna::domain_to_unicode(&self.ascii);
            if result.is_ok() {
                return unicode;
            }
        }
        self.ascii.to_string()
    }

    /// The address, if this is an address literal.
    #[must_use]
    pub fn as_address(&self) -> Option<IpAddr> {
        self.ascii.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).and_then(parse_literal)
    }

    /// The name has a dot, so that it means the same on every host. A literal is not qualified.
    #[must_use]
    pub fn is_qualified(&self) -> bool {
        self.ascii.contains('.') && self.as_address().is_none()
    }

    /// The domain means the same on every host: it is qualified, or a literal. RFC 6409 §5.2 allows nothing
    /// else in mail that is sent on.
    #[must_use]
    pub fn is_qualified_or_literal(&self) -> bool {
        self.is_qualified() || self.as_address().is_some()
    }
}

impl From<IpAddr> for Domain {
    fn from(address: IpAddr) -> Self {
        let ascii = match address {
            IpAddr::V4(v4) => format!("[{v4}]"),
            IpAddr::V6(v6) => format!("[ipv6:{v6}]"),
        };
        Self { ascii: ascii.into() }
    }
}

/// UTS 46 would not change the name: lower-case letters, digits and inner hyphens, no A-label.
fn is_canonical_ascii(raw: &str) -> bool {
    raw.len() <= Domain::OCTETS_MAX
        && raw.split('.').all(|label| {
            !label.is_empty()
                && label.len() <= 63
                && !label.starts_with('-')
                && !label.ends_with('-')
                // "xn--" and other labels for which UTS 46 has rules.
                && label.get(2..4) != Some("--")
                && label.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-'))
        })
}

/// RFC 5321 §4.1.3: an IPv4 address, or `IPv6:` in any case and an IPv6 address.
fn parse_literal(inside: &str) -> Option<IpAddr> {
    match inside.get(..5) {
        Some(tag) if tag.eq_ignore_ascii_case("ipv6:") => {
            inside.get(5..)?.parse::<Ipv6Addr>().ok().map(IpAddr::V6)
        }
        _ => inside.parse::<Ipv4Addr>().ok().map(IpAddr::V4),
    }
}

/// The form for people: U-labels.
impl fmt::Display for Domain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.as_address() {
            Some(IpAddr::V6(v6)) => write!(f, "[IPv6:{v6}]"),
            Some(IpAddr::V4(v4)) => write!(f, "[{v4}]"),
            None => f.write_str(&self.to_unicode()),
        }
    }
}

impl fmt::Debug for Domain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Domain({})", self.ascii)
    }
}

impl Serialize for Domain {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.to_unicode())
    }
}

impl<'de> Deserialize<'de> for Domain {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = String::deserialize(deserializer)?;
        Self::parse(&raw).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_forms_of_a_domain_are_equal() {
        let canonical = Domain::parse("bücher.example").unwrap();
        for spelling in
            ["BÜCHER.example", "xn--bcher-kva.example", "XN--BCHER-KVA.Example", "bu\u{308}cher.example"]
        {
            assert_eq!(Domain::parse(spelling).unwrap(), canonical, "{spelling}");
        }
        assert_eq!(canonical.as_ascii(), "xn--bcher-kva.example");
        assert_eq!(canonical.to_string(), "bücher.example");
    }

    #[test]
    fn a_literal_is_an_address_and_not_a_name() {
        for (raw, shown) in [("[192.0.2.1]", "[192.0.2.1]"), ("[ipv6:2001:DB8::1]", "[IPv6:2001:db8::1]")] {
            let literal = Domain::parse(raw).unwrap();
            assert!(literal.as_address().is_some());
            assert!(!literal.is_qualified());
            assert_eq!(literal.to_string(), shown);
            let json = serde_json::to_string(&literal).unwrap();
            assert_eq!(serde_json::from_str::<Domain>(&json).unwrap(), literal);
        }
    }

    #[test]
    fn an_invalid_domain_is_refused() {
        for raw in [
            "",
            ".",
            "a..b",
            "-lead.example",
            "trail-.example",
            "a_b.example",
            "a.",
            ".a",
            "[1.2.3]",
            "127.0.0.1",
            "a.1",
            "[x",
            "a b",
            "a/b",
            "..",
            "xn--\u{fffd}",
        ] {
            assert!(Domain::parse(raw).is_err(), "{raw:?}");
        }
        assert!(Domain::parse(&"a.".repeat(130)).is_err());
        assert!(Domain::parse(&format!("{}.example", "a".repeat(64))).is_err());
    }
}
