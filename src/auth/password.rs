//! Passwords, in the form in which they are compared.

use std::borrow::Cow;

use precis_profiles::OpaqueString;
use precis_profiles::precis_core::profile::PrecisFastInvocation as _;

/// Why this cannot be a password; the person who chose it is asked for another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PasswordError {
    /// Nobody should have none.
    #[error("the password is empty; choose another one")]
    Empty,
    /// A control character, or one that Unicode has not assigned (RFC 8264 §4.3).
    #[error("the password has characters that no keyboard reliably types; choose another one")]
    ForbiddenCharacters,
}

/// RFC 8265 §4.2: what looks the same is the same, whichever keyboard it was typed on.
///
/// # Errors
/// See [`PasswordError`].
pub(super) fn prepare(password: &str) -> Result<Cow<'_, str>, PasswordError> {
    if password.is_empty() {
        return Err(PasswordError::Empty);
    }
    OpaqueString::enforce(password).map_err(|_| PasswordError::ForbiddenCharacters)
}

/// The same for a password that somebody tries: one that cannot be ours is compared as it is,
/// so that it costs what a wrong password costs. It may still be one whose hash was imported.
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
    fn what_looks_the_same_is_the_same_password() {
        for (typed, kept) in [
            ("correct horse", "correct horse"),
            ("Correct Horse ", "Correct Horse "),
            // Decomposed, and with a no-break space.
            ("scho\u{308}n\u{a0}", "sch\u{f6}n "),
            ("πßå", "πßå"),
        ] {
            assert_eq!(prepare(typed).as_deref(), Ok(kept));
            assert_eq!(*prepare_candidate(typed.as_bytes()), *kept.as_bytes());
        }
        assert_eq!(prepare(""), Err(PasswordError::Empty));
        assert_eq!(prepare("tab\there"), Err(PasswordError::ForbiddenCharacters));
        for odd in [&b""[..], b"tab\there", b"\xff"] {
            assert_eq!(*prepare_candidate(odd), *odd, "{}", odd.escape_ascii());
        }
    }
}
