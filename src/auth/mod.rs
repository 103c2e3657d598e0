//! Who are you? Users, their passwords, and logins.
//!
//! Users of a domain stand in a text file, `domains/DOMAIN/users`, one line each. The server holds
//! a snapshot of all of them, which a reload replaces; a session asks it whether a mailbox exists
//! and whether a password is right. A login costs the same work and hears the same words whether
//! the user is unknown, may not log in, or gave a wrong password.
//!
//! This module does not watch files: `daemon/domains` does, and hands over what it read.
//!
//! - `users`: the file's format
//! - `hash`: password hashes (argon2id, RFC 9106), at most two computed at once
//! - `accounts`: the snapshot of all domains, and logins
//! - `senders`: in whose name users may write
//! - `add`: puts a user into a file, safely
//! - `dovecot`: users and passwords of a Dovecot on this host

mod accounts;
mod add;
mod dovecot;
mod hash;
mod senders;
mod users;

pub use accounts::{Accounts, Login, OtherUsers};
pub use add::{AddError, add};
pub use dovecot::{Dovecot, DovecotSettings, Handshake, LoginReply, ProtocolError, UserReply};
pub use hash::{HashError, hash_password};
pub use senders::Senders;
pub use users::{AuthFileError, Users};
