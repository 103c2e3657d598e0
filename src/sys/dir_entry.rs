//! What a listing of a directory says of one file.

use crate::mail::Timestamp;

/// One file of a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirEntry {
    /// Its name.
    pub name: String,
    /// Its length.
    pub octets: u64,
    /// When it says it was last modified.
    pub modified: Timestamp,
}
