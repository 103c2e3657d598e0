//! From an address to its final recipients.
//!
//! A name is first looked for among the aliases of its domain, then among its users, then the
//! catch-all has it. Targets elsewhere are final; targets here are resolved in turn. An alias
//! that names itself means the user of that name (`ana: ana, bo`). Users come out in one spelling,
//! however they were written.

use std::collections::HashMap;
use std::sync::Arc;

use super::file::{Aliases, Target};
use crate::mail::{Destination, Domain, Mailbox, Recipient};

/// Aliases that may lead to one another before we give up.
const LEVELS_MAX: usize = 10;

/// Recipients that one address may stand for. A message is written down with all of them.
const RECIPIENTS_MAX: usize = 1000;

/// What resolving must ask about users and domains.
pub trait Directory {
    /// The domain is one of ours.
    fn is_local(&self, domain: &Domain) -> bool;
    /// The mailbox belongs to a user of ours.
    ///
    /// # Errors
    /// Whoever knows the users does not answer now; says why, for the operator.
    fn exists(&self, mailbox: &Mailbox) -> Result<bool, CannotTell>;
}

/// Why a question has no answer now: a sentence for the operator.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct CannotTell(pub String);

/// The aliases of every domain: a snapshot.
#[derive(Debug, Clone, Default)]
pub struct Book {
    domains: HashMap<Domain, Arc<Aliases>>,
}

/// Why an address has no recipients.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AliasError {
    /// Neither an alias nor a user, and no catch-all: the sender's mistake.
    #[error("{0} does not exist")]
    Unknown(Mailbox),
    /// The operator's mistake: mail that was lost here would be missed.
    #[error("alias {alias} leads to {target}, which does not exist")]
    Dangling {
        /// The alias.
        alias: Mailbox,
        /// One of its targets.
        target: Mailbox,
    },
    /// The operator's mistake.
    #[error("aliases go round in circles: {}", chain(.0))]
    Loop(Vec<Mailbox>),
    /// The operator's mistake.
    #[error("aliases lead on over more than {LEVELS_MAX} steps: {}", chain(.0))]
    TooDeep(Vec<Mailbox>),
    /// The operator's mistake.
    #[error("alias {0} stands for more than {RECIPIENTS_MAX} recipients")]
    TooMany(Mailbox),
    /// Nobody's mistake: it may be known later.
    #[error("whether {0} exists cannot be told now: {1}")]
    CannotTell(Mailbox, CannotTell),
}

impl AliasError {
    /// The sender named somebody who is not here; anything else is for the operator to mend, and
    /// the sender may try again.
    #[must_use]
    pub fn is_unknown(&self) -> bool {
        matches!(self, Self::Unknown(_))
    }
}

fn chain(path: &[Mailbox]) -> String {
    path.iter().map(ToString::to_string).collect::<Vec<_>>().join(" -> ")
}

impl Book {
    /// The aliases of each domain.
    #[must_use]
    pub fn new(domains: HashMap<Domain, Arc<Aliases>>) -> Self {
        Self { domains }
    }

    /// The final recipients behind a mailbox of ours, each once, in the order of the files. Their
    /// `original` is `mailbox`.
    ///
    /// # Errors
    /// See [`AliasError`]. One bad branch fails the whole: a list that silently leaves out one of
    /// its members loses mail.
    pub fn resolve(
        &self,
        mailbox: &Mailbox,
        directory: &dyn Directory,
    ) -> Result<Vec<Recipient>, AliasError> {
        let mut walk = Walk {
            book: self,
            directory,
            asked: mailbox,
            path: Vec::new(),
            done: Vec::new(),
            found: Vec::new(),
        };
        walk.visit(mailbox)?;
        Ok(walk.found)
    }
}

struct Walk<'a> {
    book: &'a Book,
    directory: &'a dyn Directory,
    /// What the sender named.
    asked: &'a Mailbox,
    /// From there to the alias that is being looked at.
    path: Vec<Mailbox>,
    /// Aliases that have been looked at, by domain and key: each counts once.
    done: Vec<(Domain, String)>,
    found: Vec<Recipient>,
}

impl Walk<'_> {
    fn visit(&mut self, mailbox: &Mailbox) -> Result<(), AliasError> {
        if !self.directory.is_local(&mailbox.domain) {
            return self.deliver(Destination::Mailbox(mailbox.clone()));
        }
        // One spelling for each user: `ANA` and `ana` have one Maildir.
        let user = Mailbox { local_part: mailbox.local_part.folded(), domain: mailbox.domain.clone() };
        if let Some(parent) = self.path.last()
            && is_same(parent, mailbox)
            && self.exists(mailbox)?
        {
            return self.deliver(Destination::Mailbox(user));
        }
        let aliases = self.book.domains.get(&mailbox.domain);
        if let Some(targets) = aliases.and_then(|aliases| aliases.targets(&mailbox.local_part)) {
            return self.follow(mailbox, targets);
        }
        if self.exists(mailbox)? {
            return self.deliver(Destination::Mailbox(user));
        }
        if let Some(targets) = aliases.and_then(|aliases| aliases.catch_all()) {
            return self.follow(mailbox, targets);
        }
        Err(match self.path.last() {
            None => AliasError::Unknown(mailbox.clone()),
            Some(alias) => AliasError::Dangling { alias: alias.clone(), target: mailbox.clone() },
        })
    }

    fn exists(&self, mailbox: &Mailbox) -> Result<bool, AliasError> {
        self.directory.exists(mailbox).map_err(|why| AliasError::CannotTell(mailbox.clone(), why))
    }

    fn follow(&mut self, alias: &Mailbox, targets: &[Target]) -> Result<(), AliasError> {
        let turns_back = self.path.iter().any(|above| is_same(above, alias));
        self.path.push(alias.clone());
        if turns_back {
            return Err(AliasError::Loop(std::mem::take(&mut self.path)));
        }
        if self.path.len() > LEVELS_MAX {
            return Err(AliasError::TooDeep(std::mem::take(&mut self.path)));
        }
        let name = (alias.domain.clone(), alias.local_part.key());
        if !self.done.contains(&name) {
            self.done.push(name);
            for target in targets {
                match target {
                    Target::Mailbox(mailbox) => self.visit(mailbox)?,
                    Target::Program(command) => {
                        self.deliver(Destination::Program {
                            command: command.clone(),
                            owner: alias.clone(),
                        })?;
                    }
                }
            }
        }
        self.path.pop();
        Ok(())
    }

    fn deliver(&mut self, destination: Destination) -> Result<(), AliasError> {
        if self.found.iter().any(|found| found.destination == destination) {
            return Ok(());
        }
        if self.found.len() == RECIPIENTS_MAX {
            return Err(AliasError::TooMany(self.asked.clone()));
        }
        self.found.push(Recipient { destination, ..Recipient::mailbox(self.asked.clone()) });
        Ok(())
    }
}

/// Two spellings of one mailbox of ours.
fn is_same(one: &Mailbox, other: &Mailbox) -> bool {
    one.domain == other.domain && one.local_part.key() == other.local_part.key()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    /// Two local domains; `ana` and `bo` are users of both.
    struct House;

    impl Directory for House {
        fn is_local(&self, domain: &Domain) -> bool {
            ["here.example", "second.example"].contains(&domain.as_ascii())
        }

        fn exists(&self, mailbox: &Mailbox) -> Result<bool, CannotTell> {
            match mailbox.local_part.key().as_str() {
                "later" => Err(CannotTell("no answer".to_owned())),
                name => Ok(["ana", "bo"].contains(&name)),
            }
        }
    }

    fn resolve(here: &str, second: &str, address: &str) -> Result<Vec<String>, String> {
        let domains = [("here.example", here), ("second.example", second)].map(|(name, text)| {
            let domain = Domain::parse(name).unwrap();
            let aliases = Aliases::parse(text, Path::new("aliases"), &domain).unwrap();
            (domain, Arc::new(aliases))
        });
        let asked = Mailbox::parse(address).unwrap();
        let found = Book::new(domains.into()).resolve(&asked, &House).map_err(|e| e.to_string())?;
        assert!(found.iter().all(|recipient| recipient.original == asked));
        Ok(found.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn a_user_is_itself_and_an_alias_is_its_targets() {
        assert_eq!(resolve("", "", "ana@here.example").unwrap(), ["ana@here.example"]);
        assert_eq!(
            resolve("", "", "ANA@HERE.example").unwrap(),
            ["ana@here.example"],
            "one mailbox for each user"
        );
        assert_eq!(
            resolve("x: ana, z@there.example", "", "X@here.example").unwrap(),
            ["ana@here.example", "z@there.example"]
        );
        assert_eq!(
            resolve("x: y@second.example", "y: bo, t\nt: | /bin/y z", "x@here.example").unwrap(),
            ["bo@second.example", "t@second.example |/bin/y"]
        );
    }

    #[test]
    fn an_alias_shadows_a_user_and_a_catch_all_does_not() {
        assert_eq!(
            resolve("ana: bo\n*: z@there.example", "", "ana@here.example").unwrap(),
            ["bo@here.example"]
        );
        assert_eq!(resolve("*: z@there.example", "", "ana@here.example").unwrap(), ["ana@here.example"]);
        assert_eq!(resolve("*: z@there.example", "", "nobody@here.example").unwrap(), ["z@there.example"]);
    }

    #[test]
    fn an_alias_that_names_itself_means_the_user() {
        assert_eq!(
            resolve("ana: Ana, bo", "", "ana@here.example").unwrap(),
            ["ana@here.example", "bo@here.example"]
        );
        assert!(resolve("x: x", "", "x@here.example").unwrap_err().contains("circles"));
    }

    #[test]
    fn everybody_gets_one_copy() {
        let text = "all: one, two, ana\none: ana, bo\ntwo: BO, ana";
        assert_eq!(resolve(text, "", "all@here.example").unwrap(), ["ana@here.example", "bo@here.example"]);
    }

    #[test]
    fn what_leads_nowhere_is_the_senders_or_the_operators_mistake() {
        assert_eq!(resolve("", "", "eve@here.example").unwrap_err(), "eve@here.example does not exist");
        assert_eq!(
            resolve("x: ana, eve", "", "x@here.example").unwrap_err(),
            "alias x@here.example leads to eve@here.example, which does not exist"
        );
        let unknown = Mailbox::parse("eve@here.example").unwrap();
        assert!(AliasError::Unknown(unknown.clone()).is_unknown());
        assert!(!AliasError::Dangling { alias: unknown.clone(), target: unknown }.is_unknown());
    }

    #[test]
    fn who_cannot_be_told_now_is_not_unknown() {
        let says = "whether later@here.example exists cannot be told now: no answer";
        for (aliases, address) in [
            ("", "later@here.example"),
            ("x: ana, later", "x@here.example"),
            ("*: ana", "later@here.example"),
        ] {
            assert_eq!(resolve(aliases, "", address).unwrap_err(), says, "{aliases}");
        }
        let later = Mailbox::parse("later@here.example").unwrap();
        assert!(!AliasError::CannotTell(later, CannotTell(String::new())).is_unknown());
    }

    #[test]
    fn circles_and_long_ways_are_refused() {
        assert_eq!(
            resolve("x: y\ny: x@second.example", "x: x@here.example", "x@here.example").unwrap_err(),
            "aliases go round in circles: x@here.example -> y@here.example -> x@second.example -> x@here.example"
        );
        let ladder = |steps: usize| {
            (1..steps).map(|n| format!("s{n}: s{}\n", n + 1)).collect::<String>()
                + &format!("s{steps}: ana\n")
        };
        assert!(resolve(&ladder(10), "", "s1@here.example").is_ok());
        assert!(resolve(&ladder(11), "", "s1@here.example").unwrap_err().contains("more than 10 steps"));
        assert!(resolve("*: nobody", "", "x@here.example").unwrap_err().contains("circles"));
    }
}
