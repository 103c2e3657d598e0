//! Changes a users file safely.
//!
//! A command takes the lock on the directory of the domain, reads the file, changes one line and replaces the
//! file as a whole, so that commands at the same time lose no change. Comments, the order and all other lines
//! stay as they are.

use std::borrow::Cow;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::hash::hash_password;
use super::password::{self, PasswordError};
use super::scram;
use super::users::{AuthFileError, RECEIVE_ONLY, Users, is_line_of_user};
use crate::mail::LocalPart;
use crate::sys::{OpenDir, Random};

/// Longest wait for other commands that hold the lock of the directory; each holds it for some milliseconds.
const LOCK_WAIT_MAX: Duration = Duration::from_secs(10);

/// A change of one user. A user without a password only receives mail.
#[derive(Clone, Copy)]
pub enum UserChange<'a> {
    /// Adds a user.
    Add(Option<&'a str>),
    /// Sets another password of an existing user.
    SetPassword(Option<&'a str>),
    /// Removes a user.
    Remove,
}

/// The first line of a new file.
const FILE_HEADER: &str =
    "# One user each line, `name: credentials`. Add one with: postrider user add ADDRESS\n";

/// Why the file was not changed.
#[derive(Debug, thiserror::Error)]
pub enum EditError {
    /// The user exists already.
    #[error("{name} is in {} already; set another password with: postrider user passwd", file.display())]
    AlreadyExists {
        /// The user.
        name: LocalPart,
        /// The file.
        file: PathBuf,
    },
    /// There is no user of this name.
    #[error("{name} is not in {}; see who is with: postrider user list", file.display())]
    UnknownUser {
        /// The user.
        name: LocalPart,
        /// The file.
        file: PathBuf,
    },
    /// The file has lines that cannot be read; the server could not read them either.
    #[error("{}", join_errors(.0))]
    InvalidFile(Vec<AuthFileError>),
    /// The password is not acceptable.
    #[error(transparent)]
    InvalidPassword(#[from] PasswordError),
    /// The host has no memory or random octets left.
    #[error("the password could not be hashed: {0}; try again")]
    HashFailed(String),
    /// The file system refused.
    #[error("{}: {error}", file.display())]
    FileSystem {
        /// The file.
        file: PathBuf,
        /// Its error.
        error: io::Error,
    },
}

fn join_errors(errors: &[AuthFileError]) -> String {
    errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

/// Changes the account of `name` in the file `users` of a domain's directory. A new file gets mode 0640 and the
/// owner of the directory; an existing one keeps its owner and mode. Waits for other commands that hold the lock
/// of the directory.
///
/// Root may call this even if other users may write the directory: see [`OpenDir`].
///
/// # Errors
/// See [`EditError`].
pub fn edit_user(
    random: &dyn Random,
    domain_dir: &Path,
    name: &LocalPart,
    change: UserChange<'_>,
) -> Result<(), EditError> {
    let file = domain_dir.join("users");
    let credentials = match change {
        UserChange::Add(password) | UserChange::SetPassword(password) => make_credentials(password, random)?,
        UserChange::Remove => String::new(),
    };
    let refused = |error| EditError::FileSystem { file: file.clone(), error };

    let dir = OpenDir::open(domain_dir).map_err(refused)?;
    dir.lock(LOCK_WAIT_MAX).map_err(refused)?;
    let old = dir.read("users", Users::OCTETS_MAX).map_err(refused)?;
    let text = old.as_ref().map_or(FILE_HEADER, |old| &old.text);
    let is_there = Users::parse(text, &file).map_err(EditError::InvalidFile)?.contains(name);
    let text = match change {
        UserChange::Add(_) if is_there => return Err(EditError::AlreadyExists { name: name.clone(), file }),
        UserChange::SetPassword(_) | UserChange::Remove if !is_there => {
            return Err(EditError::UnknownUser { name: name.clone(), file });
        }
        UserChange::Add(_) => {
            let end = if text.is_empty() || text.ends_with('\n') { "" } else { "\n" };
            format!("{text}{end}{name}: {credentials}\n")
        }
        UserChange::SetPassword(_) => replace_line(text, name, &format!("{name}: {credentials}\n")),
        UserChange::Remove => replace_line(text, name, ""),
    };
    dir.replace(random, "users", &text, old.as_ref(), 0o640).map_err(refused)
}

/// The text with `new` instead of the line of this user.
fn replace_line(text: &str, name: &LocalPart, new: &str) -> String {
    let lines = text.split_inclusive('\n');
    lines.map(|line| if is_line_of_user(line, name) { new } else { line }).collect()
}

/// The credentials of a password: a hash and the keys of SCRAM.
fn make_credentials(password: Option<&str>, random: &dyn Random) -> Result<String, EditError> {
    let Some(password) = password else { return Ok(RECEIVE_ONLY.to_owned()) };
    let password: Cow<'_, str> = password::prepare(password)?;
    let hash = hash_password(password.as_bytes()).map_err(EditError::HashFailed)?;
    let keys = scram::generate_keys(password.as_bytes(), random);
    Ok(format!("{hash} {}", scram::to_text(&keys)))
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "files of a test need not be durable")]
mod tests {
    use std::fs;
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown, symlink};
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;
    use crate::sys::SystemRandom;

    /// Numbers that other users can guess.
    struct PredictableRandom;

    impl Random for PredictableRandom {
        fn bits(&self) -> u64 {
            7
        }
    }

    fn edit_in(dir: &Path, name: &str, change: UserChange<'_>) -> Result<(), EditError> {
        edit_user(&SystemRandom, dir, &LocalPart::parse(name).unwrap(), change)
    }

    #[test]
    fn a_new_user_is_added_to_existing_ones() {
        let dir = tempfile::tempdir().unwrap();
        edit_in(dir.path(), "ana", UserChange::Add(Some("secret"))).unwrap();
        edit_in(dir.path(), "\"a: b\"", UserChange::Add(None)).unwrap();
        let file = dir.path().join("users");
        let text = fs::read_to_string(&file).unwrap();
        assert!(text.starts_with("# "), "{text}");
        assert!(!text.contains("secret"));
        let users = Users::parse(&text, &file).unwrap();
        assert_eq!(users.count(), 2);
        assert!(users.has_logins() && users.all_have_scram());
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o640);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "no temporary file or lock file is left");
    }

    #[test]
    fn only_the_line_of_the_user_changes() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("users");
        fs::write(&file, "# ours\n\nAna: receive-only\r\n# Ana: gone\nbo:   receive-only").unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
        let text = || fs::read_to_string(&file).unwrap();
        edit_in(dir.path(), "eve", UserChange::Add(None)).unwrap();
        edit_in(dir.path(), "bo", UserChange::SetPassword(Some("secret"))).unwrap();
        let rest = "# ours\n\nAna: receive-only\r\n# Ana: gone\nbo: $argon2id$";
        assert!(text().starts_with(rest), "{}", text());
        edit_in(dir.path(), "BO", UserChange::SetPassword(None)).unwrap();
        edit_in(dir.path(), "ana", UserChange::Remove).unwrap();
        assert_eq!(text(), "# ours\n\n# Ana: gone\nBO: receive-only\neve: receive-only\n");
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o644);
    }

    #[test]
    fn commands_at_the_same_time_lose_no_change() {
        let dir = tempfile::tempdir().unwrap();
        std::thread::scope(|scope| {
            for n in 0..8 {
                let dir = dir.path();
                scope.spawn(move || edit_in(dir, &format!("user{n}"), UserChange::Add(None)).unwrap());
            }
        });
        let text = fs::read_to_string(dir.path().join("users")).unwrap();
        assert_eq!(Users::parse(&text, Path::new("users")).unwrap().count(), 8, "{text}");
    }

    /// Another user, who may own the directory, replaces the temporary file by a link.
    #[test]
    fn replacing_the_temporary_file_by_a_link_changes_no_owner_or_mode() {
        let (dir, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let secret = elsewhere.path().join("secret");
        fs::write(&secret, "secret\n").unwrap();
        fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).unwrap();
        let file = dir.path().join("users");
        // The name of the temporary file is predictable in this test.
        let temporary = dir.path().join(format!(".users.{:016x}", PredictableRandom.bits()));
        // Only root may change the owner; for other users only the mode is tested.
        let is_root = nix::unistd::Uid::effective().is_root();
        let set_up = || {
            let _ = fs::remove_file(&file);
            let _ = fs::remove_file(&temporary);
            fs::write(&file, "ana: receive-only\n").unwrap();
            fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
            if is_root {
                chown(&file, Some(65534), Some(65534)).unwrap();
            }
        };
        let facts = || fs::metadata(&secret).map(|facts| (facts.uid(), facts.mode() & 0o7777)).unwrap();
        let before = facts();
        let is_over = AtomicBool::new(false);
        let swaps = std::thread::scope(|scope| {
            let others = scope.spawn(|| {
                let mut swaps = 0;
                while !is_over.load(Ordering::Relaxed) {
                    if fs::remove_file(&temporary).is_ok() && symlink(&secret, &temporary).is_ok() {
                        swaps += 1;
                    }
                }
                swaps
            });
            let name = LocalPart::parse("bo").unwrap();
            for _ in 0..500 {
                set_up();
                // Fails if the temporary file is gone when it is renamed.
                let _ = edit_user(&PredictableRandom, dir.path(), &name, UserChange::Add(None));
            }
            is_over.store(true, Ordering::Relaxed);
            others.join().unwrap()
        });
        assert_eq!(facts(), before);
        assert!(swaps > 0, "the link never replaced the temporary file");
        assert_eq!(fs::read_to_string(&secret).unwrap(), "secret\n");
    }

    #[test]
    fn a_refused_change_leaves_the_file_unchanged() {
        let dir = tempfile::tempdir().unwrap();
        edit_in(dir.path(), "ana", UserChange::Add(None)).unwrap();
        let add = |name, password| edit_in(dir.path(), name, UserChange::Add(password));
        assert!(matches!(add("ANA", Some("x")), Err(EditError::AlreadyExists { .. })));
        assert!(matches!(edit_in(dir.path(), "bo", UserChange::Remove), Err(EditError::UnknownUser { .. })));
        assert!(matches!(
            edit_in(dir.path(), "bo", UserChange::SetPassword(None)),
            Err(EditError::UnknownUser { .. })
        ));
        assert!(matches!(add("eve", Some("")), Err(EditError::InvalidPassword(PasswordError::Empty))));
        assert!(matches!(
            add("eve", Some("a\tb")),
            Err(EditError::InvalidPassword(PasswordError::ForbiddenCharacters))
        ));
        fs::write(dir.path().join("users"), "nonsense\n").unwrap();
        assert!(matches!(add("bo", None), Err(EditError::InvalidFile(_))));
        assert_eq!(fs::read_to_string(dir.path().join("users")).unwrap(), "nonsense\n");
        let nowhere = edit_in(&dir.path().join("nowhere"), "bo", UserChange::Add(None));
        assert!(matches!(nowhere, Err(EditError::FileSystem { .. })));
    }
}
