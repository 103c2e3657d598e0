//! Messages of an exchange as they stand on a line, in base64 (RFC 4954 §4).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::credentials::SaslError;

/// Encodes a message for a line.
pub(in crate::smtp) fn encode(message: &[u8]) -> String {
    STANDARD.encode(message)
}

/// Decodes the message on a line.
pub(in crate::smtp) fn decode(line: &[u8]) -> Result<Vec<u8>, SaslError> {
    STANDARD.decode(line).map_err(|_| SaslError::Base64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_strict() {
        assert_eq!(decode(b"AGFuYQBwYXNz"), Ok(b"\0ana\0pass".to_vec()));
        assert_eq!(decode(b""), Ok(Vec::new()));
        for line in [&b"AGFuYQBwYXN!"[..], b"AGFuYQBwYXNz=", b"AGFu YQ==", b"AGFuYQ", b"*"] {
            assert_eq!(decode(line), Err(SaslError::Base64), "{}", line.escape_ascii());
        }
    }
}
