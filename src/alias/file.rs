//! The file `domains/DOMAIN/aliases`.
//!
//! ```text
//! # name: targets
//! postmaster: ana, bo@there.example
//! tickets: | /usr/local/bin/ticket --queue "new mail"
//! *: ana
//! ```
//!
//! A target without a domain is in the file's own. `|` and a command line make a program, whose
//! words are split on spaces, except in double quotes; no shell sees them. `*` on the left is
//! everybody who is neither an alias nor a user. `#` begins a comment line.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use crate::mail::{Domain, LocalPart, Mailbox};

/// The aliases of one domain, as one version of the file gives them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Aliases {
    by_key: HashMap<String, Vec<Target>>,
    catch_all: Option<Vec<Target>>,
}

/// One target of an alias.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Target {
    /// Another address, here or elsewhere.
    Mailbox(Mailbox),
    /// A program and its arguments. Not empty.
    Program(Vec<String>),
}

/// A line of an aliases file that cannot be read; the operator mends it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}:{line}: {problem}; {remedy}", file.display())]
pub struct AliasFileError {
    /// The file.
    pub file: PathBuf,
    /// Its line, from 1.
    pub line: usize,
    /// What is wrong.
    pub problem: String,
    /// What to do.
    pub remedy: String,
}

/// What is wrong with a line, and what to do.
type Wrong = (String, String);

impl Aliases {
    /// Longest file that is read, in octets.
    pub const OCTETS_MAX: u64 = 8 * 1024 * 1024;

    /// Reads the text of `file`, which belongs to `domain`.
    ///
    /// # Errors
    /// Every line that cannot be read; the operator is at fault.
    pub fn parse(text: &str, file: &Path, domain: &Domain) -> Result<Self, Vec<AliasFileError>> {
        let mut aliases = Self::default();
        let mut errors = Vec::new();
        for (index, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            if let Err((problem, remedy)) = aliases.read_line(line, domain) {
                errors.push(AliasFileError { file: file.to_owned(), line: index + 1, problem, remedy });
            }
        }
        if errors.is_empty() { Ok(aliases) } else { Err(errors) }
    }

    fn read_line(&mut self, line: &str, domain: &Domain) -> Result<(), Wrong> {
        let (name, right) = split_outside_quotes(line, ':')
            .ok_or_else(|| wrong("there is no colon behind a name", "write `name: target, target`"))?;
        let name = name.trim_end();
        if name == "*" {
            let targets = targets(right, domain)?;
            return match self.catch_all.replace(targets) {
                None => Ok(()),
                Some(_) => Err(wrong("* is here already", "remove one of the lines")),
            };
        }
        let name = LocalPart::parse(name).map_err(|_| {
            wrong(
                &format!("{name:?} is not a name"),
                "write the part of the address before the @, in double quotes if it has spaces, or *",
            )
        })?;
        match self.by_key.insert(name.key(), targets(right, domain)?) {
            None => Ok(()),
            Some(_) => Err(wrong(&format!("{name} is here already"), "put all its targets on one line")),
        }
    }

    /// The targets of a name, if it is an alias itself.
    #[must_use]
    pub fn targets(&self, local_part: &LocalPart) -> Option<&[Target]> {
        self.by_key.get(&local_part.key()).map(Vec::as_slice)
    }

    /// The targets of everybody who is neither an alias nor a user.
    #[must_use]
    pub fn catch_all(&self) -> Option<&[Target]> {
        self.catch_all.as_deref()
    }

    /// How many names there are, the catch-all included.
    #[must_use]
    pub fn count(&self) -> usize {
        self.by_key.len() + usize::from(self.catch_all.is_some())
    }
}

fn wrong(problem: &str, remedy: &str) -> Wrong {
    (problem.to_owned(), remedy.to_owned())
}

/// The right side of a line.
fn targets(right: &str, domain: &Domain) -> Result<Vec<Target>, Wrong> {
    let right = right.trim();
    if let Some(command) = right.strip_prefix('|') {
        let command = split_words(command)?;
        // Also `| ""`, which names no program.
        if command.first().is_none_or(String::is_empty) {
            return Err(wrong("there is no program behind |", "write `name: | /path/of/program arguments`"));
        }
        return Ok(vec![Target::Program(command)]);
    }
    let mut targets = Vec::new();
    let mut rest = right;
    while !rest.is_empty() {
        let (item, more) = split_outside_quotes(rest, ',').unwrap_or((rest, ""));
        rest = more.trim_start();
        let item = item.trim();
        if item.is_empty() {
            continue;
        }
        if item.starts_with('|') {
            return Err(wrong(
                "a program stands among other targets",
                "give it a name and a line of its own",
            ));
        }
        let target = Target::Mailbox(mailbox(item, domain)?);
        if !targets.contains(&target) {
            targets.push(target);
        }
    }
    if targets.is_empty() {
        return Err(wrong("there is no target", "write `name: target, target`"));
    }
    Ok(targets)
}

/// An address; without a domain, one of the file's own.
fn mailbox(item: &str, domain: &Domain) -> Result<Mailbox, Wrong> {
    let found = match split_outside_quotes(item, '@') {
        Some(_) => Mailbox::parse(item),
        None => LocalPart::parse(item).map(|local_part| Mailbox { local_part, domain: domain.clone() }),
    };
    found.map_err(|problem| {
        wrong(&format!("{item:?} is not an address: {problem}"), "separate addresses with commas")
    })
}

/// What stands before and behind the first `separator` that is not in double quotes.
fn split_outside_quotes(text: &str, separator: char) -> Option<(&str, &str)> {
    let mut quoted = false;
    let mut escaped = false;
    for (at, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            c if c == separator && !quoted => {
                let (before, rest) = text.split_at_checked(at)?;
                return Some((before, rest.strip_prefix(separator)?));
            }
            _ => {}
        }
    }
    None
}

/// The words of a command line. Double quotes hold spaces; in them `\"` and `\\` are a quote and
/// a backslash. Nothing else is special.
fn split_words(text: &str) -> Result<Vec<String>, Wrong> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quoted = false;
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '"' => {
                quoted = !quoted;
                word.get_or_insert_default();
            }
            '\\' if quoted => {
                let next = chars.next_if(|next| matches!(next, '"' | '\\'));
                word.get_or_insert_default().push(next.unwrap_or('\\'));
            }
            c if c.is_whitespace() && !quoted => words.extend(word.take()),
            c => word.get_or_insert_default().push(c),
        }
    }
    if quoted {
        return Err(wrong("a double quote is not closed", "close it"));
    }
    words.extend(word);
    Ok(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Aliases, Vec<String>> {
        let here = Domain::parse("here.example").unwrap();
        Aliases::parse(text, Path::new("domains/here.example/aliases"), &here)
            .map_err(|errors| errors.iter().map(ToString::to_string).collect())
    }

    /// The targets of `x`, as text.
    fn targets_of(line: &str) -> Vec<String> {
        let aliases = parse(&format!("x: {line}")).unwrap();
        let targets = aliases.targets(&LocalPart::parse("X").unwrap()).unwrap();
        let shown = |target: &Target| match target {
            Target::Mailbox(mailbox) => mailbox.to_string(),
            Target::Program(words) => format!("{words:?}"),
        };
        targets.iter().map(shown).collect()
    }

    #[test]
    fn a_line_says_who_is_meant() {
        assert_eq!(targets_of("ana, bo@there.example"), ["ana@here.example", "bo@there.example"]);
        assert_eq!(
            targets_of("ana,, ana@HERE.example ,"),
            ["ana@here.example"],
            "empty and double ones are skipped"
        );
        assert_eq!(targets_of("\"a, b\"@there.example"), ["\"a, b\"@there.example"]);
        assert_eq!(targets_of("\"a@b\""), ["\"a@b\"@here.example"]);
        assert_eq!(targets_of("| /bin/x a  b"), ["[\"/bin/x\", \"a\", \"b\"]"]);
        assert_eq!(
            targets_of("|/bin/x \"a b\" \"\" c\"d e\"f 'g h'"),
            ["[\"/bin/x\", \"a b\", \"\", \"cd ef\", \"'g\", \"h'\"]"]
        );
        assert_eq!(targets_of("| /bin/x \"\\\"\\\\\\n\" \\"), ["[\"/bin/x\", \"\\\"\\\\\\\\n\", \"\\\\\"]"]);
    }

    #[test]
    fn comments_empty_lines_and_the_catch_all_are_known() {
        let aliases = parse("# list\n\n*: ana\nx: y\r\n").unwrap();
        assert_eq!(aliases.count(), 2);
        assert!(aliases.catch_all().is_some());
    }

    #[test]
    fn a_line_that_cannot_be_read_is_named_with_its_remedy() {
        for (line, says) in [
            ("ana", "no colon"),
            (": bo", "not a name"),
            ("ana@here.example: bo", "not a name"),
            ("ana:", "no target"),
            ("ana: ,", "no target"),
            ("ana: bo eve", "not an address"),
            ("ana: bo@", "not an address"),
            ("ana: bo, | /bin/x", "line of its own"),
            ("ana: |", "no program"),
            ("ana: | \"\"", "no program"),
            ("ana: | /bin/x \"", "not closed"),
            ("FIRST: bo", "already"),
            ("*: bo\n*: eve", "already"),
        ] {
            let errors = parse(&format!("first: bo\n{line}\n")).unwrap_err();
            assert_eq!(errors.len(), 1, "{errors:?}");
            assert!(errors[0].contains(says), "{} should say {says}", errors[0]);
            let number = if line.contains('\n') { 3 } else { 2 };
            assert!(
                errors[0].starts_with(&format!("domains/here.example/aliases:{number}: ")),
                "{}",
                errors[0]
            );
        }
    }
}
