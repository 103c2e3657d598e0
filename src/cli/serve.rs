//! `postrider serve`.

use std::path::Path;
use std::process::ExitCode;

use crate::daemon::{PollSettings, read_config, serve};
use crate::observe::set_up_log;

/// Runs the server until a signal stops it. The reasons for a failed start go to the log, like all later
/// messages.
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
