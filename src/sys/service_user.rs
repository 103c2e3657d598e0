//! Which user the process runs as, and which directories that user may not enter.
//!
//! Root may read every file, so a check by root does not show what a server that runs as another user may
//! read. [`ServiceUser::become_user`] gives up the rights of root permanently. From then on the kernel checks
//! every access: owners, groups, access control lists, and every directory and link in a path.

use std::collections::VecDeque;
use std::ffi::CString;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Component, Path, PathBuf};

use nix::errno::Errno;
use nix::unistd::{AccessFlags, Gid, Uid, User, access, initgroups, setgid, setgroups, setuid};

/// Most symbolic links that are followed in a path; Linux has the same limit.
const LINKS_MAX: usize = 40;

/// A user that the server may run as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceUser {
    uid: Uid,
    gid: Gid,
    name: Option<String>,
}

/// The process has the rights of root.
#[must_use]
pub fn is_root() -> bool {
    Uid::effective().is_root()
}

impl ServiceUser {
    /// The user of this name; `None` if there is no such user.
    ///
    /// # Errors
    /// When the accounts of this host cannot be read.
    pub fn from_name(name: &str) -> io::Result<Option<Self>> {
        Ok(User::from_name(name)?.map(Self::from))
    }

    /// The owner of a file or directory; `None` if the file does not exist.
    ///
    /// # Errors
    /// As the file system says, or when the accounts of this host cannot be read.
    pub fn owner_of(path: &Path) -> io::Result<Option<Self>> {
        let facts = match fs::metadata(path) {
            Ok(facts) => facts,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(e),
        };
        let (uid, gid) = (Uid::from_raw(facts.uid()), Gid::from_raw(facts.gid()));
        Ok(Some(User::from_uid(uid)?.map_or(Self { uid, gid, name: None }, Self::from)))
    }

    /// The user that the process runs as.
    #[must_use]
    pub fn of_process() -> Self {
        let (uid, gid) = (Uid::effective(), Gid::effective());
        let name = User::from_uid(uid).ok().flatten().map(|user| user.name);
        Self { uid, gid, name }
    }

    /// This user is root.
    #[must_use]
    pub fn is_root(&self) -> bool {
        self.uid.is_root()
    }

    /// Makes the process run as this user, with all its groups, permanently. Called by root, before other threads
    /// are started.
    ///
    /// # Errors
    /// When the system refuses. The process must end then, because it may have only a part of the new rights.
    pub fn become_user(&self) -> io::Result<()> {
        match &self.name {
            Some(name) => initgroups(&CString::new(name.as_bytes())?, self.gid)?,
            None => setgroups(&[self.gid])?,
        }
        setgid(self.gid)?;
        Ok(setuid(self.uid)?)
    }
}

impl From<User> for ServiceUser {
    fn from(user: User) -> Self {
        Self { uid: user.uid, gid: user.gid, name: Some(user.name) }
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

/// The first directory in `path` that the process may not enter; links are followed. `None` if it may enter all
/// of them, or if one does not exist.
#[must_use]
pub fn first_inaccessible_dir(path: &Path) -> Option<PathBuf> {
    let mut remaining: VecDeque<PathBuf> = path.components().map(|part| part.as_os_str().into()).collect();
    let mut at = PathBuf::from(if path.is_absolute() { "/" } else { "." });
    let mut links = 0;
    while let Some(part) = remaining.pop_front() {
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
        target.components().rev().for_each(|part| remaining.push_front(part.as_os_str().into()));
    }
    None
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn an_inaccessible_directory_is_found_through_links() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        fs::create_dir_all(path("live/here")).unwrap();
        fs::create_dir_all(path("archive/here")).unwrap();
        fs::write(path("archive/here/key"), "x").unwrap();
        symlink("../../archive/here/key", path("live/here/key")).unwrap();
        symlink(path("live/here"), path("certs")).unwrap();
        symlink("circle", path("circle")).unwrap();
        for free in ["certs/key", "circle", "nothing/below"] {
            assert_eq!(first_inaccessible_dir(&path(free)), None, "{free}");
        }
        // Not even root may enter a file.
        assert_eq!(first_inaccessible_dir(&path("certs/key/below")), Some(path("archive/here/key")));
    }

    #[test]
    fn a_user_is_found_by_name_and_as_an_owner() {
        let root = ServiceUser::from_name("root").unwrap().unwrap();
        assert!(root.is_root() && root.to_string() == "root");
        assert_eq!(ServiceUser::from_name("no-such-user").unwrap(), None);
        assert_eq!(ServiceUser::owner_of(Path::new("/proc/1/..")).unwrap().unwrap(), root);
        assert_eq!(ServiceUser::owner_of(Path::new("/nothing/there")).unwrap(), None);
    }
}
