//! Passwords in the form in which they are compared.

use std::borrow::Cow;

use precis_profiles::OpaqueString;
use precis_profiles::precis_core::profile::PrecisFastInvocation as _;

/// Why a text cannot be a password; the user must choose another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PasswordError {
    /// The password is empty.
    #[error("the password is empty; choose another one")]
    Empty,
    /// The password has a control character, or one that Unicode has not assigned (RFC 8264 §4.3).
    #[error("the password has characters that no keyboard reliably types; choose another one")]
    ForbiddenCharacters,
}

/// Prepares a new password: different encodings of the same characters become equal (RFC 8265 §4.2).
///
/// # Errors
/// See [`PasswordError`].
pub(super) fn prepare(password: &str) -> Result<Cow<'_, str>, PasswordError> {
    if password.is_empty() {
        return Err(PasswordError::Empty);
    }
    OpaqueString::enforce(password).map_err(|_| PasswordError::ForbiddenCharacters)
}

/// Prepares the password of a login like [`prepare`]. A password that cannot be prepared is compared unchanged:
/// it may belong to an imported hash, and it must take as long as a wrong password.
pub(super) fn prepare_candidate(password: &[u8]) -> Cow<'_, [u8]> {
    match std::str::from_utf8(password).ok().and_then(|text| prepare(text).ok()) {
        Some(Cow::Borrowed(prepared)) => Cow::Borrowed(prepared.as_bytes()),
        Some(Cow::Owned(prepared)) => Cow::Owned(prepared.into_bytes()),
        None => Cow::Borrowed(password),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn different_encodings_of_the_same_characters_are_the_same_password() {
        for (typed, stored) in [
            ("correct horse", "correct horse"),
            ("Correct Horse ", "Correct Horse "),
            // Decomposed, and with a no-break space.
            ("scho\u{308}n\u{a0}", "sch\u{f6}n "),
            ("πßå", "πßå"),
        ] {
            assert_eq!(prepare(typed).as_deref(), Ok(stored));
            assert_eq!(*prepare_candidate(typed.as_bytes()), *stored.as_bytes());
        }
        assert_eq!(prepare(""), Err(PasswordError::Empty));
        assert_eq!(prepare("tab\there"), Err(PasswordError::ForbiddenCharacters));
        for odd in [&b""[..], b"tab\there", b"\xff"] {
            assert_eq!(*prepare_candidate(odd), *odd, "{}", odd.escape_ascii());
        }
    }
}
