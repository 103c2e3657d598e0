//! The file `domains/DOMAIN/aliases`, and the files that it includes.
//!
//! ```text
//! # name: targets
//! postmaster: ana, bo@there.example
//! tickets: | /usr/local/bin/ticket --queue "new mail"
//! archive: box@far.example via relay.example:587 login=relay1
//! include teams.aliases
//! *: ana
//! ```
//!
//! A target without a domain is in the domain of the file; `target` parses the right side. `*` on the left is the
//! catch-all: it stands for all names that are neither an alias nor a user. `include` reads another file of the
//! same format here; its name is relative to the directory of the domain. `#` begins a comment line.
//!
//! Pure: parses text. The caller reads the included files.

use std::collections::HashMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::local_part_rules::LocalPartRules;
use super::target::{AliasTarget, LineMistake, line_mistake, parse_targets};
use crate::mail::{Domain, LocalPart, split_outside_quotes};

/// The aliases of one domain, from one version of its files.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DomainAliases {
    by_key: HashMap<String, Alias>,
    catch_all: Option<Alias>,
}

/// The alias of one line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Alias {
    /// What the alias stands for; not empty.
    pub targets: Vec<AliasTarget>,
    /// The line of the alias.
    pub location: AliasLocation,
}

/// A line of an aliases file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AliasLocation {
    /// The file.
    pub file: Arc<Path>,
    /// The number of the line, from 1.
    pub line: usize,
}

impl fmt::Display for AliasLocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file.display(), self.line)
    }
}

/// A line of an aliases file that cannot be read; the operator corrects it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{location}: {problem}; {remedy}")]
pub struct AliasFileError {
    /// The line.
    pub location: AliasLocation,
    /// What is wrong with it.
    pub problem: String,
    /// How to correct it.
    pub remedy: String,
}

/// The domain of an aliases file, and how names in it are compared.
#[derive(Debug, Clone, Copy)]
pub struct AliasFileContext<'a> {
    /// The domain of the file.
    pub domain: &'a Domain,
    /// Suffixes and dropped characters.
    pub local_part_rules: &'a LocalPartRules,
}

/// Most levels of files that include others.
const INCLUDE_LEVELS_MAX: usize = 5;

/// Most files that one domain may include.
const INCLUDES_MAX: usize = 100;

/// Most lines that are reported: a file with more of them is probably not an aliases file.
const ERRORS_MAX: usize = 50;

impl DomainAliases {
    /// Most octets that are read for one domain, including all included files.
    pub const OCTETS_MAX: u64 = 8 * 1024 * 1024;

    /// Parses the text of `file`. `read_included_file` returns the text of an included file, or why it cannot be
    /// read; it is called at most a hundred times.
    ///
    /// # Errors
    /// The lines that cannot be read, about fifty at most; the operator is at fault.
    pub fn parse(
        text: &str,
        file: &Path,
        context: AliasFileContext<'_>,
        read_included_file: &mut dyn FnMut(&Path) -> Result<String, String>,
    ) -> Result<Self, Vec<AliasFileError>> {
        let mut parser = AliasFileParser {
            aliases: Self::default(),
            context,
            dir: file.parent().unwrap_or(Path::new("")),
            read_included_file,
            include_stack: Vec::new(),
            included_files: 0,
            octets_left: Self::OCTETS_MAX,
            errors: Vec::new(),
        };
        parser.parse_text(text, file);
        if parser.errors.is_empty() { Ok(parser.aliases) } else { Err(parser.errors) }
    }

    /// The alias of a name, by its [`LocalPartRules::key`].
    #[must_use]
    pub fn alias(&self, key: &str) -> Option<&Alias> {
        self.by_key.get(key)
    }

    /// The alias for all names that are neither an alias nor a user.
    #[must_use]
    pub fn catch_all(&self) -> Option<&Alias> {
        self.catch_all.as_ref()
    }

    /// All aliases with their keys, sorted; the key of the catch-all is `*`.
    #[must_use]
    pub fn list(&self) -> Vec<(&str, &Alias)> {
        let mut list: Vec<_> = self.by_key.iter().map(|(key, alias)| (key.as_str(), alias)).collect();
        list.sort_by_key(|(key, _)| *key);
        list.extend(self.catch_all.as_ref().map(|alias| ("*", alias)));
        list
    }

    /// How many aliases there are, including the catch-all.
    #[must_use]
    pub fn count(&self) -> usize {
        self.by_key.len() + usize::from(self.catch_all.is_some())
    }
}

/// Parses an aliases file and the files that it includes.
struct AliasFileParser<'a> {
    aliases: DomainAliases,
    context: AliasFileContext<'a>,
    /// The names of included files are relative to this directory.
    dir: &'a Path,
    read_included_file: &'a mut dyn FnMut(&Path) -> Result<String, String>,
    /// The files that include each other, from the first one to the current one.
    include_stack: Vec<PathBuf>,
    included_files: usize,
    octets_left: u64,
    errors: Vec<AliasFileError>,
}

impl AliasFileParser<'_> {
    fn parse_text(&mut self, text: &str, file: &Path) {
        self.octets_left = self.octets_left.saturating_sub(text.len() as u64);
        self.include_stack.push(file.to_owned());
        let file: Arc<Path> = file.into();
        for (index, line) in text.lines().enumerate() {
            if self.errors.len() >= ERRORS_MAX {
                break;
            }
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let location = AliasLocation { file: Arc::clone(&file), line: index + 1 };
            let read = match line.strip_prefix("include").filter(|rest| rest.starts_with([' ', '\t'])) {
                Some(name) => self.include(name.trim()),
                None => self.parse_line(line, &location),
            };
            if let Err((problem, remedy)) = read {
                self.errors.push(AliasFileError { location, problem, remedy });
            }
        }
        self.include_stack.pop();
    }

    fn parse_line(&mut self, line: &str, location: &AliasLocation) -> Result<(), LineMistake> {
        let (name, right) = split_outside_quotes(line, |c| c == ':').ok_or_else(|| {
            line_mistake("there is no colon behind a name", "write `name: target, target` or `include FILE`")
        })?;
        let name = name.trim_end();
        let alias = |domain| {
            parse_targets(right, domain).map(|targets| Alias { targets, location: location.clone() })
        };
        let before = if name == "*" {
            self.aliases.catch_all.replace(alias(self.context.domain)?)
        } else {
            let name = LocalPart::parse(name).map_err(|_| {
                line_mistake(
                    &format!("{name:?} is not a name"),
                    "write the part of the address before the @, in double quotes if it has spaces, or *",
                )
            })?;
            self.aliases.by_key.insert(self.context.local_part_rules.key(&name), alias(self.context.domain)?)
        };
        match before {
            None => Ok(()),
            Some(Alias { location, .. }) => Err(line_mistake(
                &format!("{name} is in {location} already"),
                "put all its targets on one line, and remove the other",
            )),
        }
    }

    fn include(&mut self, name: &str) -> Result<(), LineMistake> {
        let path = self.dir.join(name);
        let limit = |what: String| line_mistake(&what, "put some of them into one file");
        if self.include_stack.contains(&path) {
            self.include_stack.push(path);
            let way: Vec<_> = self.include_stack.iter().map(|file| file.display().to_string()).collect();
            self.include_stack.pop();
            let problem = format!("files include one another in circles: {}", way.join(" -> "));
            return Err(line_mistake(&problem, "remove one of the lines"));
        }
        if self.include_stack.len() > INCLUDE_LEVELS_MAX {
            return Err(limit(format!(
                "files include one another over more than {INCLUDE_LEVELS_MAX} levels"
            )));
        }
        self.included_files += 1;
        if self.included_files > INCLUDES_MAX {
            return Err(limit(format!("more than {INCLUDES_MAX} files are included")));
        }
        let text = (self.read_included_file)(&path).map_err(|why| {
            let problem = format!("{} cannot be included: {why}", path.display());
            line_mistake(
                &problem,
                "the file's name counts from the domain's folder; the server must be able to read it",
            )
        })?;
        if text.len() as u64 > self.octets_left {
            return Err(limit(format!(
                "the files together have more than {} octets",
                DomainAliases::OCTETS_MAX
            )));
        }
        self.parse_text(&text, &path);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "domains/here.example/aliases";

    fn parse_with(
        text: &str,
        included: &mut dyn FnMut(&Path) -> Result<String, String>,
    ) -> Result<DomainAliases, Vec<String>> {
        let here = Domain::parse("here.example").unwrap();
        let context = AliasFileContext { domain: &here, local_part_rules: &LocalPartRules::default() };
        DomainAliases::parse(text, Path::new(FILE), context, included)
            .map_err(|errors| errors.iter().map(ToString::to_string).collect())
    }

    fn parse(text: &str) -> Result<DomainAliases, Vec<String>> {
        parse_with(text, &mut |_| Err("there is none".to_owned()))
    }

    #[test]
    fn comments_empty_lines_and_the_catch_all_are_parsed() {
        let aliases = parse("# list\n\n*: ana\nX: y\r\n\"a: b\": y").unwrap();
        let shown: Vec<_> = aliases
            .list()
            .into_iter()
            .map(|(key, alias)| format!("{key} {} {}", alias.targets[0], alias.location.line))
            .collect();
        assert_eq!(shown, ["a: b y@here.example 5", "x y@here.example 4", "* ana@here.example 3"]);
        assert_eq!(aliases.count(), 3);
    }

    #[test]
    fn a_line_that_cannot_be_read_is_reported_with_a_remedy() {
        for (line, says) in [
            ("ana", "no colon"),
            (": bo", "not a name"),
            ("ana@here.example: bo", "not a name"),
            ("ana:", "no target"),
            ("ana: bo eve", "not an address"),
            ("FIRST: bo", "FIRST is in domains/here.example/aliases:1 already"),
            ("*: bo\n*: eve", "* is in domains/here.example/aliases:2 already"),
            ("include teams", "domains/here.example/teams cannot be included: there is none"),
            ("include", "no colon"),
        ] {
            let errors = parse(&format!("first: bo\n{line}\n")).unwrap_err();
            assert_eq!(errors.len(), 1, "{errors:?}");
            assert!(errors[0].contains(says), "{} should say {says}", errors[0]);
            let number = if line.contains('\n') { 3 } else { 2 };
            assert!(errors[0].starts_with(&format!("{FILE}:{number}: ")), "{}", errors[0]);
        }
        assert_eq!(parse(&"x\n".repeat(1000)).unwrap_err().len(), ERRORS_MAX);
    }

    #[test]
    fn an_included_file_is_read_at_its_line_and_its_aliases_have_their_own_locations() {
        let mut asked = Vec::new();
        let aliases = parse_with("include lists/a\ninclude: ana\nx: y\n", &mut |path| {
            asked.push(path.display().to_string());
            Ok(if path.ends_with("lists/a") { "\nteam: bo\ninclude /b\n" } else { "far: eve" }.to_owned())
        })
        .unwrap();
        assert_eq!(asked, ["domains/here.example/lists/a", "/b"]);
        let location = |key| aliases.alias(key).unwrap().location.to_string();
        assert_eq!(location("team"), "domains/here.example/lists/a:2");
        assert_eq!(location("far"), "/b:1");
        assert_eq!(
            location("include"),
            "domains/here.example/aliases:2",
            "`include` with a colon is an alias"
        );
    }

    #[test]
    fn an_error_in_an_included_file_is_reported_with_its_location() {
        let errors = parse_with("x: y\ninclude a", &mut |_| Ok("x: z\nnonsense".to_owned())).unwrap_err();
        assert_eq!(errors.len(), 2);
        assert!(errors[0].starts_with("domains/here.example/a:1: x is in domains/here.example/aliases:1"));
        assert!(errors[1].starts_with("domains/here.example/a:2: there is no colon"));
    }

    #[test]
    fn included_files_are_limited_in_depth_number_and_size() {
        let errors = parse_with("include a", &mut |path| {
            Ok(if path.ends_with("a") { "include b" } else { "include a" }.to_owned())
        })
        .unwrap_err();
        assert!(
            errors[0].starts_with(
                "domains/here.example/b:1: files include one another in circles: domains/here.example/aliases \
                 -> domains/here.example/a -> domains/here.example/b -> domains/here.example/a; "
            ),
            "{errors:?}"
        );
        let mut next = 0;
        let errors = parse_with("include 0", &mut |_| {
            next += 1;
            Ok(format!("include {next}"))
        })
        .unwrap_err();
        assert!(errors.len() == 1 && errors[0].contains("more than 5 levels"), "{errors:?}");
        let wide: String = (0..200).map(|n| format!("include {n}\n")).collect();
        let mut asked = 0;
        let errors = parse_with(&wide, &mut |_| {
            asked += 1;
            Ok(String::new())
        })
        .unwrap_err();
        assert!(asked == 100 && errors[0].contains("more than 100 files"), "{asked}");
        let big = "#".repeat(3 << 20);
        let errors = parse_with("include 1\ninclude 2\ninclude 3", &mut |_| Ok(big.clone())).unwrap_err();
        assert!(errors.len() == 1 && errors[0].contains("aliases:3: the files together"), "{errors:?}");
    }
}
