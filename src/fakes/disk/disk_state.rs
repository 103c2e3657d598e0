//! The state of a simulated disk: files, names, what is durable, and the faults that a test has set.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::path::{Path, PathBuf};

use super::dir_changes::{DirChange, RootHandle, RootIndex};
use super::inode::Inode;
use crate::fakes::SeededRandom;
use crate::sys::{Random as _, scheduling_point};

/// The name of an operation of the disk or of a file.
pub(super) type OperationName = &'static str;

#[derive(Default)]
pub(super) struct DiskState {
    pub(super) files: HashMap<u64, Inode>,
    pub(super) names: BTreeMap<PathBuf, u64>,
    pub(super) durable_names: BTreeMap<PathBuf, u64>,
    /// Changes of names that are not durable, in order.
    pub(super) pending_name_changes: Vec<NameChange>,
    pub(super) dirs: BTreeSet<PathBuf>,
    pub(super) last_inode_number: u64,
    pub(super) operations: Vec<OperationName>,
    pub(super) stop_after: Option<usize>,
    pub(super) failing_operation: Option<(usize, io::ErrorKind)>,
    pub(super) is_full: bool,
    pub(super) full_after: Option<usize>,
    pub(super) ignored_sync: Option<String>,
    pub(super) sync_kinds: BTreeSet<String>,
    pub(super) is_starting: bool,
    pub(super) open_count: usize,
    /// Incremented by a crash: a file that was opened in an earlier epoch can no longer be used.
    pub(super) epoch: u64,
    pub(super) roots: Vec<RootHandle>,
    /// A change of directories, and the number of operations after which it happens.
    pub(super) due_dir_change: Option<(usize, DirChange)>,
}

#[derive(Clone)]
pub(super) enum NameChange {
    Link {
        path: PathBuf,
        inode: u64,
    },
    Unlink {
        path: PathBuf,
        inode: u64,
    },
    /// One change: a journalling file system never loses both names.
    Rename {
        from: PathBuf,
        to: PathBuf,
        inode: u64,
    },
}

impl NameChange {
    pub(super) fn apply(&self, names: &mut BTreeMap<PathBuf, u64>) {
        match self {
            Self::Link { path, inode } => {
                names.insert(path.clone(), *inode);
            }
            Self::Unlink { path, inode } => {
                if names.get(path) == Some(inode) {
                    names.remove(path);
                }
            }
            Self::Rename { from, to, inode } => {
                if names.get(from) == Some(inode) {
                    names.remove(from);
                }
                names.insert(to.clone(), *inode);
            }
        }
    }

    /// This change after `dir_change`; none if no name of it is left.
    fn after(self, dir_change: &DirChange) -> Option<Self> {
        let after = |path: &Path| dir_change.path_after(path);
        match self {
            Self::Link { path, inode } => Some(Self::Link { path: after(&path)?, inode }),
            Self::Unlink { path, inode } => Some(Self::Unlink { path: after(&path)?, inode }),
            Self::Rename { from, to, inode } => match (after(&from), after(&to)) {
                (Some(from), Some(to)) => Some(Self::Rename { from, to, inode }),
                (None, Some(path)) => Some(Self::Link { path, inode }),
                (Some(path), None) => Some(Self::Unlink { path, inode }),
                (None, None) => None,
            },
        }
    }
}

impl DiskState {
    /// Records an operation and decides whether it fails. The flag of an error: half of a write is done.
    pub(super) fn begin_operation(&mut self, operation: OperationName) -> Result<(), (io::Error, bool)> {
        let number = self.operations.len();
        if self.stop_after.is_some_and(|stop| number >= stop) {
            // The first operation after the stop may be half done; later ones are not.
            let is_half = self.stop_after == Some(number);
            self.operations.push(operation);
            return Err((io::Error::other("the machine stopped"), is_half));
        }
        self.operations.push(operation);
        if let Some((_, kind)) = self.failing_operation.take_if(|(at, _)| *at == number) {
            return Err((kind.into(), true));
        }
        self.is_full |= self.full_after.take_if(|at| *at <= number).is_some();
        if self.is_full && matches!(operation, "append" | "create") {
            return Err((io::ErrorKind::StorageFull.into(), true));
        }
        Ok(())
    }

    /// [`Self::begin_operation`] for an operation that cannot be half done.
    pub(super) fn begin_whole_operation(&mut self, operation: OperationName) -> io::Result<()> {
        self.begin_operation(operation).map_err(|(e, _)| e)
    }

    /// Records a kind of sync; false if the test ignores this kind.
    pub(super) fn takes_effect(&mut self, operation: OperationName, dir: Option<&Path>, what: &str) -> bool {
        let dir = dir.and_then(Path::file_name).unwrap_or_default().to_string_lossy();
        let when = if self.is_starting { " at the start" } else { "" };
        let sync = format!("{operation} {dir}{what}{when}");
        let is_effective = self.ignored_sync.as_ref() != Some(&sync);
        self.sync_kinds.insert(sync);
        is_effective
    }

    /// Makes the changes of names in `dir` durable.
    pub(super) fn sync_names_in(&mut self, dir: &Path) {
        let in_dir = |path: &Path| path.parent() == Some(dir);
        let (synced, pending): (Vec<_>, Vec<_>) =
            self.pending_name_changes.iter().cloned().partition(|change| match change {
                NameChange::Link { path, .. } | NameChange::Unlink { path, .. } => in_dir(path),
                NameChange::Rename { from, to, .. } => in_dir(to) || in_dir(from),
            });
        let is_new = |change: &NameChange| match change {
            NameChange::Link { .. } => true,
            NameChange::Unlink { .. } => false,
            // A spare file is kept only for its allocated blocks.
            NameChange::Rename { to, .. } => to.extension().is_none_or(|extension| extension != "spare"),
        };
        let what = match (synced.is_empty(), synced.iter().any(is_new)) {
            (true, _) => " (nothing)",
            (false, true) => " (new names)",
            (false, false) => " (gone names)",
        };
        if !self.takes_effect("sync_dir", Some(dir), what) {
            return;
        }
        synced.iter().for_each(|change| change.apply(&mut self.durable_names));
        let renamed: BTreeSet<_> = synced
            .iter()
            .filter_map(
                |change| if let NameChange::Rename { inode, .. } = change { Some(*inode) } else { None },
            )
            .collect();
        self.pending_name_changes = pending;
        // A file whose new name is durable does not get its old name back.
        self.pending_name_changes
            .retain(|change| !matches!(change, NameChange::Link { inode, .. } if renamed.contains(inode)));
    }

    /// Applies the change of directories that is due, if there is one.
    pub(super) fn apply_due_dir_change(&mut self) {
        let count = self.operations.len();
        let Some((_, change)) = self.due_dir_change.take_if(|(after, _)| count >= *after) else { return };
        for names in [&mut self.names, &mut self.durable_names] {
            let old = std::mem::take(names);
            names
                .extend(old.into_iter().filter_map(|(path, inode)| Some((change.path_after(&path)?, inode))));
        }
        let pending = std::mem::take(&mut self.pending_name_changes);
        self.pending_name_changes = pending.into_iter().filter_map(|one| one.after(&change)).collect();
        self.dirs = self.dirs.iter().filter_map(|dir| change.path_after(dir)).collect();
        self.roots.iter_mut().for_each(|root| root.apply(&change));
    }

    /// The path to which `path` of a handle leads; `root` is the directory that the handle holds open.
    pub(super) fn resolve(&self, root: Option<RootIndex>, path: &Path) -> io::Result<PathBuf> {
        match root.and_then(|number| self.roots.get(number)) {
            Some(root) => root.resolve(path),
            None => Ok(path.to_owned()),
        }
    }

    /// Applies each change of names that was not synced, or not, and a random part of the data.
    pub(super) fn tear_unsynced(&mut self, random: &SeededRandom) {
        let mut names = self.durable_names.clone();
        for change in &self.pending_name_changes {
            if random.below(2) == 0 {
                change.apply(&mut names);
            }
        }
        self.names = names;
        let mut numbers: Vec<_> = self.files.keys().copied().collect();
        numbers.sort_unstable();
        for number in numbers {
            if let Some(inode) = self.files.get_mut(&number) {
                inode.tear_unsynced_writes(random);
            }
        }
    }
}

/// Lets another thread act before this operation, in a test that schedules threads.
pub(super) fn disk_scheduling_point(operation: OperationName, path: &Path) {
    scheduling_point(|| format!("disk {operation} {}", path.display()));
}
