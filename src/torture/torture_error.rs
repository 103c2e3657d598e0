//! Why a trial did not end well, and whether its folder shows more than the message says.

/// Why a trial did not end well.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TortureError {
    /// A message was lost or arrived twice, or the server failed: the spool, the mailbox and the log in
    /// the folder show how it came about, and the folder must stay.
    #[error("{0}")]
    KeepFolder(String),
    /// A limit was exceeded, or the trial could not be set up: the message says all there is to say.
    #[error("{0}")]
    RemoveFolder(String),
}

/// What the server or its clients say is evidence: the folder has its log.
impl From<String> for TortureError {
    fn from(text: String) -> Self {
        Self::KeepFolder(text)
    }
}
