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
//! - `file`: the format
//! - `resolve`: from an address to its final recipients

mod file;
mod resolve;

pub use file::{AliasFileError, Aliases, Target};
pub use resolve::{AliasError, Book, CannotTell, Directory};
