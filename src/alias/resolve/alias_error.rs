//! Why an address has no recipients.

use crate::mail::Mailbox;

/// Most aliases in a row that lead to one another.
pub(super) const LEVELS_MAX: usize = 10;

/// Most recipients that one address may stand for: the envelope of a message has all of them.
pub(super) const RECIPIENTS_MAX: usize = 1000;

/// Why a lookup failed: a sentence for the operator.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct LookupFailure(pub String);

/// Why an address has no recipients.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AliasError {
    /// The name is neither an alias nor a user, and there is no catch-all: the sender is at fault.
    #[error("{0} does not exist")]
    Unknown(Mailbox),
    /// A target does not exist: the operator is at fault, and the sender may try again.
    #[error("alias {alias} leads to {target}, which does not exist")]
    Dangling {
        /// The alias.
        alias: Mailbox,
        /// The target that does not exist.
        target: Mailbox,
    },
    /// No reader is set for an address that must be read: the operator is at fault.
    #[error(
        "nobody reads mail for {0}; write `postmaster: ADDRESS` into an aliases file, or set postmaster in postrider.toml"
    )]
    NoPostmaster(Mailbox),
    /// Aliases lead to one another in a circle: the operator is at fault.
    #[error("aliases go round in circles: {}", join_path(.0))]
    Loop(Vec<Mailbox>),
    /// Too many aliases in a row: the operator is at fault.
    #[error("aliases lead on over more than {LEVELS_MAX} steps: {}", join_path(.0))]
    TooDeep(Vec<Mailbox>),
    /// Too many recipients: the operator is at fault.
    #[error("alias {0} stands for more than {RECIPIENTS_MAX} recipients")]
    TooManyRecipients(Mailbox),
    /// A lookup failed, and may succeed later.
    #[error("whether {0} exists cannot be told now: {1}")]
    LookupFailed(Mailbox, LookupFailure),
}

impl AliasError {
    /// The sender named a mailbox that does not exist. After any other error the sender may try again, because the
    /// operator may correct it.
    #[must_use]
    pub fn is_unknown(&self) -> bool {
        matches!(self, Self::Unknown(_))
    }
}

fn join_path(path: &[Mailbox]) -> String {
    path.iter().map(ToString::to_string).collect::<Vec<_>>().join(" -> ")
}
