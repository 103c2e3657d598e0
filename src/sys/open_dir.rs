//! An open directory, for a program that changes files where other users may write.
//!
//! Root changes `domains/DOMAIN/users`, and that directory may belong to the user of the daemon, who can replace
//! any name in it by a link at any time. So the directory is opened once, every operation in it starts at its
//! descriptor, no link is followed, and owner and mode are set on the descriptor of a file that was created
//! here. `postrider user` and `postrider torture` use it.
//!
//! In the path of the directory itself, links are followed if only root and the user of this process can have
//! made them.

use std::ffi::{OsStr, OsString};
use std::fs::{File, Metadata, Permissions, TryLockError};
use std::io::{self, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, fchown};
use std::path::{Component, Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{CWD, Dir, Mode, OFlags, mkdirat, readlinkat};
use rustix::io::Errno;
use rustix::process::geteuid;

use super::openat;
use super::random::Random;

/// Most symbolic links in the path of a directory; the kernel has the same limit.
const LINKS_MAX: usize = 40;
/// Delay between two tries to take a lock that another process holds.
const LOCK_RETRY_INTERVAL: Duration = Duration::from_millis(20);

/// An open directory.
#[derive(Debug)]
pub struct OpenDir {
    file: File,
    path: PathBuf,
    exposure: Option<Exposure>,
}

/// Why users other than root and the user of this process may replace a directory or its contents.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exposure {
    dir: PathBuf,
    /// The owner of `dir`; `None` if its mode lets other users write.
    owner: Option<u32>,
}

impl std::fmt::Display for Exposure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.owner {
            Some(owner) => write!(f, "{} belongs to user {owner}", self.dir.display()),
            None => write!(f, "other users may write {}", self.dir.display()),
        }
    }
}

/// The text of a file that was read, with the owner and mode that its replacement gets.
#[derive(Debug)]
pub struct ExistingFile {
    /// The contents of the file.
    pub text: String,
    owner_and_mode: OwnerAndMode,
}

/// Owner, group and mode of a file.
#[derive(Debug, Clone, Copy)]
struct OwnerAndMode {
    owner: u32,
    group: u32,
    mode: u32,
}

impl OpenDir {
    /// Opens a directory.
    ///
    /// # Errors
    /// As the file system says; [`io::ErrorKind::InvalidInput`] if `path` has a symbolic link that other users may
    /// have made.
    pub fn open(path: &Path) -> io::Result<Self> {
        let mut walk = PathWalk::new(path)?;
        while let Some(name) = walk.remaining_names.pop() {
            walk.enter(&name)?;
        }
        let file = openat::open_dir(walk.dir.as_fd(), Path::new("."))?;
        let exposure = walk.exposure.or_else(|| {
            let facts = file.metadata().ok()?;
            is_writable_by_others(&facts, None).then(|| Exposure::of(&walk.resolved_path, &facts))
        });
        Ok(Self { file, path: walk.resolved_path, exposure })
    }

    /// The absolute path of the directory, without symbolic links when it was opened.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Why users other than root and the user of this process may change the directory, or replace it through
    /// a directory above it; `None` if they may not. A directory above with the sticky bit, such as /tmp, does
    /// not count.
    #[must_use]
    pub fn exposure(&self) -> Option<&Exposure> {
        self.exposure.as_ref()
    }

    /// Takes the lock of the directory, which is held until the value is dropped.
    ///
    /// # Errors
    /// [`io::ErrorKind::TimedOut`] if another process still holds the lock after `timeout`.
    pub fn lock(&self, timeout: Duration) -> io::Result<()> {
        let began = Instant::now();
        loop {
            match self.file.try_lock() {
                Ok(()) => return Ok(()),
                Err(TryLockError::WouldBlock) if began.elapsed() < timeout => {
                    std::thread::sleep(LOCK_RETRY_INTERVAL)
                }
                Err(TryLockError::WouldBlock) => {
                    let text = format!(
                        "another process has kept the lock on {} for {} s; try again when it has ended",
                        self.path.display(),
                        timeout.as_secs()
                    );
                    return Err(io::Error::new(io::ErrorKind::TimedOut, text));
                }
                Err(TryLockError::Error(e)) => return Err(e),
            }
        }
    }

    /// Reads a file in the directory; `None` if there is no such name.
    ///
    /// # Errors
    /// As the file system says; [`io::ErrorKind::FileTooLarge`] for more than `octets_max`;
    /// [`io::ErrorKind::InvalidInput`] for a link, a pipe, a device or a directory.
    pub fn read(&self, name: &str, octets_max: u64) -> io::Result<Option<ExistingFile>> {
        let file = match openat::open_to_read(self.file.as_fd(), Path::new(name)) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other?,
        };
        // Text, owner and mode of the same file, even if its name is replaced meanwhile.
        let facts = file.metadata()?;
        let like = OwnerAndMode { owner: facts.uid(), group: facts.gid(), mode: facts.mode() & 0o777 };
        Ok(Some(ExistingFile { text: openat::read_text_bounded(&file, octets_max)?, owner_and_mode: like }))
    }

    /// Replaces a file in the directory as a whole, durably: readers see either the old text or the new text.
    /// The new file has owner, group and mode of `old`; without an old file it gets owner and group of the
    /// directory, and `mode`. Only root can change the owner: a file that another user writes stays that
    /// user's.
    ///
    /// # Errors
    /// As the file system says; the old file is unchanged then.
    pub fn replace(
        &self,
        random: &dyn Random,
        name: &str,
        text: &str,
        old: Option<&ExistingFile>,
        mode: u32,
    ) -> io::Result<()> {
        let like = match old {
            Some(old) => old.owner_and_mode,
            None => {
                let dir = self.file.metadata()?;
                OwnerAndMode { owner: dir.uid(), group: dir.gid(), mode }
            }
        };
        let temporary = self.create_temporary_file(random, name)?;
        let published = temporary.write(text, like).and_then(|()| temporary.rename_into_place(name));
        if published.is_err() {
            // Only tidiness: no reader opens the temporary file.
            let _ = openat::remove(self.file.as_fd(), &temporary.name);
        }
        published?;
        self.file.sync_all()
    }

    fn create_temporary_file(&self, random: &dyn Random, name: &str) -> io::Result<TemporaryFile<'_>> {
        let name = PathBuf::from(format!(".{name}.{:016x}", random.bits()));
        Ok(TemporaryFile { dir: self, file: openat::create(self.file.as_fd(), &name)?, name })
    }

    /// Creates a directory in this directory, with this mode, and with owner and group of this directory if the
    /// process may set them. False if the name is taken.
    ///
    /// # Errors
    /// As the file system says; also if another user replaced the new directory.
    pub fn create_dir(&self, name: &OsStr, mode: u32) -> io::Result<bool> {
        match mkdirat(&self.file, name, Mode::RWXU) {
            Err(Errno::EXIST) => Ok(false),
            other => {
                other?;
                self.set_dir_owner_and_mode(name, mode)?;
                Ok(true)
            }
        }
    }

    /// Sets owner and mode of a directory that was just created.
    fn set_dir_owner_and_mode(&self, name: &OsStr, mode: u32) -> io::Result<()> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let made = openat::open_with_flags(self.file.as_fd(), Path::new(name), flags)?;
        let facts = made.metadata()?;
        // A user who may write here could have moved another directory of this process to this name.
        if facts.uid() != geteuid().as_raw() || !is_empty(&made)? {
            return Err(io::Error::other(
                "others put another directory in the place of the one that was made",
            ));
        }
        // A directory inherits the set-group-ID bit from the one above it, so that later files in it get its
        // group.
        let mode = mode | (facts.mode() & 0o2000);
        let above = self.file.metadata()?;
        set_owner_and_mode(&made, OwnerAndMode { owner: above.uid(), group: above.gid(), mode })?;
        self.file.sync_all()
    }

    /// Creates a directory in this directory that only the user of this process may enter.
    ///
    /// # Errors
    /// As the file system says, also if the name is taken.
    pub fn create_private_dir(&self, name: &str) -> io::Result<()> {
        Ok(mkdirat(&self.file, name, Mode::RWXU)?)
    }
}

/// A new file that does not have its final name yet.
struct TemporaryFile<'a> {
    dir: &'a OpenDir,
    file: File,
    name: PathBuf,
}

impl TemporaryFile<'_> {
    /// Works on the open file only, because another user may have replaced its name.
    fn write(&self, text: &str, like: OwnerAndMode) -> io::Result<()> {
        (&self.file).write_all(text.as_bytes())?;
        set_owner_and_mode(&self.file, like)?;
        self.file.sync_all()
    }

    fn rename_into_place(&self, name: &str) -> io::Result<()> {
        openat::rename(self.dir.file.as_fd(), &self.name, Path::new(name))
    }
}

fn set_owner_and_mode(file: &File, like: OwnerAndMode) -> io::Result<()> {
    let facts = file.metadata()?;
    if (facts.uid(), facts.gid()) != (like.owner, like.group) {
        match fchown(file, Some(like.owner), Some(like.group)) {
            // Only root may change the owner: the file keeps its owner.
            Err(e) if e.kind() == io::ErrorKind::PermissionDenied => {}
            other => other?,
        }
    }
    file.set_permissions(Permissions::from_mode(like.mode))
}

fn is_empty(dir: &File) -> io::Result<bool> {
    for entry in Dir::read_from(dir)? {
        if !matches!(entry?.file_name().to_bytes(), b"." | b"..") {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Opens the directories of a path one by one.
struct PathWalk {
    dir: File,
    resolved_path: PathBuf,
    /// The names that are not entered yet; the next one is last.
    remaining_names: Vec<OsString>,
    links_followed: usize,
    exposure: Option<Exposure>,
}

impl PathWalk {
    fn new(path: &Path) -> io::Result<Self> {
        let mut walk = Self {
            dir: openat::open_dir(CWD, Path::new("/"))?,
            resolved_path: PathBuf::from("/"),
            remaining_names: Vec::new(),
            links_followed: 0,
            exposure: None,
        };
        walk.push_path(&std::path::absolute(path)?)?;
        Ok(walk)
    }

    /// Puts the names of `path` before the remaining ones.
    fn push_path(&mut self, path: &Path) -> io::Result<()> {
        if path.is_absolute() {
            self.dir = openat::open_dir(CWD, Path::new("/"))?;
            self.resolved_path = PathBuf::from("/");
        }
        self.remaining_names.extend(path.components().rev().filter_map(|part| match part {
            Component::Normal(name) => Some(name.to_owned()),
            Component::ParentDir => Some("..".into()),
            Component::Prefix(_) | Component::RootDir | Component::CurDir => None,
        }));
        Ok(())
    }

    fn enter(&mut self, name: &OsStr) -> io::Result<()> {
        // O_PATH neither follows a link nor opens a pipe or a device.
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let next = openat::open_with_flags(self.dir.as_fd(), Path::new(name), flags)?;
        let (holder, facts) = (self.dir.metadata()?, next.metadata()?);
        let exposure =
            is_writable_by_others(&holder, Some(&facts)).then(|| Exposure::of(&self.resolved_path, &holder));
        if facts.is_symlink() {
            let link = self.resolved_path.join(name);
            if let Some(exposure) = exposure {
                let text = format!(
                    "{} is a symbolic link that others may have made ({exposure}): it is not followed; put \
                     the directory itself there, or see that {} belongs to root and only root may write it",
                    link.display(),
                    self.resolved_path.display()
                );
                return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
            }
            self.links_followed += 1;
            if self.links_followed > LINKS_MAX {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidInput,
                    format!("{} leads through more than {LINKS_MAX} symbolic links", link.display()),
                ));
            }
            let target = readlinkat(&next, "", Vec::new())?.into_bytes();
            return self.push_path(Path::new(&OsString::from_vec(target)));
        }
        if self.exposure.is_none() {
            self.exposure = exposure;
        }
        match name == ".." {
            true => drop(self.resolved_path.pop()),
            false => self.resolved_path.push(name),
        }
        self.dir = next;
        Ok(())
    }
}

/// Whether users other than root and the user of this process may replace `entry` in this directory; without an
/// entry, whether they may change anything in the directory.
fn is_writable_by_others(dir: &Metadata, entry: Option<&Metadata>) -> bool {
    let is_trusted = |facts: &Metadata| facts.uid() == 0 || facts.uid() == geteuid().as_raw();
    let is_kept = dir.mode() & 0o1000 != 0 && entry.is_some_and(is_trusted);
    !is_trusted(dir) || (dir.mode() & 0o022 != 0 && !is_kept)
}

impl Exposure {
    fn of(path: &Path, facts: &Metadata) -> Self {
        let is_trusted = facts.uid() == 0 || facts.uid() == geteuid().as_raw();
        Self { dir: path.to_owned(), owner: (!is_trusted).then_some(facts.uid()) }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{chown, symlink};

    use nix::sys::stat::Mode as NixMode;
    use nix::unistd::mkfifo;
    use tempfile::{TempDir, tempdir};

    use super::*;
    use crate::sys::SystemRandom;

    /// A name that other users can guess.
    struct FixedRandom;

    impl Random for FixedRandom {
        fn bits(&self) -> u64 {
            7
        }
    }

    /// A user other than root and the user of the test.
    const OTHER_UID: u32 = 65534;

    fn is_root() -> bool {
        geteuid().is_root()
    }

    fn set_mode(path: &Path, mode: u32) {
        fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    }

    /// A directory, and elsewhere a file that only the user of the test may read.
    fn dir_and_secret() -> (TempDir, TempDir, PathBuf) {
        let (dir, elsewhere) = (tempdir().unwrap(), tempdir().unwrap());
        let secret = elsewhere.path().join("secret");
        fs::write(&secret, "secret").unwrap();
        set_mode(&secret, 0o600);
        if is_root() {
            chown(dir.path(), Some(OTHER_UID), Some(OTHER_UID)).unwrap();
        }
        (dir, elsewhere, secret)
    }

    fn owner_and_mode(path: &Path) -> (u32, u32, u32) {
        let facts = fs::symlink_metadata(path).unwrap();
        (facts.uid(), facts.gid(), facts.mode() & 0o7777)
    }

    /// Owner and group. Only if the test runs as root do they differ from those of the test.
    fn owner_of(dir: &Path) -> (u32, u32) {
        let (owner, group, _) = owner_and_mode(dir);
        (owner, group)
    }

    #[test]
    fn a_new_file_gets_the_owner_of_the_directory_and_its_replacement_that_of_the_old_file() {
        let (dir, _elsewhere, _) = dir_and_secret();
        let (owner, group) = owner_of(dir.path());
        let open = OpenDir::open(dir.path()).unwrap();
        assert!(open.read("users", 100).unwrap().is_none());
        open.replace(&SystemRandom, "users", "one", None, 0o640).unwrap();
        let file = dir.path().join("users");
        assert_eq!(owner_and_mode(&file), (owner, group, 0o640));
        if is_root() {
            chown(&file, Some(OTHER_UID - 1), Some(OTHER_UID - 2)).unwrap();
        }
        set_mode(&file, 0o4604);
        let (owner, group) = owner_of(&file);
        let old = open.read("users", 100).unwrap().unwrap();
        assert_eq!(old.text, "one");
        open.replace(&SystemRandom, "users", "two", Some(&old), 0o640).unwrap();
        assert_eq!(owner_and_mode(&file), (owner, group, 0o604), "the set-user-ID bit is not copied");
        assert_eq!(fs::read_to_string(&file).unwrap(), "two");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "no temporary file is left");
        assert_eq!(open.read("users", 2).unwrap_err().kind(), io::ErrorKind::FileTooLarge);
    }

    #[test]
    fn a_link_a_pipe_and_a_directory_in_the_place_of_a_file_are_refused() {
        let (dir, _elsewhere, secret) = dir_and_secret();
        let open = OpenDir::open(dir.path()).unwrap();
        symlink(&secret, dir.path().join("link")).unwrap();
        mkfifo(&dir.path().join("pipe"), NixMode::S_IRWXU).unwrap();
        fs::create_dir(dir.path().join("directory")).unwrap();
        for name in ["link", "pipe", "directory"] {
            let error = open.read(name, 100).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{name}: {error}");
        }
        assert!(open.read("link", 100).unwrap_err().to_string().contains("symbolic link"));
        // Without an old file, the link itself is replaced, not its target.
        let before = owner_and_mode(&secret);
        open.replace(&SystemRandom, "link", "new", None, 0o644).unwrap();
        assert_eq!(
            (owner_and_mode(&secret), fs::read_to_string(&secret).unwrap().as_str()),
            (before, "secret")
        );
        assert!(open.replace(&SystemRandom, "directory", "new", None, 0o644).is_err());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 3, "no temporary file is left");
    }

    #[test]
    fn replacing_the_temporary_file_by_a_link_changes_no_other_file() {
        let (dir, _elsewhere, secret) = dir_and_secret();
        let before = owner_and_mode(&secret);
        let open = OpenDir::open(dir.path()).unwrap();
        let temporary = open.create_temporary_file(&SystemRandom, "users").unwrap();
        let name = dir.path().join(&temporary.name);
        fs::remove_file(&name).unwrap();
        symlink(&secret, &name).unwrap();
        let like = OwnerAndMode { owner: OTHER_UID, group: OTHER_UID, mode: 0o666 };
        temporary.write("text", like).unwrap();
        temporary.rename_into_place("users").unwrap();
        assert_eq!(
            (owner_and_mode(&secret), fs::read_to_string(&secret).unwrap().as_str()),
            (before, "secret")
        );
        // The link has the name now, and the next command refuses it.
        assert!(open.read("users", 100).is_err());
        // A link at the name of the temporary file is not followed, either.
        let taken = dir.path().join(format!(".users.{:016x}", FixedRandom.bits()));
        symlink(dir.path().join("nothing"), &taken).unwrap();
        let refused = open.replace(&FixedRandom, "users", "x", None, 0o644);
        assert_eq!(refused.unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert!(!dir.path().join("nothing").exists());
    }

    #[test]
    fn another_name_of_the_file_keeps_its_text_owner_and_mode() {
        let (dir, _elsewhere, secret) = dir_and_secret();
        let before = owner_and_mode(&secret);
        let file = dir.path().join("users");
        if fs::hard_link(&secret, &file).is_err() {
            // The directories are on different file systems, so there can be no hard link.
            fs::copy(&secret, &file).unwrap();
        }
        let open = OpenDir::open(dir.path()).unwrap();
        let old = open.read("users", 100).unwrap().unwrap();
        open.replace(&SystemRandom, "users", "secret and more", Some(&old), 0o644).unwrap();
        assert_eq!(
            owner_and_mode(&file),
            before,
            "the copy is not readable for more users than the text was"
        );
        assert_eq!(
            (owner_and_mode(&secret), fs::read_to_string(&secret).unwrap().as_str()),
            (before, "secret")
        );
    }

    #[test]
    fn a_link_in_the_path_is_followed_if_no_other_user_can_have_made_it() {
        let base = tempdir().unwrap();
        let (ours, theirs, target) =
            (base.path().join("ours"), base.path().join("theirs"), base.path().join("target"));
        for dir in [&ours, &theirs, &target] {
            fs::create_dir(dir).unwrap();
            symlink("../target", dir.join("link")).unwrap();
        }
        set_mode(&theirs, 0o777);
        fs::create_dir(target.join("domain")).unwrap();
        let opened = OpenDir::open(&ours.join("link/domain")).unwrap();
        assert_eq!(opened.path(), fs::canonicalize(target.join("domain")).unwrap());
        let refused = OpenDir::open(&theirs.join("link/domain")).unwrap_err().to_string();
        assert!(refused.contains("theirs/link is a symbolic link"), "{refused}");
        assert!(refused.contains("other users may write"), "{refused}");
        assert!(OpenDir::open(&theirs.join("link")).is_err(), "also as the last name");
        OpenDir::open(&theirs.join("../target/domain")).unwrap();
        symlink("round", ours.join("round")).unwrap();
        assert!(OpenDir::open(&ours.join("round")).is_err());
        if is_root() {
            set_mode(&theirs, 0o755);
            OpenDir::open(&theirs.join("link")).unwrap();
            chown(&theirs, Some(OTHER_UID), Some(OTHER_UID)).unwrap();
            let refused = OpenDir::open(&theirs.join("link")).unwrap_err().to_string();
            assert!(refused.contains("belongs to user 65534"), "{refused}");
        }
    }

    #[test]
    fn a_directory_is_exposed_if_others_may_write_it_or_one_above_it() {
        let base = tempdir().unwrap();
        let (above, dir) = (base.path().join("above"), base.path().join("above/dir"));
        fs::create_dir_all(&dir).unwrap();
        let exposure = || OpenDir::open(&dir).unwrap().exposure().map(ToString::to_string);
        for (mode_above, mode, exposed) in [
            (0o755, 0o755, None),
            (0o755, 0o777, Some("above/dir")),
            (0o755, 0o1777, Some("above/dir")),
            (0o755, 0o775, Some("above/dir")),
            (0o777, 0o755, Some("above")),
            (0o775, 0o755, Some("above")),
            (0o1777, 0o755, None),
        ] {
            set_mode(&above, mode_above);
            set_mode(&dir, mode);
            let reason = exposure();
            let ends = |name: &&str| reason.as_ref().is_some_and(|reason| reason.ends_with(*name));
            assert_eq!(reason.is_some(), exposed.is_some(), "{mode_above:o} {mode:o}: {reason:?}");
            assert!(exposed.as_ref().is_none_or(ends), "{reason:?}");
        }
        if is_root() {
            chown(&dir, Some(OTHER_UID), None).unwrap();
            // The owner of a directory may rename it although the directory above has the sticky bit.
            assert!(exposure().unwrap().starts_with("other users may write"));
            set_mode(&above, 0o755);
            assert!(exposure().unwrap().ends_with("above/dir belongs to user 65534"));
        }
    }

    #[test]
    fn a_new_directory_gets_owner_and_mode_unless_another_user_has_replaced_it() {
        let (dir, _elsewhere, _) = dir_and_secret();
        let (owner, group) = owner_of(dir.path());
        let open = OpenDir::open(dir.path()).unwrap();
        let make = |name: &str| open.create_dir(OsStr::new(name), 0o750);
        assert!(make("new.example").unwrap());
        assert_eq!(owner_and_mode(&dir.path().join("new.example")), (owner, group, 0o750));
        assert!(!make("new.example").unwrap(), "the directory exists");
        symlink("nowhere", dir.path().join("link.example")).unwrap();
        assert!(!make("link.example").unwrap());
        assert!(!dir.path().join("nowhere").exists());
        // Another directory has the name instead of the one that was created.
        let theirs = dir.path().join("theirs.example");
        fs::create_dir(&theirs).unwrap();
        set_mode(&theirs, 0o700);
        fs::write(theirs.join("file"), "").unwrap();
        let before = owner_and_mode(&theirs);
        assert!(open.set_dir_owner_and_mode(OsStr::new("theirs.example"), 0o750).is_err());
        assert!(open.set_dir_owner_and_mode(OsStr::new("link.example"), 0o750).is_err());
        assert_eq!(owner_and_mode(&theirs), before);
    }

    #[test]
    fn a_new_directory_keeps_an_inherited_set_group_id_bit() {
        let (dir, _elsewhere, _) = dir_and_secret();
        set_mode(dir.path(), 0o2755);
        let open = OpenDir::open(dir.path()).unwrap();
        assert!(open.create_dir(OsStr::new("new.example"), 0o750).unwrap());
        assert_eq!(owner_and_mode(&dir.path().join("new.example")).2, 0o2750);
    }

    #[test]
    fn a_lock_that_another_process_keeps_is_waited_for_only_until_the_timeout() {
        let dir = tempdir().unwrap();
        let (one, other) = (OpenDir::open(dir.path()).unwrap(), OpenDir::open(dir.path()).unwrap());
        one.lock(Duration::ZERO).unwrap();
        assert_eq!(other.lock(Duration::ZERO).unwrap_err().kind(), io::ErrorKind::TimedOut);
        drop(one);
        other.lock(Duration::ZERO).unwrap();
    }
}
