//! From the arguments to the subcommand.

use std::ffi::OsString;
use std::io::{self, Write as _};
use std::process::ExitCode;

use clap::Parser as _;

use super::arguments::{Arguments, CliCommand};
use super::terminal::print_to_stderr;
use super::{alias, check, peer, queue, serve, torture, user};

/// Runs the subcommand. Exit status 0: success, 1: failure, 2: wrong usage.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let arguments = match Arguments::try_parse_from(arguments) {
        Ok(arguments) => arguments,
        Err(e) => {
            // clap treats --help and --version as errors; they go to standard output with status 0.
            let _ = e.print();
            return if e.use_stderr() { ExitCode::from(2) } else { ExitCode::SUCCESS };
        }
    };
    // Paths are absolute from here on.
    let dir = &std::path::absolute(&arguments.config).unwrap_or(arguments.config);
    let done = match &arguments.subcommand {
        CliCommand::Serve => return serve::run(dir),
        CliCommand::Check { user } => check::run(dir, user.as_deref()),
        CliCommand::User(command) => user::run(dir, command),
        CliCommand::Alias(command) => alias::run(dir, command),
        CliCommand::Peer(command) => peer::run(dir, command),
        CliCommand::Queue(command) => queue::run(dir, command),
        CliCommand::Torture { dir, rounds, waiting } => torture::run(dir, *rounds, *waiting as usize),
        CliCommand::Version => Ok(format!("postrider {}\n", env!("CARGO_PKG_VERSION"))),
    };
    match done {
        Ok(text) => {
            // A closed pipe is no error: `postrider queue list | head`.
            let _ = io::stdout().write_all(text.as_bytes());
            ExitCode::SUCCESS
        }
        Err(lines) => {
            print_to_stderr(lines);
            ExitCode::FAILURE
        }
    }
}
