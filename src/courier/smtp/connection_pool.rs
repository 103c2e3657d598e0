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

use super::open_connection::OpenConnection;
use crate::mail::Domain;
use crate::sys::{Clock, Moment, Mutex, spawn};

/// What a connection must have in common with the next message's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ConnectionKey {
    /// Whose certificate was looked at.
    pub(super) host: Domain,
    pub(super) address: SocketAddr,
    /// The name that we said.
    pub(super) hello: Domain,
}

/// The connections of one courier. Those that it still has are ended when it is dropped.
pub(super) struct ConnectionPool {
    idle: Arc<Mutex<VecDeque<PooledConnection>>>,
    clock: Arc<dyn Clock>,
    messages_per_connection_max: u32,
    /// How long the reply to QUIT is waited for.
    quit_timeout: Duration,
    worker: OnceLock<Option<(Sender<PoolTask>, JoinHandle<()>)>>,
}

struct PooledConnection {
    key: ConnectionKey,
    connection: OpenConnection,
    idle_since: Moment,
}

enum PoolTask {
    /// Something is idle.
    CloseExpired,
    /// QUIT was said.
    AwaitQuitReply(Box<OpenConnection>, Moment),
}

/// Connections that wait for a message at most; one more is ended.
const IDLE_CONNECTIONS_MAX: usize = 64;
/// How long one waits. Servers count idle connections, and some log them.
const IDLE_TIME_MAX: Duration = Duration::from_secs(5);
/// How old one may be when it is used again: a host that was taken out of DNS is left some day.
const CONNECTION_AGE_MAX: Duration = Duration::from_secs(300);
/// Connections that say goodbye at most; for one more the peer hears QUIT and no more of us.
const CLOSING_CONNECTIONS_MAX: usize = 64;

impl ConnectionPool {
    pub(super) fn new(messages_max: u32, goodbye: Duration, clock: Arc<dyn Clock>) -> Self {
        Self {
            idle: Arc::default(),
            clock,
            messages_per_connection_max: messages_max,
            quit_timeout: goodbye,
            worker: OnceLock::new(),
        }
    }

    /// A connection for the next message; the one that was used last.
    pub(super) fn take(&self, key: &ConnectionKey) -> Option<OpenConnection> {
        let now = self.clock.now();
        let mut idle = self.idle.lock();
        let place = idle.iter().rposition(|one| one.key == *key && one.is_reusable(now))?;
        idle.remove(place).map(|one| one.connection)
    }

    /// Some connection to this host waits.
    pub(super) fn has_connection_to(&self, host: &Domain, hello: &Domain) -> bool {
        self.idle.lock().iter().any(|one| one.key.host == *host && one.key.hello == *hello)
    }

    /// Keeps a connection for the next message, if it may carry one.
    pub(super) fn put_back(&self, key: ConnectionKey, open: OpenConnection) {
        let since = self.clock.now();
        let one = PooledConnection { key, connection: open, idle_since: since };
        let is_kept =
            one.connection.message_count < self.messages_per_connection_max && one.is_reusable(since);
        // Without the thread nobody would end it.
        let Some(tasks) = self.task_sender().filter(|_| is_kept) else { return self.close(one.connection) };
        let too_many = {
            let mut idle = self.idle.lock();
            idle.push_back(one);
            if idle.len() > IDLE_CONNECTIONS_MAX { idle.pop_front() } else { None }
        };
        // A full channel has the thread looking anyway.
        let _ = tasks.try_send(PoolTask::CloseExpired);
        if let Some(one) = too_many {
            self.close(one.connection);
        }
    }

    /// Says QUIT, and waits for nothing.
    pub(super) fn close(&self, mut open: OpenConnection) {
        let until = self.clock.now() + self.quit_timeout;
        if open.send_quit(until).is_ok()
            && let Some(tasks) = self.task_sender()
        {
            // What does not fit in is closed here and now.
            let _ = tasks.try_send(PoolTask::AwaitQuitReply(Box::new(open), until));
        }
    }

    fn task_sender(&self) -> Option<&Sender<PoolTask>> {
        let start = || {
            let (sender, tasks) = bounded(CLOSING_CONNECTIONS_MAX);
            let keeper = PoolWorker {
                idle: Arc::clone(&self.idle),
                clock: Arc::clone(&self.clock),
                quit_timeout: self.quit_timeout,
            };
            match spawn("smtp-kept", move || keeper.run(&tasks)) {
                Ok(thread) => Some((sender, thread)),
                Err(e) => {
                    log::warn!(target: "courier", "connections are not kept, for want of a thread: {e}");
                    None
                }
            }
        };
        self.worker.get_or_init(start).as_ref().map(|(tasks, _)| tasks)
    }
}

impl Drop for ConnectionPool {
    /// Waits until everybody has said goodbye, which takes no longer than that may.
    fn drop(&mut self) {
        if let Some((tasks, thread)) = self.worker.take().flatten() {
            drop(tasks);
            // A panic in there has closed the connections.
            let _ = thread.join();
        }
    }
}

impl PooledConnection {
    fn is_reusable(&self, now: Moment) -> bool {
        now.since(self.idle_since) < IDLE_TIME_MAX
            && now.since(self.connection.opened_at) < CONNECTION_AGE_MAX
    }
}

/// The thread `smtp-kept`.
struct PoolWorker {
    idle: Arc<Mutex<VecDeque<PooledConnection>>>,
    clock: Arc<dyn Clock>,
    quit_timeout: Duration,
}

impl PoolWorker {
    /// Until the courier is gone and everybody has said goodbye.
    fn run(&self, tasks: &Receiver<PoolTask>) {
        loop {
            let task = match self.next_expiry() {
                Some(wait) => tasks.recv_timeout(wait),
                None => tasks.recv().map_err(|_| RecvTimeoutError::Disconnected),
            };
            match task {
                Ok(PoolTask::AwaitQuitReply(open, until)) => open.await_quit_reply(until),
                Ok(PoolTask::CloseExpired) | Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return self.close_matching(|_| true),
            }
            let now = self.clock.now();
            self.close_matching(|one| !one.is_reusable(now));
        }
    }

    /// How long until the first of them is no longer wanted.
    fn next_expiry(&self) -> Option<Duration> {
        let now = self.clock.now();
        let idle = self.idle.lock();
        idle.iter()
            .map(|one| {
                (one.idle_since + IDLE_TIME_MAX).min(one.connection.opened_at + CONNECTION_AGE_MAX).since(now)
            })
            .min()
    }

    fn close_matching(&self, is_meant: impl Fn(&PooledConnection) -> bool) {
        let leaving: VecDeque<_> = {
            // At once, or who comes meanwhile finds none of those that stay.
            let mut idle = self.idle.lock();
            let (leaving, staying) = std::mem::take(&mut *idle).into_iter().partition(is_meant);
            *idle = staying;
            leaving
        };
        let until = self.clock.now() + self.quit_timeout;
        // To all of them first, and then their replies: one that is slow holds up nobody.
        let said: Vec<_> = leaving
            .into_iter()
            .filter_map(|mut one| one.connection.send_quit(until).is_ok().then_some(one.connection))
            .collect();
        for open in said {
            open.await_quit_reply(until);
        }
    }
}
