//! The right side of an alias: what a name stands for.
//!
//! ```text
//! ana, bo@there.example, eve@far.example via relay.example:587 login=relay1
//! *@second.example
//! | /usr/local/bin/ticket --queue "new mail"
//! ```
//!
//! Files and the hook use the same format. Pure: parses text.

use crate::mail::{Domain, LocalPart, Mailbox, Via, split_outside_quotes};

/// One target of an alias.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum AliasTarget {
    /// Another address, local or remote.
    Address {
        /// The address.
        address: TargetAddress,
        /// The hosts to which mail for the address is sent, whatever its domain; the target is final then.
        via: Option<Via>,
    },
    /// A program and its arguments; not empty.
    Program(Vec<String>),
}

impl AliasTarget {
    /// The name of the credentials for the hosts of the target.
    #[must_use]
    pub fn credential_name(&self) -> Option<&str> {
        match self {
            Self::Address { via: Some(via), .. } => via.credentials_name.as_deref(),
            Self::Address { via: None, .. } | Self::Program(_) => None,
        }
    }
}

/// The address of a target.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum TargetAddress {
    /// A mailbox.
    Mailbox(Mailbox),
    /// `*@domain`: the local part that is being resolved, as it was written, in this domain.
    SameName(Domain),
}

/// What is wrong with a line, and how to correct it.
pub(super) type LineMistake = (String, String);

pub(super) fn line_mistake(problem: &str, remedy: &str) -> LineMistake {
    (problem.to_owned(), remedy.to_owned())
}

/// Parses the right side of an alias of `domain`: a program, or addresses. Each target is returned once.
pub(super) fn parse_targets(right: &str, domain: &Domain) -> Result<Vec<AliasTarget>, LineMistake> {
    let right = right.trim();
    if let Some(command) = right.strip_prefix('|') {
        let command = split_command_line(command)?;
        // `| ""` has no program either.
        if command.first().is_none_or(String::is_empty) {
            return Err(line_mistake(
                "there is no program behind |",
                "write `name: | /path/of/program arguments`",
            ));
        }
        return Ok(vec![AliasTarget::Program(command)]);
    }
    let mut targets = Vec::new();
    let mut seen = std::collections::HashSet::new();
    let mut rest = right;
    while !rest.is_empty() {
        let (item, more) = split_outside_quotes(rest, |c| c == ',').unwrap_or((rest, ""));
        rest = more.trim_start();
        let item = item.trim();
        if item.is_empty() {
            continue;
        }
        let target = parse_target(item, domain)?;
        if seen.insert(target.clone()) {
            targets.push(target);
        }
    }
    if targets.is_empty() {
        return Err(line_mistake("there is no target", "write `name: target, target`"));
    }
    Ok(targets)
}

/// Parses an address, alone or with hosts after `via`.
fn parse_target(item: &str, domain: &Domain) -> Result<AliasTarget, LineMistake> {
    if item.starts_with('|') {
        return Err(line_mistake(
            "a program stands among other targets",
            "give it a name and a line of its own",
        ));
    }
    let Some((raw, rest)) = split_outside_quotes(item, char::is_whitespace) else {
        return Ok(AliasTarget::Address { address: parse_address(item, domain)?, via: None });
    };
    let hosts = rest.trim_start().strip_prefix("via").filter(|rest| rest.starts_with([' ', '\t']));
    let Some(hosts) = hosts else {
        return Err(line_mistake(
            &format!("{item:?} is not an address"),
            "separate addresses with commas; write `address via host:port` to name a host",
        ));
    };
    let via = Via::parse(hosts).map_err(|e| (format!("via: {}", e.problem), e.remedy.to_owned()))?;
    Ok(AliasTarget::Address { address: parse_address(raw, domain)?, via: Some(via) })
}

/// Parses an address; one without a domain is in `domain`.
fn parse_address(item: &str, domain: &Domain) -> Result<TargetAddress, LineMistake> {
    let not_an_address = |problem: &dyn std::fmt::Display| {
        line_mistake(&format!("{item:?} is not an address: {problem}"), "separate addresses with commas")
    };
    let itself = || {
        line_mistake(
            &format!("{item} stands for itself"),
            "write *@another.example; a user whom an alias hides is meant by its name",
        )
    };
    if item == "*" {
        return Err(itself());
    }
    if let Some(raw) = item.strip_prefix("*@") {
        let other = Domain::parse(raw).map_err(|e| not_an_address(&e))?;
        return if other == *domain { Err(itself()) } else { Ok(TargetAddress::SameName(other)) };
    }
    let found = match split_outside_quotes(item, |c| c == '@') {
        Some(_) => Mailbox::parse(item),
        None => LocalPart::parse(item).map(|local_part| Mailbox { local_part, domain: domain.clone() }),
    };
    found.map(TargetAddress::Mailbox).map_err(|e| not_an_address(&e))
}

/// Splits a command line into words. Double quotes protect spaces; in them `\"` and `\\` stand for a quote and a
/// backslash. No other character is special.
fn split_command_line(text: &str) -> Result<Vec<String>, LineMistake> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut is_quoted = false;
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '"' => {
                is_quoted = !is_quoted;
                word.get_or_insert_default();
            }
            '\\' if is_quoted => {
                let next = chars.next_if(|next| matches!(next, '"' | '\\'));
                word.get_or_insert_default().push(next.unwrap_or('\\'));
            }
            c if c.is_whitespace() && !is_quoted => words.extend(word.take()),
            c => word.get_or_insert_default().push(c),
        }
    }
    if is_quoted {
        return Err(line_mistake("a double quote is not closed", "close it"));
    }
    words.extend(word);
    Ok(words)
}

/// The target as it is written in a file.
impl std::fmt::Display for AliasTarget {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Address { address: TargetAddress::Mailbox(mailbox), .. } => write!(f, "{mailbox}")?,
            Self::Address { address: TargetAddress::SameName(domain), .. } => write!(f, "*@{domain}")?,
            Self::Program(words) => return write!(f, "| {}", words.join(" ")),
        }
        match self {
            Self::Address { via: Some(via), .. } => write!(f, " via {via}"),
            Self::Address { via: None, .. } | Self::Program(_) => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(right: &str) -> Result<Vec<String>, LineMistake> {
        let shown = |target: AliasTarget| match target {
            AliasTarget::Program(words) => format!("{words:?}"),
            address @ AliasTarget::Address { .. } => address.to_string(),
        };
        let here = Domain::parse("here.example").unwrap();
        Ok(parse_targets(right, &here)?.into_iter().map(shown).collect())
    }

    #[test]
    fn a_right_side_is_parsed_into_addresses() {
        assert_eq!(read("ana, bo@there.example").unwrap(), ["ana@here.example", "bo@there.example"]);
        assert_eq!(
            read("ana,, ana@HERE.example ,").unwrap(),
            ["ana@here.example"],
            "empty targets and duplicates are skipped"
        );
        assert_eq!(read("\"a, b\"@there.example").unwrap(), ["\"a, b\"@there.example"]);
        assert_eq!(read("\"a@b\"").unwrap(), ["\"a@b\"@here.example"]);
        assert_eq!(read("*@there.example").unwrap(), ["*@there.example"]);
    }

    #[test]
    fn a_command_line_is_split_into_words() {
        assert_eq!(read("| /bin/x a  b").unwrap(), ["[\"/bin/x\", \"a\", \"b\"]"]);
        assert_eq!(
            read("|/bin/x \"a b\" \"\" c\"d e\"f 'g h'").unwrap(),
            ["[\"/bin/x\", \"a b\", \"\", \"cd ef\", \"'g\", \"h'\"]"]
        );
        assert_eq!(
            read("| /bin/x \"\\\"\\\\\\n\" \\").unwrap(),
            ["[\"/bin/x\", \"\\\"\\\\\\\\n\", \"\\\\\"]"]
        );
    }

    #[test]
    fn hosts_are_parsed_after_via() {
        let right = "bo@there.example via relay.example:587 backup.example login=relay1, \
                     *@inner.example\tvia 192.0.2.1, \"a b\" via relay.example";
        assert_eq!(
            read(right).unwrap(),
            [
                "bo@there.example via relay.example:587 backup.example tls=verified login=relay1",
                "*@inner.example via 192.0.2.1",
                "\"a b\"@here.example via relay.example",
            ]
        );
    }

    #[test]
    fn a_right_side_that_cannot_be_parsed_is_reported_with_a_reason() {
        for (right, says) in [
            ("", "no target"),
            (" ,", "no target"),
            ("bo eve", "not an address"),
            ("bo@", "not an address"),
            ("bo, | /bin/x", "among other targets"),
            ("|", "no program"),
            ("| \"\"", "no program"),
            ("| /bin/x \"", "not closed"),
            ("*", "stands for itself"),
            ("*@HERE.example", "stands for itself"),
            ("*@", "not an address"),
            ("bo via", "not an address"),
            ("bo viaduct x", "not an address"),
            ("via relay.example", "not an address"),
            ("bo@there.example via tls=verified", "via: there is no host"),
            ("bo@there.example via relay.example/b.example", "is not a host"),
        ] {
            let (problem, remedy) = read(right).unwrap_err();
            assert!(problem.contains(says) && !remedy.is_empty(), "{right}: {problem} should say {says}");
        }
    }
}
