//! Aliases: which recipients an address stands for.
//!
//! The aliases of a domain are in a text file, `domains/DOMAIN/aliases`. The server holds an [`AliasTable`] with
//! the aliases of all domains, a snapshot that a reload replaces. A session resolves each forward-path at RCPT,
//! so that a loop or a dangling alias is found before the message. The result is final: remote mailboxes, local
//! users, and programs.
//!
//! This module does not read or watch files (`daemon/local_domains` reads them), and has no list of users: it
//! asks an [`AliasLookup`].
//!
//! - `alias_file`: the format of the file, and files that include others
//! - `target`: the right side of a line
//! - `local_part_rules`: suffixes and dropped characters
//! - `resolve`: from an address to its final recipients, with each step
//! - `hook`: a program of the operator that adds aliases

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
