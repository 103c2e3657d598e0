//! Texts of the operator with placeholders: `%user%`, `%from_domain%` …
//!
//! Placeholders are filled in one pass: values are not searched for placeholders, so an address that holds
//! `%to%` stays as it is. A percent sign that is no part of a placeholder is an ordinary character.

/// A text with placeholders.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Template {
    pieces: Vec<Piece>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Text(String),
    Placeholder(&'static str),
}

impl Template {
    /// Reads a text in which each of `names` may stand between percent signs.
    pub(super) fn new(raw: &str, names: &[&'static str]) -> Self {
        let mut pieces = Vec::new();
        let mut text = String::new();
        let mut rest = raw;
        while let Some(c) = rest.chars().next() {
            let found = names.iter().copied().find_map(|name| {
                let behind = rest.strip_prefix('%')?.strip_prefix(name)?.strip_prefix('%')?;
                Some((name, behind))
            });
            rest = match found {
                Some((name, behind)) => {
                    pieces.extend([Piece::Text(std::mem::take(&mut text)), Piece::Placeholder(name)]);
                    behind
                }
                None => {
                    text.push(c);
                    rest.get(c.len_utf8()..).unwrap_or_default()
                }
            };
        }
        pieces.push(Piece::Text(text));
        Self { pieces }
    }

    /// The text, with `value` of each placeholder.
    pub(super) fn fill<'v>(&self, value: impl Fn(&'static str) -> &'v str) -> String {
        let pieces = self.pieces.iter().map(|piece| match piece {
            Piece::Text(text) => text,
            Piece::Placeholder(name) => value(name),
        });
        pieces.collect()
    }

    /// The placeholder with whose value the filled text begins; `None` if it begins with the operator's own
    /// text.
    pub(super) fn leading_placeholder<'v>(
        &self,
        value: impl Fn(&'static str) -> &'v str,
    ) -> Option<&'static str> {
        self.pieces.iter().find_map(|piece| match piece {
            Piece::Text(text) if text.is_empty() => None,
            Piece::Text(_) => Some(None),
            Piece::Placeholder(name) => (!value(name).is_empty()).then_some(Some(*name)),
        })?
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(raw: &str) -> String {
        Template::new(raw, &["to", "to_user"]).fill(|name| match name {
            "to" => "%to_user%",
            _ => "ana",
        })
    }

    #[test]
    fn every_placeholder_is_filled_and_no_value_is_filled_again() {
        assert_eq!(filled("%to_user%"), "ana");
        assert_eq!(filled("-d=%to_user%%to_user%;"), "-d=anaana;");
        assert_eq!(filled("%to%"), "%to_user%", "a value is not searched for placeholders");
    }

    #[test]
    fn other_percent_signs_are_kept() {
        for raw in ["100%", "%", "%%", "%sender%", "é%"] {
            assert_eq!(filled(raw), raw);
        }
        assert_eq!(filled("5%to_user%"), "5ana");
        assert_eq!(filled("%%to_user%%"), "%ana%");
    }
}
