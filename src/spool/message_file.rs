//! A message in a plain file of its own: what is large, or must wait.
//!
//! `waiting/ID.OCTETS`: first the octets, exactly as they go out without our stamp, so that they
//! are written once and never again; then lines, each a checksum and a JSON object: the envelope,
//! and one record for each attempt that changed something. The name says how long the octets are,
//! so that nobody has to open a file to know where its lines begin; the time of modification is
//! when the message is due, so that nobody has to open it to know that either. A torn last line
//! is passed over. `head -c`, `tail -n`, `ls -l` and `jq` read all of it.
//!
//! A parcel is written under `incoming/ID.NUMBER` and renamed when it is whole and synced: what is found
//! in `incoming/` at a start was never promised.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Serialize;

use super::extent::Extent;
use super::message_progress::ProgressUpdate;
use crate::mail::{Envelope, MessageId, Timestamp};
use crate::sys::{Disk, DiskFile};

/// Small writes are collected up to here.
const BUFFER_OCTETS: usize = 32 * 1024;
/// No parcel has more lines than this, in octets; a longer one is damaged.
const LINES_OCTETS_MAX: u64 = 256 * 1024 * 1024;

/// A parcel being written. Removed when dropped before [`Draft::finish`].
pub(crate) struct MessageFileWriter {
    disk: Arc<dyn Disk>,
    id: MessageId,
    path: PathBuf,
    file: Arc<dyn DiskFile>,
    buffer: Vec<u8>,
    octets: u64,
    is_finished: bool,
}

/// Makes a file of which half may be there from an attempt that failed; its name is nobody else's.
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
    /// Begins a parcel in `incoming`; `number` is this writer's own.
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

    /// What has been appended so far, to be read.
    pub(crate) fn extent(&mut self) -> io::Result<Extent> {
        self.flush()?;
        Ok(Extent { file: Arc::clone(&self.file), offset: 0, octets: self.octets })
    }

    /// Octets of the message so far.
    pub(crate) fn octets(&self) -> u64 {
        self.octets
    }

    /// Adds the lines, makes it durable, and gives it its name in `waiting`: returns its path there, and the
    /// open file. Two syncs.
    ///
    /// On an error nothing is left, as far as the disk lets us; what is left is whole.
    pub(super) fn finish(
        mut self,
        waiting: &Path,
        envelope: &Envelope,
        record: Option<&ProgressUpdate>,
        due: Timestamp,
    ) -> io::Result<(PathBuf, Arc<dyn DiskFile>)> {
        let mut lines = line(envelope)?;
        if let Some(record) = record {
            lines.extend_from_slice(&line(record)?);
        }
        self.buffer.extend_from_slice(&lines);
        self.flush()?;
        self.file.sync()?;
        // A hint: a wrong one costs an attempt too early or too late by one restart.
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
            // Never promised; the next start would remove it too.
            let _ = self.disk.remove(&self.path);
        }
    }
}

/// The name of a parcel in `waiting`.
pub(super) fn file_name(id: &MessageId, octets: u64) -> String {
    format!("{id}.{octets}")
}

/// The other way round.
pub(super) fn parse_name(name: &str) -> Option<(MessageId, u64)> {
    let (id, octets) = name.split_once('.')?;
    let (id, octets): (MessageId, u64) = (id.parse().ok()?, octets.parse().ok()?);
    (file_name(&id, octets) == name).then_some((id, octets))
}

/// One line: checksum, space, JSON.
fn line<T: Serialize>(value: &T) -> io::Result<Vec<u8>> {
    let json = serde_json::to_vec(value)?;
    let mut line = format!("{:08x} ", crc32fast::hash(&json)).into_bytes();
    line.extend_from_slice(&json);
    line.push(b'\n');
    Ok(line)
}

/// The lines of a parcel.
#[derive(Debug)]
pub(super) struct MessageFileLines {
    pub(super) envelope: Envelope,
    pub(super) records: Vec<ProgressUpdate>,
    /// The last line is whole: the next can be appended as it is.
    is_last_line_whole: bool,
}

/// Why a parcel's lines cannot be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum MessageFileError {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("its envelope is damaged")]
    Damaged,
    #[error("it was written by a later version ({0}) of this program")]
    Newer(u64),
}

/// Reads the lines behind the octets.
pub(super) fn read(file: &dyn DiskFile, octets: u64) -> Result<MessageFileLines, MessageFileError> {
    let length = file.length()?;
    let lines_octets = length.checked_sub(octets).filter(|n| *n <= LINES_OCTETS_MAX);
    let lines_octets = lines_octets.ok_or(MessageFileError::Damaged)?;
    let text = file.read_range(octets, usize::try_from(lines_octets).unwrap_or(usize::MAX))?;
    let mut lines = text.split_inclusive(|&b| b == b'\n').map(checked_json);
    let first = lines.next().flatten().ok_or(MessageFileError::Damaged)?;
    let envelope = read_envelope(first)?;
    let mut records = Vec::new();
    let mut is_clean = true;
    for json in lines {
        is_clean = json.is_some();
        // A line that is not sound is torn, or damaged: an attempt's news, never the message.
        records.extend(json.and_then(|json| serde_json::from_slice(json).ok()));
    }
    Ok(MessageFileLines { envelope, records, is_last_line_whole: is_clean })
}

/// An envelope of a version that we know.
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

/// Adds one record; durable if `is_synced`.
pub(super) fn append_update(
    disk: &dyn Disk,
    path: &Path,
    octets: u64,
    record: &ProgressUpdate,
    is_synced: bool,
) -> io::Result<()> {
    let file = disk.open(path)?;
    let mut text = Vec::new();
    match read(file.as_ref(), octets) {
        Ok(lines) if lines.is_last_line_whole => {}
        // A torn line must not swallow this one.
        _ => text.push(b'\n'),
    }
    text.extend_from_slice(&line(record)?);
    file.append(&text)?;
    if is_synced { file.sync() } else { Ok(()) }
}
