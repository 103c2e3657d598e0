//! The queue manager: when and whither.
//!
//! Hears news (a message was put, an attempt is over, an operator asks), watches the timetable,
//! and hands out jobs. It has no thread, no channel and no wait of its own: [`Manager::hear`],
//! [`Manager::tick`], [`Manager::next_job`] and [`Manager::clear_up`] are called by the thread
//! `queue` in `worker`, or by a test that turns the clock. A panic in here aborts the process (see `worker`): the disk is the
//! truth, and the next process reads it.
//!
//! A **round** is one attempt for every recipient that still waits: one leg for each route. When
//! all legs are back, those still deferred are due together, at the latest of the legs' times.
//!
//! In memory for each message: id, due time, age, and counts. Envelopes are read when a leg
//! leaves, and kept while one is under way; a message just put keeps its own for its first legs,
//! as long as not too many do.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use super::claims::{Claim, Claims, Grant, Then, Waiting};
use super::handle::News;
use super::item::Progress;
use super::schedule::{Lane, Leg, Schedule, Settings};
use super::spool::{LoadError, Spool, Survivor, Swept};
use super::worker::Report;
use crate::mail::{Envelope, MessageId};
use crate::route::{Route, Router};
use crate::sys::{Clock, Moment, Mutex};
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
    pub(super) route: Route,
    /// Positions in the envelope.
    pub(super) recipients: Vec<usize>,
    /// Number of this round, from 1.
    pub(super) round: u32,
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
    /// When it is due; nothing during a round.
    due: Option<Moment>,
    /// Known age, and when it was that; read from disk at the first load.
    age: Option<(Duration, Moment)>,
    active: Option<Arc<Active>>,
    round: u32,
    /// Legs of this round that are not back.
    legs: usize,
    /// When what was deferred in this round is due.
    next: Moment,
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
/// For a message of a later version: an operator must act.
const NEWER_AGAIN: Duration = Duration::from_secs(3600);

impl Manager {
    pub(super) fn new(
        spool: Arc<Spool>,
        clock: Arc<dyn Clock>,
        router: Arc<ArcSwap<Router>>,
        settings: Settings,
        survivors: Vec<Survivor>,
    ) -> Self {
        let (now, wall) = (clock.now(), clock.wall());
        let schedule = Schedule::new(settings.destination_max);
        let entries = HashMap::with_capacity(survivors.len());
        let mut manager = Self {
            spool,
            clock,
            router,
            settings,
            schedule,
            entries,
            claims: Claims::default(),
            kept: 0,
            under_way: 0,
            is_stopping: false,
            sweep: Sweep { is_wanted: true, last: now, pause: SWEEP_EVERY },
        };
        let longest = manager.settings.delay_max();
        for Survivor { id, due } in survivors {
            // A wall clock that went back must not put mail off for years.
            let due = now + due.since(wall).min(longest);
            manager.entries.insert(id, Entry::new(None, now));
            manager.wait(id, due);
        }
        manager
    }

    /// Takes in one piece of news.
    pub(super) fn hear(&mut self, news: News) {
        match news {
            News::Put { id, envelope, since } => self.put(id, envelope, since),
            News::Done(report) => self.done(report),
            News::Retry(None) => {
                let all: Vec<_> = self.entries.keys().copied().collect();
                all.into_iter().for_each(|id| self.retry(id));
            }
            News::Retry(Some(id)) => self.retry(id),
            News::Claim { id, to, news } => self.claim(id, to, news),
            News::Back { id, due, then } => self.back(id, due, then),
            News::Stop => self.is_stopping = true,
        }
    }

    /// Does what is due: begins rounds.
    pub fn tick(&mut self) {
        let now = self.clock.now();
        if !self.is_stopping {
            for _ in 0..ROUNDS_PER_TICK {
                let Some(id) = self.schedule.take_due(now) else { break };
                self.begin_round(id, now);
            }
        }
    }

    /// Clears away what is settled, for a short while. To be called after the jobs were handed
    /// out, which should not wait for it.
    pub fn clear_up(&mut self) {
        let now = self.clock.now();
        if self.sweep_due().is_none_or(|due| due > now) {
            return;
        }
        let (entries, granted) = (&self.entries, &self.claims.granted);
        // One thread at a time writes about a message: an attempt's, a command's, or this one.
        let is_active = |id: &MessageId| {
            granted.contains(id) || entries.get(id).is_some_and(|entry| entry.active.is_some())
        };
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
            let (route, leg) = self.schedule.depart(lane)?;
            match self.job(&route, &leg) {
                Some(job) => {
                    self.under_way += 1;
                    return Some(job);
                }
                None => {
                    self.schedule.back(&route);
                    self.leg_back(leg.id);
                }
            }
        }
        None
    }

    fn job(&mut self, route: &Route, leg: &Leg) -> Option<Job> {
        let now = self.clock.now();
        let entry = self.entries.get_mut(&leg.id)?;
        let active = match &entry.active {
            Some(active) => Arc::clone(active),
            None => {
                let loaded = match self.spool.load(&leg.id) {
                    Ok(loaded) => loaded,
                    Err(e) => {
                        // The next round looks again, and decides.
                        log::error!(target: "queue", "{} cannot be read: {e}", leg.id);
                        entry.next = entry.next.max(now + READ_AGAIN);
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
        let recipients = leg.recipients.clone();
        Some(Job { active, route: route.clone(), recipients, round: entry.round, age })
    }

    fn put(&mut self, id: MessageId, envelope: Arc<Envelope>, since: Moment) {
        let mut entry = Entry::new(Some((Duration::ZERO, since)), since);
        let progress = Progress::new(&envelope);
        let active = Active::new(envelope, progress);
        if self.kept < KEPT_MAX {
            entry.active = Some(Arc::clone(&active));
            self.kept += 1;
        }
        self.entries.insert(id, entry);
        match self.claims.waiting.remove(&id) {
            None => self.spread(id, &active),
            Some(claim) => {
                self.wait(id, since);
                self.grant(id, claim);
            }
        }
    }

    /// A message's time has come.
    fn begin_round(&mut self, id: MessageId, now: Moment) {
        let Some(entry) = self.entries.get_mut(&id) else { return };
        entry.due = None;
        entry.next = now;
        if let Some(active) = entry.active.clone() {
            return self.spread(id, &active);
        }
        match self.spool.load(&id) {
            Ok(loaded) => {
                let restarted = loaded.progress.age_at_restart(self.clock.wall());
                entry.age.get_or_insert((restarted, now));
                // Not kept: its legs may wait for long.
                self.spread(id, &Active::new(loaded.envelope, loaded.progress));
            }
            Err(LoadError::Gone) => self.forget(id),
            Err(LoadError::Missing) => {
                self.spool.forget_missing(&id);
                self.forget(id);
            }
            Err(LoadError::Damaged) => match self.spool.set_aside(&id) {
                Ok(()) => self.forget(id),
                Err(_) => self.wait(id, now + READ_AGAIN),
            },
            Err(e @ (LoadError::Newer(_) | LoadError::Io(_))) => {
                log::error!(target: "queue", "{id} cannot be read: {e}");
                let pause = if matches!(e, LoadError::Newer(_)) { NEWER_AGAIN } else { READ_AGAIN };
                self.wait(id, now + pause);
            }
        }
    }

    /// Makes a leg for each route of the recipients that wait.
    fn spread(&mut self, id: MessageId, active: &Active) {
        let standing = active.standing.lock();
        if standing.progress.is_held {
            // Neither due nor under way, until somebody releases it.
            return;
        }
        let router = self.router.load();
        let mut legs: BTreeMap<Route, Vec<usize>> = BTreeMap::new();
        for position in standing.progress.waiting() {
            if let Some(recipient) = active.envelope.recipients.get(position) {
                legs.entry(router.route(recipient)).or_default().push(position);
            }
        }
        let round = standing.progress.attempts.saturating_add(1);
        drop(standing);
        if legs.is_empty() {
            // Settled on disk, but a crash undid the removal.
            self.spool.settle(&id, None);
            return self.forget(id);
        }
        if let Some(entry) = self.entries.get_mut(&id) {
            entry.round = round;
            entry.legs = legs.len();
        }
        for (route, recipients) in legs {
            self.schedule.ready(route, Leg { id, recipients });
        }
    }

    fn done(&mut self, report: Report) {
        self.under_way = self.under_way.saturating_sub(1);
        self.sweep.is_wanted = true;
        self.schedule.back(&report.route);
        if let (Some(entry), Some(due)) = (self.entries.get_mut(&report.id), report.due) {
            entry.next = entry.next.max(due);
        }
        self.leg_back(report.id);
    }

    /// One leg less; the last one ends the round.
    fn leg_back(&mut self, id: MessageId) {
        let Some(entry) = self.entries.get_mut(&id) else { return };
        entry.legs = entry.legs.saturating_sub(1);
        if entry.legs > 0 {
            return;
        }
        self.end_round(id);
        if let Some(claim) = self.claims.waiting.remove(&id) {
            self.grant(id, claim);
        }
    }

    /// Nothing of it is under way.
    fn end_round(&mut self, id: MessageId) {
        if !self.spool.has(&id) {
            return self.forget(id);
        }
        self.let_go(&id);
        if let Some(next) = self.entries.get(&id).map(|entry| entry.next) {
            self.wait(id, next);
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
        // During a round it is being tried already; one that we have not heard of yet will be.
        if let Some(due) = self.entries.get(&id).and_then(|entry| entry.due) {
            self.schedule.forget(id, due);
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
            entry.legs = entry.legs.saturating_sub(self.schedule.withdraw(id));
            if entry.legs > 0 {
                claim.tell(Grant::Later(id));
                self.claims.waiting.insert(id, claim);
                return;
            }
            self.end_round(id);
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
            (Then::Now, _) => self.wait(id, self.clock.now()),
            (Then::Gone, _) => {
                self.sweep.is_wanted = true;
                self.forget(id);
            }
        }
    }

    fn wait(&mut self, id: MessageId, due: Moment) {
        if let Some(entry) = self.entries.get_mut(&id) {
            entry.due = Some(due);
            self.schedule.wait(id, due);
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
    fn new(age: Option<(Duration, Moment)>, now: Moment) -> Self {
        Self { due: None, age, active: None, round: 1, legs: 0, next: now }
    }
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
        Manager::new(Arc::new(spool), clock, router, Settings::default(), survivors)
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
