//! A long queue: the real program is killed while much mail waits for hosts that do not answer, starts
//! again, and must be as good as new at once.
//!
//! Measured from the start of the new process: until it greets; until it has tried every destination
//! again; until a letter to a mailbox here, handed in as soon as it greeted, is delivered. Then the
//! hosts answer, an operator says `queue retry all`, and every message must arrive exactly once:
//! nothing was under way when the blow came. What memory the process ever had counts, not what it
//! has when somebody looks.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::time::Duration;

use super::load::{Load, Sizes};
use super::next_hops::NextHops;
use super::server::{LOOK, PATIENCE, Server, Trial, pause};
use super::trial_error::TrialError;
use crate::sys::{Clock as _, Moment, SystemClock};

/// Who hand in mail at the same time.
const CLIENTS: usize = 8;
/// Hosts that do not answer; the messages are for each of them in turn.
const HOSTS: usize = 50;
/// None of what follows a start may take longer.
const SOON: Duration = Duration::from_secs(10);
/// The queue never stands still for so long when its hosts answer.
const STILL: Duration = Duration::from_secs(30);
/// Memory of a server with nothing to do, and more, in octets.
const MEMORY_BASE: usize = 40 * 1024 * 1024;
/// And for each message that waits.
const MEMORY_EACH: usize = 1024;

/// What is to be done.
#[derive(Debug, Clone, Copy)]
pub struct Backlog<'a> {
    /// To which program, and where.
    pub trial: Trial<'a>,
    /// Messages that wait.
    pub waiting: usize,
}

/// What came of it. Times are from the start of the process, apart from the last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Recovery {
    /// Messages that waited; all of them arrived, once.
    pub waiting: usize,
    /// Until a client was greeted.
    pub greets: Duration,
    /// Until every destination had been tried again.
    pub tries: Duration,
    /// Until a new letter was in a mailbox of this host.
    pub delivers: Duration,
    /// From the command of an operator until the queue was empty.
    pub leaves: Duration,
    /// The most memory that the process had at a time, in octets.
    pub memory: usize,
}

impl Backlog<'_> {
    /// Makes the queue long, kills the server, and sees what it does next.
    ///
    /// # Errors
    /// What was lost, or too slow, or took too much memory; or why it could not be tried.
    pub fn build_up(&self) -> Result<Recovery, TrialError> {
        let cannot = |e: std::io::Error| TrialError::Explained(format!("{}: {e}", self.trial.dir.display()));
        let hosts = NextHops::closed(HOSTS).map_err(cannot)?;
        let mut server = self.server(&hosts).map_err(cannot)?;
        server.start()?;
        let to = (0..HOSTS).map(|host| format!("away-{host}@here.example")).collect();
        let load = Load::of(server.address, to, Sizes::Small, self.waiting);
        load.finish(CLIENTS)?;
        server.kill();
        server.configure(&self.queue("")).map_err(cannot)?;

        let began = SystemClock.now();
        let greets = server.start()?;
        let (delivers, tries) = self.look(&server, began)?;
        let leaves = self.leave(&server, &hosts)?;
        complain(&load.promised(), hosts.taken())?;
        let unknown = "this host does not say how much memory a process has";
        let memory = server.memory_peak().ok_or_else(|| TrialError::Explained(unknown.to_owned()))?;
        let recovery = Recovery { waiting: self.waiting, greets, tries, delivers, leaves, memory };
        recovery.judge().map(|()| recovery).map_err(TrialError::Explained)
    }

    fn server(&self, hosts: &NextHops) -> std::io::Result<Server> {
        let mut aliases = String::new();
        for (host, port) in hosts.ports.iter().enumerate() {
            let _ = writeln!(aliases, "away-{host}: box@there-{host}.example via 127.0.0.1:{port}");
        }
        // Before the blow, mail that was tried is due again a second later, and so it is overdue after
        // it, as after an outage. With the usual minute, of a few messages all would have been tried
        // before the blow, and none would be due within `SOON` of the start.
        Server::set_up(&self.trial, &aliases, &self.queue("retry = [\"1s\"]\n"))
    }

    /// The section of the queue in postrider.toml.
    fn queue(&self, more: &str) -> String {
        // One more: the new letter.
        format!("[queue]\nmessages-max = {}\n{more}", self.waiting + 1)
    }

    /// Hands in a new letter, and waits until it is delivered and every host was tried.
    fn look(&self, server: &Server, began: Moment) -> Result<(Duration, Duration), String> {
        let new = Load::of(server.address, vec!["ana@here.example".to_owned()], Sizes::Small, 1);
        new.finish(1)?;
        let (mut delivers, mut tries) = (None, None);
        loop {
            let took = SystemClock.now().since(began);
            let waiting = server.metric("postrider_queue_length")?;
            if waiting < self.waiting {
                return Err(format!("{waiting} of {} messages are in the queue", self.waiting));
            }
            if delivers.is_none() && !server.arrived().map_err(|e| e.to_string())?.is_empty() {
                delivers = Some(took);
            }
            let attempts = server.metric("postrider_queue_attempts_total{courier=\"smtp\"}")?;
            if tries.is_none() && attempts >= self.waiting.min(HOSTS) {
                tries = Some(took);
            }
            if let (Some(delivers), Some(tries), true) = (delivers, tries, waiting == self.waiting) {
                return Ok((delivers, tries));
            }
            if took > PATIENCE {
                return Err(format!(
                    "after {} s {attempts} attempts for mail that waits were made, and a new letter is {}",
                    took.as_secs(),
                    if delivers.is_some() { "delivered" } else { "not delivered" }
                ));
            }
            pause(LOOK);
        }
    }

    /// The hosts answer, and the queue becomes empty.
    fn leave(&self, server: &Server, hosts: &NextHops) -> Result<Duration, String> {
        hosts.open().map_err(|e| e.to_string())?;
        let began = SystemClock.now();
        server.operate(&["queue", "retry", "all"])?;
        let (mut least, mut since) = (self.waiting, began);
        loop {
            let waiting = server.metric("postrider_queue_length")?;
            let now = SystemClock.now();
            if waiting == 0 {
                return Ok(now.since(began));
            }
            if waiting < least {
                (least, since) = (waiting, now);
            }
            if now.since(since) > STILL {
                return Err(format!("{waiting} messages do not leave"));
            }
            pause(10 * LOOK);
        }
    }
}

/// Every promised message arrived, and only once.
fn complain(promised: &BTreeSet<usize>, taken: Vec<usize>) -> Result<(), String> {
    let arrivals = taken.len();
    let taken: BTreeSet<_> = taken.into_iter().collect();
    let lost = promised.difference(&taken).count();
    if lost > 0 {
        return Err(format!("{lost} of {} promised messages are lost", promised.len()));
    }
    match arrivals - taken.len() {
        0 => Ok(()),
        twice => Err(format!("{twice} messages were delivered twice, though none was under way")),
    }
}

impl Recovery {
    fn judge(&self) -> Result<(), String> {
        let (waiting, memory_max) = (self.waiting, MEMORY_BASE + MEMORY_EACH * self.waiting);
        for (what, took) in [
            ("greets", self.greets),
            ("tries every destination", self.tries),
            ("delivers a new letter", self.delivers),
        ] {
            if took > SOON {
                return Err(format!(
                    "with {waiting} messages that wait it {what} after {} s only",
                    took.as_secs()
                ));
            }
        }
        if self.memory > memory_max {
            return Err(format!(
                "with {waiting} messages that wait it took {} KiB of memory; {} KiB would be enough",
                self.memory / 1024,
                memory_max / 1024
            ));
        }
        Ok(())
    }
}
