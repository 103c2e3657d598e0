//! What must be true of every message, checked without the state of the code under test.
//!
//! Sessions, couriers and operators report events here: a message was accepted (250), an attempt began, a
//! recipient was delivered or failed, a command began, and what it confirmed. Violations follow from these
//! events alone.

use std::collections::{BTreeMap, BTreeSet};

use postrider::mail::MessageId;
use postrider::queue::{ChangeResult, QueueChange};
use postrider::sys::PlainMutex;

/// A number in the order of events.
type EventNumber = u64;

#[derive(Default)]
pub struct InvariantChecker(PlainMutex<Events>);

#[derive(Default)]
struct Events {
    last_event: EventNumber,
    /// Messages that were answered 250: octets and recipients.
    accepted: BTreeMap<MessageId, (Vec<u8>, Vec<String>)>,
    /// The processes that delivered to a recipient.
    delivered: BTreeMap<(MessageId, String), Vec<usize>>,
    failed: BTreeSet<(MessageId, String)>,
    /// Messages that the disk damaged: they are set aside and not delivered.
    damaged: BTreeSet<MessageId>,
    /// Texts of bounces that arrived.
    bounces: Vec<String>,
    commands: Vec<OperatorCommand>,
    /// Processes that did not end with a clean stop.
    unclean_runs: BTreeSet<usize>,
    violation: Option<String>,
}

struct OperatorCommand {
    change: QueueChange,
    /// Messages that it may have changed; empty if it may have changed all.
    ids: BTreeSet<MessageId>,
    started_at: EventNumber,
    /// When it ended; `None` if it may still change a message.
    finished_at: Option<EventNumber>,
    confirmed: BTreeSet<MessageId>,
}

impl OperatorCommand {
    fn may_affect(&self, id: &MessageId) -> bool {
        self.ids.is_empty() || self.ids.contains(id)
    }
}

/// What a command is about.
#[derive(PartialEq, Clone, Copy)]
enum CommandSubject {
    Hold,
    Route,
}

impl Events {
    fn next_event(&mut self) -> EventNumber {
        self.last_event += 1;
        self.last_event
    }

    fn report_violation(&mut self, text: String) {
        self.violation.get_or_insert(text);
    }

    /// The change that holds for a message: that of the last command about the subject, if it confirmed the
    /// message and no other command overlapped it.
    fn confirmed_change(&self, id: &MessageId, subject: CommandSubject) -> Option<&QueueChange> {
        let is_about = |command: &&OperatorCommand| {
            command.may_affect(id)
                && match command.change {
                    QueueChange::Hold | QueueChange::Release => subject == CommandSubject::Hold,
                    QueueChange::Reroute { .. } => subject == CommandSubject::Route,
                    QueueChange::Remove { .. } => true,
                    QueueChange::Retry => false,
                }
        };
        let about: Vec<_> = self.commands.iter().filter(is_about).collect();
        let last = about.iter().max_by_key(|command| command.started_at)?;
        let is_alone = about
            .iter()
            .filter(|one| one.started_at != last.started_at)
            .all(|one| one.finished_at.is_some_and(|ended| ended < last.started_at));
        (is_alone && last.finished_at.is_some() && last.confirmed.contains(id)).then_some(&last.change)
    }

    fn is_removed(&self, id: &MessageId) -> bool {
        let removals = self.commands.iter().filter(|one| matches!(one.change, QueueChange::Remove { .. }));
        removals.into_iter().any(|one| one.confirmed.contains(id))
    }

    fn may_be_removed(&self, id: &MessageId) -> bool {
        let removals = self.commands.iter().filter(|one| matches!(one.change, QueueChange::Remove { .. }));
        removals.into_iter().any(|one| one.may_affect(id))
    }
}

impl InvariantChecker {
    /// A message was answered 250.
    pub fn accepted(&self, id: MessageId, octets: Vec<u8>, recipients: Vec<String>) {
        self.0.lock().accepted.insert(id, (octets, recipients));
    }

    pub fn accepted_ids(&self) -> Vec<MessageId> {
        self.0.lock().accepted.keys().copied().collect()
    }

    /// An attempt of a message began.
    pub fn attempt_started(&self, id: MessageId, octets: &[u8], is_rerouted: bool) {
        let mut events = self.0.lock();
        let Some((accepted, _)) = events.accepted.get(&id) else { return };
        if accepted != octets {
            events.report_violation(format!("{id} came out changed"));
        }
        if events.is_removed(&id) {
            events.report_violation(format!("{id} is tried after its removal was confirmed"));
        }
        if matches!(events.confirmed_change(&id, CommandSubject::Hold), Some(QueueChange::Hold)) {
            events.report_violation(format!("{id} is tried while it is held"));
        }
        if matches!(events.confirmed_change(&id, CommandSubject::Route), Some(QueueChange::Reroute { .. }))
            && !is_rerouted
        {
            events.report_violation(format!("{id} goes the way that it went before it was rerouted"));
        }
    }

    pub fn delivered(&self, id: MessageId, recipient: String, life: usize) {
        let mut events = self.0.lock();
        let lives = events.delivered.entry((id, recipient.clone())).or_default();
        lives.push(life);
        let before = lives.iter().rev().nth(1).copied();
        if let Some(before) = before
            && (before == life || !events.unclean_runs.contains(&before))
        {
            events.report_violation(format!(
                "{id}: {recipient} is delivered to in life {before} and in life {life}"
            ));
        }
    }

    pub fn failed(&self, id: MessageId, recipient: String) {
        self.0.lock().failed.insert((id, recipient));
    }

    pub fn damaged(&self, id: MessageId) {
        self.0.lock().damaged.insert(id);
    }

    pub fn bounced(&self, text: String) {
        self.0.lock().bounces.push(text);
    }

    /// A command began. Returns its number, for `command_finished`.
    pub fn command_started(&self, change: QueueChange, ids: &[MessageId]) -> usize {
        let mut events = self.0.lock();
        let began = events.next_event();
        let (ids, confirmed) = (ids.iter().copied().collect(), BTreeSet::new());
        events.commands.push(OperatorCommand {
            change,
            ids,
            started_at: began,
            finished_at: None,
            confirmed,
        });
        events.commands.len() - 1
    }

    pub fn command_finished(&self, number: usize, changed: &ChangeResult) {
        let mut events = self.0.lock();
        let now = events.next_event();
        let command = &mut events.commands[number];
        command.confirmed = changed.changed.iter().copied().collect();
        // Messages that wait for an attempt may be changed at any time later.
        if changed.pending.is_empty() {
            command.finished_at = Some(now);
        }
    }

    /// A process has ended, with all its threads.
    pub fn process_ended(&self, life: usize, is_clean: bool) {
        let mut events = self.0.lock();
        if !is_clean {
            events.unclean_runs.insert(life);
        }
        let now = events.next_event();
        for command in &mut events.commands {
            command.finished_at.get_or_insert(now);
        }
    }

    /// A new process has begun. `view` returns whether a message is held and whether it is rerouted; `None`
    /// if it is not in the queue.
    pub fn process_started(&self, view: impl Fn(&MessageId) -> Option<(bool, bool)>) {
        // Another thread may report events meanwhile.
        let seen: Vec<_> = self.accepted_ids().into_iter().filter_map(|id| Some((id, view(&id)?))).collect();
        let mut events = self.0.lock();
        for (id, (is_held, is_rerouted)) in seen {
            if events.is_removed(&id) {
                events.report_violation(format!("{id} is back after its removal was confirmed"));
            }
            let held =
                events.confirmed_change(&id, CommandSubject::Hold).map(|change| *change == QueueChange::Hold);
            if held.is_some_and(|held| held != is_held) {
                events.report_violation(format!("{id}: held is {is_held} after a restart"));
            }
            let route = events.confirmed_change(&id, CommandSubject::Route);
            if matches!(route, Some(QueueChange::Reroute { .. })) && !is_rerouted {
                events.report_violation(format!("{id}: its new way is forgotten after a restart"));
            }
        }
    }

    /// Every message that can be delivered has been delivered.
    pub fn assert_all_settled(&self) {
        let mut events = self.0.lock();
        let mut lost = Vec::new();
        for (id, (_, recipients)) in &events.accepted {
            for recipient in recipients {
                let one = (*id, recipient.clone());
                let text = format!("Queue ID of your message: {id}");
                let is_reported =
                    || events.bounces.iter().any(|b| b.contains(&text) && b.contains(recipient));
                let is_settled = events.delivered.contains_key(&one)
                    || (events.failed.contains(&one) && is_reported())
                    || events.damaged.contains(id)
                    || events.may_be_removed(id);
                if !is_settled {
                    lost.push(format!("{id} to {recipient} is lost"));
                }
            }
        }
        lost.into_iter().for_each(|text| events.report_violation(text));
    }

    pub fn report_violation(&self, text: impl Into<String>) {
        self.0.lock().report_violation(text.into());
    }

    pub fn violation(&self) -> Option<String> {
        self.0.lock().violation.clone()
    }
}
