//! The mechanism PLAIN (RFC 4616): user name and password in one message.

use super::credentials::{Evidence, SaslCredentials, SaslError};

/// Parses `[authzid] NUL authcid NUL passwd`.
///
/// # Errors
/// [`SaslError::Plain`].
pub(super) fn parse(message: &[u8]) -> Result<SaslCredentials, SaslError> {
    let text = std::str::from_utf8(message).map_err(|_| SaslError::Plain)?;
    let mut parts = text.split('\0');
    let (Some(authorization), Some(authentication), Some(password), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(SaslError::Plain);
    };
    if authentication.is_empty() || password.is_empty() {
        return Err(SaslError::Plain);
    }
    Ok(SaslCredentials {
        authorization_identity: (!authorization.is_empty()).then(|| authorization.to_owned()),
        authentication_identity: authentication.to_owned(),
        evidence: Evidence::Password(password.to_owned()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_examples_of_rfc_4616_are_understood() {
        let login = parse(b"\0tim\0tanstaaftanstaaf").unwrap();
        assert_eq!((login.authorization_identity, login.authentication_identity.as_str()), (None, "tim"));
        assert_eq!(login.evidence, Evidence::Password("tanstaaftanstaaf".to_owned()));
        let login = parse(b"Ursel\0Kurt\0xipj3plmq").unwrap();
        assert_eq!(login.authorization_identity.as_deref(), Some("Ursel"));
    }

    #[test]
    fn a_malformed_response_is_refused() {
        for message in
            [&b""[..], b"\0", b"\0\0", b"ana\0pass", b"\0ana\0", b"\0\0pass", b"\0a\0b\0c", b"\0\xff\0x"]
        {
            assert_eq!(parse(message), Err(SaslError::Plain), "{}", message.escape_ascii());
        }
    }
}
