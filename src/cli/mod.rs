//! The command line: one program with subcommands.
//!
//! `arguments` lists the subcommands, and each has a file of its own. Results go to standard output,
//! everything else to standard error: what, where and what to do. The exit status is 0 (success), 1
//! (failure) or 2 (wrong usage). A command that changes the daemon's files asks the daemon, over its control
//! socket.
//!
//! - `arguments`: the subcommands, their arguments and their help
//! - `run`: from the arguments to the subcommand
//! - `terminal`: output and requests that subcommands share
//! - `serve`: runs the server
//! - `check`: checks the configuration
//! - `user`: changes and lists users
//! - `alias`: shows aliases and their targets
//! - `peer`: shows and removes the security levels of other domains
//! - `queue`: lists and changes messages in the queue
//! - `torture`: tests for lost messages, and measures the disk

mod alias;
mod arguments;
mod check;
mod peer;
mod queue;
mod run;
mod serve;
mod terminal;
mod torture;
mod user;

pub use arguments::clap_command;
pub use run::run;
