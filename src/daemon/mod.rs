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

mod alias_json;
mod certificate_expiry;
mod certificate_files;
mod config_file;
mod control_service;
mod credentials_file;
mod external_services;
mod file_reader;
mod local_domains;
mod lookup_tables;
mod reloadable_files;
mod reloader;
mod run;
mod service_manager;
mod shutdown;
mod sockets;
mod watchdog;
mod watched_directories;
mod watched_value;
mod wiring;

pub use certificate_expiry::expiry_warnings;
pub use certificate_files::CertificateFiles;
pub use config_file::{check_hooks, read_config};
pub use credentials_file::CredentialsFile;
pub use external_services::unavailable_services;
pub use local_domains::{LocalDomains, local_domain_directory};
pub use reloadable_files::ReloadableFiles;
pub use run::serve;
pub use watched_value::{PollResult, PollSettings};
pub use wiring::{spelling, undefined_logins, undeliverable_postmasters};
