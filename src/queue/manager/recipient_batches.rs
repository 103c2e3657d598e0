//! Who leaves together, and in whose name.
//!
//! Recipients of one message that share a route leave as one **leg**; local ones in legs of a few, so
//! that a crash repeats little and threads share the work.

use std::collections::{BTreeMap, HashMap};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use super::entry::DeferredBatch;
use crate::mail::Envelope;
use crate::route::{Route, Router, Transport};
use crate::spool::MessageProgress;

/// Local recipients that leave in one leg at most: a crash in the middle of one may deliver to so many
/// twice.
const LOCAL_BATCH_RECIPIENTS_MAX: usize = 16;

/// Those of these parts who wait, or of the whole message: by route, and by how often they were tried.
/// With each leg goes the number of the attempt to come.
pub(super) fn split_into_batches(
    envelope: &Envelope,
    progress: &MessageProgress,
    router: &Router,
    parts: Option<Vec<DeferredBatch>>,
) -> Vec<(Route, Vec<usize>, u32)> {
    let first = progress.attempts.saturating_add(1);
    let rounds: Option<HashMap<usize, u32>> = parts.map(|parts| {
        let rounds = |part: DeferredBatch| {
            part.recipients.into_iter().map(move |position| (position, part.attempt_number))
        };
        parts.into_iter().flat_map(rounds).collect()
    });
    let mut groups: BTreeMap<(Route, u32), Vec<usize>> = BTreeMap::new();
    for position in progress.waiting_positions() {
        let round = match &rounds {
            None => first,
            Some(rounds) => match rounds.get(&position) {
                Some(round) => round.saturating_add(1),
                None => continue,
            },
        };
        if let Some(recipient) = envelope.recipients.get(position) {
            groups.entry((router.route(recipient), round)).or_default().push(position);
        }
    }
    let mut legs = Vec::with_capacity(groups.len());
    for ((route, round), positions) in groups {
        if route.transport == Transport::Local && positions.len() > LOCAL_BATCH_RECIPIENTS_MAX {
            let some = positions.chunks(LOCAL_BATCH_RECIPIENTS_MAX);
            legs.extend(some.map(|positions| (route.clone(), positions.to_vec(), round)));
        } else {
            legs.push((route, positions, round));
        }
    }
    legs
}

/// Whose mail it is: the user who submitted it, or else the reverse-path.
pub(super) fn sender(envelope: &Envelope) -> u64 {
    let mut hasher = DefaultHasher::new();
    match &envelope.authenticated_user {
        Some(login) => login.hash(&mut hasher),
        None => envelope.reverse_path.hash(&mut hasher),
    }
    hasher.finish()
}
