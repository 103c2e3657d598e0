//! Whether one of the operator's hooks is there: one rule for all of them.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use nix::unistd::{AccessFlags, access};

use super::service_user::ServiceUser;

/// There is a hook of the operator's at `path`. Nothing there is no mistake: a hook that is not
/// there is not asked.
///
/// # Errors
/// What is there is no program that can be run: file, problem and remedy in a sentence.
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
