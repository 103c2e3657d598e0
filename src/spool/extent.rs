//! Where the octets of a message are on disk.

use std::sync::Arc;

use crate::sys::DiskFile;

/// The octets of a message in a journal segment or in a message file. They stay readable while this is held,
/// also when the file loses its name.
#[derive(Clone)]
pub(crate) struct Extent {
    pub(crate) file: Arc<dyn DiskFile>,
    pub(crate) offset: u64,
    pub(crate) octets: u64,
}
