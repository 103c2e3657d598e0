//! Parses the section `[aliases]` and the key `postmaster`.

use super::checks::mistake;
use super::keys::known_keys;
use super::sections::AliasesConfig;
use super::toml_table::{Diagnostics, Table, Value, ValueMistake};
use crate::mail::Mailbox;

pub(super) fn aliases(mut table: Table<'_>, found: &mut Diagnostics<'_>) -> AliasesConfig {
    let defaults = AliasesConfig::default();
    let suffix_separators =
        table.value(found, "suffix-separators", defaults.suffix_separators, parse_characters);
    let drop_characters = table.value(found, "drop-characters", defaults.drop_characters, |value| {
        let dropped = parse_characters(value)?;
        match dropped.chars().find(|c| suffix_separators.contains(*c)) {
            None => Ok(dropped),
            Some(c) => Err(mistake(
                format!("{c} is also in suffix-separators"),
                "write it in one of the two keys; a separator is dropped together with its suffix",
            )),
        }
    });
    table.add_unknown_key_errors(found, &known_keys("aliases"));
    AliasesConfig { suffix_separators, drop_characters }
}

/// Parses a text of characters that an address may have without quotes (RFC 5322 §3.2.3, and the dot).
/// Letters and digits are refused, because names consist of them.
fn parse_characters(value: &Value<'_>) -> Result<String, ValueMistake> {
    const ALLOWED: &str = "!#$%&'*+-./=?^_`{|}~";
    const REMEDY: &str = "write one or more characters, such as \"+\" or \"+-\", or \"\" for none";
    let raw = value.text(REMEDY)?;
    match raw.chars().find(|c| !ALLOWED.contains(*c)) {
        None => Ok(raw.to_owned()),
        Some(c) => Err(mistake(format!("{c:?} is not allowed here"), REMEDY)),
    }
}

pub(super) fn parse_postmaster(value: &Value<'_>) -> Result<Mailbox, ValueMistake> {
    const REMEDY: &str = "write a whole address, such as \"ana@example.org\"";
    let raw = value.text(REMEDY)?;
    Mailbox::parse(raw).map_err(|problem| mistake(format!("{raw:?} is not an address: {problem}"), REMEDY))
}
