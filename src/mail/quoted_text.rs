//! Text in which double quotes protect separators, as in a quoted local part (RFC 5321 §4.1.2).

/// The text before and after the first `separator` that is not in double quotes; none if there is no such
/// separator. In quotes, a backslash protects the next character.
#[must_use]
pub fn split_outside_quotes(text: &str, separator: impl Fn(char) -> bool) -> Option<(&str, &str)> {
    let mut is_quoted = false;
    let mut is_escaped = false;
    for (at, c) in text.char_indices() {
        match c {
            _ if is_escaped => is_escaped = false,
            '\\' if is_quoted => is_escaped = true,
            '"' => is_quoted = !is_quoted,
            c if separator(c) && !is_quoted => {
                let (before, rest) = text.split_at_checked(at)?;
                return Some((before, rest.strip_prefix(c)?));
            }
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_separator_in_quotes_does_not_count() {
        let split = |text| split_outside_quotes(text, |c| c == ':');
        assert_eq!(split("a:b:c"), Some(("a", "b:c")));
        assert_eq!(split("\"a:b\":c"), Some(("\"a:b\"", "c")));
        assert_eq!(split(r#""a\":b":c"#), Some((r#""a\":b""#, "c")), "an escaped quote ends nothing");
        assert_eq!(split(r"a\:b"), Some((r"a\", "b")), "a backslash outside quotes protects nothing");
        assert_eq!(split("\"a:b"), None);
        assert_eq!(split(""), None);
        assert_eq!(split_outside_quotes("ä\u{a0}ö", char::is_whitespace), Some(("ä", "ö")));
    }
}
