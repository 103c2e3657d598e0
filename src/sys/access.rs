//! Which user the process runs as, and what keeps that user from a file.
//!
//! For errors that tell the operator which right to give to whom.

use std::collections::VecDeque;
use std::fs;
use std::path::{Component, Path, PathBuf};

use nix::errno::Errno;
use nix::unistd::{AccessFlags, Uid, User, access};

/// Most symbolic links that are followed on the way to a file, as Linux does.
const LINKS_MAX: usize = 40;

/// A user that the server may run as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceUser {
    uid: Uid,
    name: Option<String>,
}

impl ServiceUser {
    /// The user that the process runs as.
    #[must_use]
    pub fn own() -> Self {
        let uid = Uid::effective();
        let name = User::from_uid(uid).ok().flatten().map(|user| user.name);
        Self { uid, name }
    }
}

impl std::fmt::Display for ServiceUser {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.name {
            Some(name) => write!(f, "{name}"),
            None => write!(f, "with the number {}", self.uid),
        }
    }
}

/// The first directory on the way to `path` that the process may not enter, links followed; none if the
/// way is free or ends before.
#[must_use]
pub fn obstacle(path: &Path) -> Option<PathBuf> {
    let mut left: VecDeque<PathBuf> = path.components().map(|part| part.as_os_str().into()).collect();
    let mut at = PathBuf::from(if path.is_absolute() { "/" } else { "." });
    let mut links = 0;
    while let Some(part) = left.pop_front() {
        match Path::new(&part).components().next() {
            Some(Component::RootDir) => {
                at = PathBuf::from("/");
                continue;
            }
            Some(Component::ParentDir) => {
                at.pop();
                continue;
            }
            Some(Component::Normal(_)) => {}
            Some(Component::CurDir | Component::Prefix(_)) | None => continue,
        }
        if access(&at, AccessFlags::X_OK) == Err(Errno::EACCES) {
            return Some(at);
        }
        let next = at.join(&part);
        let Ok(target) = fs::read_link(&next) else {
            at = next;
            continue;
        };
        links += 1;
        if links > LINKS_MAX {
            return None;
        }
        target.components().rev().for_each(|part| left.push_front(part.as_os_str().into()));
    }
    None
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn the_way_to_a_file_is_followed_through_links() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        fs::create_dir_all(path("live/here")).unwrap();
        fs::create_dir_all(path("archive/here")).unwrap();
        fs::write(path("archive/here/key"), "x").unwrap();
        symlink("../../archive/here/key", path("live/here/key")).unwrap();
        symlink(path("live/here"), path("certs")).unwrap();
        symlink("circle", path("circle")).unwrap();
        for free in ["certs/key", "circle", "nothing/below"] {
            assert_eq!(obstacle(&path(free)), None, "{free}");
        }
        // Not even root enters a file.
        assert_eq!(obstacle(&path("certs/key/below")), Some(path("archive/here/key")));
    }
}
