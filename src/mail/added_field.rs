//! Header fields that this server puts on top of a message.

use serde::{Deserialize, Serialize};

use super::header::HeaderFields;

/// One whole header field with its line ends. Lines end with CRLF, every line but the first begins with
/// white space, and the tab is the only other control character, so that the text cannot begin a second
/// field or end the header section.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct AddedField(String);

/// Why a text is not made of whole header fields; the writer of the text is at fault.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddedFieldError {
    /// A line has no name and colon, or the last line has no CRLF.
    #[error("it is not made of whole header fields with CRLF line ends")]
    Malformed,
    /// A NUL, a CR or LF by itself, or another control character.
    #[error("a header field has a control character")]
    ControlCharacter,
    /// One field was expected.
    #[error("it is not one header field")]
    NotOne,
}

impl AddedField {
    /// A field called `name`, whose value is folded between the lines (RFC 5322 §2.2.3). A control
    /// character in a line becomes a `?`.
    #[must_use]
    pub fn new<'a>(name: &'static str, lines: impl IntoIterator<Item = &'a str>) -> Self {
        let mut text = format!("{name}: ");
        for (position, line) in lines.into_iter().enumerate() {
            if position > 0 {
                text.push_str("\r\n\t");
            }
            text.extend(line.chars().map(|c| if c.is_control() && c != '\t' { '?' } else { c }));
        }
        text.push_str("\r\n");
        Self(text)
    }

    /// Parses fields that follow each other, with CRLF line ends.
    ///
    /// # Errors
    /// See [`AddedFieldError`]. One malformed field fails them all.
    pub fn parse_all(text: &str) -> Result<Vec<Self>, AddedFieldError> {
        let mut fields = Vec::new();
        let mut end = 0;
        for field in HeaderFields::new(text.as_bytes()) {
            end = field.range.end;
            let field = text.get(field.range).ok_or(AddedFieldError::Malformed)?;
            let inner = field.strip_suffix("\r\n").ok_or(AddedFieldError::Malformed)?;
            let mut characters = inner.split("\r\n").flat_map(str::chars);
            if characters.any(|c| c.is_control() && c != '\t') {
                return Err(AddedFieldError::ControlCharacter);
            }
            fields.push(Self(field.to_owned()));
        }
        if end == text.len() { Ok(fields) } else { Err(AddedFieldError::Malformed) }
    }

    /// The field as it is sent, with its line ends.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for AddedField {
    type Error = AddedFieldError;

    fn try_from(text: String) -> Result<Self, AddedFieldError> {
        let mut fields = Self::parse_all(&text)?;
        match (fields.pop(), fields.is_empty()) {
            (Some(field), true) => Ok(field),
            _ => Err(AddedFieldError::NotOne),
        }
    }
}

impl From<AddedField> for String {
    fn from(field: AddedField) -> Self {
        field.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_is_folded_where_its_lines_end_and_holds_no_second_field() {
        let field = AddedField::new("X-One", ["a", "b\r\nX-Two: c"]);
        assert_eq!(field.as_str(), "X-One: a\r\n\tb??X-Two: c\r\n");
        assert_eq!(AddedField::parse_all(field.as_str()), Ok(vec![field]));
    }

    #[test]
    fn only_whole_fields_are_read() {
        let parse = |text: &str| AddedField::parse_all(text).map(|fields| fields.len());
        assert_eq!(parse(""), Ok(0));
        assert_eq!(parse("A: b\r\n\tc\r\nD:\r\n"), Ok(2));
        for text in ["A", "A: b", "A: b\n", "A: b\r\n\r\n", "A: b\r\nc\r\n", "\r\n", " A: b\r\n"] {
            assert_eq!(parse(text), Err(AddedFieldError::Malformed), "{text:?}");
        }
        for text in ["A: \0\r\n", "A: b\rC: d\r\n", "A: b\n C: d\r\n", "A: \u{85}\r\n"] {
            assert_eq!(parse(text), Err(AddedFieldError::ControlCharacter), "{text:?}");
        }
    }

    #[test]
    fn a_stored_text_is_one_field() {
        let read = serde_json::from_str::<AddedField>;
        assert_eq!(read(r#""A: b\r\n""#).unwrap(), AddedField::new("A", ["b"]));
        assert_eq!(serde_json::to_string(&AddedField::new("A", ["b"])).unwrap(), r#""A: b\r\n""#);
        for text in [r#""""#, r#""A: b\r\nC: d\r\n""#, r#""A: b""#] {
            assert!(read(text).is_err(), "{text}");
        }
    }
}
