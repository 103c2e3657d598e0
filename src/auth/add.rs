//! Puts a user into a users file, safely.
//!
//! Two commands at once keep both users: whoever holds the lock on the domain's directory reads,
//! adds a line and replaces the file as a whole. Comments and other lines stay as they are.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use super::hash::{HashError, hash_password};
use super::users::{AuthFileError, Users};
use crate::mail::LocalPart;
use crate::sys::{Disk, Random, read_text, replace_like};

/// Why a user was not added; the file is as it was.
#[derive(Debug, thiserror::Error)]
pub enum AddError {
    /// The name is taken.
    #[error("{name} is in {} already; remove that line first to set another password", file.display())]
    Exists {
        /// The user.
        name: LocalPart,
        /// The file.
        file: PathBuf,
    },
    /// The file has lines that cannot be read, and would not be read by the server either.
    #[error("{}", lines(.0))]
    File(Vec<AuthFileError>),
    /// The password.
    #[error(transparent)]
    Hash(#[from] HashError),
    /// The file system refused.
    #[error("{}: {error}", file.display())]
    Disk {
        /// The file.
        file: PathBuf,
        /// What it said.
        error: io::Error,
    },
}

fn lines(errors: &[AuthFileError]) -> String {
    errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

/// Adds a line for `name` to the file `users` in a domain's directory; without a password, a user
/// who only receives. A new file gets mode 0640 and the directory's owner; one that exists keeps
/// its own. Waits for another command that holds the directory's lock.
///
/// # Errors
/// See [`AddError`].
pub fn add(
    disk: &dyn Disk,
    random: &dyn Random,
    domain_dir: &Path,
    name: &LocalPart,
    password: Option<&[u8]>,
) -> Result<(), AddError> {
    let file = domain_dir.join("users");
    let credential = match password {
        Some(password) => hash_password(password)?,
        None => "receive-only".to_owned(),
    };
    let refused = |error| AddError::Disk { file: file.clone(), error };

    // Let go of when it is dropped.
    let lock = File::open(domain_dir).map_err(refused)?;
    lock.lock().map_err(refused)?;

    let mut text = match read_text(&file, Users::OCTETS_MAX) {
        Ok(text) => text,
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            "# One user each line, `name: credential`. Add one with: postrider user add ADDRESS\n".to_owned()
        }
        Err(e) => return Err(refused(e)),
    };
    let users = Users::parse(&text, &file).map_err(AddError::File)?;
    if users.has(name) {
        return Err(AddError::Exists { name: name.clone(), file });
    }
    if !text.is_empty() && !text.ends_with('\n') {
        text.push('\n');
    }
    text.push_str(&format!("{name}: {credential}\n"));
    replace_like(disk, random, &file, text.as_bytes(), 0o640).map_err(refused)
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "a test's files need not be durable")]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::sys::{SystemDisk, SystemRandom};

    fn put(dir: &Path, name: &str, password: Option<&[u8]>) -> Result<(), AddError> {
        add(&SystemDisk, &SystemRandom, dir, &LocalPart::parse(name).unwrap(), password)
    }

    #[test]
    fn a_new_user_joins_those_who_are_there() {
        let dir = tempfile::tempdir().unwrap();
        put(dir.path(), "ana", Some(b"secret")).unwrap();
        put(dir.path(), "\"a: b\"", None).unwrap();
        let file = dir.path().join("users");
        let text = fs::read_to_string(&file).unwrap();
        assert!(text.starts_with("# "), "{text}");
        assert!(!text.contains("secret"));
        let users = Users::parse(&text, &file).unwrap();
        assert_eq!(users.count(), 2);
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o640);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "no draft or lock file stays");
    }

    #[test]
    fn comments_other_lines_and_the_mode_stay() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("users");
        fs::write(&file, "# ours\n\nbo:   receive-only").unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
        put(dir.path(), "ana", None).unwrap();
        let text = fs::read_to_string(&file).unwrap();
        assert_eq!(text, "# ours\n\nbo:   receive-only\nana: receive-only\n");
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o644);
    }

    #[test]
    fn nobody_is_replaced_and_no_broken_file_is_touched() {
        let dir = tempfile::tempdir().unwrap();
        put(dir.path(), "ana", None).unwrap();
        assert!(matches!(put(dir.path(), "ANA", Some(b"x")), Err(AddError::Exists { .. })));
        fs::write(dir.path().join("users"), "nonsense\n").unwrap();
        assert!(matches!(put(dir.path(), "bo", None), Err(AddError::File(_))));
        assert_eq!(fs::read_to_string(dir.path().join("users")).unwrap(), "nonsense\n");
        assert!(matches!(put(&dir.path().join("nowhere"), "bo", None), Err(AddError::Disk { .. })));
        assert!(matches!(put(dir.path(), "eve", Some(b"")), Err(AddError::Hash(HashError::Empty))));
    }
}
