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

use super::bounce::{self, Changes, Kind};
use super::claims::{Claim, Grant, Then};
use super::clerk::Clerk;
use super::handle::{Handle, ItemView, News, Shared};
use super::item::{Progress, Record, State};
use super::octets::Octets;
use super::selection::Selection;
use super::worker::{Couriers, Crew};
use crate::courier::Message;
use crate::mail::{
    Destination, Envelope, Fields, MessageId, NextHop, Reason, Recipient, Timestamp, TlsPolicy, Via,
    printable,
};
use crate::observe::maillog;
use crate::route::Router;
use crate::sys::{Moment, Receiver, Sender, channel, spawn};

/// Looks at the queue and changes it, for a person. Cheap to clone.
#[derive(Clone)]
pub struct Operator {
    handle: Handle,
    shared: Arc<Shared>,
    clerk: Clerk,
    router: Arc<ArcSwap<Router>>,
    couriers: Couriers,
}

/// What a person wants done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "change", rename_all = "kebab-case")]
pub enum Change {
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
pub struct Changed {
    /// Done.
    pub done: Vec<MessageId>,
    /// Being tried just now: done when the attempt is back, if anything is left to do.
    pub later: Vec<MessageId>,
    /// Not done, and why: a sentence that begins with a verb.
    pub refused: Vec<(MessageId, String)>,
    /// Not looked at: the command has taken long enough, and can be given again.
    pub left: usize,
}

/// One message, as closely as it can be looked at.
#[derive(Debug, Clone)]
pub struct Detail {
    /// As in the list.
    pub view: ItemView,
    /// As it was written down.
    pub envelope: Arc<Envelope>,
    /// Every change of a recipient's state that is still known, oldest first.
    pub history: Vec<Event>,
}

/// A recipient's state changed.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// When.
    pub at: Timestamp,
    /// In which round of attempts, from 1; 0 before the first.
    pub attempt: u32,
    /// Position in the envelope.
    pub position: usize,
    /// From here on.
    pub state: State,
}

/// A command goes through messages for no longer than this; whoever asked waits for it.
const COMMAND_MAX: Duration = Duration::from_secs(15);
/// Then it waits so long for attempts under way.
const PATIENCE: Duration = Duration::from_secs(2);
/// A message is shown up to here.
const SHOWN_OCTETS_MAX: u64 = 4 * 1024 * 1024;
/// A header section is shown up to here.
const HEADER_OCTETS_MAX: u64 = 256 * 1024;
/// An operator's words in a report.
const WORDS_OCTETS_MAX: usize = 500;

impl Operator {
    pub(super) fn new(shared: Arc<Shared>, clerk: Clerk, crew: &Crew) -> Self {
        let (router, couriers) = (Arc::clone(&crew.router), crew.couriers.clone());
        Self { handle: Handle::new(Arc::clone(&shared)), shared, clerk, router, couriers }
    }

    /// Messages that are meant, oldest first, at most `limit`, read from disk.
    #[must_use]
    pub fn list(&self, selection: &Selection, limit: usize) -> Vec<ItemView> {
        let end = self.shared.clock.now() + COMMAND_MAX;
        let ids = self.candidates(selection).into_iter().take_while(|_| self.shared.clock.now() < end);
        let meant = ids.filter(|id| self.is_meant(selection, id));
        meant.filter_map(|id| self.handle.view(&id)).take(limit).collect()
    }

    /// All that is known of a message; nothing if it is not in our care or cannot be read.
    #[must_use]
    pub fn detail(&self, id: &MessageId) -> Option<Detail> {
        let view = self.handle.view(id)?;
        let loaded = self.shared.spool.load(id).ok()?;
        let events = loaded.records.iter().flat_map(|record| {
            let event = |(position, state): &(usize, State)| Event {
                at: record.at,
                attempt: record.attempts,
                position: *position,
                state: state.clone(),
            };
            record.states.iter().map(event)
        });
        Some(Detail { view, history: events.collect(), envelope: loaded.envelope })
    }

    /// The first octets of a message as it goes out: its header section, or up to 4 MiB of all.
    ///
    /// # Errors
    /// As the disk says; `NotFound` if it is not in our care.
    pub fn octets(&self, id: &MessageId, is_header: bool) -> io::Result<Vec<u8>> {
        let detail = self.detail(id).ok_or(io::ErrorKind::NotFound)?;
        let message = Octets::new(self.shared.spool.extent(id)?, &detail.envelope)?;
        let mut octets = Vec::new();
        let most = if is_header { HEADER_OCTETS_MAX } else { SHOWN_OCTETS_MAX };
        message.open()?.take(most).read_to_end(&mut octets)?;
        if is_header {
            octets.truncate(Fields::section_length(&octets));
        }
        Ok(octets)
    }

    /// Changes the messages that are meant, and of each the recipients that are.
    pub fn change(&self, selection: Selection, change: Change) -> Changed {
        let (to, grants) = channel();
        let end = self.shared.clock.now() + COMMAND_MAX;
        let ids = self.candidates(&selection);
        let mut command = Command {
            operator: self.clone(),
            selection,
            change,
            changed: Changed::default(),
            later: BTreeSet::new(),
            urgent: HashSet::new(),
        };
        command.look_again();
        for (number, id) in ids.iter().enumerate() {
            if self.shared.clock.now() >= end {
                command.changed.left = ids.len() - number;
                break;
            }
            command.one(*id, &to, &grants);
        }
        drop(to);
        command.hurry();
        command.wait(&grants, self.shared.clock.now() + PATIENCE);
        let mut changed = std::mem::take(&mut command.changed);
        changed.later = command.later.iter().copied().collect();
        if !changed.later.is_empty() {
            // Ends with the last attempt, or with the manager.
            let rest = spawn("operator", move || command.wait_for_all(&grants));
            if let Err(e) = rest {
                let refused = changed.later.drain(..).map(|id| (id, format!("is being tried just now: {e}")));
                changed.refused.extend(refused);
            }
        }
        changed
    }

    fn candidates(&self, selection: &Selection) -> Vec<MessageId> {
        if selection.ids.is_empty() { self.shared.spool.ids() } else { selection.ids.clone() }
    }

    /// Whether somebody of its recipients is meant. Reads nothing from disk if there is no question.
    fn is_meant(&self, selection: &Selection, id: &MessageId) -> bool {
        if selection.names_ids_only() {
            return true;
        }
        let loaded = self.shared.spool.load(id);
        loaded.is_ok_and(|loaded| !self.positions(selection, &loaded.envelope, &loaded.progress).is_empty())
    }

    fn positions(&self, selection: &Selection, envelope: &Envelope, progress: &Progress) -> Vec<usize> {
        selection.positions(envelope, progress, &self.router.load())
    }
}

/// A command under way.
struct Command {
    operator: Operator,
    selection: Selection,
    change: Change,
    changed: Changed,
    /// Asked for, and under way.
    later: BTreeSet<MessageId>,
    /// To be tried now.
    urgent: HashSet<MessageId>,
}

impl Command {
    /// Asks for one message and changes it, unless something of it is under way.
    fn one(&mut self, id: MessageId, to: &Sender<Grant>, grants: &Receiver<Grant>) {
        let shared = Arc::clone(&self.operator.shared);
        if self.selection.ids.is_empty() && !self.operator.is_meant(&self.selection, &id) {
            return;
        }
        if self.change == Change::Retry {
            return self.retry(id);
        }
        let news = shared.news.clone();
        if shared.news.send(News::Claim { id, to: to.clone(), news }).is_err() {
            return self.changed.refused.push((id, "cannot be changed: the server is stopping".to_owned()));
        }
        self.later.insert(id);
        // The manager answers at once; only what it has not heard of yet takes a moment.
        while let Ok(grant) = grants.recv_timeout(PATIENCE) {
            let about = grant.id();
            self.take(grant);
            if about == id {
                return;
            }
        }
    }

    fn retry(&mut self, id: MessageId) {
        match self.operator.handle.view(&id) {
            None => self.gone(id),
            Some(view) if view.is_held => {
                self.changed.refused.push((id, "is held: release it instead".to_owned()));
            }
            Some(_) => {
                self.urgent.insert(id);
                self.changed.done.push(id);
            }
        }
    }

    /// Who wants mail to be tried may have mended what was wrong.
    fn look_again(&self) {
        match self.change {
            Change::Retry | Change::Release | Change::Reroute { .. } => {
                self.operator.couriers.smtp.look_again();
            }
            Change::Hold | Change::Remove { .. } => {}
        }
    }

    /// Only a manager that has ended does not hear.
    fn hurry(&mut self) {
        let urgent = std::mem::take(&mut self.urgent);
        if !urgent.is_empty() {
            let _ = self.operator.shared.news.send(News::Retry(urgent));
        }
    }

    /// Takes in what comes until nothing is awaited any more, or until `end`.
    fn wait(&mut self, grants: &Receiver<Grant>, end: Moment) {
        while !self.later.is_empty() {
            let left = end.since(self.operator.shared.clock.now());
            match grants.recv_timeout(left) {
                Ok(grant) => self.take(grant),
                Err(_) => return,
            }
        }
    }

    fn wait_for_all(mut self, grants: &Receiver<Grant>) {
        while !self.later.is_empty()
            && let Ok(grant) = grants.recv()
        {
            self.take(grant);
        }
        for (id, why) in &self.changed.refused {
            log::warn!(target: "queue", "{id}, which a command was to change when its attempt was back, {why}");
        }
    }

    fn take(&mut self, grant: Grant) {
        let id = grant.id();
        match grant {
            Grant::Later(_) => return,
            Grant::Gone(_) => self.gone(id),
            Grant::Taken(_) => {
                self.changed.refused.push((id, "is wanted by another command already".to_owned()));
            }
            Grant::Stopping(_) => {
                let why = "is as it was: it is being tried just now, and the server is stopping";
                self.changed.refused.push((id, why.to_owned()));
            }
            Grant::Yours(mut claim) => match self.apply(&mut claim) {
                Ok(()) => self.changed.done.push(id),
                Err(why) => self.changed.refused.push((id, why)),
            },
        }
        self.later.remove(&id);
    }

    fn gone(&mut self, id: MessageId) {
        let why = "is not in the queue: it was delivered, reported or removed".to_owned();
        // Who went through the whole queue did not name it.
        if !self.selection.ids.is_empty() {
            self.changed.refused.push((id, why));
        }
    }

    fn apply(&self, claim: &mut Claim) -> Result<(), String> {
        let shared = &self.operator.shared;
        let unreadable = |e: &dyn std::fmt::Display| format!("cannot be read: {e}");
        let (envelope, progress) = claim.load(shared).map_err(|e| unreadable(&e))?;
        let positions = self.operator.positions(&self.selection, &envelope, &progress);
        if positions.is_empty() {
            return Err("is not meant any more: nothing of what was meant waits".to_owned());
        }
        let record = claim.record(shared, &progress);
        let refused = |e: io::Error| format!("is as it was: the disk refused: {e}");
        match &self.change {
            Change::Hold if progress.is_held => Ok(()),
            Change::Hold => {
                claim.note(shared, &envelope, Record { held: Some(true), ..record }).map_err(refused)?;
                claim.back.then = Then::Hold;
                maillog::held(&claim.id);
                Ok(())
            }
            Change::Release if !progress.is_held => Err("is not held".to_owned()),
            Change::Release => {
                claim.note(shared, &envelope, Record { held: Some(false), ..record }).map_err(refused)?;
                claim.back.then = Then::Now;
                maillog::released(&claim.id);
                Ok(())
            }
            Change::Remove { report } => {
                let words = report.as_deref().unwrap_or("removed from the queue by the operator");
                let reason = Reason::new(7, 1, printable(words.as_bytes(), WORDS_OCTETS_MAX));
                let states = positions.iter().map(|position| (*position, State::Failed(reason.clone())));
                let record = Record { states: states.collect(), ..record };
                self.remove(claim, &envelope, &progress, record)
            }
            Change::Reroute { via } => {
                let routes = positions.iter().filter_map(|position| {
                    let recipient = envelope.recipients.get(*position)?;
                    Some((*position, another_way(&recipient.destination, via)?))
                });
                let record = Record { routes: routes.collect(), ..record };
                if record.routes.is_empty() {
                    return Err("is for programs, which have no other way".to_owned());
                }
                let way = self.way(&envelope, &record);
                claim.note(shared, &envelope, record).map_err(refused)?;
                claim.back.then = if progress.is_held { Then::Hold } else { Then::Now };
                maillog::rerouted(&claim.id, &way);
                Ok(())
            }
            // Needs no claim.
            Change::Retry => Ok(()),
        }
    }

    /// Where the recipients of a record go from now on, for the log.
    fn way(&self, envelope: &Envelope, record: &Record) -> String {
        let Some((position, Some(destination))) = record.routes.first() else {
            return "as before".to_owned();
        };
        let recipient = envelope.recipients.get(*position).cloned();
        let rerouted = recipient.map(|recipient| Recipient { destination: destination.clone(), ..recipient });
        rerouted
            .map_or_else(String::new, |recipient| self.operator.router.load().route(&recipient).destination)
    }

    fn remove(
        &self,
        claim: &mut Claim,
        envelope: &Envelope,
        progress: &Progress,
        record: Record,
    ) -> Result<(), String> {
        let shared = &self.operator.shared;
        if matches!(self.change, Change::Remove { report: Some(_) }) {
            self.report(envelope, progress, &record)?;
        }
        let removed: Vec<_> =
            record.states.iter().filter_map(|(position, _)| envelope.recipients.get(*position)).collect();
        let mut after = progress.clone();
        after.apply(&record);
        if after.is_settled() {
            claim.back.then = Then::Gone;
            let settled = claim.settle_durably(shared, &record);
            maillog::removed(&claim.id, &removed);
            return settled.map_err(|e| format!("is removed, but may come back after a crash: {e}"));
        }
        claim.note(shared, envelope, record).map_err(|e| format!("is as it was: the disk refused: {e}"))?;
        maillog::removed(&claim.id, &removed);
        Ok(())
    }

    /// First the report, then the removal: a crash between the two reports twice and never loses.
    fn report(&self, envelope: &Envelope, progress: &Progress, record: &Record) -> Result<(), String> {
        let owed = bounce::owed(&Changes {
            envelope,
            states: &record.states,
            told: &progress.told,
            is_last_hop: false,
            is_late: false,
        });
        if let Some(why) = owed.silence {
            maillog::not_reported(&envelope.id, why);
        }
        let mut failures = owed.reports.iter().filter(|due| due.kind == Kind::Failure);
        match failures.all(|due| self.operator.clerk.report(envelope, due, record.at)) {
            true => Ok(()),
            false => Err("is as it was: its report cannot be put, see the log".to_owned()),
        }
    }
}

/// Where an operator sends a recipient; nothing for a program.
fn another_way(destination: &Destination, via: &[NextHop]) -> Option<Option<Destination>> {
    match destination {
        Destination::Program { .. } => None,
        Destination::Mailbox(_) | Destination::Via { .. } if via.is_empty() => Some(None),
        Destination::Mailbox(mailbox) | Destination::Via { mailbox, .. } => {
            let via = Via { hosts: via.to_vec(), tls: TlsPolicy::default(), login: None };
            Some(Some(Destination::Via { mailbox: mailbox.clone(), via }))
        }
    }
}
