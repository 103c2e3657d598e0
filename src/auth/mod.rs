//! Who are you? Users, their passwords, and logins.
//!
//! Users of a domain stand in a text file, `domains/DOMAIN/users`, one line each. The server holds
//! a snapshot of all of them, which a reload replaces; a session asks it whether a mailbox exists,
//! whether a password is right, and for what SCRAM needs. A login costs the same work and hears the
//! same words whether the user is unknown, may not log in, or gave a wrong password.
//!
//! This module does not watch files: `daemon/local_domains` does, and hands over what it read.
//!
//! - `users`: the file's format
//! - `password`: passwords in the form in which they are compared
//! - `hash`: password hashes (argon2id, RFC 9106), at most two computed at once
//! - `imported`: hashes that were made elsewhere
//! - `scram`: the keys of SCRAM, and those that are made up
//! - `accounts`: the snapshot of all domains, and logins
//! - `guesses`: who has been guessing passwords
//! - `senders`: in whose name users may write
//! - `edit`: changes a file, safely
//! - `dovecot`: users and passwords of a Dovecot on this host

mod accounts;
mod dovecot;
mod edit;
mod hash;
mod imported_hash;
mod login_backoff;
mod password;
mod scram;
mod senders;
mod users;

pub use accounts::{Accounts, ExternalUsers, PasswordCheck};
pub use dovecot::{
    DovecotAuth, DovecotAuthReply, DovecotHandshake, DovecotProtocolError, DovecotSettings, DovecotUserReply,
};
pub use edit::{EditError, UserChange, edit_user};
pub use login_backoff::{BackoffOutcome, LoginBackoff, LoginOrigin};
pub use password::PasswordError;
pub use scram::DecoyKeys;
pub use senders::AllowedSenders;
pub use users::{AuthFileError, Users};
