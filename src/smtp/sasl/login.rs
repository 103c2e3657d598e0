//! The mechanism LOGIN: the name, then the password, each in a message of its own.
//!
//! Never standardised (draft-murchison-sasl-login), and still the only one of some clients, old
//! versions of Outlook among them. The two challenges are fixed: there are clients that compare them.

use super::credentials::{Evidence, SaslCredentials, SaslError};

/// Asks for the name.
pub(super) const USER_NAME_PROMPT: &[u8] = b"Username:";
/// Asks for the password.
pub(super) const PASSWORD_PROMPT: &[u8] = b"Password:";

/// A name or a password: text, not empty. NUL is in neither, as in PLAIN.
///
/// # Errors
/// [`SaslError::Login`].
pub(super) fn parse_text(message: &[u8]) -> Result<String, SaslError> {
    match std::str::from_utf8(message) {
        Ok(word) if !word.is_empty() && !word.contains('\0') => Ok(word.to_owned()),
        _ => Err(SaslError::Login),
    }
}

/// The password of `name` came.
///
/// # Errors
/// [`SaslError::Login`].
pub(super) fn parse_password(name: String, message: &[u8]) -> Result<SaslCredentials, SaslError> {
    Ok(SaslCredentials {
        authorization_identity: None,
        authentication_identity: name,
        evidence: Evidence::Password(parse_text(message)?),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_is_text_and_there_is_some() {
        assert_eq!(parse_text("bücher".as_bytes()).as_deref(), Ok("bücher"));
        for message in [&b""[..], b"a\0b", b"\xfe"] {
            assert_eq!(parse_text(message), Err(SaslError::Login), "{}", message.escape_ascii());
        }
    }
}
