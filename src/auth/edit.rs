//! Changes a users file, safely.
//!
//! Two commands at once keep what both did: whoever holds the lock on the domain's directory reads,
//! changes one line and replaces the file as a whole. Comments, the order and other lines stay as
//! they are.

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

/// How long to wait for other commands that hold the directory's lock; each holds it for some
/// milliseconds.
const LOCK_WAIT_MAX: Duration = Duration::from_secs(10);

/// What is to become of a user. A user without a password only receives.
#[derive(Clone, Copy)]
pub enum UserChange<'a> {
    /// A new one.
    Add(Option<&'a str>),
    /// Another password for one who is there.
    SetPassword(Option<&'a str>),
    /// No longer one.
    Remove,
}

/// What a new file begins with.
const FILE_HEADER: &str =
    "# One user each line, `name: credentials`. Add one with: postrider user add ADDRESS\n";

/// Why nothing was changed; the file is as it was.
#[derive(Debug, thiserror::Error)]
pub enum EditError {
    /// The name is taken.
    #[error("{name} is in {} already; set another password with: postrider user passwd", file.display())]
    AlreadyExists {
        /// The user.
        name: LocalPart,
        /// The file.
        file: PathBuf,
    },
    /// There is nobody of this name.
    #[error("{name} is not in {}; see who is with: postrider user list", file.display())]
    UnknownUser {
        /// The user.
        name: LocalPart,
        /// The file.
        file: PathBuf,
    },
    /// The file has lines that cannot be read, and would not be read by the server either.
    #[error("{}", join_errors(.0))]
    InvalidFile(Vec<AuthFileError>),
    /// The password.
    #[error(transparent)]
    InvalidPassword(#[from] PasswordError),
    /// The host has no memory or randomness to give.
    #[error("the password could not be hashed: {0}; try again")]
    HashFailed(String),
    /// The file system refused.
    #[error("{}: {error}", file.display())]
    FileSystem {
        /// The file.
        file: PathBuf,
        /// What it said.
        error: io::Error,
    },
}

fn join_errors(errors: &[AuthFileError]) -> String {
    errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

/// Changes what the file `users` in a domain's directory says of `name`. A new file gets mode 0640
/// and the directory's owner; one that exists keeps its own. Waits for another command that holds
/// the directory's lock.
///
/// root may call this where others may write: see [`OpenDir`].
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

/// The text with another line for this user.
fn replace_line(text: &str, name: &LocalPart, new: &str) -> String {
    let lines = text.split_inclusive('\n');
    lines.map(|line| if is_line_of_user(line, name) { new } else { line }).collect()
}

/// What stands behind the name: a hash, and the keys of SCRAM.
fn make_credentials(password: Option<&str>, random: &dyn Random) -> Result<String, EditError> {
    let Some(password) = password else { return Ok(RECEIVE_ONLY.to_owned()) };
    let password: Cow<'_, str> = password::prepare(password)?;
    let hash = hash_password(password.as_bytes()).map_err(EditError::HashFailed)?;
    let keys = scram::generate_keys(password.as_bytes(), random);
    Ok(format!("{hash} {}", scram::to_text(&keys)))
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "a test's files need not be durable")]
mod tests {
    use std::fs;
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown, symlink};
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;
    use crate::sys::SystemRandom;

    /// What others guess.
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
    fn a_new_user_joins_those_who_are_there() {
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
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "no draft or lock file stays");
    }

    #[test]
    fn only_the_line_of_the_user_changes_and_the_mode_stays() {
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
    fn two_at_once_keep_what_both_did() {
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

    /// Others may own the domain's directory: they watch for the draft and put a link in its place.
    #[test]
    fn no_other_file_changes_owner_or_mode_when_others_swap_the_draft_for_a_link() {
        let (dir, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let secret = elsewhere.path().join("secret");
        fs::write(&secret, "secret\n").unwrap();
        fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).unwrap();
        let file = dir.path().join("users");
        // They guess its name, too.
        let draft = dir.path().join(format!(".users.{:016x}", PredictableRandom.bits()));
        // Only root may give files away: another user sees the mode only.
        let is_root = nix::unistd::Uid::effective().is_root();
        let set_up = || {
            let _ = fs::remove_file(&file);
            let _ = fs::remove_file(&draft);
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
                    if fs::remove_file(&draft).is_ok() && symlink(&secret, &draft).is_ok() {
                        swaps += 1;
                    }
                }
                swaps
            });
            let name = LocalPart::parse("bo").unwrap();
            for _ in 0..500 {
                set_up();
                // The others may leave nothing that could be renamed.
                let _ = edit_user(&PredictableRandom, dir.path(), &name, UserChange::Add(None));
            }
            is_over.store(true, Ordering::Relaxed);
            others.join().unwrap()
        });
        assert_eq!(facts(), before);
        assert!(swaps > 0, "the others were never in time");
        assert_eq!(fs::read_to_string(&secret).unwrap(), "secret\n");
    }

    #[test]
    fn what_cannot_be_done_changes_nothing() {
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
