//! What a person does to messages that wait.
//!
//! A command goes through the messages that are meant one after the other. What it changes is on
//! disk, synced, before it says so, and nothing is under way for the message meanwhile (`claims`):
//! what it says was removed is not delivered. A message that is being tried just now is changed
//! when the attempt is back, if that leaves anything to change; the command waits a moment for that
//! and then says so, and the rest is done behind it.

use std::collections::{BTreeSet, HashSet};
use std::io::{self, Read as _};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use serde::{Deserialize, Serialize};

use super::bounce::{self, AttemptChanges, BounceKind};
use super::bounce_writer::BounceWriter;
use super::claims::{AfterClaim, Claim, ClaimReply};
use super::delivery_threads::{Couriers, DeliveryParts};
use super::handle::{Handle, ManagerEvent, QueueShared, QueuedMessage};
use super::outgoing_content::OutgoingContent;
use super::selection::Selection;
use crate::courier::Message;
use crate::mail::{
    Destination, Envelope, HeaderFields, MessageId, NextHop, Reason, Recipient, Timestamp, TlsPolicy, Via,
    printable,
};
use crate::observe::maillog;
use crate::route::Router;
use crate::spool::{MessageProgress, ProgressUpdate, RecipientState};
use crate::sys::{Moment, Receiver, Sender, channel, spawn};

/// Looks at the queue and changes it, for a person. Cheap to clone.
#[derive(Clone)]
pub struct Operator {
    handle: Handle,
    shared: Arc<QueueShared>,
    bounce_writer: BounceWriter,
    router: Arc<ArcSwap<Router>>,
    couriers: Couriers,
}

/// What a person wants done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "change", rename_all = "kebab-case")]
pub enum QueueChange {
    /// Try them now.
    Retry,
    /// Do not try them before they are released.
    Hold,
    /// Try them again, now.
    Release,
    /// Send those who are meant another way, now.
    Reroute {
        /// By these hosts, in the order in which to try them; none: where they went before.
        via: Vec<NextHop>,
    },
    /// Give up those who are meant.
    Remove {
        /// The sender is told so, in these words; nothing: nobody is.
        report: Option<String>,
    },
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ChangeResult {
    /// Done.
    pub done: Vec<MessageId>,
    /// Being tried just now: done when the attempt is back, if anything is left to do.
    pub pending: Vec<MessageId>,
    /// Not done, and why: a sentence that begins with a verb.
    pub refused: Vec<(MessageId, String)>,
    /// Not looked at: the command has taken long enough, and can be given again.
    pub not_reached: usize,
}

/// One message, as closely as it can be looked at.
#[derive(Debug, Clone)]
pub struct MessageDetail {
    /// As in the list.
    pub view: QueuedMessage,
    /// As it was written down.
    pub envelope: Arc<Envelope>,
    /// Every change of a recipient's state that is still known, oldest first.
    pub state_changes: Vec<StateChange>,
}

/// A recipient's state changed.
#[derive(Debug, Clone, PartialEq)]
pub struct StateChange {
    /// When.
    pub time: Timestamp,
    /// In which round of attempts, from 1; 0 before the first.
    pub attempt: u32,
    /// Position in the envelope.
    pub position: usize,
    /// From here on.
    pub state: RecipientState,
}

/// A command goes through messages for no longer than this; whoever asked waits for it.
const COMMAND_TIME_MAX: Duration = Duration::from_secs(15);
/// Then it waits so long for attempts under way.
const PENDING_WAIT_MAX: Duration = Duration::from_secs(2);
/// A message is shown up to here.
const CONTENT_SHOWN_OCTETS_MAX: u64 = 4 * 1024 * 1024;
/// A header section is shown up to here.
const HEADER_OCTETS_MAX: u64 = 256 * 1024;
/// An operator's words in a report.
const REASON_OCTETS_MAX: usize = 500;

impl Operator {
    pub(super) fn new(shared: Arc<QueueShared>, clerk: BounceWriter, crew: &DeliveryParts) -> Self {
        let (router, couriers) = (Arc::clone(&crew.router), crew.couriers.clone());
        Self { handle: Handle::new(Arc::clone(&shared)), shared, bounce_writer: clerk, router, couriers }
    }

    /// Messages that are meant, oldest first, at most `limit`, read from disk.
    #[must_use]
    pub fn list(&self, selection: &Selection, limit: usize) -> Vec<QueuedMessage> {
        let end = self.shared.clock.now() + COMMAND_TIME_MAX;
        let ids = self.candidates(selection).into_iter().take_while(|_| self.shared.clock.now() < end);
        let meant = ids.filter(|id| self.is_selected(selection, id));
        meant.filter_map(|id| self.handle.message(&id)).take(limit).collect()
    }

    /// All that is known of a message; nothing if it is not in our care or cannot be read.
    #[must_use]
    pub fn detail(&self, id: &MessageId) -> Option<MessageDetail> {
        let view = self.handle.message(id)?;
        let loaded = self.shared.spool.load(id).ok()?;
        let events = loaded.updates.iter().flat_map(|record| {
            let event = |(position, state): &(usize, RecipientState)| StateChange {
                time: record.at,
                attempt: record.attempts,
                position: *position,
                state: state.clone(),
            };
            record.states.iter().map(event)
        });
        Some(MessageDetail { view, state_changes: events.collect(), envelope: loaded.envelope })
    }

    /// The first octets of a message as it goes out: its header section, or up to 4 MiB of all.
    ///
    /// # Errors
    /// As the disk says; `NotFound` if it is not in our care.
    pub fn content(&self, id: &MessageId, is_header: bool) -> io::Result<Vec<u8>> {
        let detail = self.detail(id).ok_or(io::ErrorKind::NotFound)?;
        let message = OutgoingContent::new(self.shared.spool.extent(id)?, &detail.envelope)?;
        let mut octets = Vec::new();
        let most = if is_header { HEADER_OCTETS_MAX } else { CONTENT_SHOWN_OCTETS_MAX };
        message.open()?.take(most).read_to_end(&mut octets)?;
        if is_header {
            octets.truncate(HeaderFields::section_octets(&octets));
        }
        Ok(octets)
    }

    /// Changes the messages that are meant, and of each the recipients that are.
    pub fn change(&self, selection: Selection, change: QueueChange) -> ChangeResult {
        let (to, grants) = channel();
        let end = self.shared.clock.now() + COMMAND_TIME_MAX;
        let ids = self.candidates(&selection);
        let mut command = ChangeCommand {
            queue_control: self.clone(),
            selection,
            change,
            result: ChangeResult::default(),
            pending: BTreeSet::new(),
            retry_now: HashSet::new(),
        };
        command.clear_courier_failures();
        for (number, id) in ids.iter().enumerate() {
            if self.shared.clock.now() >= end {
                command.result.not_reached = ids.len() - number;
                break;
            }
            command.change_message(*id, &to, &grants);
        }
        drop(to);
        command.send_retries();
        command.wait_until(&grants, self.shared.clock.now() + PENDING_WAIT_MAX);
        let mut changed = std::mem::take(&mut command.result);
        changed.pending = command.pending.iter().copied().collect();
        if !changed.pending.is_empty() {
            // Ends with the last attempt, or with the manager.
            let rest = spawn("operator", move || command.wait_for_pending(&grants));
            if let Err(e) = rest {
                let refused =
                    changed.pending.drain(..).map(|id| (id, format!("is being tried just now: {e}")));
                changed.refused.extend(refused);
            }
        }
        changed
    }

    fn candidates(&self, selection: &Selection) -> Vec<MessageId> {
        if selection.ids.is_empty() { self.shared.spool.ids() } else { selection.ids.clone() }
    }

    /// Whether somebody of its recipients is meant. Reads nothing from disk if there is no question.
    fn is_selected(&self, selection: &Selection, id: &MessageId) -> bool {
        if selection.has_ids_only() {
            return true;
        }
        let loaded = self.shared.spool.load(id);
        loaded.is_ok_and(|loaded| !self.positions(selection, &loaded.envelope, &loaded.progress).is_empty())
    }

    fn positions(
        &self,
        selection: &Selection,
        envelope: &Envelope,
        progress: &MessageProgress,
    ) -> Vec<usize> {
        selection.positions(envelope, progress, &self.router.load())
    }
}

/// A command under way.
struct ChangeCommand {
    queue_control: Operator,
    selection: Selection,
    change: QueueChange,
    result: ChangeResult,
    /// Asked for, and under way.
    pending: BTreeSet<MessageId>,
    /// To be tried now.
    retry_now: HashSet<MessageId>,
}

impl ChangeCommand {
    /// Asks for one message and changes it, unless something of it is under way.
    fn change_message(&mut self, id: MessageId, to: &Sender<ClaimReply>, grants: &Receiver<ClaimReply>) {
        let shared = Arc::clone(&self.queue_control.shared);
        if self.selection.ids.is_empty() && !self.queue_control.is_selected(&self.selection, &id) {
            return;
        }
        if self.change == QueueChange::Retry {
            return self.retry(id);
        }
        let news = shared.events.clone();
        if shared.events.send(ManagerEvent::Claim { id, reply_to: to.clone(), events: news }).is_err() {
            return self.result.refused.push((id, "cannot be changed: the server is stopping".to_owned()));
        }
        self.pending.insert(id);
        // The manager answers at once; only what it has not heard of yet takes a moment.
        while let Ok(grant) = grants.recv_timeout(PENDING_WAIT_MAX) {
            let about = grant.id();
            self.handle_reply(grant);
            if about == id {
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
                self.result.done.push(id);
            }
        }
    }

    /// Who wants mail to be tried may have mended what was wrong.
    fn clear_courier_failures(&self) {
        match self.change {
            QueueChange::Retry | QueueChange::Release | QueueChange::Reroute { .. } => {
                self.queue_control.couriers.smtp.forget_host_failures();
            }
            QueueChange::Hold | QueueChange::Remove { .. } => {}
        }
    }

    /// Only a manager that has ended does not hear.
    fn send_retries(&mut self) {
        let urgent = std::mem::take(&mut self.retry_now);
        if !urgent.is_empty() {
            let _ = self.queue_control.shared.events.send(ManagerEvent::Retry(urgent));
        }
    }

    /// Takes in what comes until nothing is awaited any more, or until `end`.
    fn wait_until(&mut self, grants: &Receiver<ClaimReply>, end: Moment) {
        while !self.pending.is_empty() {
            let left = end.since(self.queue_control.shared.clock.now());
            match grants.recv_timeout(left) {
                Ok(grant) => self.handle_reply(grant),
                Err(_) => return,
            }
        }
    }

    fn wait_for_pending(mut self, grants: &Receiver<ClaimReply>) {
        while !self.pending.is_empty()
            && let Ok(grant) = grants.recv()
        {
            self.handle_reply(grant);
        }
        for (id, why) in &self.result.refused {
            log::warn!(target: "queue", "{id}, which a command was to change when its attempt was back, {why}");
        }
    }

    fn handle_reply(&mut self, grant: ClaimReply) {
        let id = grant.id();
        match grant {
            ClaimReply::Pending(_) => return,
            ClaimReply::NotQueued(_) => self.refuse_not_queued(id),
            ClaimReply::ClaimedByOther(_) => {
                self.result.refused.push((id, "is wanted by another command already".to_owned()));
            }
            ClaimReply::Stopping(_) => {
                let why = "is as it was: it is being tried just now, and the server is stopping";
                self.result.refused.push((id, why.to_owned()));
            }
            ClaimReply::Granted(mut claim) => match self.apply(&mut claim) {
                Ok(()) => self.result.done.push(id),
                Err(why) => self.result.refused.push((id, why)),
            },
        }
        self.pending.remove(&id);
    }

    fn refuse_not_queued(&mut self, id: MessageId) {
        let why = "is not in the queue: it was delivered, reported or removed".to_owned();
        // Who went through the whole queue did not name it.
        if !self.selection.ids.is_empty() {
            self.result.refused.push((id, why));
        }
    }

    fn apply(&self, claim: &mut Claim) -> Result<(), String> {
        let shared = &self.queue_control.shared;
        let unreadable = |e: &dyn std::fmt::Display| format!("cannot be read: {e}");
        let (envelope, progress) = claim.load(shared).map_err(|e| unreadable(&e))?;
        let positions = self.queue_control.positions(&self.selection, &envelope, &progress);
        if positions.is_empty() {
            return Err("is not meant any more: nothing of what was meant waits".to_owned());
        }
        let record = claim.record(shared, &progress);
        let refused = |e: io::Error| format!("is as it was: the disk refused: {e}");
        match &self.change {
            QueueChange::Hold if progress.is_held => Ok(()),
            QueueChange::Hold => {
                claim
                    .record_update(shared, &envelope, ProgressUpdate { held: Some(true), ..record })
                    .map_err(refused)?;
                claim.on_return.next_step = AfterClaim::Hold;
                maillog::held(&claim.id);
                Ok(())
            }
            QueueChange::Release if !progress.is_held => Err("is not held".to_owned()),
            QueueChange::Release => {
                claim
                    .record_update(shared, &envelope, ProgressUpdate { held: Some(false), ..record })
                    .map_err(refused)?;
                claim.on_return.next_step = AfterClaim::RetryNow;
                maillog::released(&claim.id);
                Ok(())
            }
            QueueChange::Remove { report } => {
                let words = report.as_deref().unwrap_or("removed from the queue by the operator");
                let reason = Reason::new(7, 1, printable(words.as_bytes(), REASON_OCTETS_MAX));
                let states =
                    positions.iter().map(|position| (*position, RecipientState::Failed(reason.clone())));
                let record = ProgressUpdate { states: states.collect(), ..record };
                self.remove(claim, &envelope, &progress, record)
            }
            QueueChange::Reroute { via } => {
                let routes = positions.iter().filter_map(|position| {
                    let recipient = envelope.recipients.get(*position)?;
                    Some((*position, rerouted_destination(&recipient.destination, via)?))
                });
                let record = ProgressUpdate { routes: routes.collect(), ..record };
                if record.routes.is_empty() {
                    return Err("is for programs, which have no other way".to_owned());
                }
                let way = self.describe_route(&envelope, &record);
                claim.record_update(shared, &envelope, record).map_err(refused)?;
                claim.on_return.next_step =
                    if progress.is_held { AfterClaim::Hold } else { AfterClaim::RetryNow };
                maillog::rerouted(&claim.id, &way);
                Ok(())
            }
            // Needs no claim.
            QueueChange::Retry => Ok(()),
        }
    }

    /// Where the recipients of a record go from now on, for the log.
    fn describe_route(&self, envelope: &Envelope, record: &ProgressUpdate) -> String {
        let Some((position, Some(destination))) = record.routes.first() else {
            return "as before".to_owned();
        };
        let recipient = envelope.recipients.get(*position).cloned();
        let rerouted = recipient.map(|recipient| Recipient { destination: destination.clone(), ..recipient });
        rerouted.map_or_else(String::new, |recipient| {
            self.queue_control.router.load().route(&recipient).destination
        })
    }

    fn remove(
        &self,
        claim: &mut Claim,
        envelope: &Envelope,
        progress: &MessageProgress,
        record: ProgressUpdate,
    ) -> Result<(), String> {
        let shared = &self.queue_control.shared;
        if matches!(self.change, QueueChange::Remove { report: Some(_) }) {
            self.put_bounces(envelope, progress, &record)?;
        }
        let removed: Vec<_> =
            record.states.iter().filter_map(|(position, _)| envelope.recipients.get(*position)).collect();
        let mut after = progress.clone();
        after.apply(&record);
        if after.is_settled() {
            claim.on_return.next_step = AfterClaim::Removed;
            let settled = claim.settle_durably(shared, &record);
            maillog::removed(&claim.id, &removed);
            return settled.map_err(|e| format!("is removed, but may come back after a crash: {e}"));
        }
        claim
            .record_update(shared, envelope, record)
            .map_err(|e| format!("is as it was: the disk refused: {e}"))?;
        maillog::removed(&claim.id, &removed);
        Ok(())
    }

    /// First the report, then the removal: a crash between the two reports twice and never loses.
    fn put_bounces(
        &self,
        envelope: &Envelope,
        progress: &MessageProgress,
        record: &ProgressUpdate,
    ) -> Result<(), String> {
        let owed = bounce::decide_bounces(&AttemptChanges {
            envelope,
            states: &record.states,
            notices: &progress.notices,
            is_last_hop: false,
            is_delayed: false,
        });
        if let Some(why) = owed.suppression_reason {
            maillog::bounce_suppressed(&envelope.id, why);
        }
        let mut failures = owed.bounces.iter().filter(|due| due.kind == BounceKind::Failure);
        match failures.all(|due| self.queue_control.bounce_writer.put_bounce(envelope, due, record.at)) {
            true => Ok(()),
            false => Err("is as it was: its report cannot be put, see the log".to_owned()),
        }
    }
}

/// Where an operator sends a recipient; nothing for a program.
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
