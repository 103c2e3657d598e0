//! Users, their passwords, and logins.
//!
//! The users of a domain are in a text file, `domains/DOMAIN/users`, one user on each line. The server holds a
//! snapshot of all files, which a reload replaces. A session asks it whether a mailbox exists, whether a password
//! is right, and for the keys of SCRAM. A failed login gets the same reply whether the user is unknown, may not
//! log in, or gave a wrong password. It also takes about the same time: one password hash is computed in each
//! of these cases, unless too many logins wait. Imported hashes and SCRAM keys may take longer or shorter.
//!
//! This module does not read or watch files: `daemon/local_domains` reads them.
//!
//! - `users`: the format of the file
//! - `password`: passwords in the form in which they are compared
//! - `hash`: password hashes (argon2id, RFC 9106), at most two computed at once
//! - `imported_hash`: hashes that other programs made
//! - `scram`: the keys of SCRAM, and decoy keys for unknown users
//! - `accounts`: the snapshot of all domains, and the check of logins
//! - `login_backoff`: delays logins after failures
//! - `senders`: the addresses that a user may write as
//! - `edit`: changes a file safely
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
