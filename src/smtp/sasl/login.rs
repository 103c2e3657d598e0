//! The mechanism LOGIN: the user name and the password, each in a message.
//!
//! It was never standardised (draft-murchison-sasl-login), but some clients have no other, for instance old
//! versions of Outlook. Some clients compare the two challenges, so that their text is fixed.

use super::credentials::{Evidence, SaslCredentials, SaslError};

/// Asks for the name.
pub(super) const USER_NAME_PROMPT: &[u8] = b"Username:";
/// Asks for the password.
pub(super) const PASSWORD_PROMPT: &[u8] = b"Password:";

/// A user name or a password: text, not empty, without NUL as in PLAIN.
///
/// # Errors
/// [`SaslError::Login`].
pub(super) fn parse_text(message: &[u8]) -> Result<String, SaslError> {
    match std::str::from_utf8(message) {
        Ok(word) if !word.is_empty() && !word.contains('\0') => Ok(word.to_owned()),
        _ => Err(SaslError::Login),
    }
}

/// The credentials, from the user name and the message with the password.
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
    fn a_message_must_be_text_and_not_empty() {
        assert_eq!(parse_text("bücher".as_bytes()).as_deref(), Ok("bücher"));
        for message in [&b""[..], b"a\0b", b"\xfe"] {
            assert_eq!(parse_text(message), Err(SaslError::Login), "{}", message.escape_ascii());
        }
    }
}
