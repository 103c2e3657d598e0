//! The table of keys for the operator: the purpose of each key, its default, and how to print it.
//!
//! The commented sample file, the manual page and the output of `postrider check` are made from this table. A
//! test compares the checked-in files with the table, and the defaults in the table with those in `sections`.
//!
//! The rows are in `receiving`, `delivery` and `trust`, which divide the keys as the files of `parse` do.

mod delivery;
mod receiving;
mod trust;

use std::fmt::Write as _;
use std::time::Duration;

use super::sections::Config;
use super::units::show_duration;

/// A section of the file, with its keys.
struct SectionDescription {
    /// Empty for the keys above all sections.
    name: &'static str,
    description: &'static str,
    keys: &'static [KeyDescription],
}

/// One key.
struct KeyDescription {
    name: &'static str,
    /// The text for the operator, printed in the sample file and the manual page.
    description: &'static str,
    /// The default as TOML; empty if there is none.
    default: &'static str,
    /// An example as TOML, printed if there is no default.
    example: &'static str,
    /// The value in force as TOML; none if it does not apply.
    effective_value: fn(&Config) -> Option<String>,
}

/// All sections, in the order of the sample file.
fn sections() -> impl Iterator<Item = &'static SectionDescription> {
    [receiving::SECTIONS, delivery::SECTIONS, trust::SECTIONS].into_iter().flatten()
}

/// Names that are allowed in a section: its keys and the sections below it.
pub(super) fn known_keys(section: &str) -> Vec<&'static str> {
    let keys = sections().filter(|s| s.name == section).flat_map(|s| s.keys.iter().map(|key| key.name));
    let below = sections().filter_map(|s| match s.name.rsplit_once('.') {
        Some((above, name)) if above == section => Some(name),
        None if section.is_empty() && !s.name.is_empty() => Some(s.name),
        _ => None,
    });
    keys.chain(below).collect()
}

impl Config {
    /// The configuration in force, defaults included, as the text of a `postrider.toml`.
    #[must_use]
    pub fn effective_toml(&self) -> String {
        let mut text = String::new();
        for section in sections() {
            let values: Vec<_> = section
                .keys
                .iter()
                .filter_map(|key| Some((key.name, (key.effective_value)(self)?)))
                .collect();
            if values.is_empty() {
                continue;
            }
            if !section.name.is_empty() {
                let _ = writeln!(text, "\n[{}]", section.name);
            }
            for (name, value) in values {
                let _ = writeln!(text, "{name} = {value}");
            }
        }
        text
    }
}

/// The commented sample file: every key with its default, commented out with a `#` without a space.
#[must_use]
pub fn sample() -> String {
    let mut text = String::from(
        "# postrider.toml: the configuration of the mail server postrider.\n\
         #\n\
         # A line that begins with # and a letter is a default: take away the # to change it. After a\n\
         # change, run `postrider check`, then restart the server. postrider.toml(5) has the same text.\n",
    );
    for section in sections() {
        if !section.name.is_empty() {
            let _ = write!(text, "\n\n[{}]\n", section.name);
            write_comment(&mut text, section.description);
        }
        for key in section.keys {
            text.push('\n');
            write_comment(&mut text, key.description);
            if !key.example.is_empty() {
                let _ = writeln!(text, "# For example: {} = {}", key.name, key.example);
            }
            if !key.default.is_empty() {
                let _ = writeln!(text, "#{} = {}", key.name, key.default);
            }
        }
    }
    text
}

/// The part of postrider.toml(5) that describes the keys, in the man macros.
#[must_use]
pub fn manual() -> String {
    let mut page = String::new();
    for section in sections() {
        let title = match section.name {
            "" => "Above all sections".to_owned(),
            name => format!("[{name}]"),
        };
        let _ = writeln!(page, ".SS \"{title}\"");
        if !section.description.is_empty() {
            let _ = writeln!(page, "{}", escape_roff(section.description));
        }
        for key in section.keys {
            let _ = writeln!(page, ".TP\n.B {}", escape_roff(key.name));
            let _ = writeln!(page, "{}", escape_roff(key.description));
            if !key.default.is_empty() {
                let _ = writeln!(page, ".br\nDefault: {}", escape_roff(key.default));
            }
            if !key.example.is_empty() {
                let _ = writeln!(page, ".br\nFor example: {}", escape_roff(key.example));
            }
        }
    }
    page
}

/// Escapes a text for roff: no hyphen becomes a dash, and no line begins with a control character.
fn escape_roff(text: &str) -> String {
    let escaped = text.replace('\\', "\\e").replace('-', "\\-").replace('…', "...");
    if escaped.starts_with(['.', '\'']) { format!("\\&{escaped}") } else { escaped }
}

/// Formats a text as comment lines of at most 98 characters.
fn write_comment(out: &mut String, about: &str) {
    let mut line = String::from("#");
    for word in about.split_whitespace() {
        if line.chars().count() + 1 + word.chars().count() > 98 {
            let _ = writeln!(out, "{line}");
            line = String::from("#");
        }
        line.push(' ');
        line.push_str(word);
    }
    if line != "#" {
        let _ = writeln!(out, "{line}");
    }
}

fn number(number: usize) -> Option<String> {
    Some(number.to_string())
}

fn quoted_duration(duration: Duration) -> Option<String> {
    Some(quoted(&show_duration(duration)))
}

fn list(items: impl IntoIterator<Item = impl AsRef<str>>) -> String {
    let items: Vec<_> = items.into_iter().map(|item| quoted(item.as_ref())).collect();
    format!("[{}]", items.join(", "))
}

/// Formats a TOML basic string. Its escapes are those of JSON, and one more for DEL.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string().replace('\u{7f}', "\\u007f")
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::HostFacts;
    use super::*;
    use crate::mail::Domain;

    #[test]
    fn the_defaults_that_people_read_are_the_defaults() {
        let defaults = Config::defaults(Domain::parse("mail.example.org").unwrap());
        for section in sections() {
            for key in section.keys {
                assert!(!key.default.is_empty() || !key.example.is_empty(), "{}", key.name);
                if let Some(value) = (key.effective_value)(&defaults).filter(|_| key.name != "hostname") {
                    assert_eq!(value, key.default, "{}.{}", section.name, key.name);
                }
            }
        }
    }

    #[test]
    fn the_sample_with_every_default_switched_on_changes_nothing() {
        let on: String = sample()
            .lines()
            .map(|line| match line.strip_prefix('#') {
                Some(rest) if rest.starts_with(|c: char| c.is_ascii_lowercase()) => format!("{rest}\n"),
                _ => format!("{line}\n"),
            })
            .collect();
        assert!(on.contains("\nmessage-size-max = "));
        let host = HostFacts { hostname: &|| Some("mail.example.org".to_owned()) };
        let file = Path::new("/etc/postrider/postrider.toml");
        let read = |text: &str| Config::parse(text, file, &host).unwrap().effective_toml();
        assert_eq!(read(&on), read(""));
        assert_eq!(read(&sample()), read(""));
    }
}
