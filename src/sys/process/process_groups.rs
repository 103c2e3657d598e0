//! The process groups of all running programs, so that none outlives this process.

use std::collections::BTreeSet;
use std::io;
use std::process::{Child, Command};
use std::sync::{PoisonError, RwLock};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use crate::sys::plain_mutex::PlainMutex as Mutex;

/// The programs of this process that are not reaped.
struct ProcessGroups {
    /// All programs were killed, and no more are started. Held for reading while a program is started and
    /// added to `groups`, so that none is missed.
    is_shut_down: RwLock<bool>,
    groups: Mutex<BTreeSet<i32>>,
}

static PROCESS_GROUPS: ProcessGroups =
    ProcessGroups { is_shut_down: RwLock::new(false), groups: Mutex::new(BTreeSet::new()) };

/// Kills every running program with its process group, and prevents the start of others.
pub(super) fn kill_all() {
    *PROCESS_GROUPS.is_shut_down.write().unwrap_or_else(PoisonError::into_inner) = true;
    for group in &*PROCESS_GROUPS.groups.lock() {
        // Fails if the whole group has ended.
        let _ = killpg(Pid::from_raw(*group), Signal::SIGKILL);
    }
}

pub(super) fn is_shut_down() -> bool {
    *PROCESS_GROUPS.is_shut_down.read().unwrap_or_else(PoisonError::into_inner)
}

/// Starts a program that leads a process group, and records the group; none after [`kill_all`].
pub(super) fn spawn_recorded(command: &mut Command) -> io::Result<Option<Child>> {
    let is_shut_down = PROCESS_GROUPS.is_shut_down.read().unwrap_or_else(PoisonError::into_inner);
    if *is_shut_down {
        return Ok(None);
    }
    let child = command.spawn()?;
    PROCESS_GROUPS.groups.lock().insert(group_of(&child).as_raw());
    drop(is_shut_down);
    Ok(Some(child))
}

/// Called before a program is reaped: its number may be that of another process afterwards.
pub(super) fn forget(group: Pid) {
    PROCESS_GROUPS.groups.lock().remove(&group.as_raw());
}

/// A program leads the process group that has its own number.
pub(super) fn group_of(child: &Child) -> Pid {
    Pid::from_raw(i32::try_from(child.id()).unwrap_or(i32::MAX))
}
