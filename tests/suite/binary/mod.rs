//! The real program, as it is installed: its command line, its sockets, its files, its signals.
//!
//! - `activation`: sockets that the service manager passes
//! - `aliases`: to whom an address leads, at RCPT and by `postrider alias`
//! - `certificates`: TLS versions, and certificates that are replaced, expired or unreadable
//! - `cli`: the subcommands: output and exit status
//! - `data_directory`: the data directory is renamed, removed or replaced
//! - `documents`: the examples in `docs/` are run
//! - `end_to_end`: from a client to a mailbox of this host
//! - `hooks`: the operator's hooks
//! - `kill`: `kill -9` under load
//! - `limits`: limits and deadlines
//! - `memory`: the memory that clients can make the server use
//! - `monitoring`: log, pages and `postrider queue`
//! - `pairs`: two actors on the same mail, and faults
//! - `programs`: delivery to programs
//! - `reload`: files that change while the server runs
//! - `security_levels`: two servers, one of which remembers how well the other encrypted
//! - `sending`: mail for other hosts, and bounces
//! - `stop_and_start`: peers that hang delay neither a start nor a stop
//! - `wrong_port`: clients that speak another protocol

mod activation;
mod aliases;
mod certificates;
mod cli;
mod data_directory;
mod documents;
mod end_to_end;
mod hooks;
mod kill;
mod limits;
mod memory;
mod monitoring;
mod pairs;
mod programs;
mod reload;
mod security_levels;
mod sending;
mod stop_and_start;
mod wrong_port;
