//! What must be true of every message, kept outside the code under test.
//!
//! Sessions, couriers and operators write here what they saw: a message was put (250), an attempt began, a
//! recipient was delivered to or failed, a command began and what it confirmed. From that alone follows what
//! is wrong.

use std::collections::{BTreeMap, BTreeSet};

use postrider::mail::MessageId;
use postrider::queue::{Change, Changed};
use postrider::sys::PlainMutex;

/// A number in the order of events.
type Moment = u64;

#[derive(Default)]
pub struct Record(PlainMutex<Facts>);

#[derive(Default)]
struct Facts {
    now: Moment,
    /// Messages that were answered 250: octets and recipients.
    promised: BTreeMap<MessageId, (Vec<u8>, Vec<String>)>,
    /// In which lives a recipient was delivered to.
    delivered: BTreeMap<(MessageId, String), Vec<usize>>,
    failed: BTreeSet<(MessageId, String)>,
    /// The disk has damaged them: they are set aside, and nobody gets them.
    damaged: BTreeSet<MessageId>,
    /// Texts of bounces that arrived.
    bounces: Vec<String>,
    commands: Vec<Command>,
    /// Lives that ended otherwise than by a stop that left nothing undone.
    unclean: BTreeSet<usize>,
    wrong: Option<String>,
}

struct Command {
    change: Change,
    /// Messages that it may have touched; nothing if that may be all.
    ids: BTreeSet<MessageId>,
    began: Moment,
    /// When it came back; nothing if it may still do something.
    ended: Option<Moment>,
    confirmed: BTreeSet<MessageId>,
}

impl Command {
    fn may_touch(&self, id: &MessageId) -> bool {
        self.ids.is_empty() || self.ids.contains(id)
    }
}

/// What a command that is over, and that no other overlapped or followed, has settled.
#[derive(PartialEq, Clone, Copy)]
enum Matter {
    Hold,
    Route,
}

impl Facts {
    fn tick(&mut self) -> Moment {
        self.now += 1;
        self.now
    }

    fn complain(&mut self, text: String) {
        self.wrong.get_or_insert(text);
    }

    /// The change that holds for a message: of the last command about the matter that confirmed it, if no other
    /// one may have come after or between.
    fn in_force(&self, id: &MessageId, matter: Matter) -> Option<&Change> {
        let is_about = |command: &&Command| {
            command.may_touch(id)
                && match command.change {
                    Change::Hold | Change::Release => matter == Matter::Hold,
                    Change::Reroute { .. } => matter == Matter::Route,
                    Change::Remove { .. } => true,
                    Change::Retry => false,
                }
        };
        let about: Vec<_> = self.commands.iter().filter(is_about).collect();
        let last = about.iter().max_by_key(|command| command.began)?;
        let is_alone = about
            .iter()
            .filter(|one| one.began != last.began)
            .all(|one| one.ended.is_some_and(|ended| ended < last.began));
        (is_alone && last.ended.is_some() && last.confirmed.contains(id)).then_some(&last.change)
    }

    fn is_removed(&self, id: &MessageId) -> bool {
        let removals = self.commands.iter().filter(|one| matches!(one.change, Change::Remove { .. }));
        removals.into_iter().any(|one| one.confirmed.contains(id))
    }

    fn may_be_removed(&self, id: &MessageId) -> bool {
        let removals = self.commands.iter().filter(|one| matches!(one.change, Change::Remove { .. }));
        removals.into_iter().any(|one| one.may_touch(id))
    }
}

impl Record {
    /// 250 was said.
    pub fn promised(&self, id: MessageId, octets: Vec<u8>, recipients: Vec<String>) {
        self.0.lock().promised.insert(id, (octets, recipients));
    }

    pub fn ids(&self) -> Vec<MessageId> {
        self.0.lock().promised.keys().copied().collect()
    }

    /// A courier has a message in hand.
    pub fn attempt_begins(&self, id: MessageId, octets: &[u8], is_rerouted: bool) {
        let mut facts = self.0.lock();
        let Some((promised, _)) = facts.promised.get(&id) else { return };
        if promised != octets {
            facts.complain(format!("{id} came out changed"));
        }
        if facts.is_removed(&id) {
            facts.complain(format!("{id} is tried after its removal was confirmed"));
        }
        if matches!(facts.in_force(&id, Matter::Hold), Some(Change::Hold)) {
            facts.complain(format!("{id} is tried while it is held"));
        }
        if matches!(facts.in_force(&id, Matter::Route), Some(Change::Reroute { .. })) && !is_rerouted {
            facts.complain(format!("{id} goes the way that it went before it was rerouted"));
        }
    }

    pub fn delivered(&self, id: MessageId, recipient: String, life: usize) {
        let mut facts = self.0.lock();
        let lives = facts.delivered.entry((id, recipient.clone())).or_default();
        lives.push(life);
        let before = lives.iter().rev().nth(1).copied();
        if let Some(before) = before
            && (before == life || !facts.unclean.contains(&before))
        {
            facts.complain(format!("{id}: {recipient} is delivered to in life {before} and in life {life}"));
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
    pub fn command_begins(&self, change: Change, ids: &[MessageId]) -> usize {
        let mut facts = self.0.lock();
        let began = facts.tick();
        let (ids, confirmed) = (ids.iter().copied().collect(), BTreeSet::new());
        facts.commands.push(Command { change, ids, began, ended: None, confirmed });
        facts.commands.len() - 1
    }

    pub fn command_ends(&self, number: usize, changed: &Changed) {
        let mut facts = self.0.lock();
        let now = facts.tick();
        let command = &mut facts.commands[number];
        command.confirmed = changed.done.iter().copied().collect();
        // What is done when an attempt is back may be done at any time.
        if changed.later.is_empty() {
            command.ended = Some(now);
        }
    }

    /// A life of the server is over; nothing of it acts any more.
    pub fn life_ends(&self, life: usize, is_clean: bool) {
        let mut facts = self.0.lock();
        if !is_clean {
            facts.unclean.insert(life);
        }
        let now = facts.tick();
        for command in &mut facts.commands {
            command.ended.get_or_insert(now);
        }
    }

    /// A new life has begun: `view` says of a message whether it is held and whether it goes another way;
    /// nothing if it is not in the queue.
    pub fn life_begins(&self, view: impl Fn(&MessageId) -> Option<(bool, bool)>) {
        // Another actor may write here while one looks at the queue.
        let seen: Vec<_> = self.ids().into_iter().filter_map(|id| Some((id, view(&id)?))).collect();
        let mut facts = self.0.lock();
        for (id, (is_held, is_rerouted)) in seen {
            if facts.is_removed(&id) {
                facts.complain(format!("{id} is back after its removal was confirmed"));
            }
            let held = facts.in_force(&id, Matter::Hold).map(|change| *change == Change::Hold);
            if held.is_some_and(|held| held != is_held) {
                facts.complain(format!("{id}: held is {is_held} after a restart"));
            }
            let route = facts.in_force(&id, Matter::Route);
            if matches!(route, Some(Change::Reroute { .. })) && !is_rerouted {
                facts.complain(format!("{id}: its new way is forgotten after a restart"));
            }
        }
    }

    /// Everything that could leave has left.
    pub fn ends(&self) {
        let mut facts = self.0.lock();
        let mut lost = Vec::new();
        for (id, (_, recipients)) in &facts.promised {
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
        lost.into_iter().for_each(|text| facts.complain(text));
    }

    pub fn complain(&self, text: impl Into<String>) {
        self.0.lock().complain(text.into());
    }

    pub fn wrong(&self) -> Option<String> {
        self.0.lock().wrong.clone()
    }
}
