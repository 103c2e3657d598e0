//! What a start finds in the spool's directories.
//!
//! Empties `incoming/`, lists `waiting/` without opening a file, replays the journal, and sets damaged files
//! aside. If a message is in both, `open` decides.

use std::collections::{HashMap, HashSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::journal::{Journal, JournalPosition, ReplayProblem, ReplayedRecord};
use super::journal_record::RecordKind;
use super::message_file;
use super::open_error::OpenError;
use super::parts::{SpoolDirs, SpoolParts};
use super::progress_update::ProgressUpdate;
use crate::mail::{MessageId, Timestamp};
use crate::observe::Counter;
use crate::sys::Disk;

/// The version of the layout that this program writes.
const VERSION: u32 = 2;

/// Messages of the journal that are neither settled nor moved, with their updates.
pub(super) type JournaledMessages = HashMap<MessageId, (JournalPosition, Vec<ProgressUpdate>)>;

/// Refuses a spool of another version. Writes the version of a new spool.
pub(super) fn check_version(parts: &SpoolParts, root: &Path) -> Result<(), OpenError> {
    let path = root.join("version");
    let fail = |error| OpenError::Io { path: path.clone(), error };
    match parts.disk.open(&path) {
        Ok(file) => {
            let text = file.read_range(0, 32).map_err(fail)?;
            let version = String::from_utf8_lossy(&text).trim().to_owned();
            // An empty file: the machine stopped while a new spool was made, before a message was accepted.
            if version.is_empty() {
                return Ok(());
            }
            match version.parse::<u32>() {
                Ok(VERSION) => Ok(()),
                Ok(0..VERSION) => Err(OpenError::Older { path, version }),
                Ok(_) | Err(_) => Err(OpenError::Newer { path, version }),
            }
        }
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            let text = format!("{}\n", VERSION);
            crate::sys::replace_file(parts.disk.as_ref(), parts.random.as_ref(), &path, text.as_bytes())
                .map_err(fail)
        }
        Err(e) => Err(fail(e)),
    }
}

/// The recovery of a spool at a start.
pub(super) struct SpoolRecovery<'a> {
    pub(super) disk: &'a Arc<dyn Disk>,
    pub(super) dirs: &'a SpoolDirs,
    pub(super) damaged: &'a Counter,
    pub(super) journaled: JournaledMessages,
    pub(super) newer_segment: Option<(PathBuf, u32)>,
}

impl SpoolRecovery<'_> {
    /// Empties `incoming`, and lists `waiting` without opening a file.
    pub(super) fn list(&self) -> io::Result<Vec<(MessageId, u64, Timestamp)>> {
        for entry in self.disk.list(&self.dirs.incoming)? {
            self.disk.remove(&self.dirs.incoming.join(&entry.name))?;
        }
        let mut waiting = Vec::new();
        let mut seen = HashSet::new();
        for entry in self.disk.list(&self.dirs.waiting)? {
            match message_file::parse_name(&entry.name) {
                Some((id, octets)) if entry.octets > octets && seen.insert(id) => {
                    waiting.push((id, octets, entry.modified));
                }
                _ => self.set_aside(&entry.name)?,
            }
        }
        // Names that the last process made count from here on, so they must be durable.
        self.disk.sync_dir(&self.dirs.waiting)?;
        Ok(waiting)
    }

    fn set_aside(&self, name: &str) -> io::Result<()> {
        self.damaged.add_one();
        let to = self.dirs.damaged.join(name);
        log::error!(target: "queue", "a damaged file of the queue was set aside as {}", to.display());
        self.disk.rename(&self.dirs.waiting.join(name), &to)?;
        // The new name must be durable before the old one is gone.
        self.disk.sync_dir(&self.dirs.damaged)
    }

    pub(super) fn replay(&mut self, parts: &SpoolParts, dir: &Path) -> io::Result<Journal> {
        let (journaled, newer) = (&mut self.journaled, &mut self.newer_segment);
        let (disk, damaged, damaged_dir) = (self.disk, self.damaged, &self.dirs.damaged);
        Journal::open(
            Arc::clone(disk),
            Arc::clone(&parts.random),
            dir,
            damaged_dir,
            parts.segment_octets,
            &mut |record| apply_record(journaled, &record),
            &mut |problem| match problem {
                ReplayProblem::Newer { segment, version } => {
                    *newer = Some((segment, version));
                    Ok(())
                }
                ReplayProblem::Damaged { segment, octets, offset } => {
                    copy_damaged_octets(disk.as_ref(), damaged_dir, &segment, &octets, offset, damaged)
                }
                ReplayProblem::Unreadable { segment, octets, error } => {
                    damaged.add_one();
                    log::error!(
                        target: "queue",
                        "{} octets of {} cannot be read ({error}); it will be kept in {}, and what could be \
                         read is in the queue",
                        octets,
                        segment.display(),
                        damaged_dir.display()
                    );
                    Ok(())
                }
            },
        )
    }
}

fn apply_record(journaled: &mut JournaledMessages, record: &ReplayedRecord<'_>) {
    match record.kind {
        RecordKind::Put => {
            journaled.insert(record.id, (record.position, Vec::new()));
        }
        RecordKind::Note => {
            if let (Some((_, updates)), Ok(update)) =
                (journaled.get_mut(&record.id), serde_json::from_slice(record.text))
            {
                updates.push(update);
            }
        }
        RecordKind::Moved | RecordKind::Done | RecordKind::Cancel => {
            journaled.remove(&record.id);
        }
    }
}

/// Copies damaged octets of a segment to `damaged`, once: the name of the copy has their offset.
fn copy_damaged_octets(
    disk: &dyn Disk,
    dir: &Path,
    segment: &Path,
    octets: &[u8],
    offset: u64,
    damaged: &Counter,
) -> io::Result<()> {
    let name = segment.file_name().unwrap_or_default().to_string_lossy();
    let path = dir.join(format!("{name}.{offset}"));
    // An earlier start may have failed and left half a copy.
    let is_there =
        disk.open(&path).and_then(|copy| copy.length()).is_ok_and(|length| length >= octets.len() as u64);
    if is_there {
        return Ok(());
    }
    let file = message_file::create_replacing(disk, &path)?;
    file.append(octets)?;
    file.sync()?;
    disk.sync_dir(dir)?;
    damaged.add_one();
    log::error!(
        target: "queue",
        "{} has {} damaged octets at {offset}; a copy is {}",
        segment.display(),
        octets.len(),
        path.display()
    );
    Ok(())
}
