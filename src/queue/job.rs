//! One attempt to be made, and the message that it is about.
//!
//! The manager makes jobs, delivery threads carry them (`attempt`). What both, and an operator's
//! command, look at meanwhile is the [`Active`] message: one in memory, however many legs of it are
//! under way.

use std::sync::Arc;
use std::time::Duration;

use super::item::Progress;
use super::schedule::Lane;
use crate::mail::{Envelope, Reason};
use crate::route::Route;
use crate::sys::{Moment, Mutex};

/// A message with something under way.
pub(super) struct Active {
    pub(super) envelope: Arc<Envelope>,
    /// Held while an attempt's outcome is written down, so that the legs of one message do so one
    /// after the other. Nobody else wants it.
    pub(super) standing: Mutex<Standing>,
}

impl Active {
    pub(super) fn new(envelope: Arc<Envelope>, progress: Progress) -> Arc<Self> {
        Arc::new(Self { envelope, standing: Mutex::new(Standing { progress, is_unsaved: false }) })
    }
}

pub(super) struct Standing {
    pub(super) progress: Progress,
    /// The disk refused something that `progress` holds.
    pub(super) is_unsaved: bool,
}

/// One attempt to be made.
pub struct Job {
    pub(super) active: Arc<Active>,
    pub(super) route: Arc<Route>,
    /// Positions in the envelope.
    pub(super) recipients: Vec<usize>,
    /// Number of this attempt, from 1.
    pub(super) round: u32,
    /// More mail for this destination is likely to follow soon.
    pub(super) is_busy: bool,
    /// Nobody is to be asked: they are put off for this reason.
    pub(super) put_off: Option<Arc<Reason>>,
    /// Age of the message, and when it was that.
    pub(super) age: (Duration, Moment),
}

impl Job {
    /// Whose threads carry it.
    #[must_use]
    pub fn lane(&self) -> Lane {
        Lane::of(&self.route)
    }
}
