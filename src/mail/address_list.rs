//! Parses the addresses in a From, Sender or other address field (RFC 5322 §3.4, RFC 6532 §3.2).
//!
//! The result decides whether a user may write under a name, so that a value which two readers could
//! understand in two ways is refused. Comments, folding, quoted strings, groups and address literals are
//! accepted; source routes, white space inside an address, and an unquoted `@` in a display name are not.
//! Display names, encoded words among them, are skipped.

use super::mailbox::{Mailbox, MailboxError};

/// Most mailboxes in one field.
const MAILBOXES_MAX: usize = 100;
/// Most levels of nested comments.
const COMMENT_LEVELS_MAX: usize = 10;

/// Why a value is refused; its writer is at fault.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddressListError {
    /// Another character set than UTF-8.
    #[error("it is not UTF-8")]
    NotUtf8,
    /// Not a list of addresses.
    #[error("it is not a list of addresses such as `Ana <ana@here.example>`")]
    Malformed,
    /// A quoted string, a comment or a group has no end.
    #[error("a quotation mark, a parenthesis or a group is not closed")]
    NotClosed,
    /// One of the addresses is malformed.
    #[error(transparent)]
    Mailbox(#[from] MailboxError),
    /// More than 100.
    #[error("it names more than {MAILBOXES_MAX} addresses")]
    TooMany,
}

/// The mailboxes in the value of an address field, folded or not, in order; those of groups included. The
/// list may be empty (RFC 6854).
///
/// # Errors
/// See [`AddressListError`]. One malformed address fails them all.
pub fn parse_address_list(raw_value: &[u8]) -> Result<Vec<Mailbox>, AddressListError> {
    let rest = std::str::from_utf8(raw_value).map_err(|_| AddressListError::NotUtf8)?;
    let mut reader = AddressListParser { rest, mailboxes: Vec::new() };
    reader.parse_list(None)?;
    Ok(reader.mailboxes)
}

struct AddressListParser<'a> {
    rest: &'a str,
    mailboxes: Vec<Mailbox>,
}

/// The words before an `@`, a `<` or a `:`.
enum WordSequence<'a> {
    None,
    /// An atom with dots, or a quoted string with its quotes.
    One(&'a str),
    Several,
}

impl<'a> AddressListParser<'a> {
    /// Addresses with commas between them, up to the end; in a group up to its semicolon.
    fn parse_list(&mut self, group_end: Option<char>) -> Result<(), AddressListError> {
        loop {
            self.skip_cfws()?;
            match self.rest.chars().next() {
                None if group_end.is_some() => return Err(AddressListError::NotClosed),
                None => return Ok(()),
                // RFC 5322 §4.4: obsolete lists have empty elements.
                Some(',') => self.skip_char(','),
                Some(c) if Some(c) == group_end => {
                    self.skip_char(c);
                    return Ok(());
                }
                Some(_) => {
                    self.parse_address(group_end.is_some())?;
                    self.skip_cfws()?;
                    match self.rest.chars().next() {
                        None | Some(',') => {}
                        Some(c) if Some(c) == group_end => {}
                        Some(_) => return Err(AddressListError::Malformed),
                    }
                }
            }
        }
    }

    fn parse_address(&mut self, is_in_group: bool) -> Result<(), AddressListError> {
        let words = self.parse_words()?;
        match (self.rest.chars().next(), words) {
            (Some('<'), _) => {
                self.skip_char('<');
                self.skip_cfws()?;
                let WordSequence::One(local_part) = self.parse_words()? else {
                    return Err(AddressListError::Malformed);
                };
                self.parse_domain_and_mailbox(local_part)?;
                self.skip_cfws()?;
                if !self.rest.starts_with('>') {
                    return Err(AddressListError::Malformed);
                }
                self.skip_char('>');
                Ok(())
            }
            (Some('@'), WordSequence::One(local_part)) => self.parse_domain_and_mailbox(local_part),
            (Some(':'), WordSequence::One(_) | WordSequence::Several) if !is_in_group => {
                self.skip_char(':');
                self.parse_list(Some(';'))
            }
            (None | Some(',' | ';'), WordSequence::One(_)) => Err(MailboxError::NoDomain.into()),
            _ => Err(AddressListError::Malformed),
        }
    }

    /// Words, with the comments and white space around them.
    fn parse_words(&mut self) -> Result<WordSequence<'a>, AddressListError> {
        let mut words = WordSequence::None;
        loop {
            self.skip_cfws()?;
            let word = match self.rest.chars().next() {
                Some('"') => self.take_quoted_string()?,
                Some(c) if is_atom_char(c) => self.take_while(is_atom_char),
                _ => return Ok(words),
            };
            words = match words {
                WordSequence::None => WordSequence::One(word),
                WordSequence::One(_) | WordSequence::Several => WordSequence::Several,
            };
        }
    }

    /// The domain after an `@`, which completes a mailbox.
    fn parse_domain_and_mailbox(&mut self, local_part: &str) -> Result<(), AddressListError> {
        if !self.rest.starts_with('@') {
            return Err(MailboxError::NoDomain.into());
        }
        self.skip_char('@');
        self.skip_cfws()?;
        let domain = if self.rest.starts_with('[') {
            let end = self.rest.find(']').ok_or(AddressListError::NotClosed)?;
            self.take_octets(end + 1)
        } else {
            self.take_while(is_atom_char)
        };
        if self.mailboxes.len() == MAILBOXES_MAX {
            return Err(AddressListError::TooMany);
        }
        // Folding inside quotes is not content (RFC 5322 §3.2.4).
        let local_part = local_part.replace(['\r', '\n'], "");
        self.mailboxes.push(Mailbox::parse(&format!("{local_part}@{domain}"))?);
        Ok(())
    }

    /// A quoted string, with its quotes.
    fn take_quoted_string(&mut self) -> Result<&'a str, AddressListError> {
        let mut is_escaped = true;
        for (at, c) in self.rest.char_indices() {
            match c {
                _ if is_escaped => is_escaped = false,
                '\\' => is_escaped = true,
                '"' => return Ok(self.take_octets(at + 1)),
                _ => {}
            }
        }
        Err(AddressListError::NotClosed)
    }

    /// White space and comments.
    fn skip_cfws(&mut self) -> Result<(), AddressListError> {
        loop {
            self.rest = self.rest.trim_start_matches([' ', '\t', '\r', '\n']);
            if !self.rest.starts_with('(') {
                return Ok(());
            }
            self.skip_comment()?;
        }
    }

    fn skip_comment(&mut self) -> Result<(), AddressListError> {
        let mut levels = 0;
        let mut is_escaped = false;
        for (at, c) in self.rest.char_indices() {
            match c {
                _ if is_escaped => is_escaped = false,
                '\\' => is_escaped = true,
                '(' if levels == COMMENT_LEVELS_MAX => return Err(AddressListError::Malformed),
                '(' => levels += 1,
                ')' if levels == 1 => {
                    self.take_octets(at + 1);
                    return Ok(());
                }
                ')' => levels -= 1,
                _ => {}
            }
        }
        Err(AddressListError::NotClosed)
    }

    fn skip_char(&mut self, c: char) {
        self.rest = self.rest.strip_prefix(c).unwrap_or(self.rest);
    }

    fn take_while(&mut self, is_in: impl Fn(char) -> bool) -> &'a str {
        let end = self.rest.find(|c| !is_in(c)).unwrap_or(self.rest.len());
        self.take_octets(end)
    }

    fn take_octets(&mut self, octets: usize) -> &'a str {
        let (taken, rest) = self.rest.split_at_checked(octets).unwrap_or((self.rest, ""));
        self.rest = rest;
        taken
    }
}

/// RFC 5322 §3.2.3 `atext` and the dot, and all characters beyond ASCII that are not controls.
fn is_atom_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || "!#$%&'*+-/=?^_`{|}~.".contains(c) || (!c.is_ascii() && !c.is_control())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mailboxes_as_text(raw: &str) -> Result<String, AddressListError> {
        let found = parse_address_list(raw.as_bytes())?;
        Ok(found.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "))
    }

    #[test]
    fn addresses_are_found_between_names_comments_and_groups() {
        for (raw, found) in [
            (" ana@here.example\r\n", "ana@here.example"),
            ("Ana <ana@here.example>", "ana@here.example"),
            ("<ana@here.example>", "ana@here.example"),
            ("\"Ana, of (here) <x@y.example>\" <ana@here.example>", "ana@here.example"),
            ("ana@here.example (Ana (of \\) here), x@y.example)", "ana@here.example"),
            ("(x@y.example) Ana\r\n\t(is) Example <ana@here.example> (hm)", "ana@here.example"),
            ("=?utf-8?q?A=40na?= <ana@here.example>", "ana@here.example"),
            ("Ana J. Example <ana@here.example>", "ana@here.example"),
            ("Ána <ána@bücher.example>", "ána@bücher.example"),
            ("a@x.example, Bo <b@y.example>,, c@[192.0.2.1]", "a@x.example b@y.example c@[192.0.2.1]"),
            ("\"a b\"@x.example, \"a\r\n c\"@x.example", "\"a b\"@x.example \"a c\"@x.example"),
            (
                "Us: ana@here.example, Bo <bo@here.example>; , x@y.example",
                "ana@here.example bo@here.example x@y.example",
            ),
            ("nobody:;", ""),
            ("", ""),
            (" \r\n", ""),
            ("Ana < ana@here.example >", "ana@here.example"),
        ] {
            assert_eq!(mailboxes_as_text(raw).as_deref(), Ok(found), "{raw:?}");
        }
    }

    #[test]
    fn an_ambiguous_value_is_refused() {
        for raw in [
            "ana@here.example <eve@there.example>",
            "eve@there.example ana@here.example",
            "Ana <ana@here.example> eve@there.example",
            "<ana@here.example><eve@there.example>",
            "<ana@here.example>, <",
            "<@there.example:ana@here.example>",
            "<<ana@here.example>>",
            "ana @ here . example",
            "ana.\"x\"@here.example",
            "a na@here.example",
            "ana@here.example@there.example",
            "ana",
            "<ana>",
            "<>",
            "ana@",
            "@here.example",
            "a;b@here.example",
            "Us: Them: ana@here.example;;",
            "Us: ana@here.example",
            ": ana@here.example;",
            "\"Ana <ana@here.example>",
            "(Ana ana@here.example",
            "Ana) <ana@here.example>",
            "ana@here.example\0",
            "ana\u{b}@here.example",
            "ana@[192.0.2.1",
            "ana@[here.example]",
            &"(".repeat(1000),
            &"a@b.example,".repeat(101),
        ] {
            assert!(mailboxes_as_text(raw).is_err(), "{raw:?}: {:?}", mailboxes_as_text(raw));
        }
        assert_eq!(parse_address_list(b"Andr\xe9 <a@b.example>"), Err(AddressListError::NotUtf8));
    }
}
