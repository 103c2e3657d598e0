//! Who is behind an address?
//!
//! Aliases of a domain stand in a text file, `domains/DOMAIN/aliases`. The server holds a [`Book`]
//! of all of them, a snapshot that a reload replaces; a session resolves each forward-path when it
//! hears it, so that a loop or a dangling alias is known before the message. What comes out is
//! final: remote mailboxes, local users, programs.
//!
//! This module does not watch files (`daemon/domains` does), and does not know users: it asks a
//! [`Directory`].
//!
//! - `file`: the format, and files that include others
//! - `target`: its right sides
//! - `spelling`: suffixes and dropped characters
//! - `resolve`: from an address to its final recipients, and the way there
//! - `hook`: a program of the operator's that knows more aliases

mod file;
mod hook;
mod resolve;
mod spelling;
mod target;

pub use file::{Alias, AliasFileError, Aliases, House, Place};
pub use hook::{AliasHook, AliasHookSettings};
pub use resolve::{AliasError, Book, Branch, CannotTell, Directory, Origin, Postmaster, What};
pub use spelling::Spelling;
pub use target::{Address, Target};
