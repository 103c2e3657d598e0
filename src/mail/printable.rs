//! Makes text of a peer or a program safe to log and store.
//!
//! Such text may have any octets. Logs, JSON and bounces follow one rule: printable UTF-8 stays, every
//! other octet becomes `\xHH`, and a backslash is doubled, so that the text can be recovered and cannot
//! start a line.

use std::fmt::Write as _;

/// The first `octets_max` octets of `raw`, printable, on one line. `…` marks that octets were cut off.
#[must_use]
pub fn printable(raw: &[u8], octets_max: usize) -> String {
    let shown = raw.get(..octets_max).unwrap_or(raw);
    let mut text = String::with_capacity(shown.len());
    for chunk in shown.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '\\' => text.push_str("\\\\"),
                // Line and paragraph separators and bidirectional controls rearrange a line.
                c if c.is_control() || matches!(c, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}') => {
                    let mut octets = [0; 4];
                    for octet in c.encode_utf8(&mut octets).bytes() {
                        let _ = write!(text, "\\x{octet:02x}");
                    }
                }
                c => text.push(c),
            }
        }
        for octet in chunk.invalid() {
            let _ = write!(text, "\\x{octet:02x}");
        }
    }
    if shown.len() < raw.len() {
        text.push('…');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn printable_text_cannot_start_a_line() {
        assert_eq!(printable(b"550 no\r\nnew line\x1b[31m", 100), "550 no\\x0d\\x0anew line\\x1b[31m");
        assert_eq!(printable("grüße \u{202e}evil".as_bytes(), 100), "grüße \\xe2\\x80\\xaeevil");
        assert_eq!(printable(b"\xff\\", 100), "\\xff\\\\");
        assert_eq!(printable(b"abcdef", 3), "abc…");
    }
}
