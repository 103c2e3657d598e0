//! The file `domains/DOMAIN/users`.
//!
//! ```text
//! # name: credentials
//! ana: $argon2id$v=19$m=19456,t=2,p=1$c2FsdHNhbHQ$…
//! reports: receive-only
//! ```
//!
//! One line is one account: a local part, a colon, and credentials with spaces between them. A
//! credential is a password hash as a PHC string, or `receive-only`, which lets mail in and
//! nobody log in. There is room for more on a line (SCRAM keys). Names are compared by their
//! PRECIS key. Why a line and not a TOML table: `docs/decisions/0008-accounts-file.md`.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use super::hash;
use crate::mail::LocalPart;

/// The users of one domain, as one version of the file gives them.
#[derive(Debug, Clone, Default)]
pub struct Users {
    by_key: HashMap<String, Account>,
    /// One of them has a password.
    has_logins: bool,
}

/// One line.
#[derive(Debug, Clone)]
pub(super) struct Account {
    /// As written.
    name: LocalPart,
    /// PHC string; none for `receive-only`.
    pub(super) hash: Option<String>,
}

/// A line of a users file that cannot be read; the operator mends it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}:{line}: {problem}; {remedy}", file.display())]
pub struct AuthFileError {
    /// The file.
    pub file: PathBuf,
    /// Its line, from 1.
    pub line: usize,
    /// What is wrong.
    pub problem: String,
    /// What to do.
    pub remedy: String,
}

impl Users {
    /// Longest file that is read, in octets: some 40,000 users.
    pub const OCTETS_MAX: u64 = 8 * 1024 * 1024;

    /// Reads the text of `file`.
    ///
    /// # Errors
    /// Every line that cannot be read; the operator is at fault.
    pub fn parse(text: &str, file: &Path) -> Result<Self, Vec<AuthFileError>> {
        let mut users = Self::default();
        let mut errors = Vec::new();
        for (index, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            if let Err((problem, remedy)) = users.read_line(line) {
                errors.push(AuthFileError { file: file.to_owned(), line: index + 1, problem, remedy });
            }
        }
        if errors.is_empty() { Ok(users) } else { Err(errors) }
    }

    fn read_line(&mut self, line: &str) -> Result<(), (String, String)> {
        let wrong = |problem: &str, remedy: &str| Err((problem.to_owned(), remedy.to_owned()));
        let Some((name, credentials)) = split_name(line) else {
            return wrong("there is no colon behind a name", "write `name: credential`");
        };
        let Ok(name) = LocalPart::parse(name) else {
            return wrong(
                &format!("{name:?} is not a user's name"),
                "write the part of the address before the @, in double quotes if it has spaces",
            );
        };
        let mut account = Account { name, hash: None };
        let mut words = credentials.split_whitespace();
        match (words.next(), words.next()) {
            (None, _) => {
                return wrong(
                    "the user has no credential",
                    "use `postrider user add`, or write receive-only",
                );
            }
            (Some(_), Some(_)) => return wrong("there are several credentials", "leave one of them"),
            (Some("receive-only"), None) => {}
            (Some(hash), None) => match hash::check(hash) {
                Ok(()) => account.hash = Some(hash.to_owned()),
                Err(problem) => {
                    return wrong(
                        &format!("the credential {problem}"),
                        "use `postrider user add`, or write receive-only",
                    );
                }
            },
        }
        let key = account.name.key();
        if let Some(other) = self.by_key.get(&key) {
            return wrong(
                &format!("{} is here already, as {}", account.name, other.name),
                "remove one of the lines",
            );
        }
        self.has_logins |= account.hash.is_some();
        self.by_key.insert(key, account);
        Ok(())
    }

    /// The domain has this user.
    #[must_use]
    pub fn has(&self, local_part: &LocalPart) -> bool {
        self.by_key.contains_key(&local_part.key())
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.by_key.len()
    }

    /// One of them could log in.
    #[must_use]
    pub fn has_logins(&self) -> bool {
        self.has_logins
    }

    pub(super) fn account(&self, local_part: &LocalPart) -> Option<&Account> {
        self.by_key.get(&local_part.key())
    }
}

/// The name and what stands behind its colon. A colon in a quoted name is part of the name.
fn split_name(line: &str) -> Option<(&str, &str)> {
    let mut quoted = false;
    let mut escaped = false;
    for (at, c) in line.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            ':' if !quoted => {
                let (name, rest) = line.split_at_checked(at)?;
                return Some((name.trim_end(), rest.strip_prefix(':')?));
            }
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    const HASH: &str = "$argon2id$v=19$m=16,t=1,p=1$c2FsdHNhbHQ$4qmZ0SqWJpcnVGjvI9ldzLXTQ0vE8Qu3TUVuBCDQXfQ";

    fn parse(text: &str) -> Result<Users, Vec<String>> {
        Users::parse(text, Path::new("domains/here.example/users"))
            .map_err(|errors| errors.iter().map(ToString::to_string).collect())
    }

    fn has(users: &Users, name: &str) -> bool {
        users.has(&LocalPart::parse(name).unwrap())
    }

    #[test]
    fn a_line_is_a_user() {
        let text = format!("# us\n\nana: {HASH}\n  reports :receive-only\r\n\"a b:c\": receive-only\n");
        let users = parse(&text).unwrap();
        assert_eq!(users.count(), 3);
        assert!(has(&users, "ANA") && has(&users, "reports") && has(&users, "\"a b:c\""));
        assert!(!has(&users, "bo"));
        assert!(users.account(&LocalPart::parse("ana").unwrap()).unwrap().hash.is_some());
        assert!(users.account(&LocalPart::parse("reports").unwrap()).unwrap().hash.is_none());
    }

    #[test]
    fn a_line_that_cannot_be_read_is_named_with_its_remedy() {
        for (line, says) in [
            ("ana", "no colon"),
            ("ana@here.example: receive-only", "not a user's name"),
            ("ana:", "no credential"),
            ("ana: secret", "postrider user add"),
            ("ana: $2b$12$abc", "postrider user add"),
            (
                "ana: $argon2id$v=19$m=4194304,t=1,p=1$c2FsdHNhbHQ$4qmZ0SqWJpcnVGjvI9ldzLXTQ0vE8Qu3TUVuBCDQXfQ",
                "memory",
            ),
            ("ana: receive-only receive-only", "several"),
            ("Bo: receive-only", "already"),
        ] {
            let errors = parse(&format!("bo: receive-only\n\n{line}\n")).unwrap_err();
            assert_eq!(errors.len(), 1, "{errors:?}");
            assert!(errors[0].starts_with("domains/here.example/users:3: "), "{}", errors[0]);
            assert!(errors[0].contains(says), "{} should say {says}", errors[0]);
            assert!(!errors[0].contains("secret"), "what may be a password is not repeated: {}", errors[0]);
        }
    }

    #[test]
    fn every_bad_line_is_reported() {
        assert_eq!(parse("a\nb\nc: receive-only\n").unwrap_err().len(), 2);
    }
}
