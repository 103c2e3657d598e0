//! What subcommands say to the person at the terminal, and ask the running server for.
//!
//! Results are returned as text and go to standard output in `run`; everything else goes to standard
//! error from here.

use std::fmt::Display;
use std::io::{self, Write as _};
use std::path::Path;

use serde_json::Value;

use crate::control::{self, ControlRequest};
use crate::daemon::{PollSettings, read_config};

/// What a subcommand could not do: lines for standard error.
pub(super) type ErrorLines = Vec<String>;

/// Puts lines on standard error.
pub(super) fn print_to_stderr(lines: impl IntoIterator<Item = impl Display>) {
    let mut err = io::stderr().lock();
    for line in lines {
        let _ = writeln!(err, "postrider: {line}");
    }
}

/// What the running server answers.
pub(super) fn ask_server(config_dir: &Path, request: &ControlRequest) -> Result<Value, ErrorLines> {
    let config = read_config(config_dir, PollSettings::IMMEDIATE)?;
    control::send_request(&config.data_dir.join("control"), request).map_err(|e| vec![e.to_string()])
}

/// JSON for people.
pub(super) fn pretty_json(answer: &Value) -> String {
    // Alternate display of a value never fails.
    format!("{answer:#}\n")
}

/// A field for a table: a text without its quotes, a dash where there is nothing.
pub(super) fn format_field(field: Option<&Value>) -> String {
    match field {
        None | Some(Value::Null) => "-".to_owned(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    }
}
