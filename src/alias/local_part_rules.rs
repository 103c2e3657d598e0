//! Rules for local parts: suffixes (subaddresses, RFC 5233), and characters that are ignored.
//!
//! With the separator `+`, `ana+lists` has the same recipients as `ana`, so that a user can give out an address
//! for each purpose. With the dropped character `.`, `a.n.a` has them too. Characters are dropped only before the
//! first separator: the suffix stays as it is.

use crate::mail::LocalPart;

/// Which characters of a local part begin a suffix, and which are ignored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalPartRules {
    /// Each of these characters begins a suffix.
    pub suffix_separators: String,
    /// Each of these characters is removed before the suffix.
    pub drop_characters: String,
}

impl Default for LocalPartRules {
    /// `+` begins a suffix; no character is dropped.
    fn default() -> Self {
        Self { suffix_separators: "+".to_owned(), drop_characters: String::new() }
    }
}

impl LocalPartRules {
    /// The key of an alias: the same for names that differ only in dropped characters. The suffix is part of it.
    #[must_use]
    pub fn key(&self, name: &LocalPart) -> String {
        let (front, suffix) = self.split_suffix(name.as_str());
        if self.drop_characters.is_empty() {
            return name.comparison_key();
        }
        parse_content(&format!("{}{suffix}", self.without_dropped_characters(front)))
            .map_or_else(|| name.comparison_key(), |name| name.comparison_key())
    }

    /// The key of a name without its suffix; `None` if the name has no suffix, or nothing before it.
    #[must_use]
    pub fn key_without_suffix(&self, name: &LocalPart) -> Option<String> {
        self.without_suffix(name).map(|name| self.key(&name))
    }

    /// The name without its suffix; `None` if the name has no suffix, or nothing before it.
    #[must_use]
    pub fn without_suffix(&self, name: &LocalPart) -> Option<LocalPart> {
        let (front, suffix) = self.split_suffix(name.as_str());
        if suffix.is_empty() { None } else { parse_content(front) }
    }

    /// The users that a name may stand for, in the order in which they are tried: the name itself, because a user
    /// name may have a separator; the name without suffix; and the name without dropped characters too.
    #[must_use]
    pub fn candidate_users(&self, name: &LocalPart) -> Vec<LocalPart> {
        let mut users = vec![name.case_mapped()];
        let (front, _) = self.split_suffix(name.as_str());
        for shorter in [parse_content(front), parse_content(&self.without_dropped_characters(front))]
            .into_iter()
            .flatten()
        {
            let shorter = shorter.case_mapped();
            if !users.contains(&shorter) {
                users.push(shorter);
            }
        }
        users
    }

    /// The name before the first separator, and the rest from the separator on.
    fn split_suffix<'a>(&self, name: &'a str) -> (&'a str, &'a str) {
        let at = name.find(|c| self.suffix_separators.contains(c)).unwrap_or(name.len());
        name.split_at_checked(at).unwrap_or((name, ""))
    }

    fn without_dropped_characters(&self, front: &str) -> String {
        front.chars().filter(|c| !self.drop_characters.contains(*c)).collect()
    }
}

/// Parses an unquoted local part; `None` if it is empty.
fn parse_content(content: &str) -> Option<LocalPart> {
    LocalPart::from_unquoted(content).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(raw: &str) -> LocalPart {
        LocalPart::parse(raw).unwrap()
    }

    fn users(rules: &LocalPartRules, raw: &str) -> Vec<String> {
        rules.candidate_users(&name(raw)).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_suffix_begins_at_the_first_separator() {
        let rules = LocalPartRules { suffix_separators: "+-".to_owned(), ..LocalPartRules::default() };
        assert_eq!(users(&rules, "Ana"), ["ana"]);
        assert_eq!(users(&rules, "ana+x-y"), ["ana+x-y", "ana"]);
        assert_eq!(users(&rules, "ana-x+y"), ["ana-x+y", "ana"]);
        assert_eq!(users(&rules, "+x"), ["+x"], "no user has an empty name");
        assert_eq!(rules.key_without_suffix(&name("ANA+Lists")).unwrap(), "ana");
        assert_eq!(rules.key_without_suffix(&name("ana")), None);
        assert_eq!(rules.key(&name("ANA+Lists")), "ana+lists");
    }

    #[test]
    fn characters_are_dropped_before_the_suffix_only() {
        let rules = LocalPartRules { drop_characters: ".".to_owned(), ..LocalPartRules::default() };
        assert_eq!(rules.key(&name("a.n.a+x.y")), "ana+x.y");
        assert_eq!(users(&rules, "A.na+x.y"), ["a.na+x.y", "a.na", "ana"]);
        assert_eq!(rules.key(&name("\"..\"")), "..", "a name of dropped characters only keeps them");
    }

    #[test]
    fn no_character_is_dropped_by_default() {
        let rules = LocalPartRules::default();
        assert_eq!(users(&rules, "a.na"), ["a.na"]);
        let none = LocalPartRules { suffix_separators: String::new(), ..rules };
        assert_eq!(users(&none, "ana+x"), ["ana+x"]);
    }
}
