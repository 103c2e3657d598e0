//! The file `credentials.toml`: logins at other servers.
//!
//! Passwords have a file of their own, so that `postrider.toml` contains no secret. Each section is one login.
//! Alias files and `postrider.toml` refer to a login by the name of its section.

use std::collections::BTreeMap;
use std::path::Path;

use super::checks::mistake;
use super::toml_table::{ConfigError, Diagnostics, Table, Value, ValueMistake};

/// One login: a section of the file.
#[derive(Clone, PartialEq, Eq)]
pub struct Credential {
    /// The user at the other server.
    pub user: String,
    /// The password. The type has no `Debug`, which could print it.
    pub password: String,
}

/// Parses the text of `file`. Returns the credentials by the names of their sections.
///
/// # Errors
/// Every mistake in the file; the operator is at fault. No error contains a value.
pub fn parse_credentials(text: &str, file: &Path) -> Result<BTreeMap<String, Credential>, Vec<ConfigError>> {
    let mut findings = Diagnostics::new(text, file);
    let mut top = findings.parse();
    let found = &mut findings;
    let mut credentials = BTreeMap::new();
    for name in top.remaining_keys() {
        let table = top.section(&name, found);
        if let Some(credential) = read_credential(table, &name, found) {
            credentials.insert(name, credential);
        }
    }
    if findings.errors.is_empty() { Ok(credentials) } else { Err(findings.errors) }
}

fn read_credential(mut table: Table<'_>, name: &str, found: &mut Diagnostics<'_>) -> Option<Credential> {
    let span = table.span();
    let mut key = |key: &str, found: &mut Diagnostics<'_>| {
        let is_there = table.has_key(key);
        let value = table.optional(found, key, parse_secret);
        if !is_there {
            let remedy = format!("write {key} = \"…\" below [{name}]");
            found.add_error(span.clone(), &format!("{name}.{key}"), mistake("is not set", remedy));
        }
        value
    };
    let (user, password) = (key("user", found), key("password", found));
    table.add_unknown_key_errors(found, &["user", "password"]);
    Some(Credential { user: user?, password: password? })
}

/// Parses a text that AUTH PLAIN can send (RFC 4616 §2).
fn parse_secret(value: &Value<'_>) -> Result<String, ValueMistake> {
    const REMEDY: &str = "write it in quotes";
    let raw = value.text(REMEDY)?;
    if raw.is_empty() || raw.chars().any(char::is_control) {
        return Err(mistake("is empty or has a control character", REMEDY));
    }
    Ok(raw.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Vec<String>, Vec<String>> {
        let shown = |(name, one): (String, Credential)| format!("{name} {} {}", one.user, one.password);
        parse_credentials(text, Path::new("credentials.toml"))
            .map(|found| found.into_iter().map(shown).collect())
            .map_err(|errors| errors.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn each_section_is_a_login() {
        let text = "[relay1]\nuser = \"ana@here.example\"\npassword = \"secret # word\"\n\n[\"b.c\"]\nuser = \"x\"\npassword = \"y\"\n";
        assert_eq!(read(text).unwrap(), ["b.c x y", "relay1 ana@here.example secret # word"]);
        assert_eq!(read("").unwrap(), [""; 0]);
    }

    #[test]
    fn a_mistake_is_named_and_no_password_is_repeated() {
        for (text, says) in [
            ("[relay1]\nuser = \"secret\"", "credentials.toml:1: relay1.password: is not set"),
            ("relay1 = \"secret\"", "relay1: is a text, not a section; write [relay1]"),
            ("[relay1]\nuser = \"x\"\npasword = \"secret\"", "did you mean password?"),
            ("[relay1]\nuser = \"x\"\npassword = [\"secret\"]", "relay1.password: is a list"),
            ("[relay1]\nuser = \"x\"\npassword = \"\"", "relay1.password: is empty"),
            ("[relay1]\nuser = \"x\"\npassword = \"secret", "not TOML"),
        ] {
            let errors = read(text).unwrap_err().join("\n");
            assert!(errors.contains(says), "{errors} should say {says}");
            assert!(!errors.contains("secret"), "{errors}");
        }
    }
}
