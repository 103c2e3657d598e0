//! What users may add to their names: suffixes, and characters that do not count.
//!
//! With `+` as a separator, `ana+lists` reaches whoever `ana` is (subaddresses, RFC 5233), so that
//! a user may hand out an address for each purpose. With `.` as a dropped character, `a.n.a` does.
//! Both are looked for before the first separator only: what stands behind it is the user's own.

use crate::mail::LocalPart;

/// Which characters mean nothing in a name of ours, or begin what does not count.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalPartRules {
    /// Each begins a suffix.
    pub suffix_separators: String,
    /// Each is left out before the suffix.
    pub drop_characters: String,
}

impl Default for LocalPartRules {
    /// `+` separates; nothing is dropped.
    fn default() -> Self {
        Self { suffix_separators: "+".to_owned(), drop_characters: String::new() }
    }
}

impl LocalPartRules {
    /// What two names of ours have in common that are written alike but for dropped characters:
    /// the key by which aliases are kept. The suffix counts.
    #[must_use]
    pub fn key(&self, name: &LocalPart) -> String {
        let (front, suffix) = self.split_suffix(name.as_str());
        if self.drop_characters.is_empty() {
            return name.comparison_key();
        }
        parse_content(&format!("{}{suffix}", self.without_dropped_characters(front)))
            .map_or_else(|| name.comparison_key(), |name| name.comparison_key())
    }

    /// The same without the suffix; none if there is no suffix, or nothing before it.
    #[must_use]
    pub fn key_without_suffix(&self, name: &LocalPart) -> Option<String> {
        self.without_suffix(name).map(|name| self.key(&name))
    }

    /// The name without its suffix; none if there is no suffix, or nothing before it.
    #[must_use]
    pub fn without_suffix(&self, name: &LocalPart) -> Option<LocalPart> {
        let (front, suffix) = self.split_suffix(name.as_str());
        if suffix.is_empty() { None } else { parse_content(front) }
    }

    /// The users that may be meant, the likeliest first: the name itself, for whoever has a
    /// separator in it; without its suffix; and without dropped characters too.
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

    /// What is before the first separator, and the rest with it.
    fn split_suffix<'a>(&self, name: &'a str) -> (&'a str, &'a str) {
        let at = name.find(|c| self.suffix_separators.contains(c)).unwrap_or(name.len());
        name.split_at_checked(at).unwrap_or((name, ""))
    }

    fn without_dropped_characters(&self, front: &str) -> String {
        front.chars().filter(|c| !self.drop_characters.contains(*c)).collect()
    }
}

/// None if nothing is left.
fn parse_content(content: &str) -> Option<LocalPart> {
    LocalPart::from_unquoted(content).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(raw: &str) -> LocalPart {
        LocalPart::parse(raw).unwrap()
    }

    fn users(spelling: &LocalPartRules, raw: &str) -> Vec<String> {
        spelling.candidate_users(&name(raw)).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_suffix_begins_at_the_first_separator() {
        let spelling = LocalPartRules { suffix_separators: "+-".to_owned(), ..LocalPartRules::default() };
        assert_eq!(users(&spelling, "Ana"), ["ana"]);
        assert_eq!(users(&spelling, "ana+x-y"), ["ana+x-y", "ana"]);
        assert_eq!(users(&spelling, "ana-x+y"), ["ana-x+y", "ana"]);
        assert_eq!(users(&spelling, "+x"), ["+x"], "nobody is called nothing");
        assert_eq!(spelling.key_without_suffix(&name("ANA+Lists")).unwrap(), "ana");
        assert_eq!(spelling.key_without_suffix(&name("ana")), None);
        assert_eq!(spelling.key(&name("ANA+Lists")), "ana+lists");
    }

    #[test]
    fn characters_are_dropped_before_the_suffix_only() {
        let spelling = LocalPartRules { drop_characters: ".".to_owned(), ..LocalPartRules::default() };
        assert_eq!(spelling.key(&name("a.n.a+x.y")), "ana+x.y");
        assert_eq!(users(&spelling, "A.na+x.y"), ["a.na+x.y", "a.na", "ana"]);
        assert_eq!(spelling.key(&name("\"..\"")), "..", "what has no other characters keeps them");
    }

    #[test]
    fn nothing_is_dropped_unless_the_operator_says_so() {
        let spelling = LocalPartRules::default();
        assert_eq!(users(&spelling, "a.na"), ["a.na"]);
        let none = LocalPartRules { suffix_separators: String::new(), ..spelling };
        assert_eq!(users(&none, "ana+x"), ["ana+x"]);
    }
}
