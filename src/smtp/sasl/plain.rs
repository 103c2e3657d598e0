//! The mechanism PLAIN (RFC 4616): name and password in one response.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// What the client claims and how it proves it.
#[derive(Clone, PartialEq, Eq)]
pub struct Login {
    /// Who it wants to act as; `None` if it leaves that to us (RFC 4616 §2).
    pub authorization: Option<String>,
    /// Whose password it is. Not empty.
    pub authentication: String,
    /// The password. Not empty; never shown, not even by `Debug`.
    pub password: String,
}

/// Why a response is none; the client is at fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SaslError {
    /// Not base64 (RFC 4954 §4).
    #[error("that is not base64")]
    Base64,
    /// Not the three parts of RFC 4616 §2, or one that must not be empty is.
    #[error("that is not a PLAIN response")]
    Plain,
}

impl Login {
    /// Reads a response of the mechanism PLAIN: base64 of `[authzid] NUL authcid NUL passwd`.
    ///
    /// # Errors
    /// [`SaslError`]: says which part of it is wrong.
    pub fn parse_plain(base64: &[u8]) -> Result<Self, SaslError> {
        let message = STANDARD.decode(base64).map_err(|_| SaslError::Base64)?;
        let text = std::str::from_utf8(&message).map_err(|_| SaslError::Plain)?;
        let mut parts = text.split('\0');
        let (Some(authorization), Some(authentication), Some(password), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(SaslError::Plain);
        };
        if authentication.is_empty() || password.is_empty() {
            return Err(SaslError::Plain);
        }
        Ok(Self {
            authorization: (!authorization.is_empty()).then(|| authorization.to_owned()),
            authentication: authentication.to_owned(),
            password: password.to_owned(),
        })
    }
}

/// Without the password.
impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Login")
            .field("authorization", &self.authorization)
            .field("authentication", &self.authentication)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(message: &str) -> Result<Login, SaslError> {
        Login::parse_plain(STANDARD.encode(message).as_bytes())
    }

    #[test]
    fn the_examples_of_rfc_4616_are_understood() {
        let login = parse("\0tim\0tanstaaftanstaaf").unwrap();
        assert_eq!((login.authorization, login.authentication.as_str()), (None, "tim"));
        assert_eq!(login.password, "tanstaaftanstaaf");
        let login = parse("Ursel\0Kurt\0xipj3plmq").unwrap();
        assert_eq!(login.authorization.as_deref(), Some("Ursel"));
    }

    #[test]
    fn what_is_no_plain_response_is_refused() {
        for message in ["", "\0", "\0\0", "ana\0pass", "\0ana\0", "\0\0pass", "\0a\0b\0c"] {
            assert_eq!(parse(message), Err(SaslError::Plain), "{message:?}");
        }
        assert_eq!(Login::parse_plain(b"AGFuYQBwYXN!"), Err(SaslError::Base64));
        assert_eq!(Login::parse_plain(b"AGFuYQBwYXNz="), Err(SaslError::Base64));
        assert_eq!(Login::parse_plain(&STANDARD.encode(b"\0\xff\0x").into_bytes()), Err(SaslError::Plain));
    }

    #[test]
    fn a_password_is_never_shown() {
        assert!(!format!("{:?}", parse("\0ana\0secret").unwrap()).contains("secret"));
    }
}
