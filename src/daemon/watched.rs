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

use super::reader::{FileReader, Files};
use crate::sys::Stop;

/// Looks in a row that must find the same.
const EQUAL_LOOKS: u8 = 2;

/// Looks in a row that must find nothing where something was.
const GONE_LOOKS: u8 = 5;

/// At a start, where there is no older version to stay in force: files that have not changed for so long are
/// believed at once, and others are looked at again after it.
const START_PAUSE: Duration = Duration::from_millis(100);

/// Looks that a start or a reload waits for files to stay as they are.
const SETTLE_LOOKS_MAX: usize = 12;

/// Environment variable with the pause between two looks, in milliseconds.
const PAUSE_VARIABLE: &str = "POSTRIDER_LOOK_PAUSE";

/// How files are looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Looks {
    /// Time between two looks.
    pub pause: Duration,
}

impl Looks {
    /// For a command that judges the files as they are at this moment, and then ends.
    pub const AT_ONCE: Self = Self { pause: Duration::ZERO };

    /// For the server: a second, or what the environment says.
    #[must_use]
    pub fn of_the_server() -> Self {
        let set = std::env::var(PAUSE_VARIABLE).ok().and_then(|text| text.parse().ok());
        Self { pause: Duration::from_millis(set.unwrap_or(1000).clamp(10, 60_000)) }
    }
}

/// What a look found.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Look {
    /// There is something new: take the users, the aliases and the list of domains again.
    pub is_changed: bool,
    /// What is wrong and was not said before; the old state of it stays in force.
    pub complaints: Vec<String>,
}

/// Looks until nothing is under way. `look` returns the paths that are changing, `wait` says whether to
/// give up.
///
/// # Errors
/// What keeps changing.
pub(super) fn settle(
    looks: Looks,
    look: &mut dyn FnMut() -> Vec<PathBuf>,
    wait: &mut dyn FnMut(Duration) -> bool,
) -> Result<(), String> {
    let mut changing = look();
    for _ in 1..SETTLE_LOOKS_MAX {
        if changing.is_empty() || wait(looks.pause) {
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
pub(super) fn settle_at_start(looks: Looks, look: &mut dyn FnMut() -> Vec<PathBuf>) -> Result<(), String> {
    let never = Stop::new().map_err(|e| format!("cannot make a pipe: {e}"))?;
    let mut next = looks.pause.min(START_PAUSE);
    settle(looks, look, &mut |pause| never.wait(std::mem::replace(&mut next, pause)))
}

/// One thing that is read from files by itself.
pub(super) trait Unit {
    /// A version of it could be read.
    fn is_read(&self) -> bool;
    /// The files that the last look found changed and does not believe yet.
    fn changing(&self) -> Vec<PathBuf>;
    /// What is wrong with the files as they are; an older version is in force, or none.
    fn complaints(&self) -> &[String];
    /// Reads everything again at the next look, whatever the fingerprints say.
    fn distrust(&mut self);
    /// Forgets a change that is not believed yet.
    fn forget_change(&mut self);
}

/// What files say, in the last version that could be read.
#[derive(Debug)]
pub(super) struct Watched<T> {
    value: Option<Arc<T>>,
    /// What the value was read from. A loss is a loss from here, also after a version that did not parse.
    in_force: Files,
    /// The version that was last read, whether it parsed or not.
    read: Files,
    /// A change that the last look found.
    change: Option<Change>,
    /// The fingerprints are no proof, so the next look reads.
    is_suspect: bool,
    complaints: Vec<String>,
}

#[derive(Debug, Clone)]
struct Change {
    files: Files,
    /// Looks in a row that found this.
    looks: u8,
    /// It was found often enough, and could not be read.
    is_believed: bool,
}

impl<T> Clone for Watched<T> {
    fn clone(&self) -> Self {
        Self {
            value: self.value.clone(),
            in_force: self.in_force.clone(),
            read: self.read.clone(),
            change: self.change.clone(),
            is_suspect: self.is_suspect,
            complaints: self.complaints.clone(),
        }
    }
}

impl<T> Default for Watched<T> {
    fn default() -> Self {
        Self {
            value: None,
            in_force: Files::default(),
            read: Files::default(),
            change: None,
            is_suspect: true,
            complaints: Vec::new(),
        }
    }
}

impl<T> Watched<T> {
    /// What is in force; none before the first version that could be read.
    pub(super) fn value(&self) -> Option<&Arc<T>> {
        self.value.as_ref()
    }

    /// Reads the files if they have changed. `read` makes a value of them, or says what is wrong with them.
    pub(super) fn look(
        &mut self,
        looks: Looks,
        found: &mut Look,
        read: impl FnOnce(&mut FileReader) -> Result<T, Vec<String>>,
    ) {
        if !self.is_suspect && self.change.is_none() && self.read.are_current() {
            return;
        }
        let mut reader = FileReader::default();
        let result = read(&mut reader);
        let files = reader.into_files();
        if !files.are_current() {
            self.change = Some(Change { files, looks: 0, is_believed: false });
            return;
        }
        if files == self.read && !files.have_unread() {
            self.change = None;
            self.is_suspect = files.have_just_changed();
            self.say(result.err().unwrap_or_default(), found);
            return;
        }
        let before = self.change.take().filter(|change| change.files == files);
        let count = before.map_or(0, |change| change.looks).saturating_add(1);
        if count < self.looks_needed(looks, &files) {
            self.change = Some(Change { files, looks: count, is_believed: false });
            return;
        }
        let is_suspect = files.have_just_changed();
        match result {
            // Not read, so the fingerprints do not say when it can be.
            Err(complaints) if files.have_unread() => {
                self.change = Some(Change { files, looks: count, is_believed: true });
                self.say(complaints, found);
            }
            Err(complaints) => {
                self.read = files;
                self.is_suspect = is_suspect;
                self.say(complaints, found);
            }
            Ok(value) => {
                self.in_force.clone_from(&files);
                self.read = files;
                self.is_suspect = is_suspect;
                self.value = Some(Arc::new(value));
                self.complaints.clear();
                found.is_changed = true;
            }
        }
    }

    fn looks_needed(&self, looks: Looks, files: &Files) -> u8 {
        if self.in_force.lose_something_in(files) {
            GONE_LOOKS
        } else if self.value.is_none() && files.have_rested(looks.pause.min(START_PAUSE)) {
            1
        } else if self.is_suspect && files.have_rested(looks.pause) {
            // That nothing has changed for a pause is as good as an earlier look that found the same.
            1
        } else {
            EQUAL_LOOKS
        }
    }

    fn say(&mut self, complaints: Vec<String>, found: &mut Look) {
        if self.complaints != complaints {
            found.complaints.extend(complaints.iter().cloned());
            self.complaints = complaints;
        }
    }
}

impl<T> Unit for Watched<T> {
    fn is_read(&self) -> bool {
        self.value.is_some()
    }

    fn changing(&self) -> Vec<PathBuf> {
        let change = self.change.as_ref().filter(|change| !change.is_believed);
        change.map_or_else(Vec::new, |change| {
            let differing = change.files.differing(&self.read);
            // A file that changed and changed back during the look.
            if differing.is_empty() { change.files.differing(&Files::default()) } else { differing }
        })
    }

    fn complaints(&self) -> &[String] {
        &self.complaints
    }

    fn distrust(&mut self) {
        self.is_suspect = true;
        self.change = None;
    }

    fn forget_change(&mut self) {
        self.change = None;
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "a test's files need not be durable")]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;

    /// No file has rested for so long.
    const LOOKS: Looks = Looks { pause: Duration::from_hours(1) };

    /// A look at two files that make one value; `meanwhile` runs between the two.
    fn look(watched: &mut Watched<String>, dir: &Path, meanwhile: impl FnOnce()) -> Look {
        let mut found = Look::default();
        watched.look(LOOKS, &mut found, |reader| {
            let mut text = |name: &str| -> Result<String, Vec<String>> {
                let text = reader.text(&dir.join(name), 99).map_err(|e| vec![e.to_string()])?;
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
        let mut watched = Watched::default();
        write("a");
        look(&mut watched, dir.path(), || ());
        assert!(watched.value().is_none() && watched.changing().len() == 2, "one look is not enough");
        look(&mut watched, dir.path(), || write("b"));
        assert!(watched.value().is_none(), "what was read was the first of a and the second of b");
        for _ in 0..2 {
            look(&mut watched, dir.path(), || ());
        }
        assert_eq!(watched.value().unwrap().as_str(), "bb");
        assert!(watched.changing().is_empty());

        // One of them is away at each look: believed after some looks only.
        write("c");
        for _ in 1..GONE_LOOKS {
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
        let mut watched = Watched::default();
        fs::create_dir(dir.path().join("second")).unwrap();
        let complaints: usize = (0..5).map(|_| look(&mut watched, dir.path(), || ()).complaints.len()).sum();
        assert_eq!(complaints, 1, "a directory is no text");
        assert!(watched.changing().is_empty() && watched.complaints().len() == 1);
        fs::remove_dir(dir.path().join("second")).unwrap();
        for _ in 0..2 {
            look(&mut watched, dir.path(), || ());
        }
        assert!(watched.value().unwrap().as_str() == "a" && watched.complaints().is_empty());
    }
}
