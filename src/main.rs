//! The program.

use std::process::ExitCode;

fn main() -> ExitCode {
    postrider::cli::run(std::env::args_os())
}
