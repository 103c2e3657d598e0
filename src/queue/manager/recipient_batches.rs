//! Which recipients of a message are tried in one attempt.
//!
//! Recipients of one message that have the same route are one batch. If the courier limits the recipients in
//! one attempt, they are split, so that a crash repeats few deliveries and several threads share the work.

use std::collections::{BTreeMap, HashMap};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use super::entry::DeferredBatch;
use crate::mail::Envelope;
use crate::queue::delivery_parts::Couriers;
use crate::route::{Route, Router};
use crate::spool::MessageProgress;

/// Splits the waiting recipients of these deferred batches, or of the whole message, by route and by the
/// number of attempts. Each batch comes with the number of its next attempt.
pub(super) fn split_into_batches(
    envelope: &Envelope,
    progress: &MessageProgress,
    router: &Router,
    couriers: &Couriers,
    deferred: Option<Vec<DeferredBatch>>,
) -> Vec<(Route, Vec<usize>, u32)> {
    let first = progress.attempts.saturating_add(1);
    let attempts: Option<HashMap<usize, u32>> = deferred.map(|batches| {
        let attempts = |batch: DeferredBatch| {
            batch.recipients.into_iter().map(move |position| (position, batch.attempt_number))
        };
        batches.into_iter().flat_map(attempts).collect()
    });
    let mut groups: BTreeMap<(Route, u32), Vec<usize>> = BTreeMap::new();
    for position in progress.waiting_positions() {
        let attempt_number = match &attempts {
            None => first,
            Some(attempts) => match attempts.get(&position) {
                Some(attempts) => attempts.saturating_add(1),
                None => continue,
            },
        };
        if let Some(recipient) = envelope.recipients.get(position) {
            groups.entry((router.route(recipient), attempt_number)).or_default().push(position);
        }
    }
    let mut batches = Vec::with_capacity(groups.len());
    for ((route, attempt_number), positions) in groups {
        let recipients_max = couriers.profile(&route).attempt_recipients_max.max(1);
        let chunks = positions.chunks(recipients_max);
        batches.extend(chunks.map(|positions| (route.clone(), positions.to_vec(), attempt_number)));
    }
    batches
}

/// A hash of the sender: the user who submitted the message, or else the reverse-path.
pub(super) fn sender(envelope: &Envelope) -> u64 {
    let mut hasher = DefaultHasher::new();
    match &envelope.authenticated_user {
        Some(user) => user.hash(&mut hasher),
        None => envelope.reverse_path.hash(&mut hasher),
    }
    hasher.finish()
}
