//! The keys about names: how aliases are compared, and who the postmaster is.

use super::checks::wrong;
use super::keys::known;
use super::reader::{Findings, Table, Value, Wrong};
use super::sections::Aliases;
use crate::mail::Mailbox;

pub(super) fn aliases(mut table: Table<'_>, found: &mut Findings<'_>) -> Aliases {
    let defaults = Aliases::default();
    let suffix_separators = table.value(found, "suffix-separators", defaults.suffix_separators, characters);
    let drop_characters = table.value(found, "drop-characters", defaults.drop_characters, |value| {
        let dropped = characters(value)?;
        match dropped.chars().find(|c| suffix_separators.contains(*c)) {
            None => Ok(dropped),
            Some(c) => Err(wrong(
                format!("{c} is one of suffix-separators, too"),
                "leave it in one of the two; what stands behind a separator is dropped with it",
            )),
        }
    });
    table.finish(found, &known("aliases"));
    Aliases { suffix_separators, drop_characters }
}

/// Some of those that may stand in an address without quotes, and are no letters or digits: names
/// consist of these.
fn characters(value: &Value<'_>) -> Result<String, Wrong> {
    const ALLOWED: &str = "!#$%&'*+-./=?^_`{|}~";
    const REMEDY: &str = "write characters such as \"+\" or \"+-\" one behind the other, or \"\" for none";
    let raw = value.text(REMEDY)?;
    match raw.chars().find(|c| !ALLOWED.contains(*c)) {
        None => Ok(raw.to_owned()),
        Some(c) => Err(wrong(format!("{c:?} cannot be one"), REMEDY)),
    }
}

pub(super) fn postmaster(value: &Value<'_>) -> Result<Mailbox, Wrong> {
    const REMEDY: &str = "write a whole address, such as \"ana@example.org\"";
    let raw = value.text(REMEDY)?;
    Mailbox::parse(raw).map_err(|problem| wrong(format!("{raw:?} is not an address: {problem}"), REMEDY))
}
