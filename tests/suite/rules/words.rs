//! Words that are not used: CONTRIBUTING.md has the list, and the phrases in which such a word is a term of the field.
//!
//! Reads identifiers, comments and text of `src`, `tests`, `scripts` and the documents. Not read are the list itself, the
//! record of the decision about it, this test, and the table of old and new names in CHANGELOG.md.

use std::collections::BTreeSet;
use std::fs;

use super::tree::{relative, root, tracked_files};

/// The record of the decision, and this test, name refused words.
const NOT_READ: &[&str] = &["docs/decisions/0021-words.md", "tests/suite/rules/words.rs"];

/// The blocks of the list in CONTRIBUTING.md: words, and phrases between semicolons.
fn list() -> (BTreeSet<String>, Vec<String>) {
    let document = fs::read_to_string(root().join("CONTRIBUTING.md")).unwrap();
    let (_, section) = document.split_once("### Words that are not used").expect("the list of words");
    let mut blocks = section.split("```");
    let words = blocks.nth(1).unwrap().strip_prefix("text\n").unwrap();
    let phrases = blocks.nth(1).unwrap().strip_prefix("text\n").unwrap();
    (
        words.split_whitespace().map(str::to_owned).collect(),
        phrases.trim().split(';').map(|phrase| phrase.trim().to_ascii_lowercase()).collect(),
    )
}

/// The words of identifiers and sentences: `SessionLimits`, `session_limits` and "session limits" are the same two.
fn words(line: &str) -> impl Iterator<Item = String> {
    let mut parts = Vec::from([String::new()]);
    let mut is_after_lower_case = false;
    for c in line.chars() {
        if !c.is_ascii_alphabetic() || (c.is_ascii_uppercase() && is_after_lower_case) {
            parts.push(String::new());
        }
        if c.is_ascii_alphabetic() {
            parts.last_mut().unwrap().push(c.to_ascii_lowercase());
        }
        is_after_lower_case = c.is_ascii_lowercase();
    }
    parts.into_iter().filter(|part| !part.is_empty())
}

/// The refused words of a line, in singular or plural, or in the past.
fn refused(line: &str, list: &BTreeSet<String>, phrases: &[String]) -> Vec<String> {
    let is_refused = |word: &String| {
        let mut stems = ["", "s", "es", "d", "ed"].into_iter().filter_map(|ending| word.strip_suffix(ending));
        stems.any(|stem| list.contains(stem))
    };
    let mut line = line.to_owned();
    for phrase in phrases {
        // ASCII lower case keeps the positions.
        while let Some(at) = line.to_ascii_lowercase().find(phrase.as_str()) {
            line.replace_range(at..at + phrase.len(), "");
        }
    }
    words(&line).filter(is_refused).collect()
}

#[test]
fn words_of_the_old_language_are_not_used() {
    let (list, phrases) = list();
    assert!(list.len() > 20, "only {} words were found", list.len());
    let mut wrong = Vec::new();
    for path in tracked_files() {
        let name = relative(&path);
        let is_read = ["src/", "tests/", "scripts/", "docs/"].iter().any(|dir| name.starts_with(dir))
            || name == "Makefile"
            || name.ends_with(".md");
        if !is_read || NOT_READ.contains(&name.as_str()) {
            continue;
        }
        let Ok(text) = fs::read_to_string(&path) else { continue };
        let text = match name.as_str() {
            "CONTRIBUTING.md" => text.split("### Words that are not used").next().unwrap_or_default(),
            "CHANGELOG.md" => text.split("| old | new |").next().unwrap_or_default(),
            _ => &text,
        };
        for (number, line) in text.lines().enumerate() {
            for word in refused(line, &list, &phrases) {
                wrong.push(format!("{name}:{}: {word}: {}", number + 1, line.trim()));
            }
        }
    }
    let count = wrong.len();
    wrong.truncate(400);
    assert!(wrong.is_empty(), "CONTRIBUTING.md refuses {count} words:\n{}", wrong.join("\n"));
}

#[test]
fn refused_words_are_found_in_identifiers_and_not_in_terms() {
    let list = BTreeSet::from(["door", "ticket"].map(str::to_owned));
    let phrases = ["session ticket".to_owned()];
    for (line, count) in [
        ("let doors = Doors::new();", 2),
        ("fn the_door_is_open() {", 1),
        ("outdoors", 0),
        ("// No session tickets are issued.", 0),
        ("// No session tickets, and a ticket.", 1),
    ] {
        assert_eq!(refused(line, &list, &phrases).len(), count, "{line}");
    }
}
