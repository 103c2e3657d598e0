//! Idle connections that may carry the next message, and connections that wait for the reply to QUIT.
//!
//! A connection is kept while more mail for its destination is likely: for a few seconds, for a number of
//! messages, and for some minutes altogether. If a pooled connection turns out to be closed by the peer, the
//! client machine says so and the attempt opens a new one. The level that a recipient's domain demands is
//! decided anew for each message.
//!
//! QUIT is written at once. The thread `smtp-pool` waits for its reply, and closes connections that are
//! idle for too long, so that no message waits for either.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};

use super::open_connection::OpenConnection;
use crate::mail::Domain;
use crate::sys::{Clock, Moment, Mutex, spawn};

/// What two messages must have in common to share a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ConnectionKey {
    /// The name that the certificate was compared with.
    pub(super) host: Domain,
    pub(super) address: SocketAddr,
    /// Our name in EHLO.
    pub(super) hello: Domain,
}

/// The connections of one courier. Those that are left are closed when the pool is dropped.
pub(super) struct ConnectionPool {
    idle: Arc<Mutex<VecDeque<PooledConnection>>>,
    clock: Arc<dyn Clock>,
    worker: OnceLock<Option<(Sender<PoolTask>, JoinHandle<()>)>>,
}

struct PooledConnection {
    key: ConnectionKey,
    connection: OpenConnection,
    idle_since: Moment,
    /// Time for QUIT and its reply.
    quit_timeout: Duration,
}

enum PoolTask {
    /// A connection is idle.
    CloseExpired,
    /// QUIT was sent; its reply is waited for until then.
    AwaitQuitReply(Box<OpenConnection>, Moment),
}

/// Idle connections at most; for one more, the oldest is closed.
const IDLE_CONNECTIONS_MAX: usize = 64;
/// How long a connection may be idle. Servers count idle connections, and some log them.
const IDLE_TIME_MAX: Duration = Duration::from_secs(5);
/// Age up to which a connection is used again, so that a host that was taken out of DNS gets no more mail
/// some day.
const CONNECTION_AGE_MAX: Duration = Duration::from_secs(300);
/// Connections that wait for the reply to QUIT at most; one more is closed without its reply.
const CLOSING_CONNECTIONS_MAX: usize = 64;

impl ConnectionPool {
    pub(super) fn new(clock: Arc<dyn Clock>) -> Self {
        Self { idle: Arc::default(), clock, worker: OnceLock::new() }
    }

    /// A connection for the next message; of several, the one that was used last.
    pub(super) fn take(&self, key: &ConnectionKey) -> Option<OpenConnection> {
        let now = self.clock.now();
        let mut idle = self.idle.lock();
        let position = idle.iter().rposition(|one| one.key == *key && one.is_reusable(now))?;
        idle.remove(position).map(|one| one.connection)
    }

    /// A connection to this host is idle.
    pub(super) fn has_connection_to(&self, host: &Domain, hello: &Domain) -> bool {
        self.idle.lock().iter().any(|one| one.key.host == *host && one.key.hello == *hello)
    }

    /// Keeps a connection for the next message, unless it is too old.
    pub(super) fn put_back(&self, key: ConnectionKey, connection: OpenConnection, quit_timeout: Duration) {
        let idle_since = self.clock.now();
        let one = PooledConnection { key, connection, idle_since, quit_timeout };
        let is_reusable = one.is_reusable(idle_since);
        // Without the thread an idle connection would stay open.
        let Some(tasks) = self.task_sender().filter(|_| is_reusable) else {
            return self.close(one.connection, quit_timeout);
        };
        let surplus = {
            let mut idle = self.idle.lock();
            idle.push_back(one);
            if idle.len() > IDLE_CONNECTIONS_MAX { idle.pop_front() } else { None }
        };
        // If the channel is full, the thread looks at the idle connections anyway.
        let _ = tasks.try_send(PoolTask::CloseExpired);
        if let Some(one) = surplus {
            self.close(one.connection, one.quit_timeout);
        }
    }

    /// Sends QUIT, and waits for nothing.
    pub(super) fn close(&self, mut connection: OpenConnection, quit_timeout: Duration) {
        let deadline = self.clock.now() + quit_timeout;
        if connection.send_quit(deadline).is_ok()
            && let Some(tasks) = self.task_sender()
        {
            // A connection that does not fit into the channel is closed here.
            let _ = tasks.try_send(PoolTask::AwaitQuitReply(Box::new(connection), deadline));
        }
    }

    fn task_sender(&self) -> Option<&Sender<PoolTask>> {
        let start = || {
            let (sender, tasks) = bounded(CLOSING_CONNECTIONS_MAX);
            let worker = PoolWorker { idle: Arc::clone(&self.idle), clock: Arc::clone(&self.clock) };
            match spawn("smtp-pool", move || worker.run(&tasks)) {
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
    /// Closes all connections, and waits for the replies to QUIT, each for its time at most.
    fn drop(&mut self) {
        if let Some((tasks, thread)) = self.worker.take().flatten() {
            drop(tasks);
            // A panic of the thread has closed the connections.
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

/// The thread `smtp-pool`.
struct PoolWorker {
    idle: Arc<Mutex<VecDeque<PooledConnection>>>,
    clock: Arc<dyn Clock>,
}

impl PoolWorker {
    /// Runs until the pool is dropped and all connections are closed.
    fn run(&self, tasks: &Receiver<PoolTask>) {
        loop {
            let task = match self.next_expiry() {
                Some(wait) => tasks.recv_timeout(wait),
                None => tasks.recv().map_err(|_| RecvTimeoutError::Disconnected),
            };
            match task {
                Ok(PoolTask::AwaitQuitReply(open, deadline)) => open.await_quit_reply(deadline),
                Ok(PoolTask::CloseExpired) | Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return self.close_matching(|_| true),
            }
            let now = self.clock.now();
            self.close_matching(|one| !one.is_reusable(now));
        }
    }

    /// How long until the first idle connection is to be closed.
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
            // Under one lock, so that another thread always finds the connections that stay.
            let mut idle = self.idle.lock();
            let (leaving, staying) = std::mem::take(&mut *idle).into_iter().partition(is_meant);
            *idle = staying;
            leaving
        };
        // QUIT goes to all peers before the first reply is waited for: a slow peer delays no other.
        let now = self.clock.now();
        let closing: Vec<_> = leaving
            .into_iter()
            .filter_map(|mut one| {
                let deadline = now + one.quit_timeout;
                one.connection.send_quit(deadline).is_ok().then_some((one.connection, deadline))
            })
            .collect();
        for (connection, deadline) in closing {
            connection.await_quit_reply(deadline);
        }
    }
}
