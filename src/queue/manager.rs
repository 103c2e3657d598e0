//! The queue manager: when and whither.
//!
//! Hears news (a message was put, an attempt is over, an operator asks), watches the timetable,
//! and hands out jobs. It has no thread, no channel and no wait of its own: [`Manager::hear`],
//! [`Manager::tick`], [`Manager::next_job`] and [`Manager::clear_up`] are called by the thread
//! `queue` in `worker`, or by a test that turns the clock. A panic in here aborts the process (see `worker`): the disk is the
//! truth, and the next process reads it.
//!
//! Recipients of one message that share a route leave as one **leg** (local ones in legs of a few, so
//! that a crash repeats little and threads share the work). Those of a leg that are deferred are a
//! **part** of the message from then on, with a due time of their own; a message whose recipients all
//! wait together has no parts, and costs no memory for them.
//!
//! In memory for each message: id, due time, age, and counts. Envelopes are read when a leg
//! leaves, and kept while one is under way; a message just put keeps its own for its first legs,
//! as long as not too many do.
//!
//! **After an outage** nothing stampedes: of ours, what was tried before and is overdue comes in at
//! [`OVERDUE_PAUSE`] each; of a destination, see `destination`.

use std::collections::{BTreeMap, HashMap};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;
use std::time::Duration;

use super::claims::{Claim, Claims, Grant, Then, Waiting};
use super::destination::{Change, Contact};
use super::handle::News;
use super::item::Progress;
use super::platform::Departure;
use super::schedule::{Lane, Leg, Schedule, Settings};
use super::spool::{LoadError, Spool, Survivor, Swept};
use super::worker::Report;
use crate::mail::{Envelope, MessageId, Reason};
use crate::route::{Carrier, Route, Router};
use crate::sys::{Clock, Moment, Mutex, Random};
use arc_swap::ArcSwap;
use crossbeam_channel::Sender;

/// A message with something under way.
pub(super) struct Active {
    pub(super) envelope: Arc<Envelope>,
    /// Held while an attempt's outcome is written down, so that the legs of one message do so one
    /// after the other. Nobody else wants it.
    pub(super) standing: Mutex<Standing>,
}

pub(super) struct Standing {
    pub(super) progress: Progress,
    /// The disk refused something that `progress` holds.
    pub(super) is_unsaved: bool,
}

/// One attempt to be made.
pub struct Job {
    pub(super) active: Arc<Active>,
    pub(super) route: Arc<Route>,
    /// Positions in the envelope.
    pub(super) recipients: Vec<usize>,
    /// Number of this attempt, from 1.
    pub(super) round: u32,
    /// More mail for this destination is likely to follow soon.
    pub(super) is_busy: bool,
    /// Nobody is to be asked: they are put off for this reason.
    pub(super) put_off: Option<Arc<Reason>>,
    /// Age of the message, and when it was that.
    pub(super) age: (Duration, Moment),
}

impl Job {
    /// Whose threads carry it.
    #[must_use]
    pub fn lane(&self) -> Lane {
        Lane::of(&self.route)
    }
}

/// The manager's state.
pub struct Manager {
    spool: Arc<Spool>,
    clock: Arc<dyn Clock>,
    random: Arc<dyn Random>,
    router: Arc<ArcSwap<Router>>,
    settings: Settings,
    schedule: Schedule,
    entries: HashMap<MessageId, Entry>,
    claims: Claims,
    /// Entries that keep an envelope.
    kept: usize,
    under_way: usize,
    is_stopping: bool,
    sweep: Sweep,
    /// The message that is being looked at.
    busy_with: Option<MessageId>,
}

/// When to clear up.
struct Sweep {
    /// Something was settled since the last one.
    is_wanted: bool,
    /// When the last one was.
    last: Moment,
    /// Not sooner after it than this.
    pause: Duration,
}

struct Entry {
    /// When the next part, or the whole message, is due; nothing if all of it is ready or under way.
    due: Option<Moment>,
    /// Those who wait, if not all of them do so together.
    parts: Vec<Part>,
    /// Known age, and when it was that; read from disk at the first load.
    age: Option<(Duration, Moment)>,
    active: Option<Arc<Active>>,
    /// Legs that are ready or under way.
    legs: usize,
    /// Attempts that were made for one of its recipients at most, as far as this process knows.
    attempts: u32,
    /// A command took back some of its legs: it waits as a whole when the others are back.
    is_whole: bool,
    /// An operator wants it to be tried, whatever is known of its destinations.
    is_urgent: bool,
}

/// Recipients of one leg that was put off.
struct Part {
    due: Moment,
    /// Positions in the envelope.
    recipients: Vec<usize>,
    /// Attempts that were made.
    round: u32,
}

/// Envelopes kept for messages whose first legs wait.
const KEPT_MAX: usize = 500;
/// Messages whose rounds begin at once; then jobs are handed out before more begin.
const ROUNDS_PER_TICK: usize = 100;
const SWEEP_EVERY: Duration = Duration::from_secs(1);
/// A sweep stops after this, and news and jobs have their turn for as long.
const SWEEP_MAX: Duration = Duration::from_millis(50);
/// After the disk refused to clear up, and while there is more in the spool than there should be.
const SWEEP_AGAIN: Duration = Duration::from_secs(10);
/// After the disk failed to show a message.
const READ_AGAIN: Duration = Duration::from_secs(60);
/// Local recipients that leave in one leg at most: a crash in the middle of one may deliver to so many
/// twice.
const LOCAL_LEG_MAX: usize = 16;
/// A leg waits for a probe of its destination no longer; then why is written down, and it comes again.
const HOLD_MAX: Duration = Duration::from_secs(3600);
/// Between two messages that were due while we were not running; all of them come in within
/// [`OVERDUE_MAX`].
const OVERDUE_PAUSE: Duration = Duration::from_millis(5);
const OVERDUE_MAX: Duration = Duration::from_secs(600);
/// For a message of a later version: an operator must act.
const NEWER_AGAIN: Duration = Duration::from_secs(3600);

impl Manager {
    pub(super) fn new(
        spool: Arc<Spool>,
        clock: Arc<dyn Clock>,
        random: Arc<dyn Random>,
        router: Arc<ArcSwap<Router>>,
        settings: Settings,
        survivors: Vec<Survivor>,
    ) -> Self {
        let now = clock.now();
        let schedule = Schedule::new(&settings);
        let entries = HashMap::with_capacity(survivors.len());
        let mut manager = Self {
            spool,
            clock,
            random,
            router,
            settings,
            schedule,
            entries,
            claims: Claims::default(),
            kept: 0,
            under_way: 0,
            is_stopping: false,
            sweep: Sweep { is_wanted: true, last: now, pause: SWEEP_EVERY },
            busy_with: None,
        };
        manager.expect_survivors(survivors, now);
        manager
    }

    /// Who was never tried is due at once, and who is not overdue in its time. The others may be very
    /// many: they come in one after the other.
    fn expect_survivors(&mut self, survivors: Vec<Survivor>, now: Moment) {
        let wall = self.clock.wall();
        let longest = self.settings.delay_max();
        let first_retry = self.settings.retry.first().copied().unwrap_or_default();
        let was_tried = |one: &Survivor| one.due >= one.id.arrived().after(first_retry / 2);
        let is_overdue = |one: &Survivor| one.due <= wall && was_tried(one);
        let overdue = survivors.iter().filter(|one| is_overdue(one)).count();
        let share = OVERDUE_MAX / u32::try_from(overdue).unwrap_or(u32::MAX).max(1);
        let pause = OVERDUE_PAUSE.min(share);
        let mut turn = now;
        for survivor in survivors {
            let due = if is_overdue(&survivor) {
                turn = turn + pause;
                turn
            } else {
                // A wall clock that went back must not put mail off for years.
                now + survivor.due.since(wall).min(longest)
            };
            self.entries.insert(survivor.id, Entry::new(None));
            self.wait(survivor.id, due);
        }
    }

    /// Takes in one piece of news.
    pub(super) fn hear(&mut self, news: News) {
        self.busy_with = match &news {
            News::Put { id, .. } | News::Claim { id, .. } | News::Back { id, .. } => Some(*id),
            News::Done(report) => Some(report.id),
            News::Retry(_) | News::Stop => None,
        };
        match news {
            News::Put { id, envelope, since } => self.put(id, envelope, since),
            News::Done(report) => self.done(report),
            News::Retry(ids) => {
                self.schedule.hurry(&ids, self.clock.now());
                for id in ids {
                    self.busy_with = Some(id);
                    self.retry(id);
                }
            }
            News::Claim { id, to, news } => self.claim(id, to, news),
            News::Back { id, due, then } => self.back(id, due, then),
            News::Stop => self.is_stopping = true,
        }
    }

    /// Does what is due: begins rounds.
    pub fn tick(&mut self) {
        let now = self.clock.now();
        if !self.is_stopping {
            self.schedule.wake(now);
            for _ in 0..ROUNDS_PER_TICK {
                let Some(id) = self.schedule.take_due(now) else { break };
                self.busy_with = Some(id);
                self.begin_round(id, now);
            }
        }
    }

    /// Clears away what is settled, for a short while. To be called after the jobs were handed
    /// out, which should not wait for it.
    pub fn clear_up(&mut self) {
        self.busy_with = None;
        let now = self.clock.now();
        if self.sweep_due().is_none_or(|due| due > now) {
            return;
        }
        let entries = &self.entries;
        let is_active = |id: &MessageId| entries.get(id).is_some_and(|entry| entry.active.is_some());
        let swept = self.spool.sweep(self.settings.segments_max, &is_active, now + SWEEP_MAX);
        let (is_wanted, pause) = match swept {
            Ok(Swept::All) => (false, SWEEP_EVERY),
            Ok(Swept::InPart) => (true, SWEEP_MAX),
            Err(e) => {
                log::error!(target: "queue", "the spool cannot be cleared up: {e}");
                (true, SWEEP_AGAIN)
            }
        };
        self.sweep = Sweep { is_wanted, last: self.clock.now(), pause };
    }

    fn sweep_due(&self) -> Option<Moment> {
        if self.sweep.is_wanted {
            return Some(self.sweep.last + self.sweep.pause);
        }
        let is_untidy = self.spool.is_untidy(self.settings.segments_max);
        is_untidy.then(|| self.sweep.last + SWEEP_AGAIN)
    }

    /// How long until `tick` or `clear_up` has something to do; nothing if only news can bring work.
    #[must_use]
    pub fn idle(&self) -> Option<Duration> {
        let now = self.clock.now();
        let due = self.schedule.next_due().filter(|_| !self.is_stopping);
        due.into_iter().chain(self.sweep_due()).min().map(|moment| moment.since(now))
    }

    /// The message that is being looked at, or was last: who is to blame for a panic.
    pub(super) fn busy_with(&self) -> Option<MessageId> {
        self.busy_with
    }

    /// Attempts that are not back.
    #[must_use]
    pub fn under_way(&self) -> usize {
        self.under_way
    }

    /// We are stopping: no job will be handed out any more.
    #[must_use]
    pub fn is_stopping(&self) -> bool {
        self.is_stopping
    }

    /// The next job for a lane's free thread.
    pub fn next_job(&mut self, lane: Lane) -> Option<Job> {
        while !self.is_stopping {
            let now = self.clock.now();
            let departure = self.schedule.depart(lane, now)?;
            let (route, id, is_put_off) =
                (Arc::clone(&departure.route), departure.leg.id, departure.put_off.is_some());
            self.busy_with = Some(id);
            if let Some(job) = self.job(departure, now) {
                self.under_way += 1;
                return Some(job);
            }
            if !is_put_off {
                self.schedule.back(&route, &Contact::NotMade, now, &*self.random);
            }
            self.leg_back(id);
        }
        None
    }

    fn job(&mut self, departure: Departure, now: Moment) -> Option<Job> {
        let Departure { route, leg, is_busy, put_off } = departure;
        let entry = self.entries.get_mut(&leg.id)?;
        let active = match &entry.active {
            Some(active) => Arc::clone(active),
            None => {
                let loaded = match self.spool.load(&leg.id) {
                    Ok(loaded) => loaded,
                    Err(e) => {
                        // The next round looks again, and decides.
                        log::error!(target: "queue", "{} cannot be read: {e}", leg.id);
                        let round = leg.round.saturating_sub(1);
                        entry.parts.push(Part { due: now + READ_AGAIN, recipients: leg.recipients, round });
                        return None;
                    }
                };
                let active = Active::new(loaded.envelope, loaded.progress);
                entry.active = Some(Arc::clone(&active));
                self.kept += 1;
                active
            }
        };
        let age = entry.age.unwrap_or((Duration::ZERO, now));
        let (recipients, round) = (leg.recipients, leg.round);
        Some(Job { active, route, recipients, round, is_busy, put_off, age })
    }

    fn put(&mut self, id: MessageId, envelope: Arc<Envelope>, since: Moment) {
        let mut entry = Entry::new(Some((Duration::ZERO, since)));
        let progress = Progress::new(&envelope);
        let active = Active::new(envelope, progress);
        if self.kept < KEPT_MAX {
            entry.active = Some(Arc::clone(&active));
            self.kept += 1;
        }
        self.entries.insert(id, entry);
        match self.claims.waiting.remove(&id) {
            None => self.spread(id, &active, None),
            Some(claim) => {
                self.wait(id, since);
                self.grant(id, claim);
            }
        }
    }

    /// The time of a message, or of some of its recipients, has come.
    fn begin_round(&mut self, id: MessageId, now: Moment) {
        let Some(entry) = self.entries.get_mut(&id) else { return };
        entry.due = None;
        let (due, later): (Vec<_>, Vec<_>) =
            std::mem::take(&mut entry.parts).into_iter().partition(|part| part.due <= now);
        let parts = (!due.is_empty() || !later.is_empty()).then_some(due);
        entry.parts = later;
        let active = entry.active.clone();
        self.wait_for_parts(id);
        if let Some(active) = active {
            return self.spread(id, &active, parts);
        }
        match self.spool.load(&id) {
            Ok(loaded) => {
                if let Some(entry) = self.entries.get_mut(&id) {
                    let restarted = loaded.progress.age_at_restart(self.clock.wall());
                    entry.age.get_or_insert((restarted, now));
                }
                // Not kept: its legs may wait for long.
                self.spread(id, &Active::new(loaded.envelope, loaded.progress), parts);
            }
            Err(LoadError::Gone) => self.forget(id),
            Err(LoadError::Missing) => {
                self.spool.forget_missing(&id);
                self.forget(id);
            }
            Err(LoadError::Damaged) => match self.spool.set_aside(&id) {
                Ok(()) => self.forget(id),
                Err(_) => self.look_again(id, parts, now + READ_AGAIN),
            },
            Err(e @ (LoadError::Newer(_) | LoadError::Io(_))) => {
                log::error!(target: "queue", "{id} cannot be read: {e}");
                let pause = if matches!(e, LoadError::Newer(_)) { NEWER_AGAIN } else { READ_AGAIN };
                self.look_again(id, parts, now + pause);
            }
        }
    }

    /// What was to begin could not be read.
    fn look_again(&mut self, id: MessageId, parts: Option<Vec<Part>>, due: Moment) {
        let Some(entry) = self.entries.get_mut(&id) else { return };
        match parts {
            None => self.wait(id, due),
            Some(parts) => {
                entry.parts.extend(parts.into_iter().map(|part| Part { due, ..part }));
                self.wait_for_parts(id);
            }
        }
    }

    /// Makes legs of the recipients that wait: of these parts, or of the whole message.
    fn spread(&mut self, id: MessageId, active: &Active, parts: Option<Vec<Part>>) {
        let now = self.clock.now();
        if active.standing.lock().progress.is_held {
            // Neither due nor under way, until somebody releases it.
            return;
        }
        let legs = self.legs(active, parts);
        let Some(entry) = self.entries.get_mut(&id) else { return };
        if legs.is_empty() && entry.legs == 0 && entry.parts.is_empty() {
            // Settled on disk, but a crash undid the removal, or the disk had refused it.
            self.spool.settle(&id, None);
            return self.forget(id);
        }
        let (age, since) = entry.age.unwrap_or((Duration::ZERO, now));
        let left = self.settings.lifetime.saturating_sub(age + now.since(since));
        let until = now + left.min(HOLD_MAX);
        let is_urgent = std::mem::take(&mut entry.is_urgent);
        entry.legs += legs.len();
        let sender = sender(&active.envelope);
        for (route, recipients, round) in legs {
            self.schedule.ready(route, Leg { id, recipients, round, sender, until, is_urgent }, now);
        }
    }

    /// Who leaves together: by route, and by how often they were tried.
    fn legs(&self, active: &Active, parts: Option<Vec<Part>>) -> Vec<(Route, Vec<usize>, u32)> {
        let standing = active.standing.lock();
        let router = self.router.load();
        let first = standing.progress.attempts.saturating_add(1);
        let rounds: Option<HashMap<usize, u32>> = parts.map(|parts| {
            let rounds = |part: Part| part.recipients.into_iter().map(move |position| (position, part.round));
            parts.into_iter().flat_map(rounds).collect()
        });
        let mut groups: BTreeMap<(Route, u32), Vec<usize>> = BTreeMap::new();
        for position in standing.progress.waiting() {
            let round = match &rounds {
                None => first,
                Some(rounds) => match rounds.get(&position) {
                    Some(round) => round.saturating_add(1),
                    None => continue,
                },
            };
            if let Some(recipient) = active.envelope.recipients.get(position) {
                groups.entry((router.route(recipient), round)).or_default().push(position);
            }
        }
        let mut legs = Vec::with_capacity(groups.len());
        for ((route, round), positions) in groups {
            if route.carrier == Carrier::Local && positions.len() > LOCAL_LEG_MAX {
                let some = positions.chunks(LOCAL_LEG_MAX);
                legs.extend(some.map(|positions| (route.clone(), positions.to_vec(), round)));
            } else {
                legs.push((route, positions, round));
            }
        }
        legs
    }

    fn done(&mut self, report: Report) {
        self.under_way = self.under_way.saturating_sub(1);
        self.sweep.is_wanted = true;
        if let Some(contact) = &report.contact {
            let change = self.schedule.back(&report.route, contact, self.clock.now(), &*self.random);
            self.tell(&report.route, change);
        }
        if let Some(entry) = self.entries.get_mut(&report.id) {
            entry.attempts = entry.attempts.max(report.round);
            let Report { recipients, round, due, .. } = report;
            entry.parts.extend(due.map(|due| Part { due, recipients, round }));
        }
        self.leg_back(report.id);
    }

    fn tell(&mut self, route: &Route, change: Change) {
        let waiting = self.schedule.waiting(route);
        let destination = &route.destination;
        match change {
            Change::Nothing => {}
            Change::Lost { wait, why } => log::warn!(
                target: "queue",
                "{destination} does not answer ({why}); {waiting} wait for it, and the next try is in {} s",
                wait.as_secs()
            ),
            Change::Found => {
                log::info!(target: "queue", "{destination} answers again; {waiting} wait for it");
            }
        }
    }

    /// One leg less.
    fn leg_back(&mut self, id: MessageId) {
        let Some(entry) = self.entries.get_mut(&id) else { return };
        entry.legs = entry.legs.saturating_sub(1);
        if entry.legs > 0 {
            return self.wait_for_parts(id);
        }
        self.all_back(id);
        if let Some(claim) = self.claims.waiting.remove(&id) {
            self.grant(id, claim);
        }
    }

    /// Nothing of it is ready or under way.
    fn all_back(&mut self, id: MessageId) {
        if !self.spool.has(&id) {
            return self.forget(id);
        }
        self.let_go(&id);
        let now = self.clock.now();
        let Some(entry) = self.entries.get_mut(&id) else { return };
        let whole = match entry.parts.as_slice() {
            _ if std::mem::take(&mut entry.is_whole) => Some(now),
            [] => Some(now + READ_AGAIN),
            // Everybody who waits does so together, and was tried as often as the disk says.
            [part] if part.round == entry.attempts => Some(part.due),
            _ => None,
        };
        match whole {
            Some(due) => {
                entry.parts = Vec::new();
                self.wait(id, due);
            }
            None => self.wait_for_parts(id),
        }
    }

    /// What is kept of it in memory is read again when it is wanted.
    fn let_go(&mut self, id: &MessageId) {
        let Some(entry) = self.entries.get_mut(id) else { return };
        // What the disk refused lives on in memory, so that nobody is delivered to again for it.
        let is_saved = entry.active.as_ref().is_none_or(|active| !active.standing.lock().is_unsaved);
        if is_saved && entry.active.take().is_some() {
            self.kept = self.kept.saturating_sub(1);
        }
    }

    fn retry(&mut self, id: MessageId) {
        let now = self.clock.now();
        let Some(entry) = self.entries.get_mut(&id) else { return };
        entry.parts.iter_mut().for_each(|part| part.due = now);
        // What is ready or under way is being tried already.
        if entry.due.is_some() {
            entry.is_urgent = true;
            self.wait(id, now);
        }
    }

    /// A command wants it for itself.
    fn claim(&mut self, id: MessageId, to: Sender<Grant>, news: Sender<News>) {
        let claim = Waiting { to, news };
        if self.claims.is_taken(&id) {
            return claim.tell(Grant::Taken(id));
        }
        let Some(entry) = self.entries.get_mut(&id) else {
            // It may be in the spool already, and the news of it behind this.
            return match self.spool.has(&id) {
                true => drop(self.claims.waiting.insert(id, claim)),
                false => claim.tell(Grant::Gone(id)),
            };
        };
        if entry.legs > 0 {
            let withdrawn = self.schedule.withdraw(id);
            entry.legs = entry.legs.saturating_sub(withdrawn);
            entry.is_whole |= withdrawn > 0;
            if entry.legs > 0 {
                // No other leg of it begins before the command has had it.
                entry.is_whole = true;
                if let Some(due) = entry.due.take() {
                    self.schedule.forget(id, due);
                }
                claim.tell(Grant::Later(id));
                self.claims.waiting.insert(id, claim);
                return;
            }
            self.all_back(id);
        }
        self.grant(id, claim);
    }

    fn grant(&mut self, id: MessageId, to: Waiting) {
        let Some(entry) = self.entries.get_mut(&id) else { return to.tell(Grant::Gone(id)) };
        let due = entry.due.take();
        if let Some(due) = due {
            self.schedule.forget(id, due);
        }
        self.claims.granted.insert(id);
        let (active, age) = (entry.active.clone(), entry.age);
        to.tell(Grant::Yours(Claim { id, active, age, due, then: Then::Wait, news: to.news.clone() }));
    }

    /// The command is done with it.
    fn back(&mut self, id: MessageId, due: Option<Moment>, then: Then) {
        self.claims.granted.remove(&id);
        // The command may have written to the disk.
        self.let_go(&id);
        match (then, due) {
            (Then::Wait, Some(due)) => self.wait(id, due),
            (Then::Wait, None) | (Then::Hold, _) => {}
            (Then::Now, _) => {
                if let Some(entry) = self.entries.get_mut(&id) {
                    entry.parts = Vec::new();
                    entry.is_urgent = true;
                }
                self.wait(id, self.clock.now());
            }
            (Then::Gone, _) => {
                self.sweep.is_wanted = true;
                self.forget(id);
            }
        }
    }

    fn wait(&mut self, id: MessageId, due: Moment) {
        if let Some(entry) = self.entries.get_mut(&id) {
            if let Some(before) = entry.due.replace(due) {
                self.schedule.forget(id, before);
            }
            self.schedule.wait(id, due);
        }
    }

    /// The message is due when the first of its parts is.
    fn wait_for_parts(&mut self, id: MessageId) {
        if self.claims.is_taken(&id) {
            return;
        }
        let Some(entry) = self.entries.get(&id) else { return };
        if let Some(due) = entry.parts.iter().map(|part| part.due).min() {
            self.wait(id, due);
        }
    }

    fn forget(&mut self, id: MessageId) {
        self.claims.forget(&id);
        if let Some(entry) = self.entries.remove(&id) {
            if let Some(due) = entry.due {
                self.schedule.forget(id, due);
            }
            if entry.active.is_some() {
                self.kept = self.kept.saturating_sub(1);
            }
        }
    }
}

impl Entry {
    fn new(age: Option<(Duration, Moment)>) -> Self {
        Self {
            due: None,
            parts: Vec::new(),
            age,
            active: None,
            legs: 0,
            attempts: 0,
            is_whole: false,
            is_urgent: false,
        }
    }
}

/// Whose mail it is: the user who submitted it, or else the reverse-path.
fn sender(envelope: &Envelope) -> u64 {
    let mut hasher = DefaultHasher::new();
    match &envelope.login {
        Some(login) => login.hash(&mut hasher),
        None => envelope.reverse_path.hash(&mut hasher),
    }
    hasher.finish()
}

impl Active {
    fn new(envelope: Arc<Envelope>, progress: Progress) -> Arc<Self> {
        Arc::new(Self { envelope, standing: Mutex::new(Standing { progress, is_unsaved: false }) })
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::fakes::{SeededRandom, SimulatedDisk, TestClock};
    use crate::mail::{Domain, Mailbox, Recipient, ReversePath, Timestamp};
    use crate::observe::Metrics;
    use crate::queue::SpoolParts;

    fn manager() -> Manager {
        let clock: Arc<dyn Clock> = Arc::new(TestClock::default());
        let parts = SpoolParts {
            disk: Arc::new(SimulatedDisk::default()),
            data_dir: PathBuf::from("/data"),
            clock: Arc::clone(&clock),
            random: Arc::new(SeededRandom::new(1)),
            metrics: Arc::new(Metrics::default()),
            settings: Settings::default(),
        };
        let (spool, survivors) = Spool::open(&parts).unwrap();
        let router = Router::new([Domain::parse("here.example").unwrap()]);
        let router = Arc::new(ArcSwap::from_pointee(router));
        let random = Arc::new(SeededRandom::new(2));
        Manager::new(Arc::new(spool), clock, random, router, Settings::default(), survivors)
    }

    #[test]
    fn a_message_that_is_claimed_before_its_arrival_is_heard_of_does_not_leave() {
        let mut manager = manager();
        let recipient = Recipient::mailbox(Mailbox::parse("bo@here.example").unwrap());
        let [first, second] = [1, 2].map(|n| {
            let id = MessageId::new(Timestamp::from_millis(0), n);
            let arrived = manager.clock.wall();
            let envelope = Envelope::new(id, arrived, ReversePath::Null, vec![recipient.clone()]);
            manager.spool.put_small(&envelope, b"Subject: hello\r\n\r\n").unwrap();
            envelope
        });
        let (to, grants) = crossbeam_channel::unbounded();
        let (news, heard) = crossbeam_channel::unbounded();
        manager.hear(News::Claim { id: first.id, to: to.clone(), news: news.clone() });
        assert!(grants.is_empty());
        for envelope in [&first, &second] {
            let since = manager.clock.now();
            manager.hear(News::Put { id: envelope.id, envelope: Arc::new(envelope.clone()), since });
        }
        manager.hear(News::Claim { id: first.id, to, news });
        manager.tick();
        let job = manager.next_job(Lane::Local).unwrap();
        assert_eq!(job.active.envelope.id, second.id);
        assert!(manager.next_job(Lane::Local).is_none());
        let Ok(Grant::Yours(claim)) = grants.try_recv() else { panic!("it is not granted") };
        assert!(matches!(grants.try_recv(), Ok(Grant::Taken(_))), "one command at a time");
        drop(claim);
        manager.hear(heard.try_recv().unwrap());
        manager.tick();
        assert_eq!(manager.next_job(Lane::Local).unwrap().active.envelope.id, first.id);
    }
}
