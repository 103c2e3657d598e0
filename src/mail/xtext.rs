//! Decodes xtext, the encoding of ENVID, ORCPT and AUTH (RFC 3461 §4).

/// The octets that `xtext` stands for: printable characters stand for themselves, and `+` with two
/// upper-case hex digits for any octet. Characters beyond ASCII stand for themselves, too (RFC 6533 §3);
/// a caller that does not allow them must check. `None` if the text is malformed.
#[must_use]
pub fn decode_xtext(xtext: &str) -> Option<Vec<u8>> {
    let hex = |octet: Option<u8>| match octet? {
        digit @ b'0'..=b'9' => Some(digit - b'0'),
        digit @ b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    };
    let mut octets = Vec::with_capacity(xtext.len());
    let mut rest = xtext.bytes();
    while let Some(octet) = rest.next() {
        octets.push(match octet {
            b'+' => hex(rest.next())? * 16 + hex(rest.next())?,
            b'=' => return None,
            b'!'..=b'~' | 128.. => octet,
            _ => return None,
        });
    }
    Some(octets)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_well_formed_xtext_is_decoded() {
        for (xtext, text) in [("", ""), ("QQ+2B1", "QQ+1"), ("b+C3+B6+20", "bö "), ("bö+2B", "bö+")] {
            assert_eq!(decode_xtext(xtext).as_deref(), Some(text.as_bytes()), "{xtext:?}");
        }
        for xtext in ["a b", "a=b", "+", "+2", "+2b", "+G0", "a\r\n", "\u{7f}"] {
            assert_eq!(decode_xtext(xtext), None, "{xtext:?}");
        }
    }
}
