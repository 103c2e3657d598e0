//! Checks that many keys share: a path, a choice, a number, a size, a length of time.

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::toml_table::{Diagnostics, Table, Value, ValueMistake};
use super::units::{parse_duration, parse_size, show_duration, show_size};

pub(super) fn mistake(problem: impl Display, remedy: impl Into<String>) -> ValueMistake {
    (problem.to_string(), remedy.into())
}

/// Parses a path. A relative path is relative to `home`, the configuration directory.
pub(super) fn parse_path(value: &Value<'_>, home: &Path) -> Result<PathBuf, ValueMistake> {
    const REMEDY: &str = "write a path in quotes";
    match value.text(REMEDY)? {
        "" => Err(mistake("is empty", REMEDY)),
        raw => Ok(home.join(raw)),
    }
}

/// Parses one of the words in `choices`.
pub(super) fn parse_choice<T: Copy>(value: &Value<'_>, choices: &[(&str, T)]) -> Result<T, ValueMistake> {
    let names: Vec<_> = choices.iter().map(|(name, _)| format!("\"{name}\"")).collect();
    let remedy = format!("write {}", names.join(" or "));
    let raw = value.text(&remedy)?;
    match choices.iter().find(|(name, _)| *name == raw) {
        Some((_, choice)) => Ok(*choice),
        None => Err(mistake(format!("{raw:?} is not one of the choices"), remedy)),
    }
}

/// Checks that every `%word%` in the text is one of `known`. A single `%` is ignored.
pub(super) fn check_placeholders(text: &str, known: &[&str]) -> Result<(), ValueMistake> {
    let is_word = |part: &&str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
    let mut parts = text.split('%').skip(1).peekable();
    while let Some(part) = parts.next() {
        // The last part has no percent sign behind it.
        if parts.peek().is_none() || !is_word(&part) {
            continue;
        }
        if !known.contains(&part) {
            let known: Vec<_> = known.iter().map(|word| format!("%{word}%")).collect();
            return Err(mistake(
                format!("holds %{part}%, which is not a placeholder of this key"),
                format!("use {}", known.join(" ")),
            ));
        }
        // This part's closing sign opens nothing.
        parts.next();
    }
    Ok(())
}

pub(super) fn take_count(
    table: &mut Table<'_>,
    found: &mut Diagnostics<'_>,
    key: &str,
    default: usize,
    range: RangeInclusive<usize>,
) -> usize {
    table.value(found, key, default, |value| {
        let remedy = format!("write a number from {} to {}", range.start(), range.end());
        let Some(number) = value.number() else {
            return Err(mistake(format!("is {}, not a whole number", value.type_description()), remedy));
        };
        usize::try_from(number)
            .ok()
            .filter(|number| range.contains(number))
            .ok_or_else(|| mistake(format!("{number} is out of range"), remedy))
    })
}

pub(super) fn take_size(
    table: &mut Table<'_>,
    found: &mut Diagnostics<'_>,
    key: &str,
    default: u64,
    range: RangeInclusive<u64>,
) -> u64 {
    table.value(found, key, default, |value| {
        let remedy = format!(
            "write octets or a text such as \"50 MiB\", from {} to {}",
            show_size(*range.start()),
            show_size(*range.end())
        );
        let octets = match value.number() {
            Some(octets) => Some(octets),
            None => parse_size(value.text(&remedy)?),
        };
        let octets = octets.ok_or_else(|| mistake("is not a size", &*remedy))?;
        if range.contains(&octets) {
            Ok(octets)
        } else {
            Err(mistake(format!("{octets} is out of range"), remedy))
        }
    })
}

pub(super) fn take_duration(
    table: &mut Table<'_>,
    found: &mut Diagnostics<'_>,
    key: &str,
    default: Duration,
    range: RangeInclusive<Duration>,
) -> Duration {
    table.value(found, key, default, |value| {
        let remedy = format!(
            "write a text such as \"30s\", \"5m\", \"2h\" or \"5d\", from {} to {}",
            show_duration(*range.start()),
            show_duration(*range.end())
        );
        let raw = value.text(&remedy)?;
        let duration = parse_duration(raw)
            .ok_or_else(|| mistake(format!("{raw:?} is not a length of time"), &*remedy))?;
        if range.contains(&duration) {
            Ok(duration)
        } else {
            Err(mistake(format!("{raw} is out of range"), remedy))
        }
    })
}
