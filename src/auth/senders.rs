//! The file `domains/DOMAIN/senders`: which addresses a user of the domain may write as, besides the user's own
//! address and aliases that lead to it.
//!
//! ```text
//! # user: addresses
//! ana: info@here.example, *@club.example
//! *: newsletter@here.example
//! backup: *
//! ```
//!
//! `*` on the left stands for every user of the domain. On the right are addresses, `*@DOMAIN` for all addresses
//! of a domain, or `*` for any address. An address without a domain is in the domain of the file.

use std::collections::HashMap;
use std::path::Path;

use super::users::AuthFileError;
use crate::mail::{Domain, LocalPart, Mailbox};

/// The addresses that users of one domain may write as, from one version of the file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AllowedSenders {
    by_user: HashMap<String, Vec<SenderPattern>>,
    for_all_users: Option<Vec<SenderPattern>>,
}

/// One or more addresses that a user may write as.
#[derive(Debug, Clone, PartialEq, Eq)]
enum SenderPattern {
    Mailbox(Mailbox),
    Domain(Domain),
    Any,
}

impl SenderPattern {
    fn matches(&self, address: &Mailbox) -> bool {
        match self {
            Self::Mailbox(mailbox) => mailbox.is_same_user(address),
            Self::Domain(domain) => *domain == address.domain,
            Self::Any => true,
        }
    }
}

impl AllowedSenders {
    /// Longest file that is read, in octets.
    pub const OCTETS_MAX: u64 = 8 * 1024 * 1024;

    /// Parses the text of `file`, which belongs to `domain`.
    ///
    /// # Errors
    /// All lines that cannot be read; the operator is at fault.
    pub fn parse(text: &str, file: &Path, domain: &Domain) -> Result<Self, Vec<AuthFileError>> {
        let mut senders = Self::default();
        let mut errors = Vec::new();
        for (index, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            if let Err((problem, remedy)) = senders.read_line(line, domain) {
                errors.push(AuthFileError { file: file.to_owned(), line: index + 1, problem, remedy });
            }
        }
        if errors.is_empty() { Ok(senders) } else { Err(errors) }
    }

    fn read_line(&mut self, line: &str, domain: &Domain) -> Result<(), (String, String)> {
        let wrong = |problem: String, remedy: &str| Err((problem, remedy.to_owned()));
        let Some((user, names)) = line.split_once(':') else {
            return wrong("there is no colon behind a user".to_owned(), "write `user: address, address`");
        };
        let user = user.trim();
        let names = names.split(',').map(|raw| SenderPattern::parse(raw.trim(), domain));
        let names = match names.collect::<Result<Vec<_>, String>>() {
            Ok(names) => names,
            Err(problem) => {
                return wrong(problem, "write addresses, *@DOMAIN or *, with commas between them");
            }
        };
        let before = match LocalPart::parse(user) {
            _ if user == "*" => self.for_all_users.replace(names),
            Ok(user) => self.by_user.insert(user.comparison_key(), names),
            Err(_) => {
                return wrong(
                    format!("{user:?} is not a user"),
                    "write the part of the user's address before the @, or *",
                );
            }
        };
        match before {
            None => Ok(()),
            Some(_) => wrong(format!("{user} is here already"), "put all addresses on one line"),
        }
    }

    /// The file lets `user` of its domain write as `address`.
    #[must_use]
    pub fn allows(&self, user: &LocalPart, address: &Mailbox) -> bool {
        let own = self.by_user.get(&user.comparison_key());
        [own, self.for_all_users.as_ref()].into_iter().flatten().flatten().any(|name| name.matches(address))
    }
}

impl SenderPattern {
    fn parse(raw: &str, domain: &Domain) -> Result<Self, String> {
        let wrong = |e: &dyn std::fmt::Display| format!("{raw:?} is not an address: {e}");
        if raw == "*" {
            return Ok(Self::Any);
        }
        if let Some(domain) = raw.strip_prefix("*@") {
            return Domain::parse(domain).map(Self::Domain).map_err(|e| wrong(&e));
        }
        match raw.rsplit_once('@') {
            Some(_) => Mailbox::parse(raw).map_err(|e| wrong(&e)),
            None => LocalPart::parse(raw)
                .map(|local_part| Mailbox { local_part, domain: domain.clone() })
                .map_err(|e| wrong(&e)),
        }
        .map(Self::Mailbox)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn senders(text: &str) -> Result<AllowedSenders, Vec<AuthFileError>> {
        AllowedSenders::parse(text, Path::new("senders"), &Domain::parse("here.example").unwrap())
    }

    fn allows(text: &str, user: &str, address: &str) -> bool {
        let (user, address) = (LocalPart::parse(user).unwrap(), Mailbox::parse(address).unwrap());
        senders(text).unwrap().allows(&user, &address)
    }

    #[test]
    fn users_may_write_only_as_the_addresses_in_the_file() {
        let text = "# user: addresses\nAna: info, boss@there.example, *@Club.example\n\nbackup: *\n*: news\n";
        for (user, address, is_allowed) in [
            ("ana", "info@here.example", true),
            ("ANA", "INFO@here.example", true),
            ("ana", "info@there.example", false),
            ("ana", "boss@there.example", true),
            ("ana", "anyone@club.example", true),
            ("ana", "anyone@sub.club.example", false),
            ("ana", "news@here.example", true),
            ("bo", "news@here.example", true),
            ("bo", "info@here.example", false),
            ("backup", "eve@elsewhere.example", true),
        ] {
            assert_eq!(allows(text, user, address), is_allowed, "{user} as {address}");
        }
        assert!(!allows("", "ana", "ana@here.example"), "the user's own address is not decided here");
    }

    #[test]
    fn a_line_that_cannot_be_read_is_reported_with_a_remedy() {
        for (line, says) in [
            ("ana info@here.example", "there is no colon behind a user; write `user: address, address`"),
            ("ana: a b@here.example", "\"a b@here.example\" is not an address"),
            ("ana: info,", "\"\" is not an address"),
            ("ana: *@", "\"*@\" is not an address"),
            ("a b: x", "\"a b\" is not a user"),
            ("bo: x", "bo is here already; put all addresses on one line"),
        ] {
            let errors = senders(&format!("bo: x\n{line}\n")).unwrap_err();
            let shown = errors[0].to_string();
            assert!(errors.len() == 1 && shown.starts_with("senders:2: ") && shown.contains(says), "{shown}");
        }
    }
}
