//! Builds the server, runs it and stops it; the only module that imports nearly all others.
//!
//! Starting, serving and stopping:
//!
//! - `run`: the order in which parts start and stop
//! - `wiring`: builds every part from the configuration
//! - `module_settings`: the configuration as settings of the other modules
//! - `couriers`: builds the couriers
//! - `system_interfaces`: the real clock, disk and network
//! - `sockets`: listening sockets, bound here or passed by the service manager
//! - `service_manager`: notifications to systemd
//! - `watchdog`: notifies systemd that no thread is stuck
//! - `shutdown`: ends the process when the time for stopping is over
//! - `external_services`: warns of Dovecot and LMTP servers that do not answer
//!
//! Files of the operator, read again while the server runs:
//!
//! - `config_file`: `postrider.toml`; read once
//! - `reloader`: reloads files when they change and on request
//! - `reloadable_files`: all files that are read again, polled together
//! - `local_domains`: the directories of the local domains
//! - `certificate_files`: the certificates in `certs/`
//! - `credentials_file`: logins at other servers
//! - `watched_directories`: a directory with one directory in it for each thing
//! - `watched_value`: a value from such files, in the last version that could be read
//! - `file_reader`: reads the files, and notes their fingerprints
//! - `undefined_logins`: logins that `via` names and `credentials.toml` lacks
//! - `lookup_tables`: the users and aliases in force, for sessions and couriers
//! - `certificate_expiry`: warns before a certificate expires
//!
//! Answers to the subcommands and the monitor:
//!
//! - `control_service`: answers requests, and gives the monitor what its pages show
//! - `queue_answers`: answers about the queue
//! - `alias_answers`: answers about aliases

mod alias_answers;
mod certificate_expiry;
mod certificate_files;
mod config_file;
mod control_service;
mod couriers;
mod credentials_file;
mod external_services;
mod file_reader;
mod local_domains;
mod lookup_tables;
mod module_settings;
mod queue_answers;
mod reloadable_files;
mod reloader;
mod run;
mod service_manager;
mod shutdown;
mod sockets;
mod system_interfaces;
mod undefined_logins;
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
pub use module_settings::local_part_rules;
pub use reloadable_files::ReloadableFiles;
pub use run::serve;
pub use undefined_logins::undefined_logins;
pub use watched_value::{PollResult, PollSettings};
pub use wiring::undeliverable_postmasters;
