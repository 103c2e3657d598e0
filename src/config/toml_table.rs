//! Takes keys out of one table of the text, and collects errors.
//!
//! A deserializer derived by serde stops at the first mistake. This one continues, so that one run reports
//! all mistakes in a file. A key that no reader took is reported as unknown.

use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

use toml::Spanned;
use toml::de::{DeArray, DeTable, DeValue};

/// One mistake in the configuration: its place, the problem and the remedy. The operator corrects it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    /// The file.
    pub file: PathBuf,
    /// The line in the file, from 1; none if the file lacks a key.
    pub line: Option<usize>,
    /// The key with its section, such as `limits.message-size-max`; empty if the file is not TOML.
    pub key: String,
    /// The problem, as a predicate of the key: `is not set`.
    pub problem: String,
    /// The remedy, as an instruction to the operator.
    pub remedy: String,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.display())?;
        if let Some(line) = self.line {
            write!(f, ":{line}")?;
        }
        if !self.key.is_empty() {
            write!(f, ": {}", self.key)?;
        }
        write!(f, ": {}; {}", self.problem, self.remedy)
    }
}

impl std::error::Error for ConfigError {}

/// A mistake in one value: the problem, and the remedy.
pub(super) type ValueMistake = (String, String);

/// The errors and warnings of one file.
pub(super) struct Diagnostics<'t> {
    text: &'t str,
    file: &'t Path,
    pub(super) errors: Vec<ConfigError>,
    pub(super) warnings: Vec<String>,
}

impl<'t> Diagnostics<'t> {
    pub(super) fn new(text: &'t str, file: &'t Path) -> Self {
        Self { text, file, errors: Vec::new(), warnings: Vec::new() }
    }

    /// The line that contains the octet at `offset` of the text, from 1.
    fn line_at(&self, offset: usize) -> usize {
        let before = self.text.as_bytes().get(..offset).unwrap_or_default();
        before.iter().filter(|octet| **octet == b'\n').count() + 1
    }

    pub(super) fn add_error(&mut self, span: Option<Range<usize>>, key: &str, wrong: ValueMistake) {
        let line = span.map(|span| self.line_at(span.start));
        let (problem, remedy) = wrong;
        self.errors.push(ConfigError {
            file: self.file.to_owned(),
            line,
            key: key.to_owned(),
            problem,
            remedy,
        });
    }

    pub(super) fn add_warning(&mut self, span: Option<Range<usize>>, key: &str, text: &str) {
        let line = span.map(|span| format!(":{}", self.line_at(span.start))).unwrap_or_default();
        self.warnings.push(format!("{}{line}: {key}: {text}", self.file.display()));
    }

    /// The whole text as a table; parts that are not TOML become errors and are left out.
    pub(super) fn parse(&mut self) -> Table<'t> {
        let (table, errors) = DeTable::parse_recoverable(self.text);
        for error in errors {
            let problem = error.message().replace('\n', ", ");
            let wrong =
                (format!("not TOML: {problem}"), "correct the line; see postrider.toml(5)".to_owned());
            self.add_error(error.span(), "", wrong);
        }
        Table { name: String::new(), span: None, entries: table.into_inner() }
    }
}

/// One section of the file. Readers take its keys one by one.
pub(super) struct Table<'t> {
    /// Empty for the keys above all sections.
    name: String,
    span: Option<Range<usize>>,
    entries: DeTable<'t>,
}

/// A value with its place in the file.
pub(super) struct Value<'t> {
    pub(super) key: String,
    pub(super) span: Range<usize>,
    value: DeValue<'t>,
}

impl<'t> Table<'t> {
    fn path_of(&self, key: &str) -> String {
        if self.name.is_empty() { key.to_owned() } else { format!("{}.{key}", self.name) }
    }

    /// The section's place, if the file has the section.
    pub(super) fn span(&self) -> Option<Range<usize>> {
        self.span.clone()
    }

    /// The keys that were not taken.
    pub(super) fn remaining_keys(&self) -> Vec<String> {
        self.entries.keys().map(|key| key.get_ref().to_string()).collect()
    }

    /// Whether the file has the key and it was not taken.
    pub(super) fn has_key(&self, key: &str) -> bool {
        self.entries.contains_key(key)
    }

    /// Takes a value, if the file has the key.
    pub(super) fn take(&mut self, key: &str) -> Option<Value<'t>> {
        let path = self.path_of(key);
        let value = self.entries.remove(key)?;
        Some(Value { key: path, span: value.span(), value: value.into_inner() })
    }

    /// Takes a section below this one; returns an empty one if the file does not have it.
    pub(super) fn section(&mut self, name: &str, findings: &mut Diagnostics<'_>) -> Self {
        let path = self.path_of(name);
        let mut empty = Self { name: path, span: None, entries: DeTable::new() };
        let Some(value) = self.take(name) else { return empty };
        empty.span = Some(value.span.clone());
        match value.value {
            DeValue::Table(entries) => empty.entries = entries,
            other => {
                let wrong = (
                    format!("is {}, not a section", describe_type(&other)),
                    format!("write [{}]", empty.name),
                );
                findings.add_error(Some(value.span), &empty.name, wrong);
            }
        }
        empty
    }

    /// Takes a value and parses it with `check`; returns `default` if the value is absent or wrong.
    pub(super) fn value<T>(
        &mut self,
        findings: &mut Diagnostics<'_>,
        key: &str,
        default: T,
        check: impl FnOnce(&Value<'t>) -> Result<T, ValueMistake>,
    ) -> T {
        self.optional(findings, key, check).unwrap_or(default)
    }

    /// Takes a value and parses it with `check`; returns `None` if the value is absent or wrong.
    pub(super) fn optional<T>(
        &mut self,
        findings: &mut Diagnostics<'_>,
        key: &str,
        check: impl FnOnce(&Value<'t>) -> Result<T, ValueMistake>,
    ) -> Option<T> {
        let value = self.take(key)?;
        check(&value).map_err(|wrong| findings.add_error(Some(value.span.clone()), &value.key, wrong)).ok()
    }

    /// Adds an error for every key that was not taken; `known` lists the valid keys.
    pub(super) fn add_unknown_key_errors(self, findings: &mut Diagnostics<'_>, known: &[&str]) {
        for key in self.entries.keys() {
            let remedy = match nearest_known_key(key.get_ref(), known) {
                Some(name) => format!("did you mean {name}?"),
                None if known.is_empty() => "remove it".to_owned(),
                None => format!("remove it, or use one of: {}", known.join(", ")),
            };
            findings.add_error(
                Some(key.span()),
                &self.path_of(key.get_ref()),
                ("unknown key".to_owned(), remedy),
            );
        }
    }
}

impl Value<'_> {
    /// The text of a string.
    pub(super) fn text(&self, remedy: &str) -> Result<&str, ValueMistake> {
        text(&self.value, remedy)
    }

    /// An integer that is not negative.
    pub(super) fn number(&self) -> Option<u64> {
        let DeValue::Integer(integer) = &self.value else { return None };
        u64::from_str_radix(integer.as_str(), integer.radix()).ok()
    }

    /// The type of the value, for an error such as "is a number, not …".
    pub(super) fn type_description(&self) -> &'static str {
        describe_type(&self.value)
    }

    /// The texts of a list of strings, or of one string alone.
    pub(super) fn texts(&self, remedy: &str) -> Result<Vec<&str>, ValueMistake> {
        match &self.value {
            DeValue::Array(items) => list(items).map(|item| text(item, remedy)).collect(),
            other => Ok(vec![text(other, remedy)?]),
        }
    }
}

fn list<'a, 't>(items: &'a DeArray<'t>) -> impl Iterator<Item = &'a DeValue<'t>> {
    items.iter().map(Spanned::get_ref)
}

fn text<'a>(value: &'a DeValue<'_>, remedy: &str) -> Result<&'a str, ValueMistake> {
    match value {
        DeValue::String(text) => Ok(text),
        other => Err((format!("is {}, not a text in quotes", describe_type(other)), remedy.to_owned())),
    }
}

fn describe_type(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a text",
        DeValue::Integer(_) => "a number",
        DeValue::Float(_) => "a fraction",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a section",
    }
}

/// The known word that differs from `word` by at most two letters, or only in `_` for `-`.
fn nearest_known_key<'k>(word: &str, known: &[&'k str]) -> Option<&'k str> {
    let word = word.to_lowercase().replace('_', "-");
    known
        .iter()
        .copied()
        .map(|name| (edit_distance(&word, name), name))
        .filter(|(d, _)| *d <= 2)
        .min()
        .map(|(_, name)| name)
}

/// Levenshtein's distance: insertions, removals and replacements that turn one into the other.
fn edit_distance(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.chars().collect();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (i, a) in from.chars().enumerate() {
        let mut diagonal = i;
        let mut left = i + 1;
        for (cell, b) in row.iter_mut().skip(1).zip(&to) {
            let above = *cell;
            *cell = (above + 1).min(left + 1).min(diagonal + usize::from(a != *b));
            diagonal = above;
            left = *cell;
        }
        if let Some(first) = row.first_mut() {
            *first = i + 1;
        }
    }
    row.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_misspelt_key_is_recognised() {
        let known = ["message-size-max", "recipients-max"];
        assert_eq!(nearest_known_key("message_size_max", &known), Some("message-size-max"));
        assert_eq!(nearest_known_key("mesage-size-mx", &known), Some("message-size-max"));
        assert_eq!(nearest_known_key("colour", &known), None);
        assert_eq!(edit_distance("kitten", "sitting"), 3);
        assert_eq!(edit_distance("", "abc"), 3);
    }
}
