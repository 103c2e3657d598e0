//! One attempt to be made, and its result.
//!
//! The queue manager makes jobs, the delivery threads run them (`attempt`) and return the results.

use std::sync::Arc;

use super::active_message::ActiveMessage;
use super::destination_state::ContactResult;
use super::recipient_batch::SkipReason;
use crate::courier::DeliveryPool;
use crate::route::Route;
use crate::sys::Moment;

/// One attempt to be made.
pub struct AttemptJob {
    pub(super) message: Arc<ActiveMessage>,
    pub(super) route: Arc<Route>,
    pub(super) pool: DeliveryPool,
    /// Positions in the envelope.
    pub(super) recipients: Vec<usize>,
    /// Number of this attempt, from 1.
    pub(super) attempt_number: u32,
    /// More mail for this destination is likely to follow soon.
    pub(super) is_more_mail_expected: bool,
    /// Why the courier is not called; `None` if it is.
    pub(super) skip_reason: Option<SkipReason>,
}

/// What the queue manager needs from an attempt that ended.
pub(super) struct AttemptSummary {
    /// When the recipients that still wait are due; `None` if no recipient waits.
    pub(super) due: Option<Moment>,
    /// What the attempt showed of the destination; `None` if the courier was not called.
    pub(super) contact_result: Option<ContactResult>,
}

/// The result of an attempt, for the queue manager.
pub(super) struct AttemptResult {
    pub(super) message: Arc<ActiveMessage>,
    pub(super) route: Arc<Route>,
    pub(super) pool: DeliveryPool,
    /// Positions in the envelope.
    pub(super) recipients: Vec<usize>,
    /// Number of the attempt, from 1.
    pub(super) attempt_number: u32,
    pub(super) summary: AttemptSummary,
}

impl AttemptJob {
    /// The pool of delivery threads that runs the job.
    #[must_use]
    pub fn pool(&self) -> DeliveryPool {
        self.pool
    }

    /// The result of this job. It takes the job's reference to the message along, so that no delivery thread
    /// holds the lease when the manager gets the result.
    pub(super) fn into_result(self, summary: AttemptSummary) -> AttemptResult {
        let Self { message, route, pool, recipients, attempt_number, .. } = self;
        AttemptResult { message, route, pool, recipients, attempt_number, summary }
    }
}
