//! Why a test of the real program failed, and whether its directory is kept.

/// Why a test of the real program failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TortureError {
    /// A message was lost or arrived twice, or the server failed. The directory is kept, because spool, mailbox
    /// and log in it show the cause.
    #[error("{0}")]
    KeepFolder(String),
    /// A limit was exceeded, or the test could not be set up: the message is enough.
    #[error("{0}")]
    RemoveFolder(String),
}

/// A failure of the server or of its clients: the log in the directory has more about it.
impl From<String> for TortureError {
    fn from(text: String) -> Self {
        Self::KeepFolder(text)
    }
}
