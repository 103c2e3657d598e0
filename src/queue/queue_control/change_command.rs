//! One change of the selected messages, under way.

use std::collections::{BTreeSet, HashSet};
use std::io;
use std::sync::Arc;

use super::{ChangeResult, PENDING_WAIT_MAX, QueueChange, QueueControl};
use crate::mail::{Destination, Envelope, MessageId, NextHop, Reason, Recipient, TlsPolicy, Via, printable};
use crate::observe::maillog;
use crate::queue::bounce::{self, AttemptChanges, BounceKind};
use crate::queue::claims::{AfterClaim, Claim, ClaimReply, ClaimRequest};
use crate::queue::manager_event::ManagerEvent;
use crate::queue::selection::Selection;
use crate::spool::{MessageProgress, ProgressUpdate, RecipientState};
use crate::sys::{Moment, Receiver, Sender};

/// At most so much of an operator's text is in a bounce.
const REASON_OCTETS_MAX: usize = 500;

/// A change under way.
pub(super) struct ChangeCommand {
    queue_control: QueueControl,
    selection: Selection,
    change: QueueChange,
    result: ChangeResult,
    /// Messages with a request to the manager that waits for attempts under way.
    pending: BTreeSet<MessageId>,
    /// Messages to be tried now.
    retry_now: HashSet<MessageId>,
}

impl ChangeCommand {
    pub(super) fn new(queue_control: QueueControl, selection: Selection, change: QueueChange) -> Self {
        Self {
            queue_control,
            selection,
            change,
            result: ChangeResult::default(),
            pending: BTreeSet::new(),
            retry_now: HashSet::new(),
        }
    }

    /// The result so far.
    pub(super) fn take_result(&mut self) -> ChangeResult {
        let pending = self.pending.iter().copied().collect();
        ChangeResult { pending, ..std::mem::take(&mut self.result) }
    }

    /// Requests one message from the manager and changes it, unless an attempt of it is under way.
    pub(super) fn change_message(
        &mut self,
        id: MessageId,
        reply_to: &Sender<ClaimReply>,
        replies: &Receiver<ClaimReply>,
    ) {
        let shared = Arc::clone(&self.queue_control.shared);
        if self.selection.ids.is_empty() && !self.queue_control.is_selected(&self.selection, &id) {
            return;
        }
        if self.change == QueueChange::Retry {
            return self.retry(id);
        }
        let events = shared.events.clone();
        let on_return = Box::new(move |claim| {
            // If the manager has ended, the next start reads the disk.
            let _ = events.send(ManagerEvent::ClaimReturned(claim));
        });
        let request = ClaimRequest { reply_to: reply_to.clone(), on_return };
        if shared.events.send(ManagerEvent::Claim(id, request)).is_err() {
            return self.result.refused.push((id, "cannot be changed: the server is stopping".to_owned()));
        }
        self.pending.insert(id);
        // The manager replies at once, unless its event of the put is still in its channel.
        while let Ok(reply) = replies.recv_timeout(PENDING_WAIT_MAX) {
            let replied_id = reply.id();
            self.handle_reply(reply);
            if replied_id == id {
                return;
            }
        }
    }

    fn retry(&mut self, id: MessageId) {
        match self.queue_control.handle.message(&id) {
            None => self.refuse_not_queued(id),
            Some(view) if view.is_held => {
                self.result.refused.push((id, "is held: release it instead".to_owned()));
            }
            Some(_) => {
                self.retry_now.insert(id);
                self.result.changed.push(id);
            }
        }
    }

    /// The operator may have removed the cause of earlier failures.
    pub(super) fn clear_courier_failures(&self) {
        match self.change {
            QueueChange::Retry | QueueChange::Release | QueueChange::Reroute { .. } => {
                self.queue_control.couriers.forget_host_failures();
            }
            QueueChange::Hold | QueueChange::Remove { .. } => {}
        }
    }

    /// Makes the manager try the messages of a retry now.
    pub(super) fn send_retries(&mut self) {
        let ids = std::mem::take(&mut self.retry_now);
        if !ids.is_empty() {
            // Fails only if the manager has ended.
            let _ = self.queue_control.shared.events.send(ManagerEvent::Retry(ids));
        }
    }

    /// Handles replies until none is missing, or until `end`.
    pub(super) fn wait_until(&mut self, replies: &Receiver<ClaimReply>, end: Moment) {
        while !self.pending.is_empty() {
            let left = end.since(self.queue_control.shared.clock.now());
            match replies.recv_timeout(left) {
                Ok(reply) => self.handle_reply(reply),
                Err(_) => return,
            }
        }
    }

    /// Handles replies until none is missing.
    pub(super) fn wait_for_pending(mut self, replies: &Receiver<ClaimReply>) {
        while !self.pending.is_empty()
            && let Ok(reply) = replies.recv()
        {
            self.handle_reply(reply);
        }
        for (id, why) in &self.result.refused {
            log::warn!(target: "queue", "{id}: a change had waited for an attempt; the message {why}");
        }
    }

    fn handle_reply(&mut self, reply: ClaimReply) {
        let id = reply.id();
        match reply {
            ClaimReply::Pending(_) => return,
            ClaimReply::NotQueued(_) => self.refuse_not_queued(id),
            ClaimReply::ClaimedByOther(_) => {
                self.result.refused.push((id, "is already being changed by another command".to_owned()));
            }
            ClaimReply::Stopping(_) => {
                let why = "was not changed: an attempt is in progress, and the server is stopping";
                self.result.refused.push((id, why.to_owned()));
            }
            ClaimReply::Granted(mut claim) => match self.apply(&mut claim) {
                Ok(()) => self.result.changed.push(id),
                Err(why) => self.result.refused.push((id, why)),
            },
        }
        self.pending.remove(&id);
    }

    fn refuse_not_queued(&mut self, id: MessageId) {
        let why = "is not in the queue: it was delivered, reported or removed".to_owned();
        // A command for the whole queue did not name the message.
        if !self.selection.ids.is_empty() {
            self.result.refused.push((id, why));
        }
    }

    fn apply(&self, claim: &mut Claim) -> Result<(), String> {
        let shared = &self.queue_control.shared;
        let unreadable = |e: &dyn std::fmt::Display| format!("cannot be read: {e}");
        let (envelope, progress) = claim.load(&shared.spool).map_err(|e| unreadable(&e))?;
        let positions = self.queue_control.positions(&self.selection, &envelope, &progress);
        if positions.is_empty() {
            return Err("has no selected recipient that still waits".to_owned());
        }
        let update = self.empty_update(&progress);
        let refused = |e: io::Error| format!("was not changed: write error: {e}");
        match &self.change {
            // Also if the message is held: the update that says so may come from an earlier process that was
            // killed before the sync.
            QueueChange::Hold => {
                claim
                    .record_update(&shared.spool, &envelope, ProgressUpdate { is_held: Some(true), ..update })
                    .map_err(refused)?;
                claim.on_return.next_step = AfterClaim::Hold;
                maillog::held(&claim.id);
                Ok(())
            }
            QueueChange::Release if !progress.is_held => Err("is not held".to_owned()),
            QueueChange::Release => {
                claim
                    .record_update(
                        &shared.spool,
                        &envelope,
                        ProgressUpdate { is_held: Some(false), ..update },
                    )
                    .map_err(refused)?;
                claim.on_return.next_step = AfterClaim::RetryNow;
                maillog::released(&claim.id);
                Ok(())
            }
            QueueChange::Remove { bounce_text } => {
                let text = bounce_text.as_deref().unwrap_or("removed from the queue by the operator");
                let reason = Reason::new(7, 1, printable(text.as_bytes(), REASON_OCTETS_MAX));
                let states =
                    positions.iter().map(|position| (*position, RecipientState::Failed(reason.clone())));
                let update = ProgressUpdate { states: states.collect(), ..update };
                self.remove(claim, &envelope, &progress, update)
            }
            QueueChange::Reroute { via } => {
                let routes = positions.iter().filter_map(|position| {
                    let recipient = envelope.recipients.get(*position)?;
                    Some((*position, rerouted_destination(&recipient.destination, via)?))
                });
                let update = ProgressUpdate { routes: routes.collect(), ..update };
                if update.routes.is_empty() {
                    return Err("is for programs, which have no other way".to_owned());
                }
                let route = self.describe_route(&envelope, &update);
                claim.record_update(&shared.spool, &envelope, update).map_err(refused)?;
                claim.on_return.next_step =
                    if progress.is_held { AfterClaim::Hold } else { AfterClaim::RetryNow };
                maillog::rerouted(&claim.id, &route);
                Ok(())
            }
            // Made without a claim.
            QueueChange::Retry => Ok(()),
        }
    }

    /// An update that changes no recipient.
    fn empty_update(&self, progress: &MessageProgress) -> ProgressUpdate {
        let time = self.queue_control.shared.clock.wall_time();
        ProgressUpdate { by_operator: true, ..ProgressUpdate::new(time, progress.attempts, progress.due) }
    }

    /// The route of the recipients in an update, for the log.
    fn describe_route(&self, envelope: &Envelope, update: &ProgressUpdate) -> String {
        let Some((position, Some(destination))) = update.routes.first() else {
            return "as before".to_owned();
        };
        let recipient = envelope.recipients.get(*position).cloned();
        let rerouted = recipient.map(|recipient| Recipient { destination: destination.clone(), ..recipient });
        rerouted.map_or_else(String::new, |recipient| {
            self.queue_control.router.load().route(&recipient).destination.to_string()
        })
    }

    fn remove(
        &self,
        claim: &mut Claim,
        envelope: &Envelope,
        progress: &MessageProgress,
        update: ProgressUpdate,
    ) -> Result<(), String> {
        let shared = &self.queue_control.shared;
        if matches!(self.change, QueueChange::Remove { bounce_text: Some(_) }) {
            self.put_bounces(envelope, progress, &update)?;
        }
        let removed: Vec<_> =
            update.states.iter().filter_map(|(position, _)| envelope.recipients.get(*position)).collect();
        let mut after = progress.clone();
        after.apply(&update);
        if after.is_settled() {
            claim.on_return.next_step = AfterClaim::Removed;
            let settled = claim.settle_durably(&shared.spool, &update);
            maillog::removed(&claim.id, &removed);
            return settled.map_err(|e| format!("is removed, but may come back after a crash: {e}"));
        }
        claim
            .record_update(&shared.spool, envelope, update)
            .map_err(|e| format!("was not changed: write error: {e}"))?;
        maillog::removed(&claim.id, &removed);
        Ok(())
    }

    /// Queues the bounces of a removal, before the removal: a crash between the two leads to a second bounce,
    /// never to none.
    fn put_bounces(
        &self,
        envelope: &Envelope,
        progress: &MessageProgress,
        update: &ProgressUpdate,
    ) -> Result<(), String> {
        let decision = bounce::decide_bounces(&AttemptChanges {
            envelope,
            states: &update.states,
            notices: &progress.notices,
            is_final_delivery: false,
            is_delayed: false,
        });
        if let Some(why) = decision.suppression_reason {
            maillog::bounce_suppressed(&envelope.id, why);
        }
        let mut failures = decision.bounces.iter().filter(|bounce| bounce.kind == BounceKind::Failure);
        match failures
            .all(|bounce| self.queue_control.bounce_writer.put_bounce(envelope, bounce, update.time))
        {
            true => Ok(()),
            false => Err("was not changed: its bounce cannot be queued, see the log".to_owned()),
        }
    }
}

/// The new destination of a rerouted recipient; `None` for a program, which cannot be rerouted. An inner
/// `None` is the destination of the envelope.
fn rerouted_destination(destination: &Destination, via: &[NextHop]) -> Option<Option<Destination>> {
    match destination {
        Destination::Program { .. } => None,
        Destination::Mailbox(_) | Destination::Via { .. } if via.is_empty() => Some(None),
        Destination::Mailbox(mailbox) | Destination::Via { mailbox, .. } => {
            let via = Via { hosts: via.to_vec(), tls: TlsPolicy::default(), credentials_name: None };
            Some(Some(Destination::Via { mailbox: mailbox.clone(), via }))
        }
    }
}
