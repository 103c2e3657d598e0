//! Texts of the operator's with places to fill in: `%user%`, `%from_domain%` …
//!
//! Filled in one pass: what is put in is not looked at again, so that an address that holds
//! `%to%` stays what it is. A percent sign that is no such place is an ordinary character.

/// A text with places.
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
    /// Reads a text in which each of `places` may stand between percent signs.
    pub(super) fn new(raw: &str, places: &[&'static str]) -> Self {
        let mut pieces = Vec::new();
        let mut text = String::new();
        let mut rest = raw;
        while let Some(c) = rest.chars().next() {
            let found = places.iter().copied().find_map(|place| {
                let behind = rest.strip_prefix('%')?.strip_prefix(place)?.strip_prefix('%')?;
                Some((place, behind))
            });
            rest = match found {
                Some((place, behind)) => {
                    pieces.extend([Piece::Text(std::mem::take(&mut text)), Piece::Placeholder(place)]);
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

    /// The text, with what `value` says of each place.
    pub(super) fn fill<'v>(&self, value: impl Fn(&'static str) -> &'v str) -> String {
        let pieces = self.pieces.iter().map(|piece| match piece {
            Piece::Text(text) => text,
            Piece::Placeholder(place) => value(place),
        });
        pieces.collect()
    }

    /// The place that the filled text begins with; none if it begins with the operator's words.
    pub(super) fn leading_placeholder<'v>(
        &self,
        value: impl Fn(&'static str) -> &'v str,
    ) -> Option<&'static str> {
        self.pieces.iter().find_map(|piece| match piece {
            Piece::Text(text) if text.is_empty() => None,
            Piece::Text(_) => Some(None),
            Piece::Placeholder(place) => (!value(place).is_empty()).then_some(Some(*place)),
        })?
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(raw: &str) -> String {
        Template::new(raw, &["to", "to_user"]).fill(|place| match place {
            "to" => "%to_user%",
            _ => "ana",
        })
    }

    #[test]
    fn every_place_is_filled_and_nothing_twice() {
        assert_eq!(filled("%to_user%"), "ana");
        assert_eq!(filled("-d=%to_user%%to_user%;"), "-d=anaana;");
        assert_eq!(filled("%to%"), "%to_user%", "what is put in is not looked at again");
    }

    #[test]
    fn other_percent_signs_stay() {
        for raw in ["100%", "%", "%%", "%sender%", "é%"] {
            assert_eq!(filled(raw), raw);
        }
        assert_eq!(filled("5%to_user%"), "5ana");
        assert_eq!(filled("%%to_user%%"), "%ana%");
    }
}
