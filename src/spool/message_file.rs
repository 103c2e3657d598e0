//! A message in a file of its own, for large messages and for those that wait.
//!
//! `waiting/ID.OCTETS` begins with the octets of the message, exactly as they are sent but without the fields
//! that the server adds, so that they are written once. Lines follow, each a checksum and a JSON object: the
//! envelope, and one line for each update of the message's progress (`progress_update`). A torn last line is
//! ignored. The file name has the number of octets, and the time of modification is the due time of the
//! message, so that a start need not open the file. `head -c`, `tail -n`, `ls -l` and `jq` can read
//! everything.
//!
//! The file is written as `incoming/ID.NUMBER` and renamed when it is whole and synced: a file that a start
//! finds in `incoming/` was never accepted.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Serialize;

use super::extent::Extent;
use super::progress_update::ProgressUpdate;
use crate::mail::{Envelope, MessageId, Timestamp};
use crate::sys::{Disk, DiskFile};

/// Small writes are collected up to this size.
const BUFFER_OCTETS: usize = 32 * 1024;
/// The lines of a file have at most this many octets; a file with more is damaged.
const LINES_OCTETS_MAX: u64 = 256 * 1024 * 1024;

/// Writes a message file. Dropped before [`MessageFileWriter::finish`], it removes the file.
pub(crate) struct MessageFileWriter {
    disk: Arc<dyn Disk>,
    id: MessageId,
    path: PathBuf,
    file: Arc<dyn DiskFile>,
    buffer: Vec<u8>,
    octets: u64,
    is_finished: bool,
}

/// Creates a file; removes half a file that a failed attempt may have left under this name.
pub(super) fn create_replacing(disk: &dyn Disk, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
    match disk.create(path) {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
            disk.remove(path)?;
            disk.create(path)
        }
        other => other,
    }
}

impl MessageFileWriter {
    /// Begins a file in `incoming`. No two writers may have the same `number`.
    pub(super) fn create(
        disk: &Arc<dyn Disk>,
        incoming: &Path,
        id: &MessageId,
        number: u64,
    ) -> io::Result<Self> {
        let path = incoming.join(format!("{id}.{number}"));
        let file = disk.create(&path)?;
        Ok(Self {
            disk: Arc::clone(disk),
            id: *id,
            path,
            file,
            buffer: Vec::new(),
            octets: 0,
            is_finished: false,
        })
    }

    /// Adds octets of the message.
    pub(crate) fn append(&mut self, octets: &[u8]) -> io::Result<()> {
        self.octets += octets.len() as u64;
        if self.buffer.len() + octets.len() > BUFFER_OCTETS {
            self.flush()?;
        }
        if octets.len() >= BUFFER_OCTETS {
            return self.file.append(octets);
        }
        self.buffer.extend_from_slice(octets);
        Ok(())
    }

    /// The octets appended so far, to be read.
    pub(crate) fn extent(&mut self) -> io::Result<Extent> {
        self.flush()?;
        Ok(Extent { file: Arc::clone(&self.file), offset: 0, octets: self.octets })
    }

    /// Octets of the message so far.
    pub(crate) fn octets(&self) -> u64 {
        self.octets
    }

    /// Adds the lines, makes the file durable, and renames it into `waiting`. Returns its path there, and the
    /// open file. Two syncs.
    ///
    /// On an error the file is removed. If the disk refuses that too, a whole file is left.
    pub(super) fn finish(
        mut self,
        waiting: &Path,
        envelope: &Envelope,
        update: Option<&ProgressUpdate>,
        due: Timestamp,
    ) -> io::Result<(PathBuf, Arc<dyn DiskFile>)> {
        let mut lines = line(envelope)?;
        if let Some(update) = update {
            lines.extend_from_slice(&line(update)?);
        }
        self.buffer.extend_from_slice(&lines);
        self.flush()?;
        self.file.sync()?;
        // A hint: if it is wrong, one attempt after the next restart is too early or too late.
        let _ = self.disk.set_modified(&self.path, due);
        let path = waiting.join(file_name(&self.id, self.octets));
        self.disk.rename(&self.path, &path)?;
        self.is_finished = true;
        if let Err(e) = self.disk.sync_dir(waiting) {
            let _ = self.disk.remove(&path);
            return Err(e);
        }
        Ok((path, Arc::clone(&self.file)))
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let result = self.file.append(&self.buffer);
        self.buffer.clear();
        result
    }
}

impl Drop for MessageFileWriter {
    fn drop(&mut self) {
        if !self.is_finished {
            // Never accepted; the next start would remove it too.
            let _ = self.disk.remove(&self.path);
        }
    }
}

/// The name of a message file in `waiting`.
pub(super) fn file_name(id: &MessageId, octets: u64) -> String {
    format!("{id}.{octets}")
}

/// Reads the name of a message file: the id, and the length of the message.
pub(super) fn parse_name(name: &str) -> Option<(MessageId, u64)> {
    let (id, octets) = name.split_once('.')?;
    let (id, octets): (MessageId, u64) = (id.parse().ok()?, octets.parse().ok()?);
    (file_name(&id, octets) == name).then_some((id, octets))
}

/// One line: checksum, space, JSON, line end.
fn line<T: Serialize>(value: &T) -> io::Result<Vec<u8>> {
    let json = serde_json::to_vec(value)?;
    let mut line = format!("{:08x} ", crc32fast::hash(&json)).into_bytes();
    line.extend_from_slice(&json);
    line.push(b'\n');
    Ok(line)
}

/// The lines of a message file.
#[derive(Debug)]
pub(super) struct MessageFileLines {
    pub(super) envelope: Envelope,
    pub(super) updates: Vec<ProgressUpdate>,
    /// The last line is whole: another line can be appended.
    is_last_line_whole: bool,
}

/// Why the lines of a message file cannot be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum MessageFileError {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("its envelope is damaged")]
    Damaged,
    #[error("it was written by a later version ({0}) of this program")]
    Newer(u64),
}

/// Reads the lines after the octets of the message.
pub(super) fn read(file: &dyn DiskFile, octets: u64) -> Result<MessageFileLines, MessageFileError> {
    let length = file.length()?;
    let lines_octets = length.checked_sub(octets).filter(|n| *n <= LINES_OCTETS_MAX);
    let lines_octets = lines_octets.ok_or(MessageFileError::Damaged)?;
    let text = file.read_range(octets, usize::try_from(lines_octets).unwrap_or(usize::MAX))?;
    let mut lines = text.split_inclusive(|&b| b == b'\n').map(checked_json);
    let first = lines.next().flatten().ok_or(MessageFileError::Damaged)?;
    let envelope = read_envelope(first)?;
    let mut updates = Vec::new();
    let mut is_last_line_whole = true;
    for json in lines {
        is_last_line_whole = json.is_some();
        // A line that is not sound is torn or damaged: it was an update, never the message.
        updates.extend(json.and_then(|json| serde_json::from_slice(json).ok()));
    }
    Ok(MessageFileLines { envelope, updates, is_last_line_whole })
}

/// Reads an envelope, unless a later version of the program wrote it.
pub(super) fn read_envelope(json: &[u8]) -> Result<Envelope, MessageFileError> {
    #[derive(serde::Deserialize)]
    struct Versioned {
        version: u64,
    }
    let Versioned { version } = serde_json::from_slice(json).map_err(|_| MessageFileError::Damaged)?;
    if version > u64::from(Envelope::VERSION) {
        return Err(MessageFileError::Newer(version));
    }
    serde_json::from_slice(json).map_err(|_| MessageFileError::Damaged)
}

/// The JSON of a line, if its checksum holds.
fn checked_json(line: &[u8]) -> Option<&[u8]> {
    let (crc, json) = line.strip_suffix(b"\n")?.split_at_checked(9)?;
    let crc = std::str::from_utf8(crc).ok()?.strip_suffix(' ')?;
    (u32::from_str_radix(crc, 16).ok()? == crc32fast::hash(json)).then_some(json)
}

/// Appends one update; durable on return if `is_synced`.
pub(super) fn append_update(
    disk: &dyn Disk,
    path: &Path,
    octets: u64,
    update: &ProgressUpdate,
    is_synced: bool,
) -> io::Result<()> {
    let file = disk.open(path)?;
    let mut text = Vec::new();
    match read(file.as_ref(), octets) {
        Ok(lines) if lines.is_last_line_whole => {}
        // Otherwise this line would become part of a torn one.
        _ => text.push(b'\n'),
    }
    text.extend_from_slice(&line(update)?);
    file.append(&text)?;
    if is_synced { file.sync() } else { Ok(()) }
}
