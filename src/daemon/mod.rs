//! The only place that knows everybody.
//!
//! - `run`: start, serve, stop: the life of the process
//! - `wiring`: builds every part and hands each what it needs
//! - `chores`: what is looked at again and again
//! - `expiry`: the end of our certificates
//! - `stopping`: the end of the time that a stop may take
//! - `service_manager`: what the service manager is told
//! - `watchdog`: tells the service manager that we are alive
//! - `answers`: what the subcommands and the monitor are told
//! - `alias_answers`: the same of aliases
//! - `configuration`: `postrider.toml`, read with what the host says of itself
//! - `credentials`: logins at other servers, read and read again
//! - `domains`: the folders of the local domains, read and read again
//! - `watched`: a file of the operator's, in the last version that could be read
//! - `directory`: who is ours, for those who ask
//! - `neighbours`: servers beside us that keep users or mailboxes
//! - `sockets`: listening sockets, bound by us or taken over from the service manager

mod alias_answers;
mod answers;
mod chores;
mod configuration;
mod credentials;
mod directory;
mod domains;
mod expiry;
mod neighbours;
mod run;
mod service_manager;
mod sockets;
mod stopping;
mod watchdog;
mod watched;
mod wiring;

pub use configuration::{check_hooks, read_config};
pub use credentials::CredentialsFile;
pub use domains::{Domains, directory_of};
pub use expiry::endings;
pub use neighbours::absent_neighbours;
pub use run::serve;
pub use watched::Look;
pub use wiring::{spelling, unknown_logins, unread_postmasters};
