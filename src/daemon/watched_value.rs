//! A value made from the operator's files, in the last version that could be read.
//!
//! One rule holds for users, aliases, senders, credentials, certificates and lists of directories, at a
//! start, on SIGHUP and at regular polls: take fingerprints, read, take fingerprints again ([`FileReader`]).
//! Two polls in a row must find the same. A missing or emptied file counts after [`MISSING_POLLS`] polls in
//! a row. Files that change during a poll are read again at the next one. A version that does not parse, or
//! cannot be read, leaves the old one in force and is logged once.
//!
//! Time stamps are coarse: a file that has just changed is read at each poll, and its content is compared.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::file_reader::{FileReader, FilesSnapshot};
use crate::sys::StopFlag;

/// Polls in a row that must find the same content.
const EQUAL_POLLS: u8 = 2;

/// Polls in a row that must find a file missing or empty.
const MISSING_POLLS: u8 = 5;

/// At a start there is no older version to keep in force. Files that have not changed for this time count at
/// once; others are polled again after it.
const START_INTERVAL: Duration = Duration::from_millis(100);

/// Polls that a start or a reload makes until the files stay the same.
const STABLE_POLLS_MAX: usize = 12;

/// Environment variable with the time between two polls, in milliseconds.
const POLL_INTERVAL_VARIABLE: &str = "POSTRIDER_POLL_INTERVAL";

/// How files are polled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PollSettings {
    /// Time between two polls.
    pub interval: Duration,
}

impl PollSettings {
    /// For a command that judges the files as they are now, and ends.
    pub const IMMEDIATE: Self = Self { interval: Duration::ZERO };

    /// For the server: a second, or the value in the environment.
    #[must_use]
    pub fn for_server() -> Self {
        let set = std::env::var(POLL_INTERVAL_VARIABLE).ok().and_then(|text| text.parse().ok());
        Self { interval: Duration::from_millis(set.unwrap_or(1000).clamp(10, 60_000)) }
    }
}

/// The result of a poll.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct PollResult {
    /// A value has changed.
    pub is_changed: bool,
    /// Problems that were not returned before. The old value stays in force.
    pub problems: Vec<String>,
}

/// Polls until no file is changing. `poll` returns the paths that are changing; `wait` returns whether to
/// give up.
///
/// # Errors
/// The files that keep changing.
pub(super) fn wait_until_stable(
    settings: PollSettings,
    poll: &mut dyn FnMut() -> Vec<PathBuf>,
    wait: &mut dyn FnMut(Duration) -> bool,
) -> Result<(), String> {
    let mut changing = poll();
    for _ in 1..STABLE_POLLS_MAX {
        if changing.is_empty() || wait(settings.interval) {
            break;
        }
        changing = poll();
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

/// As [`wait_until_stable`], with a short first wait, so that a start is quick.
///
/// # Errors
/// The files that keep changing, or that the host has no file descriptors left.
pub(super) fn wait_until_stable_at_start(
    settings: PollSettings,
    poll: &mut dyn FnMut() -> Vec<PathBuf>,
) -> Result<(), String> {
    let never = StopFlag::new().map_err(|e| format!("cannot make a pipe: {e}"))?;
    let mut next = settings.interval.min(START_INTERVAL);
    wait_until_stable(settings, poll, &mut |pause| never.wait(std::mem::replace(&mut next, pause)))
}

/// A value that is read from files by itself.
pub(super) trait FileWatch {
    /// Whether a version could be read.
    fn has_value(&self) -> bool;
    /// The files that the last poll found changed, while the change does not count yet.
    fn changing_paths(&self) -> Vec<PathBuf>;
    /// The problems of the files as they are.
    fn problems(&self) -> &[String];
    /// Reads everything at the next poll, whatever the fingerprints say.
    fn invalidate(&mut self);
    /// Forgets a change that does not count yet.
    fn discard_change(&mut self);
}

/// The value of files, in the last version that could be read.
#[derive(Debug)]
pub(super) struct WatchedValue<T> {
    value: Option<Arc<T>>,
    /// The files of the value in force. A file that is missing later is compared with these, also after a
    /// version that did not parse.
    in_force: FilesSnapshot,
    /// The version that was read last, whether it parsed or not.
    last_read: FilesSnapshot,
    /// A change that the last poll found.
    pending_change: Option<PendingChange>,
    /// The next poll reads, whatever the fingerprints say.
    is_invalidated: bool,
    problems: Vec<String>,
}

#[derive(Debug, Clone)]
struct PendingChange {
    files: FilesSnapshot,
    /// Polls in a row that found this.
    equal_polls: u8,
    /// The change counts, and could not be read.
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
    /// The value in force; none before the first version that could be read.
    pub(super) fn value(&self) -> Option<&Arc<T>> {
        self.value.as_ref()
    }

    /// Reads the files if they have changed. `read` makes the value, or returns the problems.
    pub(super) fn poll(
        &mut self,
        settings: PollSettings,
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
        if count < self.polls_needed(settings, &files) {
            self.pending_change = Some(PendingChange { files, equal_polls: count, is_confirmed: false });
            return;
        }
        let is_suspect = files.is_just_changed();
        match result {
            // The file was not read, so its fingerprint cannot show when it becomes readable.
            Err(problems) if files.has_unreadable_files() => {
                self.pending_change = Some(PendingChange { files, equal_polls: count, is_confirmed: true });
                self.note_problems(problems, found);
            }
            Err(problems) => {
                self.last_read = files;
                self.is_invalidated = is_suspect;
                self.note_problems(problems, found);
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

    fn polls_needed(&self, settings: PollSettings, files: &FilesSnapshot) -> u8 {
        if self.in_force.has_losses_in(files) {
            MISSING_POLLS
        } else if self.value.is_none() && files.is_unchanged_for(settings.interval.min(START_INTERVAL)) {
            1
        } else if self.is_invalidated && files.is_unchanged_for(settings.interval) {
            // No change for the time of a pause is as good as an earlier poll that found the same.
            1
        } else {
            EQUAL_POLLS
        }
    }

    fn note_problems(&mut self, problems: Vec<String>, found: &mut PollResult) {
        if self.problems != problems {
            found.problems.extend(problems.iter().cloned());
            self.problems = problems;
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
            // A file that changed and changed back during the poll.
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

    /// Longer than any file has been unchanged.
    const LOOKS: PollSettings = PollSettings { interval: Duration::from_hours(1) };

    /// Polls two files that make one value; `meanwhile` runs between reading the two.
    fn poll(watched: &mut WatchedValue<String>, dir: &Path, meanwhile: impl FnOnce()) -> PollResult {
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
        poll(&mut watched, dir.path(), || ());
        assert!(watched.value().is_none() && watched.changing_paths().len() == 2, "one look is not enough");
        poll(&mut watched, dir.path(), || write("b"));
        assert!(watched.value().is_none(), "what was read was the first of a and the second of b");
        for _ in 0..2 {
            poll(&mut watched, dir.path(), || ());
        }
        assert_eq!(watched.value().unwrap().as_str(), "bb");
        assert!(watched.changing_paths().is_empty());

        // One of them is missing at each poll: that counts only after several polls.
        write("c");
        for _ in 1..MISSING_POLLS {
            poll(&mut watched, dir.path(), || {
                fs::rename(dir.path().join("second"), dir.path().join("away")).unwrap();
            });
            assert_eq!(watched.value().unwrap().as_str(), "bb");
            fs::rename(dir.path().join("away"), dir.path().join("second")).unwrap();
        }
    }

    #[test]
    fn an_unreadable_file_is_tried_at_each_poll_and_logged_once() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("first"), "a").unwrap();
        let mut watched = WatchedValue::default();
        fs::create_dir(dir.path().join("second")).unwrap();
        let problems: usize = (0..5).map(|_| poll(&mut watched, dir.path(), || ()).problems.len()).sum();
        assert_eq!(problems, 1, "a directory is no text");
        assert!(watched.changing_paths().is_empty() && watched.problems().len() == 1);
        fs::remove_dir(dir.path().join("second")).unwrap();
        for _ in 0..2 {
            poll(&mut watched, dir.path(), || ());
        }
        assert!(watched.value().unwrap().as_str() == "a" && watched.problems().is_empty());
    }
}
