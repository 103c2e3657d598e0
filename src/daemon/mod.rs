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
//! - `sources`: everything that is read again while the server runs
//! - `credentials`: logins at other servers, read and read again
//! - `domains`: the folders of the local domains, read and read again
//! - `certificates`: the certificates in `certs/`, read and read again
//! - `folders`: a directory with one directory in it for each thing
//! - `watched`: a value from the operator's files, in the last version that could be read
//! - `reader`: reads these files, and notes what was found where
//! - `directory`: who is ours, for those who ask
//! - `neighbours`: servers beside us that keep users or mailboxes
//! - `sockets`: listening sockets, bound by us or taken over from the service manager

mod alias_answers;
mod answers;
mod certificates;
mod chores;
mod configuration;
mod credentials;
mod directory;
mod domains;
mod expiry;
mod folders;
mod neighbours;
mod reader;
mod run;
mod service_manager;
mod sockets;
mod sources;
mod stopping;
mod watchdog;
mod watched;
mod wiring;

pub use certificates::Certificates;
pub use configuration::{check_hooks, read_config};
pub use credentials::CredentialsFile;
pub use domains::{Domains, directory_of};
pub use expiry::endings;
pub use neighbours::absent_neighbours;
pub use run::serve;
pub use sources::Sources;
pub use watched::{Look, Looks};
pub use wiring::{spelling, unknown_logins, unread_postmasters};
