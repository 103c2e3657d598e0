//! One file in the listing of a directory.

use crate::mail::Timestamp;

/// A file in the listing of a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirEntry {
    /// The name of the file.
    pub name: String,
    /// Its length in octets.
    pub octets: u64,
    /// When it was last modified.
    pub modified: Timestamp,
}
