//! When messages of an earlier process are due.
//!
//! A message that was never tried is due at once, and one that is not overdue is due at its time. After an
//! outage very many messages may be overdue: they become due one after the other, so that attempts are spread
//! over time.

use std::time::Duration;

use crate::mail::{MessageId, Timestamp};
use crate::queue::settings::Settings;
use crate::spool::RecoveredMessage;
use crate::sys::Moment;

/// The time between two messages that were due while the server did not run; all of them are due within
/// [`OVERDUE_SPREAD_MAX`].
const OVERDUE_INTERVAL: Duration = Duration::from_millis(5);
const OVERDUE_SPREAD_MAX: Duration = Duration::from_secs(600);

/// When each message is due; `time`, by the age clock, and `now` are the same moment.
pub(super) fn due_times(
    recovered: Vec<RecoveredMessage>,
    settings: &Settings,
    time: Timestamp,
    now: Moment,
) -> impl Iterator<Item = (MessageId, Moment)> + use<> {
    let longest = settings.retry_delay_max();
    let first_retry = settings.retry_delays.first().copied().unwrap_or_default();
    let is_overdue = move |message: &RecoveredMessage| {
        let was_tried = message.due >= message.id.arrived_at().after(first_retry / 2);
        message.due <= time && was_tried
    };
    let overdue = recovered.iter().filter(|message| is_overdue(message)).count();
    let share = OVERDUE_SPREAD_MAX / u32::try_from(overdue).unwrap_or(u32::MAX).max(1);
    let interval = OVERDUE_INTERVAL.min(share);
    let mut next_due = now;
    recovered.into_iter().map(move |message| {
        let due = if is_overdue(&message) {
            next_due = next_due + interval;
            next_due
        } else {
            // If the file of the age clock is lost, mail must not wait for years.
            now + message.due.since(time).min(longest)
        };
        (message.id, due)
    })
}
