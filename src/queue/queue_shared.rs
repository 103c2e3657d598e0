//! What all handles of the queue and its threads share.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize};

use super::manager_event::ManagerEvent;
use super::settings::Settings;
use crate::observe::Counter;
use crate::spool::Spool;
use crate::sys::{Clock, FileLock, Random, Sender};

/// What all handles of the queue and its threads share.
pub(super) struct QueueShared {
    pub(super) spool: Arc<Spool>,
    pub(super) events: Sender<ManagerEvent>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) random: Arc<dyn Random>,
    pub(super) settings: Settings,
    pub(super) messages_put: Counter,
    /// Messages begun and not yet committed or dropped.
    pub(super) incoming_count: AtomicUsize,
    pub(super) is_stopping: AtomicBool,
    /// Released when the last user of the queue is gone: a session that commits late must not write into a
    /// spool that another process has opened.
    pub(super) _lock: Option<FileLock>,
}
