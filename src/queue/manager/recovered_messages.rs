//! When those come in that an earlier process promised.
//!
//! Who was never tried is due at once, and who is not overdue in its time. The others may be very
//! many after an outage, and nothing is to stampede: they come in one after the other.

use std::time::Duration;

use crate::mail::{MessageId, Timestamp};
use crate::queue::schedule::Settings;
use crate::spool::RecoveredMessage;
use crate::sys::Moment;

/// Between two messages that were due while we were not running; all of them come in within
/// [`OVERDUE_MAX`].
const OVERDUE_INTERVAL: Duration = Duration::from_millis(5);
const OVERDUE_SPREAD_MAX: Duration = Duration::from_secs(600);

/// Each survivor and when it is due; `time`, by the age clock, and `now` are the same moment.
pub(super) fn due_times(
    survivors: Vec<RecoveredMessage>,
    settings: &Settings,
    time: Timestamp,
    now: Moment,
) -> impl Iterator<Item = (MessageId, Moment)> + use<> {
    let longest = settings.retry_delay_max();
    let first_retry = settings.retry_delays.first().copied().unwrap_or_default();
    let is_overdue = move |one: &RecoveredMessage| {
        let was_tried = one.due >= one.id.arrived_at().after(first_retry / 2);
        one.due <= time && was_tried
    };
    let overdue = survivors.iter().filter(|one| is_overdue(one)).count();
    let share = OVERDUE_SPREAD_MAX / u32::try_from(overdue).unwrap_or(u32::MAX).max(1);
    let pause = OVERDUE_INTERVAL.min(share);
    let mut turn = now;
    survivors.into_iter().map(move |survivor| {
        let due = if is_overdue(&survivor) {
            turn = turn + pause;
            turn
        } else {
            // The age clock may have lost its file, and mail must not be put off for years.
            now + survivor.due.since(time).min(longest)
        };
        (survivor.id, due)
    })
}
