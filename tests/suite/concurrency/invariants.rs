//! What must be true of every message, kept outside the code under test.
//!
//! Sessions, couriers and operators write here what they saw: a message was put (250), an attempt began, a
//! recipient was delivered to or failed, a command began and what it confirmed. From that alone follows what
//! is wrong.

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
    /// In which lives a recipient was delivered to.
    delivered: BTreeMap<(MessageId, String), Vec<usize>>,
    failed: BTreeSet<(MessageId, String)>,
    /// The disk has damaged them: they are set aside, and nobody gets them.
    damaged: BTreeSet<MessageId>,
    /// Texts of bounces that arrived.
    bounces: Vec<String>,
    commands: Vec<OperatorCommand>,
    /// Lives that ended otherwise than by a stop that left nothing undone.
    unclean_runs: BTreeSet<usize>,
    violation: Option<String>,
}

struct OperatorCommand {
    change: QueueChange,
    /// Messages that it may have touched; nothing if that may be all.
    ids: BTreeSet<MessageId>,
    started_at: EventNumber,
    /// When it came back; nothing if it may still do something.
    finished_at: Option<EventNumber>,
    confirmed: BTreeSet<MessageId>,
}

impl OperatorCommand {
    fn may_affect(&self, id: &MessageId) -> bool {
        self.ids.is_empty() || self.ids.contains(id)
    }
}

/// What a command that is over, and that no other overlapped or followed, has settled.
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

    /// The change that holds for a message: of the last command about the matter that confirmed it, if no other
    /// one may have come after or between.
    fn confirmed_change(&self, id: &MessageId, matter: CommandSubject) -> Option<&QueueChange> {
        let is_about = |command: &&OperatorCommand| {
            command.may_affect(id)
                && match command.change {
                    QueueChange::Hold | QueueChange::Release => matter == CommandSubject::Hold,
                    QueueChange::Reroute { .. } => matter == CommandSubject::Route,
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
    /// 250 was said.
    pub fn accepted(&self, id: MessageId, octets: Vec<u8>, recipients: Vec<String>) {
        self.0.lock().accepted.insert(id, (octets, recipients));
    }

    pub fn accepted_ids(&self) -> Vec<MessageId> {
        self.0.lock().accepted.keys().copied().collect()
    }

    /// A courier has a message in hand.
    pub fn attempt_started(&self, id: MessageId, octets: &[u8], is_rerouted: bool) {
        let mut facts = self.0.lock();
        let Some((promised, _)) = facts.accepted.get(&id) else { return };
        if promised != octets {
            facts.report_violation(format!("{id} came out changed"));
        }
        if facts.is_removed(&id) {
            facts.report_violation(format!("{id} is tried after its removal was confirmed"));
        }
        if matches!(facts.confirmed_change(&id, CommandSubject::Hold), Some(QueueChange::Hold)) {
            facts.report_violation(format!("{id} is tried while it is held"));
        }
        if matches!(facts.confirmed_change(&id, CommandSubject::Route), Some(QueueChange::Reroute { .. }))
            && !is_rerouted
        {
            facts.report_violation(format!("{id} goes the way that it went before it was rerouted"));
        }
    }

    pub fn delivered(&self, id: MessageId, recipient: String, life: usize) {
        let mut facts = self.0.lock();
        let lives = facts.delivered.entry((id, recipient.clone())).or_default();
        lives.push(life);
        let before = lives.iter().rev().nth(1).copied();
        if let Some(before) = before
            && (before == life || !facts.unclean_runs.contains(&before))
        {
            facts.report_violation(format!(
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

    /// An operator types a command; what comes back is for `command_ends`.
    pub fn command_started(&self, change: QueueChange, ids: &[MessageId]) -> usize {
        let mut facts = self.0.lock();
        let began = facts.next_event();
        let (ids, confirmed) = (ids.iter().copied().collect(), BTreeSet::new());
        facts.commands.push(OperatorCommand { change, ids, started_at: began, finished_at: None, confirmed });
        facts.commands.len() - 1
    }

    pub fn command_finished(&self, number: usize, changed: &ChangeResult) {
        let mut facts = self.0.lock();
        let now = facts.next_event();
        let command = &mut facts.commands[number];
        command.confirmed = changed.done.iter().copied().collect();
        // What is done when an attempt is back may be done at any time.
        if changed.pending.is_empty() {
            command.finished_at = Some(now);
        }
    }

    /// A life of the server is over; nothing of it acts any more.
    pub fn process_ended(&self, life: usize, is_clean: bool) {
        let mut facts = self.0.lock();
        if !is_clean {
            facts.unclean_runs.insert(life);
        }
        let now = facts.next_event();
        for command in &mut facts.commands {
            command.finished_at.get_or_insert(now);
        }
    }

    /// A new life has begun: `view` says of a message whether it is held and whether it goes another way;
    /// nothing if it is not in the queue.
    pub fn process_started(&self, view: impl Fn(&MessageId) -> Option<(bool, bool)>) {
        // Another actor may write here while one looks at the queue.
        let seen: Vec<_> = self.accepted_ids().into_iter().filter_map(|id| Some((id, view(&id)?))).collect();
        let mut facts = self.0.lock();
        for (id, (is_held, is_rerouted)) in seen {
            if facts.is_removed(&id) {
                facts.report_violation(format!("{id} is back after its removal was confirmed"));
            }
            let held =
                facts.confirmed_change(&id, CommandSubject::Hold).map(|change| *change == QueueChange::Hold);
            if held.is_some_and(|held| held != is_held) {
                facts.report_violation(format!("{id}: held is {is_held} after a restart"));
            }
            let route = facts.confirmed_change(&id, CommandSubject::Route);
            if matches!(route, Some(QueueChange::Reroute { .. })) && !is_rerouted {
                facts.report_violation(format!("{id}: its new way is forgotten after a restart"));
            }
        }
    }

    /// Everything that could leave has left.
    pub fn assert_all_settled(&self) {
        let mut facts = self.0.lock();
        let mut lost = Vec::new();
        for (id, (_, recipients)) in &facts.accepted {
            for recipient in recipients {
                let one = (*id, recipient.clone());
                let told = format!("Our name for your message: {id}");
                let is_told = || facts.bounces.iter().any(|b| b.contains(&told) && b.contains(recipient));
                let is_settled = facts.delivered.contains_key(&one)
                    || (facts.failed.contains(&one) && is_told())
                    || facts.damaged.contains(id)
                    || facts.may_be_removed(id);
                if !is_settled {
                    lost.push(format!("{id} to {recipient} is lost"));
                }
            }
        }
        lost.into_iter().for_each(|text| facts.report_violation(text));
    }

    pub fn report_violation(&self, text: impl Into<String>) {
        self.0.lock().report_violation(text.into());
    }

    pub fn violation(&self) -> Option<String> {
        self.0.lock().violation.clone()
    }
}
