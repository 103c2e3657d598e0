//! The file `domains/DOMAIN/users`.
//!
//! ```text
//! # name: credentials
//! ana: $argon2id$v=19$m=19456,t=2,p=1$c2FsdHNhbHQ$… SCRAM-SHA-256$100000:…
//! reports: receive-only
//! ```
//!
//! Each line is one account: a local part, a colon, and credentials that are separated by spaces. A credential is
//! a password hash (argon2id or scrypt as a PHC string, or bcrypt), or the keys of SCRAM; each may be there once.
//! `receive-only` instead stands for an account that receives mail and cannot log in. Names are compared by
//! their PRECIS key. `docs/decisions/0008-accounts-file.md` says why this is not a TOML table.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use super::hash::{self, StoredPassword};
use super::{password, scram};
use crate::mail::{LocalPart, ScramKeys, split_outside_quotes};

/// The users of one domain, from one version of the file.
#[derive(Debug, Clone, Default)]
pub struct Users {
    by_key: HashMap<String, Account>,
}

/// The account of one line. An account without hash and keys only receives mail.
#[derive(Debug, Clone)]
pub(super) struct Account {
    /// The name as written.
    name: LocalPart,
    hash: Option<String>,
    pub(super) scram: Option<ScramKeys>,
}

impl Account {
    /// The hash or keys with which a password is compared; `None` if the account only receives mail.
    pub(super) fn stored_password(&self) -> Option<StoredPassword<'_>> {
        let scram = self.scram.as_ref().map(StoredPassword::Scram);
        self.hash.as_deref().map(StoredPassword::Hash).or(scram)
    }

    /// The names of the credentials, for the operator.
    fn credential_names(&self) -> Vec<&'static str> {
        let hash = self.hash.as_deref().and_then(|hash| hash::check_hash(hash).ok());
        let scram = self.scram.is_some().then_some("SCRAM-SHA-256");
        hash.into_iter().chain(scram).collect()
    }
}

/// A line of a users or senders file that cannot be read; the operator corrects it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}:{line}: {problem}; {remedy}", file.display())]
pub struct AuthFileError {
    /// The file.
    pub file: PathBuf,
    /// The number of the line, from 1.
    pub line: usize,
    /// What is wrong with the line.
    pub problem: String,
    /// How to correct it.
    pub remedy: String,
}

impl Account {
    /// Adds a credential. The error continues "the credential …".
    fn read_credential(&mut self, word: &str) -> Result<(), String> {
        let is_second = if word == RECEIVE_ONLY {
            false
        } else if scram::has_scheme_prefix(word) {
            self.scram.replace(scram::parse(word)?).is_some()
        } else {
            hash::check_hash(word)?;
            self.hash.replace(word.to_owned()).is_some()
        };
        if is_second { Err("is there twice".to_owned()) } else { Ok(()) }
    }
}

/// Stands for an account that receives mail and cannot log in.
pub(super) const RECEIVE_ONLY: &str = "receive-only";

impl Users {
    /// Longest file that is read, in octets: about 40,000 users.
    pub const OCTETS_MAX: u64 = 8 * 1024 * 1024;

    /// Parses the text of `file`.
    ///
    /// # Errors
    /// All lines that cannot be read; the operator is at fault.
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
        let mut account = Account { name, hash: None, scram: None };
        let mut count = 0;
        for word in credentials.split_whitespace() {
            if let Err(problem) = account.read_credential(word) {
                return wrong(
                    &format!("the credential {problem}"),
                    "use `postrider user passwd`, or write receive-only",
                );
            }
            count += 1;
        }
        if count == 0 {
            return wrong("the user has no credential", "use `postrider user passwd`, or write receive-only");
        }
        if count > 1 && credentials.split_whitespace().any(|word| word == RECEIVE_ONLY) {
            return wrong("the user only receives, and has another credential", "leave one of them");
        }
        let key = account.name.comparison_key();
        if let Some(other) = self.by_key.get(&key) {
            return wrong(
                &format!("{} is here already, as {}", account.name, other.name),
                "remove one of the lines",
            );
        }
        self.by_key.insert(key, account);
        Ok(())
    }

    /// The domain has this user.
    #[must_use]
    pub fn contains(&self, local_part: &LocalPart) -> bool {
        self.by_key.contains_key(&local_part.comparison_key())
    }

    /// How many users the domain has.
    #[must_use]
    pub fn count(&self) -> usize {
        self.by_key.len()
    }

    /// At least one user can log in.
    #[must_use]
    pub fn has_logins(&self) -> bool {
        self.by_key.values().any(|account| account.stored_password().is_some())
    }

    /// All users that can log in have the keys of SCRAM.
    #[must_use]
    pub fn all_have_scram(&self) -> bool {
        self.by_key.values().all(|account| account.stored_password().is_none() || account.scram.is_some())
    }

    /// All users, sorted by name, with the names of their credentials; an account that only receives mail has none.
    pub fn list(&self) -> impl Iterator<Item = (&LocalPart, Vec<&'static str>)> {
        let mut accounts: Vec<_> = self.by_key.iter().collect();
        accounts.sort_by_key(|(key, _)| *key);
        accounts.into_iter().map(|(_, account)| (&account.name, account.credential_names()))
    }

    /// Whether the SCRAM keys of a user were made from this password; `None` if the user has no keys.
    #[must_use]
    pub fn matches_scram_keys(&self, local_part: &LocalPart, password: &str) -> Option<bool> {
        let keys = self.account(local_part)?.scram.as_ref()?;
        Some(scram::verify(&password::prepare_candidate(password.as_bytes()), keys))
    }

    pub(super) fn account(&self, local_part: &LocalPart) -> Option<&Account> {
        self.by_key.get(&local_part.comparison_key())
    }
}

/// Whether the line is the account of this user.
pub(super) fn is_line_of_user(line: &str, local_part: &LocalPart) -> bool {
    let line = line.trim();
    !line.starts_with('#')
        && split_name(line)
            .and_then(|(name, _)| LocalPart::parse(name).ok())
            .is_some_and(|name| name.comparison_key() == local_part.comparison_key())
}

/// The name and the text after its colon. A colon in a quoted name is part of the name.
fn split_name(line: &str) -> Option<(&str, &str)> {
    split_outside_quotes(line, |c| c == ':').map(|(name, credentials)| (name.trim_end(), credentials))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HASH: &str = "$argon2id$v=19$m=16,t=1,p=1$c2FsdHNhbHQ$4qmZ0SqWJpcnVGjvI9ldzLXTQ0vE8Qu3TUVuBCDQXfQ";

    const BCRYPT: &str = "$2a$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW";
    const SCRAM: &str = "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==\
                         $WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=";

    fn parse(text: &str) -> Result<Users, Vec<String>> {
        Users::parse(text, Path::new("domains/here.example/users"))
            .map_err(|errors| errors.iter().map(ToString::to_string).collect())
    }

    fn has(users: &Users, name: &str) -> bool {
        users.contains(&LocalPart::parse(name).unwrap())
    }

    #[test]
    fn each_line_is_a_user() {
        let text = format!("# us\n\nana: {HASH}\n  reports :receive-only\r\n\"a b:c\": receive-only\n");
        let users = parse(&text).unwrap();
        assert_eq!(users.count(), 3);
        assert!(has(&users, "ANA") && has(&users, "reports") && has(&users, "\"a b:c\""));
        assert!(!has(&users, "bo"));
        assert!(users.account(&LocalPart::parse("ana").unwrap()).unwrap().stored_password().is_some());
        assert!(users.account(&LocalPart::parse("reports").unwrap()).unwrap().stored_password().is_none());
    }

    #[test]
    fn a_user_may_have_a_hash_or_scram_keys_or_both() {
        let text = format!("ana: {HASH} {SCRAM}\nbo: {SCRAM}\neve: {BCRYPT}\nfay: receive-only\n");
        let users = parse(&text).unwrap();
        let listed: Vec<_> =
            users.list().map(|(name, credentials)| format!("{name} {}", credentials.join(" "))).collect();
        assert_eq!(listed, ["ana argon2id SCRAM-SHA-256", "bo SCRAM-SHA-256", "eve bcrypt", "fay "]);
        assert!(users.has_logins() && !users.all_have_scram());
        assert!(parse(&text.replace(BCRYPT, "receive-only")).unwrap().all_have_scram());
        assert!(!parse("fay: receive-only").unwrap().has_logins());
    }

    #[test]
    fn a_line_that_cannot_be_read_is_reported_with_a_remedy() {
        for (line, says) in [
            ("ana", "no colon"),
            ("ana@here.example: receive-only", "not a user's name"),
            ("ana:", "no credential"),
            ("ana: secret", "postrider user passwd"),
            ("ana: $2b$12$abc", "not a bcrypt hash"),
            ("ana: $2b$31$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW", "cost"),
            (
                "ana: $scrypt$ln=30,r=8,p=1$aM15713r3Xsvxbi31lqr1Q$nFNh2CVHVjNldFVKDHDlm4CbdRSCdEBsjjJxD+iCs5E",
                "memory",
            ),
            ("ana: $md5$aM15713r3Xsvxbi31lqr1Q$nFNh2CVHVjNldFVKDHDlm4CbdRSCdEBsjjJxD+iCs5E", "is a md5 hash"),
            ("ana: SCRAM-SHA-256$1:AAAA$AAAA:AAAA", "not SCRAM keys"),
            (&format!("ana: {SCRAM} {SCRAM}"), "twice"),
            (&format!("ana: {HASH} {BCRYPT}"), "twice"),
            (&format!("ana: {HASH} receive-only"), "only receives"),
            (
                "ana: $argon2id$v=19$m=4194304,t=1,p=1$c2FsdHNhbHQ$4qmZ0SqWJpcnVGjvI9ldzLXTQ0vE8Qu3TUVuBCDQXfQ",
                "memory",
            ),
            ("ana: receive-only receive-only", "only receives"),
            ("Bo: receive-only", "already"),
        ] {
            let errors = parse(&format!("bo: receive-only\n\n{line}\n")).unwrap_err();
            assert_eq!(errors.len(), 1, "{errors:?}");
            assert!(errors[0].starts_with("domains/here.example/users:3: "), "{}", errors[0]);
            assert!(errors[0].contains(says), "{} should say {says}", errors[0]);
            assert!(
                !errors[0].contains("secret"),
                "a word that may be a password is not repeated: {}",
                errors[0]
            );
        }
    }

    #[test]
    fn every_invalid_line_is_reported() {
        assert_eq!(parse("a\nb\nc: receive-only\n").unwrap_err().len(), 2);
    }
}
