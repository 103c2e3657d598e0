//! Who is behind an address?
//!
//! Aliases of a domain stand in a text file, `domains/DOMAIN/aliases`. The server holds a [`Book`]
//! of all of them, a snapshot that a reload replaces; a session resolves each forward-path when it
//! hears it, so that a loop or a dangling alias is known before the message. What comes out is
//! final: remote mailboxes, local users, programs.
//!
//! This module does not watch files (`daemon/local_domains` does), and does not know users: it asks a
//! [`Directory`].
//!
//! - `file`: the format, and files that include others
//! - `target`: its right sides
//! - `spelling`: suffixes and dropped characters
//! - `resolve`: from an address to its final recipients, and the way there
//! - `hook`: a program of the operator's that knows more aliases

mod alias_file;
mod hook;
mod local_part_rules;
mod resolve;
mod target;

pub use alias_file::{Alias, AliasFileContext, AliasFileError, AliasLocation, DomainAliases};
pub use hook::{AliasHook, AliasHookSettings};
pub use local_part_rules::LocalPartRules;
pub use resolve::{
    AliasError, AliasLookup, AliasTable, LookupFailure, PostmasterSettings, Resolution, ResolutionStep,
    TargetOrigin,
};
pub use target::{AliasTarget, TargetAddress};
