//! The steps from an address to its recipients, for the operator.

use std::fmt;

use super::alias_error::AliasError;
use crate::alias::alias_file::AliasLocation;
use crate::mail::Mailbox;

/// One step from an address to its recipients, with all steps that follow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResolutionStep {
    /// An address, or a program with its arguments.
    pub name: String,
    /// Where the name comes from; `None` for the address that is resolved.
    pub origin: Option<TargetOrigin>,
    /// What the name is.
    pub resolution: Resolution,
    /// What the name stands for.
    pub next_steps: Vec<ResolutionStep>,
}

/// Where a target comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TargetOrigin {
    /// A line of an aliases file.
    AliasFile(AliasLocation),
    /// The hook.
    Hook,
    /// The rule that every domain has a postmaster.
    Postmaster,
}

/// What a name is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Resolution {
    /// A user, in the canonical spelling.
    User(Mailbox),
    /// A mailbox of another domain.
    Remote,
    /// A mailbox with named hosts.
    Via,
    /// A program.
    Program,
    /// An alias.
    Alias,
    /// Neither an alias nor a user: the catch-all stands for it.
    CatchAll,
    /// A postmaster or abuse mailbox without an alias or user.
    Postmaster,
    /// Seen before: it counts once.
    Duplicate,
    /// Not deliverable.
    Failed(AliasError),
}

impl fmt::Display for TargetOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AliasFile(place) => place.fmt(f),
            Self::Hook => f.write_str("hooks/alias-resolve"),
            Self::Postmaster => f.write_str("every domain has a postmaster"),
        }
    }
}
