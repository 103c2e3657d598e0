//! What a person types.
//!
//! One program with subcommands; `table` lists them all, one file each does the work. Results go
//! to standard output, everything else to standard error: what, where and what to do. The exit
//! status is 0 (fine), 1 (could not) or 2 (wrong usage). A command that changes what the daemon
//! keeps asks the daemon, over its control socket.
//!
//! - `table`: the subcommands, their arguments and their help: the map of the product
//! - `run`: from the arguments to the subcommand
//! - `terminal`: what they all say and ask
//! - `serve` · `check` · `user` · `alias` · `domain` · `queue` · `torture`: the subcommands

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
