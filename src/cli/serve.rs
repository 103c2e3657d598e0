//! `postrider serve`.

use std::path::Path;
use std::process::ExitCode;

use crate::daemon::{PollSettings, read_config, serve};
use crate::observe::set_up_log;

/// Runs the server until it is told to stop. What keeps it from starting goes to the log, like
/// everything that it says later.
pub(super) fn run(config_dir: &Path) -> ExitCode {
    set_up_log();
    match read_config(config_dir, PollSettings::for_server()).and_then(|config| serve(config_dir, &config)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(errors) => {
            errors.iter().for_each(|error| log::error!("{error}"));
            ExitCode::FAILURE
        }
    }
}
