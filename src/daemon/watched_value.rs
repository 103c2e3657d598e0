//! A value that is made from the operator's files, in the last version that could be read.
//!
//! One rule holds for users, aliases, senders, credentials, certificates and the lists of directories, at
//! the start, on SIGHUP and at the regular looks: fingerprints, read, fingerprints again ([`FileReader`]),
//! and the same result at two looks in a row. What was there and is gone or empty is believed after
//! [`GONE_LOOKS`] looks in a row. Files that are replaced or written meanwhile are read again at the next
//! look. What does not parse, or cannot be read, leaves the old version in force and is said once.
//!
//! Time stamps are coarse: while a file has just changed, it is read again at each look and its content is
//! compared.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::file_reader::{FileReader, FilesSnapshot};
use crate::sys::StopFlag;

/// Looks in a row that must find the same.
const EQUAL_POLLS: u8 = 2;

/// Looks in a row that must find nothing where something was.
const MISSING_POLLS: u8 = 5;

/// At a start, where there is no older version to stay in force: files that have not changed for so long are
/// believed at once, and others are looked at again after it.
const START_INTERVAL: Duration = Duration::from_millis(100);

/// Looks that a start or a reload waits for files to stay as they are.
const STABLE_POLLS_MAX: usize = 12;

/// Environment variable with the pause between two looks, in milliseconds.
const POLL_INTERVAL_VARIABLE: &str = "POSTRIDER_POLL_INTERVAL";

/// How files are looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PollSettings {
    /// Time between two looks.
    pub interval: Duration,
}

impl PollSettings {
    /// For a command that judges the files as they are at this moment, and then ends.
    pub const IMMEDIATE: Self = Self { interval: Duration::ZERO };

    /// For the server: a second, or what the environment says.
    #[must_use]
    pub fn for_server() -> Self {
        let set = std::env::var(POLL_INTERVAL_VARIABLE).ok().and_then(|text| text.parse().ok());
        Self { interval: Duration::from_millis(set.unwrap_or(1000).clamp(10, 60_000)) }
    }
}

/// What a look found.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct PollResult {
    /// There is something new: take the users, the aliases and the list of domains again.
    pub is_changed: bool,
    /// What is wrong and was not said before; the old state of it stays in force.
    pub problems: Vec<String>,
}

/// Looks until nothing is under way. `look` returns the paths that are changing, `wait` says whether to
/// give up.
///
/// # Errors
/// What keeps changing.
pub(super) fn wait_until_stable(
    looks: PollSettings,
    look: &mut dyn FnMut() -> Vec<PathBuf>,
    wait: &mut dyn FnMut(Duration) -> bool,
) -> Result<(), String> {
    let mut changing = look();
    for _ in 1..STABLE_POLLS_MAX {
        if changing.is_empty() || wait(looks.interval) {
            break;
        }
        changing = look();
    }
    let names: Vec<_> = changing.iter().take(3).map(|path| path.display().to_string()).collect();
    match changing.len() {
        0 => Ok(()),
        count => Err(format!(
            "{}{}: kept changing while the configuration was read; try again once nobody writes there",
            names.join(", "),
            if count > names.len() { ", …" } else { "" }
        )),
    }
}

/// The same for a start, which has no time to lose: the first wait is short.
///
/// # Errors
/// What keeps changing, or that the host has no descriptors left.
pub(super) fn wait_until_stable_at_start(
    looks: PollSettings,
    look: &mut dyn FnMut() -> Vec<PathBuf>,
) -> Result<(), String> {
    let never = StopFlag::new().map_err(|e| format!("cannot make a pipe: {e}"))?;
    let mut next = looks.interval.min(START_INTERVAL);
    wait_until_stable(looks, look, &mut |pause| never.wait(std::mem::replace(&mut next, pause)))
}

/// One thing that is read from files by itself.
pub(super) trait FileWatch {
    /// A version of it could be read.
    fn has_value(&self) -> bool;
    /// The files that the last look found changed and does not believe yet.
    fn changing_paths(&self) -> Vec<PathBuf>;
    /// What is wrong with the files as they are; an older version is in force, or none.
    fn problems(&self) -> &[String];
    /// Reads everything again at the next look, whatever the fingerprints say.
    fn invalidate(&mut self);
    /// Forgets a change that is not believed yet.
    fn discard_change(&mut self);
}

/// What files say, in the last version that could be read.
#[derive(Debug)]
pub(super) struct WatchedValue<T> {
    value: Option<Arc<T>>,
    /// What the value was read from. A loss is a loss from here, also after a version that did not parse.
    in_force: FilesSnapshot,
    /// The version that was last read, whether it parsed or not.
    last_read: FilesSnapshot,
    /// A change that the last look found.
    pending_change: Option<PendingChange>,
    /// The fingerprints are no proof, so the next look reads.
    is_invalidated: bool,
    problems: Vec<String>,
}

#[derive(Debug, Clone)]
struct PendingChange {
    files: FilesSnapshot,
    /// Looks in a row that found this.
    equal_polls: u8,
    /// It was found often enough, and could not be read.
    is_confirmed: bool,
}

impl<T> Clone for WatchedValue<T> {
    fn clone(&self) -> Self {
        Self {
            value: self.value.clone(),
            in_force: self.in_force.clone(),
            last_read: self.last_read.clone(),
            pending_change: self.pending_change.clone(),
            is_invalidated: self.is_invalidated,
            problems: self.problems.clone(),
        }
    }
}

impl<T> Default for WatchedValue<T> {
    fn default() -> Self {
        Self {
            value: None,
            in_force: FilesSnapshot::default(),
            last_read: FilesSnapshot::default(),
            pending_change: None,
            is_invalidated: true,
            problems: Vec::new(),
        }
    }
}

impl<T> WatchedValue<T> {
    /// What is in force; none before the first version that could be read.
    pub(super) fn value(&self) -> Option<&Arc<T>> {
        self.value.as_ref()
    }

    /// Reads the files if they have changed. `read` makes a value of them, or says what is wrong with them.
    pub(super) fn poll(
        &mut self,
        looks: PollSettings,
        found: &mut PollResult,
        read: impl FnOnce(&mut FileReader) -> Result<T, Vec<String>>,
    ) {
        if !self.is_invalidated && self.pending_change.is_none() && self.last_read.is_current() {
            return;
        }
        let mut reader = FileReader::default();
        let result = read(&mut reader);
        let files = reader.into_snapshot();
        if !files.is_current() {
            self.pending_change = Some(PendingChange { files, equal_polls: 0, is_confirmed: false });
            return;
        }
        if files == self.last_read && !files.has_unreadable_files() {
            self.pending_change = None;
            self.is_invalidated = files.is_just_changed();
            self.note_problems(result.err().unwrap_or_default(), found);
            return;
        }
        let before = self.pending_change.take().filter(|change| change.files == files);
        let count = before.map_or(0, |change| change.equal_polls).saturating_add(1);
        if count < self.polls_needed(looks, &files) {
            self.pending_change = Some(PendingChange { files, equal_polls: count, is_confirmed: false });
            return;
        }
        let is_suspect = files.is_just_changed();
        match result {
            // Not read, so the fingerprints do not say when it can be.
            Err(complaints) if files.has_unreadable_files() => {
                self.pending_change = Some(PendingChange { files, equal_polls: count, is_confirmed: true });
                self.note_problems(complaints, found);
            }
            Err(complaints) => {
                self.last_read = files;
                self.is_invalidated = is_suspect;
                self.note_problems(complaints, found);
            }
            Ok(value) => {
                self.in_force.clone_from(&files);
                self.last_read = files;
                self.is_invalidated = is_suspect;
                self.value = Some(Arc::new(value));
                self.problems.clear();
                found.is_changed = true;
            }
        }
    }

    fn polls_needed(&self, looks: PollSettings, files: &FilesSnapshot) -> u8 {
        if self.in_force.has_losses_in(files) {
            MISSING_POLLS
        } else if self.value.is_none() && files.is_unchanged_for(looks.interval.min(START_INTERVAL)) {
            1
        } else if self.is_invalidated && files.is_unchanged_for(looks.interval) {
            // That nothing has changed for a pause is as good as an earlier look that found the same.
            1
        } else {
            EQUAL_POLLS
        }
    }

    fn note_problems(&mut self, complaints: Vec<String>, found: &mut PollResult) {
        if self.problems != complaints {
            found.problems.extend(complaints.iter().cloned());
            self.problems = complaints;
        }
    }
}

impl<T> FileWatch for WatchedValue<T> {
    fn has_value(&self) -> bool {
        self.value.is_some()
    }

    fn changing_paths(&self) -> Vec<PathBuf> {
        let change = self.pending_change.as_ref().filter(|change| !change.is_confirmed);
        change.map_or_else(Vec::new, |change| {
            let differing = change.files.differing_paths(&self.last_read);
            // A file that changed and changed back during the look.
            if differing.is_empty() {
                change.files.differing_paths(&FilesSnapshot::default())
            } else {
                differing
            }
        })
    }

    fn problems(&self) -> &[String] {
        &self.problems
    }

    fn invalidate(&mut self) {
        self.is_invalidated = true;
        self.pending_change = None;
    }

    fn discard_change(&mut self) {
        self.pending_change = None;
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "a test's files need not be durable")]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;

    /// No file has rested for so long.
    const LOOKS: PollSettings = PollSettings { interval: Duration::from_hours(1) };

    /// A look at two files that make one value; `meanwhile` runs between the two.
    fn look(watched: &mut WatchedValue<String>, dir: &Path, meanwhile: impl FnOnce()) -> PollResult {
        let mut found = PollResult::default();
        watched.poll(LOOKS, &mut found, |reader| {
            let mut text = |name: &str| -> Result<String, Vec<String>> {
                let text = reader.read_text(&dir.join(name), 99).map_err(|e| vec![e.to_string()])?;
                Ok(text.unwrap_or_default())
            };
            let first = text("first")?;
            meanwhile();
            Ok(first + &text("second")?)
        });
        found
    }

    #[test]
    fn files_that_change_while_they_are_read_are_never_mixed() {
        let dir = tempfile::tempdir().unwrap();
        let write = |text: &str| {
            for name in ["first", "second"] {
                fs::write(dir.path().join(name), text).unwrap();
            }
        };
        let mut watched = WatchedValue::default();
        write("a");
        look(&mut watched, dir.path(), || ());
        assert!(watched.value().is_none() && watched.changing_paths().len() == 2, "one look is not enough");
        look(&mut watched, dir.path(), || write("b"));
        assert!(watched.value().is_none(), "what was read was the first of a and the second of b");
        for _ in 0..2 {
            look(&mut watched, dir.path(), || ());
        }
        assert_eq!(watched.value().unwrap().as_str(), "bb");
        assert!(watched.changing_paths().is_empty());

        // One of them is away at each look: believed after some looks only.
        write("c");
        for _ in 1..MISSING_POLLS {
            look(&mut watched, dir.path(), || {
                fs::rename(dir.path().join("second"), dir.path().join("away")).unwrap();
            });
            assert_eq!(watched.value().unwrap().as_str(), "bb");
            fs::rename(dir.path().join("away"), dir.path().join("second")).unwrap();
        }
    }

    #[test]
    fn what_cannot_be_read_is_tried_at_each_look_and_said_once() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("first"), "a").unwrap();
        let mut watched = WatchedValue::default();
        fs::create_dir(dir.path().join("second")).unwrap();
        let complaints: usize = (0..5).map(|_| look(&mut watched, dir.path(), || ()).problems.len()).sum();
        assert_eq!(complaints, 1, "a directory is no text");
        assert!(watched.changing_paths().is_empty() && watched.problems().len() == 1);
        fs::remove_dir(dir.path().join("second")).unwrap();
        for _ in 0..2 {
            look(&mut watched, dir.path(), || ());
        }
        assert!(watched.value().unwrap().as_str() == "a" && watched.problems().is_empty());
    }
}
