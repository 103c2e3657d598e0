//! Opens a directory name by name, and finds out whether other users may replace it.

use std::ffi::{OsStr, OsString};
use std::fs::{File, Metadata};
use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{CWD, OFlags, readlinkat};
use rustix::process::geteuid;

use crate::sys::openat;

/// Most symbolic links in the path of a directory; the kernel has the same limit.
const LINKS_MAX: usize = 40;

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

/// Opens the directories of a path one by one.
pub(super) struct PathWalk {
    pub(super) dir: File,
    pub(super) resolved_path: PathBuf,
    /// The names that are not entered yet; the next one is last.
    pub(super) remaining_names: Vec<OsString>,
    links_followed: usize,
    pub(super) exposure: Option<Exposure>,
}

impl PathWalk {
    pub(super) fn new(path: &Path) -> io::Result<Self> {
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

    pub(super) fn enter(&mut self, name: &OsStr) -> io::Result<()> {
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
pub(super) fn is_writable_by_others(dir: &Metadata, entry: Option<&Metadata>) -> bool {
    let is_trusted = |facts: &Metadata| facts.uid() == 0 || facts.uid() == geteuid().as_raw();
    let is_kept = dir.mode() & 0o1000 != 0 && entry.is_some_and(is_trusted);
    !is_trusted(dir) || (dir.mode() & 0o022 != 0 && !is_kept)
}

impl Exposure {
    pub(super) fn of(path: &Path, facts: &Metadata) -> Self {
        let is_trusted = facts.uid() == 0 || facts.uid() == geteuid().as_raw();
        Self { dir: path.to_owned(), owner: (!is_trusted).then_some(facts.uid()) }
    }
}
