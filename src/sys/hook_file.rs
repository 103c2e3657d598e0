//! Whether a hook of the operator exists and can be run: one rule for all hooks.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use nix::unistd::{AccessFlags, access};

use super::service_user::ServiceUser;

/// Whether there is a hook at `path`. A missing file is not an error: the hook is not used then.
///
/// # Errors
/// The file at `path` cannot be run as a program: a sentence with file, problem and remedy.
pub fn is_hook_present(path: &Path) -> Result<bool, String> {
    let wrong = |problem: &str, remedy: &str| Err(format!("{}: {problem}; {remedy}", path.display()));
    match fs::metadata(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => match fs::symlink_metadata(path) {
            Ok(_) => wrong("is a symbolic link to nothing", "mend or remove it"),
            Err(_) => Ok(false),
        },
        Err(e) => wrong(&e.to_string(), "the server must be able to look at it"),
        Ok(facts) if !facts.is_file() => wrong("is not a file", "a hook is a program; rename or remove it"),
        Ok(facts) if facts.permissions().mode() & 0o111 == 0 => {
            wrong("is not executable", "make it so with chmod +x, or remove it")
        }
        Ok(_) if access(path, AccessFlags::X_OK).is_err() => {
            let problem = format!("the user {} may not run it", ServiceUser::of_process());
            wrong(&problem, "give it that right (chgrp, chmod g+rx), or remove it")
        }
        Ok(_) => Ok(true),
    }
}
