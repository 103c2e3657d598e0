//! Connections that have carried a message and may carry the next, and those that say goodbye.
//!
//! A connection is kept while more mail for its destination is likely, for a few seconds, for a number
//! of messages and for some minutes altogether. Whoever takes one is told by the client machine when it
//! turns out to be dead; nothing is lost by trying. What is known of the recipient's domain is asked
//! anew for each message.
//!
//! QUIT is written at once, and its reply awaited by the thread `smtp-kept`, which also parts with what
//! nobody took: the outcome of a message waits for neither.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};

use super::session::Open;
use crate::mail::Domain;
use crate::sys::{Clock, Moment, Mutex, spawn};

/// What a connection must have in common with the next message's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Key {
    /// Whose certificate was looked at.
    pub(super) host: Domain,
    pub(super) address: SocketAddr,
    /// The name that we said.
    pub(super) hello: Domain,
}

/// The connections of one courier. Those that it still has are ended when it is dropped.
pub(super) struct Kept {
    idle: Arc<Mutex<VecDeque<Idle>>>,
    clock: Arc<dyn Clock>,
    messages_max: u32,
    /// How long the reply to QUIT is waited for.
    goodbye: Duration,
    keeper: OnceLock<Option<(Sender<Task>, JoinHandle<()>)>>,
}

struct Idle {
    key: Key,
    open: Open,
    since: Moment,
}

enum Task {
    /// Something is idle.
    Look,
    /// QUIT was said.
    AwaitGoodbye(Box<Open>, Moment),
}

/// Connections that wait for a message at most; one more is ended.
const IDLE_MAX: usize = 64;
/// How long one waits. Servers count idle connections, and some log them.
const IDLE_TIME_MAX: Duration = Duration::from_secs(5);
/// How old one may be when it is used again: a host that was taken out of DNS is left some day.
const AGE_MAX: Duration = Duration::from_secs(300);
/// Connections that say goodbye at most; for one more the peer hears QUIT and no more of us.
const LEAVING_MAX: usize = 64;

impl Kept {
    pub(super) fn new(messages_max: u32, goodbye: Duration, clock: Arc<dyn Clock>) -> Self {
        Self { idle: Arc::default(), clock, messages_max, goodbye, keeper: OnceLock::new() }
    }

    /// A connection for the next message; the one that was used last.
    pub(super) fn take(&self, key: &Key) -> Option<Open> {
        let now = self.clock.now();
        let mut idle = self.idle.lock();
        let place = idle.iter().rposition(|one| one.key == *key && one.is_fresh(now))?;
        idle.remove(place).map(|one| one.open)
    }

    /// Some connection to this host waits.
    pub(super) fn has(&self, host: &Domain, hello: &Domain) -> bool {
        self.idle.lock().iter().any(|one| one.key.host == *host && one.key.hello == *hello)
    }

    /// Keeps a connection for the next message, if it may carry one.
    pub(super) fn keep(&self, key: Key, open: Open) {
        let since = self.clock.now();
        let one = Idle { key, open, since };
        let is_kept = one.open.messages < self.messages_max && one.is_fresh(since);
        // Without the thread nobody would end it.
        let Some(tasks) = self.tasks().filter(|_| is_kept) else { return self.part(one.open) };
        let too_many = {
            let mut idle = self.idle.lock();
            idle.push_back(one);
            if idle.len() > IDLE_MAX { idle.pop_front() } else { None }
        };
        // A full channel has the thread looking anyway.
        let _ = tasks.try_send(Task::Look);
        if let Some(one) = too_many {
            self.part(one.open);
        }
    }

    /// Says QUIT, and waits for nothing.
    pub(super) fn part(&self, mut open: Open) {
        let until = self.clock.now() + self.goodbye;
        if open.quit(until).is_ok()
            && let Some(tasks) = self.tasks()
        {
            // What does not fit in is closed here and now.
            let _ = tasks.try_send(Task::AwaitGoodbye(Box::new(open), until));
        }
    }

    fn tasks(&self) -> Option<&Sender<Task>> {
        let start = || {
            let (sender, tasks) = bounded(LEAVING_MAX);
            let keeper = Keeper {
                idle: Arc::clone(&self.idle),
                clock: Arc::clone(&self.clock),
                goodbye: self.goodbye,
            };
            match spawn("smtp-kept", move || keeper.run(&tasks)) {
                Ok(thread) => Some((sender, thread)),
                Err(e) => {
                    log::warn!(target: "courier", "connections are not kept, for want of a thread: {e}");
                    None
                }
            }
        };
        self.keeper.get_or_init(start).as_ref().map(|(tasks, _)| tasks)
    }
}

impl Drop for Kept {
    /// Waits until everybody has said goodbye, which takes no longer than that may.
    fn drop(&mut self) {
        if let Some((tasks, thread)) = self.keeper.take().flatten() {
            drop(tasks);
            // A panic in there has closed the connections.
            let _ = thread.join();
        }
    }
}

impl Idle {
    fn is_fresh(&self, now: Moment) -> bool {
        now.since(self.since) < IDLE_TIME_MAX && now.since(self.open.began) < AGE_MAX
    }
}

/// The thread `smtp-kept`.
struct Keeper {
    idle: Arc<Mutex<VecDeque<Idle>>>,
    clock: Arc<dyn Clock>,
    goodbye: Duration,
}

impl Keeper {
    /// Until the courier is gone and everybody has said goodbye.
    fn run(&self, tasks: &Receiver<Task>) {
        loop {
            let task = match self.next_look() {
                Some(wait) => tasks.recv_timeout(wait),
                None => tasks.recv().map_err(|_| RecvTimeoutError::Disconnected),
            };
            match task {
                Ok(Task::AwaitGoodbye(open, until)) => open.await_goodbye(until),
                Ok(Task::Look) | Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return self.part_with(|_| true),
            }
            let now = self.clock.now();
            self.part_with(|one| !one.is_fresh(now));
        }
    }

    /// How long until the first of them is no longer wanted.
    fn next_look(&self) -> Option<Duration> {
        let now = self.clock.now();
        let idle = self.idle.lock();
        idle.iter().map(|one| (one.since + IDLE_TIME_MAX).min(one.open.began + AGE_MAX).since(now)).min()
    }

    fn part_with(&self, is_meant: impl Fn(&Idle) -> bool) {
        let leaving: VecDeque<_> = {
            // At once, or who comes meanwhile finds none of those that stay.
            let mut idle = self.idle.lock();
            let (leaving, staying) = std::mem::take(&mut *idle).into_iter().partition(is_meant);
            *idle = staying;
            leaving
        };
        let until = self.clock.now() + self.goodbye;
        // To all of them first, and then their replies: one that is slow holds up nobody.
        let said: Vec<_> = leaving
            .into_iter()
            .filter_map(|mut one| one.open.quit(until).is_ok().then_some(one.open))
            .collect();
        for open in said {
            open.await_goodbye(until);
        }
    }
}
