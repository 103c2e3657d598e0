//! `local-part@domain`, and the two paths of a transaction.
//!
//! A local part is kept as it was written (RFC 5321 §2.4: case may matter to its domain); those of local
//! users are compared by key. Quotes are notation, not content: `"ana"@x` and `ana@x` are the same mailbox,
//! and quotes are written only where the grammar needs them.

use std::fmt;

use precis_profiles::UsernameCaseMapped;
use precis_profiles::precis_core::profile::PrecisFastInvocation;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::domain::{Domain, DomainError};

/// The part before the `@`, without quotes and escapes. Not empty, without control characters.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LocalPart(Box<str>);

/// `local-part@domain` (RFC 5321 §2.3.11, with UTF-8 as in RFC 6531 §3.3).
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Mailbox {
    /// The local part.
    pub local_part: LocalPart,
    /// The domain.
    pub domain: Domain,
}

/// Where failures are reported; with the null reverse-path they are not (RFC 5321 §4.5.5).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ReversePath {
    /// `<>`: bounces and other mail that must not be answered.
    Null,
    /// The sender.
    Mailbox(Mailbox),
}

/// The argument of RCPT.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ForwardPath {
    /// `<postmaster>` without a domain (RFC 5321 §4.1.1.3).
    Postmaster,
    /// Every other recipient.
    Mailbox(Mailbox),
}

/// Why a text is not a mailbox; its writer is at fault.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MailboxError {
    /// There is no `@` outside quotes.
    #[error("there is no @ and domain")]
    NoDomain,
    /// The local part has a dot in a wrong place, a space, a bracket, an open quote …
    #[error("the part before the @ is malformed")]
    MalformedLocalPart,
    /// The path has more than 256 octets with its brackets (RFC 5321 §4.5.3.1.3).
    #[error("the address is longer than 254 octets")]
    TooLong,
    /// The domain is invalid.
    #[error(transparent)]
    Domain(#[from] DomainError),
}

impl LocalPart {
    /// Parses a dot-string or a quoted-string (RFC 5321 §4.1.2, RFC 6531 §3.3).
    ///
    /// # Errors
    /// [`MailboxError::MalformedLocalPart`] if it is neither.
    pub fn parse(raw: &str) -> Result<Self, MailboxError> {
        let content = match raw.strip_prefix('"') {
            Some(rest) => unquote(rest.strip_suffix('"').ok_or(MailboxError::MalformedLocalPart)?)?,
            None if is_dot_string(raw) => raw.to_owned(),
            None => return Err(MailboxError::MalformedLocalPart),
        };
        Self::from_unquoted(&content)
    }

    /// A local part with this content, as [`Self::as_str`] returns it.
    ///
    /// # Errors
    /// [`MailboxError::MalformedLocalPart`] if it is empty or has control characters.
    pub fn from_unquoted(content: &str) -> Result<Self, MailboxError> {
        if content.is_empty() || content.chars().any(char::is_control) {
            return Err(MailboxError::MalformedLocalPart);
        }
        Ok(Self(content.into()))
    }

    /// The content, without quotes or escapes. In a command or a header use `Display`.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The form in which local parts of local users are compared: the PRECIS profile UsernameCaseMapped
    /// (RFC 8265 §3.3). A name outside that profile is equal only to itself.
    #[must_use]
    pub fn comparison_key(&self) -> String {
        let raw = &*self.0;
        if raw.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'-' | b'_' | b'+')) {
            return raw.to_owned();
        }
        UsernameCaseMapped::enforce(raw).map_or_else(|_| raw.to_owned(), |key| key.into_owned())
    }

    /// The comparison key as a local part: the form in which a local user is delivered to.
    #[must_use]
    pub fn case_mapped(&self) -> Self {
        Self(self.comparison_key().into())
    }
}

/// RFC 5321 §4.1.2 `Quoted-string`, without its quotes.
fn unquote(inside: &str) -> Result<String, MailboxError> {
    let mut content = String::with_capacity(inside.len());
    let mut chars = inside.chars();
    while let Some(c) = chars.next() {
        let c = match c {
            '\\' => chars.next().ok_or(MailboxError::MalformedLocalPart)?,
            '"' => return Err(MailboxError::MalformedLocalPart),
            c => c,
        };
        content.push(c);
    }
    Ok(content)
}

/// RFC 5321 §4.1.2 `Dot-string`: atoms with single dots between them.
fn is_dot_string(raw: &str) -> bool {
    raw.split('.').all(|atom| !atom.is_empty() && atom.chars().all(is_atom_char))
}

/// RFC 5322 §3.2.3 `atext`, and all characters beyond ASCII that are not controls (RFC 6531 §3.3).
fn is_atom_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || "!#$%&'*+-/=?^_`{|}~".contains(c) || (!c.is_ascii() && !c.is_control())
}

/// The form for commands and headers: quoted only where the grammar needs it.
impl fmt::Display for LocalPart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if is_dot_string(&self.0) {
            return f.write_str(&self.0);
        }
        f.write_str("\"")?;
        for c in self.0.chars() {
            if matches!(c, '"' | '\\') {
                f.write_str("\\")?;
            }
            write!(f, "{c}")?;
        }
        f.write_str("\"")
    }
}

impl Mailbox {
    /// Longest mailbox in octets: a path of 256 (RFC 5321 §4.5.3.1.3) less its brackets.
    pub const OCTETS_MAX: usize = 254;

    /// Parses `local-part@domain`, without brackets and source route.
    ///
    /// # Errors
    /// See [`MailboxError`].
    pub fn parse(raw: &str) -> Result<Self, MailboxError> {
        if raw.len() > Self::OCTETS_MAX {
            return Err(MailboxError::TooLong);
        }
        Self::parse_any_length(raw)
    }

    fn parse_any_length(raw: &str) -> Result<Self, MailboxError> {
        // The last `@` separates the parts: a quoted local part may have others, a domain none.
        let (local_part, domain) = raw.rsplit_once('@').ok_or(MailboxError::NoDomain)?;
        Ok(Self { local_part: LocalPart::parse(local_part)?, domain: Domain::parse(domain)? })
    }

    /// The form in which mailboxes of local users are compared; see [`LocalPart::comparison_key`].
    #[must_use]
    pub fn case_mapped(&self) -> Self {
        Self { local_part: self.local_part.case_mapped(), domain: self.domain.clone() }
    }

    /// The mailbox with its domain in A-labels, for a peer without SMTPUTF8.
    #[must_use]
    pub fn to_ascii_domain(&self) -> String {
        match self.domain.as_address() {
            Some(_) => self.to_string(),
            None => format!("{}@{}", self.local_part, self.domain.as_ascii()),
        }
    }

    /// The mailboxes belong to the same local user: the domains are equal, and the local parts have one
    /// key.
    #[must_use]
    pub fn is_same_user(&self, other: &Self) -> bool {
        self.domain == other.domain && self.local_part.comparison_key() == other.local_part.comparison_key()
    }

    /// The local part has characters beyond ASCII: only a peer with SMTPUTF8 can take it (RFC 6531 §3.3).
    #[must_use]
    pub fn needs_smtputf8(&self) -> bool {
        !self.local_part.as_str().is_ascii()
    }
}

impl fmt::Display for Mailbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.local_part, self.domain)
    }
}

impl fmt::Debug for Mailbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Mailbox({self})")
    }
}

impl Serialize for Mailbox {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// A stored mailbox was within the limits in the form in which it came. In U-labels it may be longer, and
/// must be read back all the same.
impl<'de> Deserialize<'de> for Mailbox {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = String::deserialize(deserializer)?;
        Self::parse_any_length(&raw).map_err(serde::de::Error::custom)
    }
}

impl ReversePath {
    /// The mailbox, unless the reverse-path is null.
    #[must_use]
    pub fn mailbox(&self) -> Option<&Mailbox> {
        match self {
            Self::Null => None,
            Self::Mailbox(mailbox) => Some(mailbox),
        }
    }

    /// The reverse-path is `<>`: no bounce may be sent.
    #[must_use]
    pub fn is_null(&self) -> bool {
        matches!(self, Self::Null)
    }
}

/// In brackets, as in MAIL and Return-Path.
impl fmt::Display for ReversePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("<>"),
            Self::Mailbox(mailbox) => write!(f, "<{mailbox}>"),
        }
    }
}

impl Serialize for ReversePath {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Null => serializer.serialize_str(""),
            Self::Mailbox(mailbox) => mailbox.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for ReversePath {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = String::deserialize(deserializer)?;
        if raw.is_empty() {
            return Ok(Self::Null);
        }
        Mailbox::parse_any_length(&raw).map(Self::Mailbox).map_err(serde::de::Error::custom)
    }
}

/// In brackets, as in RCPT.
impl fmt::Display for ForwardPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Postmaster => f.write_str("<postmaster>"),
            Self::Mailbox(mailbox) => write!(f, "<{mailbox}>"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_are_written_only_where_they_are_needed() {
        for (raw, shown) in [
            ("ana@there.example", "ana@there.example"),
            ("\"ana\"@there.example", "ana@there.example"),
            ("\"a b\"@there.example", "\"a b\"@there.example"),
            ("\"a\\\"b@c\"@there.example", "\"a\\\"b@c\"@there.example"),
            ("o'brien+x@there.example", "o'brien+x@there.example"),
            ("\"..\"@there.example", "\"..\"@there.example"),
            ("δοκιμή@παράδειγμα.example", "δοκιμή@παράδειγμα.example"),
        ] {
            let mailbox = Mailbox::parse(raw).unwrap();
            assert_eq!(mailbox.to_string(), shown);
            assert_eq!(Mailbox::parse(shown).unwrap(), mailbox);
        }
    }

    #[test]
    fn malformed_mailboxes_are_refused() {
        for raw in [
            "ana",
            "@x.example",
            "ana@",
            "a b@x.example",
            ".a@x.example",
            "a..b@x.example",
            "a.@x.example",
            "\"a@x.example",
            "\"\"@x.example",
            "a\r\nb@x.example",
            "\"a\nb\"@x.example",
            "<a@x.example>",
        ] {
            assert!(Mailbox::parse(raw).is_err(), "{raw:?}");
        }
        assert_eq!(Mailbox::parse(&format!("{}@x.example", "a".repeat(250))), Err(MailboxError::TooLong));
    }

    #[test]
    fn a_stored_mailbox_is_read_back_even_if_its_u_labels_are_longer() {
        let label = "日".repeat(30);
        let unicode = format!("bo@{label}.{label}.{label}.{label}.{label}.example");
        let (_, domain) = unicode.split_once('@').unwrap();
        let ascii = format!("bo@{}", Domain::parse(domain).unwrap().as_ascii());
        let mailbox = Mailbox::parse(&ascii).unwrap();
        assert!(unicode.len() > Mailbox::OCTETS_MAX && ascii.len() < Mailbox::OCTETS_MAX);
        let json = serde_json::to_string(&mailbox).unwrap();
        assert_eq!(serde_json::from_str::<Mailbox>(&json).unwrap(), mailbox);
        assert_eq!(serde_json::from_str::<ReversePath>(&json).unwrap(), ReversePath::Mailbox(mailbox));
    }

    #[test]
    fn local_users_are_compared_by_key() {
        let key = |raw: &str| LocalPart::parse(raw).unwrap().comparison_key();
        assert_eq!(key("Jürgen"), key("jürgen"));
        assert_eq!(key("ANA"), "ana");
        assert_ne!(key("ana"), key("ama"));
        assert_eq!(key("O'Brien"), key("o'brien"));
    }

    #[test]
    fn only_a_local_part_beyond_ascii_needs_smtputf8() {
        assert!(!Mailbox::parse("ana@bücher.example").unwrap().needs_smtputf8());
        assert!(Mailbox::parse("añña@books.example").unwrap().needs_smtputf8());
        assert_eq!(
            Mailbox::parse("ana@bücher.example").unwrap().to_ascii_domain(),
            "ana@xn--bcher-kva.example"
        );
    }
}
