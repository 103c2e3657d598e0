//! The queue manager: when and whither.
//!
//! Hears news (a message was put, an attempt is over, an operator asks), watches the timetable,
//! and hands out jobs. It has no thread, no channel and no wait of its own: [`Manager::hear`],
//! [`Manager::tick`], [`Manager::next_job`] and [`Manager::clear_up`] are called by the thread
//! `queue` in `worker`, or by a test that turns the clock. A panic in here aborts the process (see
//! `worker`): the disk is the truth, and the next process reads it.
//!
//! - `entry`: what is known of one message
//! - `survivors`: when those come in that an earlier process promised
//! - `rounds`: a message is read, and its recipients made ready to leave
//! - `legs`: who leaves together
//! - `commands`: what an operator's command asks for
//! - `sweep`: when the spool is cleared up
//!
//! Here is the way of every message: put, handed out as jobs, back, due again, forgotten. After an
//! outage nothing stampedes: of ours, see `survivors`; of a destination, see `destination`.

mod commands;
mod entry;
mod legs;
mod rounds;
mod survivors;
mod sweep;

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;

use self::entry::{Entry, Part};
use self::sweep::Sweep;
use super::claims::Claims;
use super::destination::{Change, Contact};
use super::handle::News;
use super::item::Progress;
use super::job::{Active, Job};
use super::platform::Departure;
use super::schedule::{Lane, Schedule, Settings};
use super::spool::{Leases, Spool, Survivor};
use super::worker::Report;
use crate::mail::{Envelope, MessageId};
use crate::route::{Route, Router};
use crate::sys::{Clock, Moment, Random};

/// The manager's state.
pub struct Manager {
    spool: Arc<Spool>,
    leases: Leases,
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
    /// When the age clock was last written down; nothing if this process has not done so yet.
    noted: Option<Moment>,
    /// The message that is being looked at.
    busy_with: Option<MessageId>,
}

/// Envelopes kept for messages whose first legs wait.
const KEPT_MAX: usize = 500;
/// Messages whose rounds begin at once; then jobs are handed out before more begin.
const ROUNDS_PER_TICK: usize = 100;
/// While there is anything to do, the age clock is written down so often.
const AGES_EVERY: Duration = Duration::from_secs(600);
/// After the disk failed to show a message.
const READ_AGAIN: Duration = Duration::from_secs(60);

impl Manager {
    pub(super) fn new(
        spool: Arc<Spool>,
        clock: Arc<dyn Clock>,
        random: Arc<dyn Random>,
        router: Arc<ArcSwap<Router>>,
        settings: Settings,
        (leases, survivors): (Leases, Vec<Survivor>),
    ) -> Self {
        let now = clock.now();
        let schedule = Schedule::new(&settings);
        let entries = HashMap::with_capacity(survivors.len());
        let sweep = Sweep::new(Arc::clone(&spool), Arc::clone(&clock), settings.segments_max);
        let survivors = survivors::come_in(survivors, &settings, spool.ages.now(), now);
        let mut manager = Self {
            spool,
            leases,
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
            sweep,
            noted: None,
            busy_with: None,
        };
        for (id, due) in survivors {
            manager.entries.insert(id, Entry::new());
            manager.wait(id, due);
        }
        manager
    }

    /// Takes in one piece of news.
    pub(super) fn hear(&mut self, news: News) {
        self.busy_with = match &news {
            News::Put { id, .. } | News::Claim { id, .. } | News::Back { id, .. } => Some(*id),
            News::Done(report) => Some(report.active.envelope.id),
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
            News::Stop => {
                self.is_stopping = true;
                self.claims.stop();
                self.withdraw_all();
                self.spool.ages.write();
            }
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
        self.sweep.run(&mut self.leases);
        let now = self.clock.now();
        if self.noted.is_none() {
            // Nobody who waits for the greeting need wait for it.
            self.spool.hold_reserve();
        }
        if self.noted.is_none_or(|noted| now.since(noted) >= AGES_EVERY) {
            self.noted = Some(now);
            self.spool.ages.write();
        }
    }

    /// What is ready to leave does not leave any more: the legs that are left are under way.
    fn withdraw_all(&mut self) {
        for (id, entry) in self.entries.iter_mut().filter(|(_, entry)| entry.legs > 0) {
            entry.legs = entry.legs.saturating_sub(self.schedule.withdraw(*id));
        }
    }

    /// Writes and syncs what the disk has refused, apart from messages with something under way. To be
    /// called before the process ends.
    ///
    /// # Errors
    /// The disk refuses still.
    pub(super) fn write_owed(&mut self) -> io::Result<()> {
        self.busy_with = None;
        // Delivery threads hold the leases of what is under way, and write it down with their next outcome.
        // Commands hold those of what they have.
        let claims = &self.claims;
        let is_at_rest =
            |(id, entry): &(&MessageId, &Entry)| entry.legs == 0 && !claims.granted.contains(*id);
        let at_rest = self.entries.iter().filter(is_at_rest);
        let unsaved = at_rest.filter_map(|(_, entry)| entry.active.as_ref());
        let written = unsaved.map(|active| active.note_unsaved(&self.spool)).fold(Ok(()), io::Result::and);
        written.and(self.spool.write_owed())?;
        let is_unsaved = |id: &MessageId| {
            let entry = self.entries.get(id);
            entry.and_then(|entry| entry.active.as_ref()).is_some_and(|active| active.is_unsaved())
        };
        match self.claims.granted.iter().any(is_unsaved) {
            true => Err(io::Error::other("a command has a message of which something is not written yet")),
            false => Ok(()),
        }
    }

    /// How long until `tick` or `clear_up` has something to do; nothing if only news can bring work.
    #[must_use]
    pub fn idle(&self) -> Option<Duration> {
        let now = self.clock.now();
        let due = self.schedule.next_due().filter(|_| !self.is_stopping);
        due.into_iter().chain(self.sweep.due()).min().map(|moment| moment.since(now))
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
                let lease = self.leases.take(&leg.id).ok_or_else(|| "another thread changes it".to_owned());
                let read = lease.and_then(|lease| match self.spool.load(&leg.id) {
                    Ok(loaded) => Ok(Active::new(lease, loaded.envelope, loaded.progress)),
                    Err(e) => Err(e.to_string()),
                });
                let active = match read {
                    Ok(active) => active,
                    Err(e) => {
                        // The next round looks again, and decides.
                        log::error!(target: "queue", "{} cannot be read: {e}", leg.id);
                        let round = leg.round.saturating_sub(1);
                        entry.parts.push(Part { due: now + READ_AGAIN, recipients: leg.recipients, round });
                        return None;
                    }
                };
                entry.active = Some(Arc::clone(&active));
                self.kept += 1;
                active
            }
        };
        let (recipients, round) = (leg.recipients, leg.round);
        Some(Job { active, route, recipients, round, is_busy, put_off })
    }

    fn put(&mut self, id: MessageId, envelope: Arc<Envelope>, since: Moment) {
        let mut entry = Entry::new();
        let progress = Progress::new(&envelope);
        if self.kept < KEPT_MAX
            && let Some(lease) = self.leases.take(&id)
        {
            entry.active = Some(Active::new(lease, Arc::clone(&envelope), progress.clone()));
            self.kept += 1;
        }
        self.entries.insert(id, entry);
        match self.claims.waiting.remove(&id) {
            None => self.spread(id, &envelope, &progress, None),
            Some(claim) => {
                self.wait(id, since);
                self.grant(id, claim);
            }
        }
    }

    fn done(&mut self, report: Report) {
        self.under_way = self.under_way.saturating_sub(1);
        self.sweep.want();
        if let Some(contact) = &report.contact {
            let change = self.schedule.back(&report.route, contact, self.clock.now(), &*self.random);
            self.tell(&report.route, change);
        }
        let Report { active, recipients, round, due, .. } = report;
        let id = active.envelope.id;
        drop(active);
        if let Some(entry) = self.entries.get_mut(&id) {
            entry.attempts = entry.attempts.max(round);
            entry.parts.extend(due.map(|due| Part { due, recipients, round }));
        }
        self.leg_back(id);
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
        match entry.join_parts(now) {
            Some(due) => self.wait(id, due),
            None => self.wait_for_parts(id),
        }
    }

    /// What is kept of it in memory is read again when it is wanted.
    fn let_go(&mut self, id: &MessageId) {
        let Some(entry) = self.entries.get_mut(id) else { return };
        // What the disk refused lives on in memory, so that nobody is delivered to again for it.
        let is_saved = entry.active.as_ref().is_none_or(|active| !active.is_unsaved());
        if is_saved && entry.active.take().is_some() {
            self.kept = self.kept.saturating_sub(1);
        }
    }

    /// The message is due then, and not when it was to be before.
    fn wait(&mut self, id: MessageId, due: Moment) {
        self.call_off(id);
        if let Some(entry) = self.entries.get_mut(&id) {
            entry.due = Some(due);
            self.schedule.wait(id, due);
        }
    }

    /// The message is not due any more; says when it would have been.
    fn call_off(&mut self, id: MessageId) -> Option<Moment> {
        let due = self.entries.get_mut(&id)?.due.take()?;
        self.schedule.forget(id, due);
        Some(due)
    }

    /// The message is due when the first of its parts is.
    fn wait_for_parts(&mut self, id: MessageId) {
        if self.claims.is_taken(&id) {
            return;
        }
        if let Some(due) = self.entries.get(&id).and_then(Entry::first_part_due) {
            self.wait(id, due);
        }
    }

    fn forget(&mut self, id: MessageId) {
        self.claims.forget(&id);
        self.call_off(id);
        if self.entries.remove(&id).is_some_and(|entry| entry.active.is_some()) {
            self.kept = self.kept.saturating_sub(1);
        }
    }
}

#[cfg(test)]
mod tests;
