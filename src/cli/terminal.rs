//! Output and requests that the subcommands share.
//!
//! Results are returned as text, and `run` writes them to standard output; everything else goes to
//! standard error from here.

use std::fmt::Display;
use std::io::{self, Write as _};
use std::path::Path;

use serde::Serialize;

use crate::control::{ControlClient, ControlError};
use crate::daemon::{PollSettings, read_config};

/// Why a subcommand failed: lines for standard error.
pub(super) type ErrorLines = Vec<String>;

/// Writes lines to standard error.
pub(super) fn print_to_stderr(lines: impl IntoIterator<Item = impl Display>) {
    let mut err = io::stderr().lock();
    for line in lines {
        let _ = writeln!(err, "postrider: {line}");
    }
}

/// Asks the running server.
pub(super) fn ask_server<T>(
    config_dir: &Path,
    ask: impl FnOnce(&ControlClient) -> Result<T, ControlError>,
) -> Result<T, ErrorLines> {
    let config = read_config(config_dir, PollSettings::IMMEDIATE)?;
    ask(&ControlClient::new(&config.data_dir.join("control"))).map_err(|e| vec![e.to_string()])
}

/// An answer as `--json` prints it.
pub(super) fn pretty_json(answer: &impl Serialize) -> String {
    // An answer of texts and numbers always has a JSON form.
    format!("{:#}\n", serde_json::to_value(answer).unwrap_or_default())
}
