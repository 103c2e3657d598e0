//! Counts the sessions, in all, by address and by network, and ends them when the server stops.
//!
//! The limits keep one client from taking all sessions. A network has a limit below the total, so that even
//! the owner of a whole network leaves room for others; `address_prefix` says what counts as one address
//! and as one network. An idle session gets its 421 as soon as the server stops
//! (docs/decisions/0007-stopping-without-losing.md).

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::address_prefix::{client_prefix, network_prefix};
use super::rate_limits::RateLimits;
use crate::observe::{Counter, CounterFamily, Gauge, Metrics};
use crate::smtp::SessionEnd;
use crate::sys::{Clock, LogThrottle, Mutex, ReadInterrupt};

/// Limits on the number of sessions.
#[derive(Debug, Clone, Copy)]
pub struct SessionLimitSettings {
    /// All sessions.
    pub sessions_max: usize,
    /// Sessions from one IPv4 address, or one IPv6 network of 64 bits.
    pub sessions_per_address_max: usize,
    /// Sessions from one IPv4 network of 24 bits, or one IPv6 network of 48.
    pub sessions_per_network_max: usize,
}

/// All sessions, with their limits.
pub struct SessionLimits {
    settings: SessionLimitSettings,
    rate_limits: Arc<RateLimits>,
    clock: Arc<dyn Clock>,
    active: Mutex<ActiveSessions>,
    refusal_log: Mutex<LogThrottle>,
    counters: Counters,
}

#[derive(Default)]
struct ActiveSessions {
    next_number: u64,
    sessions: HashMap<u64, Arc<SessionHandle>>,
    counts_by_client: HashMap<IpAddr, usize>,
    counts_by_network: HashMap<IpAddr, usize>,
}

impl ActiveSessions {
    fn add(&mut self, address: IpAddr, settings: &SessionLimitSettings) -> Result<(), LimitReached> {
        let of = |counts: &HashMap<IpAddr, usize>, key| counts.get(&key).copied().unwrap_or(0);
        if of(&self.counts_by_client, client_prefix(address)) >= settings.sessions_per_address_max {
            return Err(LimitReached::Address);
        }
        if of(&self.counts_by_network, network_prefix(address)) >= settings.sessions_per_network_max {
            return Err(LimitReached::Network);
        }
        *self.counts_by_client.entry(client_prefix(address)).or_default() += 1;
        *self.counts_by_network.entry(network_prefix(address)).or_default() += 1;
        Ok(())
    }

    fn remove(&mut self, address: IpAddr) {
        decrement(&mut self.counts_by_client, client_prefix(address));
        decrement(&mut self.counts_by_network, network_prefix(address));
    }
}

fn decrement(counts: &mut HashMap<IpAddr, usize>, key: IpAddr) {
    if let Some(count) = counts.get_mut(&key) {
        *count -= 1;
        if *count == 0 {
            counts.remove(&key);
        }
    }
}

struct Counters {
    accepted: CounterFamily,
    refused: CounterFamily,
    open: Gauge,
    panicked: Counter,
}

/// The part of a session that other threads use.
pub(super) struct SessionHandle {
    interrupt: ReadInterrupt,
    /// The session receives a message, which it may finish when the server stops.
    busy: AtomicBool,
    stopping: AtomicBool,
}

impl SessionHandle {
    /// Until [`Self::mark_idle`] the session is not interrupted.
    pub(super) fn mark_busy(&self) {
        self.busy.store(true, Ordering::SeqCst);
    }

    /// The session waits for a command again, and ends at once if the server stops.
    pub(super) fn mark_idle(&self) {
        self.busy.store(false, Ordering::SeqCst);
        if self.is_stopping() {
            self.interrupt.end_reads();
        }
    }

    fn is_busy(&self) -> bool {
        self.busy.load(Ordering::SeqCst)
    }

    /// The server stops: the next reply is 421.
    pub(super) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::SeqCst)
    }

    pub(super) fn stop(&self) {
        self.stopping.store(true, Ordering::SeqCst);
        // `busy` is read after `stopping` is set, and a session sets `busy` before it reads `stopping`: one
        // of the two threads sees the other's value.
        if !self.busy.load(Ordering::SeqCst) {
            self.interrupt.end_reads();
        }
    }
}

/// The limit for which a connection is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LimitReached {
    Total,
    Address,
    Network,
    /// Connections of the client in an hour.
    ConnectionRate,
}

impl LimitReached {
    /// The key in the configuration, below `limits`.
    pub(super) fn limit_name(self) -> &'static str {
        match self {
            Self::Total => "sessions-max",
            Self::Address => "sessions-per-address-max",
            Self::Network => "sessions-per-network-max",
            Self::ConnectionRate => "address-per-hour.connections",
        }
    }

    /// The kind of reply.
    pub(super) fn end_reason(self) -> SessionEnd {
        match self {
            Self::Total | Self::Address | Self::Network => SessionEnd::TooManySessions,
            Self::ConnectionRate => SessionEnd::RateLimited,
        }
    }
}

impl SessionLimits {
    /// No session is counted yet.
    #[must_use]
    pub fn new(
        settings: SessionLimitSettings,
        rates: Arc<RateLimits>,
        clock: Arc<dyn Clock>,
        metrics: &Metrics,
    ) -> Arc<Self> {
        let counters = Counters {
            accepted: metrics.counter_family(
                "session_accepted",
                "Connections that got a session slot, by listener",
                "listener",
            ),
            refused: metrics.counter_family(
                "session_refused",
                "Connections refused because of a limit, by limit",
                "limit",
            ),
            open: metrics.gauge("session_open", "Sessions under way"),
            panicked: metrics.counter("session_panicked", "Sessions ended by a fault of ours"),
        };
        Arc::new(Self {
            settings,
            rate_limits: rates,
            clock,
            active: Mutex::default(),
            refusal_log: Mutex::default(),
            counters,
        })
    }

    /// The number of sessions.
    #[must_use]
    pub fn session_count(&self) -> usize {
        self.active.lock().sessions.len()
    }

    /// The number of sessions that receive a message, which they may finish when the server stops.
    #[must_use]
    pub fn busy_count(&self) -> usize {
        self.active.lock().sessions.values().filter(|handle| handle.is_busy()).count()
    }

    /// Ends all sessions: idle ones at once, those that receive a message when it is complete.
    pub fn stop_sessions(&self) {
        let handles: Vec<_> = self.active.lock().sessions.values().cloned().collect();
        for handle in handles {
            handle.stop();
        }
    }

    /// A slot for a connection of this listener, if one is free. [`SessionSlot::assign_address`] counts it for
    /// the client as soon as the client's address is known.
    pub(super) fn admit(
        self: &Arc<Self>,
        interrupt: ReadInterrupt,
        listener: &str,
    ) -> Result<SessionSlot, LimitReached> {
        let mut active = self.active.lock();
        if active.sessions.len() >= self.settings.sessions_max {
            return Err(LimitReached::Total);
        }
        let number = active.next_number;
        active.next_number += 1;
        let handle = Arc::new(SessionHandle {
            interrupt,
            busy: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
        });
        active.sessions.insert(number, Arc::clone(&handle));
        self.counters.open.add_one();
        self.counters.accepted.add_one(listener);
        Ok(SessionSlot { limits: Arc::clone(self), number, address: None, handle })
    }

    /// Counts a client that is refused, and logs this unless it was logged just now; whether it did.
    pub(super) fn record_refusal(&self, address: IpAddr, limit: LimitReached) -> bool {
        self.counters.refused.add_one(limit.limit_name());
        let times = self.refusal_log.lock().record(self.clock.now());
        if let Some(times) = times {
            log::warn!("{address} refused: limits.{} is reached ({times} refused)", limit.limit_name());
        }
        times.is_some()
    }
}

/// The place of one session in all counts; given back when it is dropped.
pub(super) struct SessionSlot {
    limits: Arc<SessionLimits>,
    number: u64,
    /// The client's address, once it is known.
    address: Option<IpAddr>,
    pub(super) handle: Arc<SessionHandle>,
}

impl SessionSlot {
    /// The number of the session since the start of the process, which the name of its thread has.
    pub(super) fn number(&self) -> u64 {
        self.number
    }

    pub(super) fn limits(&self) -> &SessionLimits {
        &self.limits
    }

    pub(super) fn rate_limits(&self) -> &RateLimits {
        &self.limits.rate_limits
    }

    /// Counts the session for this address, unless one of its limits is reached.
    pub(super) fn assign_address(&mut self, address: IpAddr) -> Result<(), LimitReached> {
        if !self.limits.rate_limits.admit_connection(address) {
            return Err(LimitReached::ConnectionRate);
        }
        self.limits.active.lock().add(address, &self.limits.settings)?;
        self.address = Some(address);
        Ok(())
    }
}

impl Drop for SessionSlot {
    fn drop(&mut self) {
        let mut active = self.limits.active.lock();
        active.sessions.remove(&self.number);
        if let Some(address) = self.address {
            active.remove(address);
        }
        self.limits.counters.open.subtract_one();
        if std::thread::panicking() {
            self.limits.counters.panicked.add_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::super::rate_limits::HourlyLimits;
    use super::*;
    use crate::sys::{self, SystemClock};

    /// The slots of sessions from these addresses, in this order, all of which stay open.
    fn admit_all(
        settings: SessionLimitSettings,
        addresses: impl IntoIterator<Item = String>,
    ) -> Vec<Result<SessionSlot, LimitReached>> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (_stream, interrupt) = sys::interruptible_stream(stream, SystemClock.now()).unwrap();
        let (clock, metrics) = (Arc::new(SystemClock), Metrics::default());
        let rates = Arc::new(RateLimits::new(HourlyLimits::default(), clock.clone(), &metrics));
        let limits = SessionLimits::new(settings, rates, clock, &metrics);
        let admit = |address: String| {
            let mut slot = limits.admit(interrupt.clone(), "smtp")?;
            slot.assign_address(address.parse().unwrap()).map(|()| slot)
        };
        addresses.into_iter().map(admit).collect()
    }

    #[test]
    fn the_sessions_of_an_address_are_limited_and_a_slash_64_is_one_address() {
        let settings = SessionLimitSettings {
            sessions_max: 10,
            sessions_per_address_max: 1,
            sessions_per_network_max: 10,
        };
        let addresses = ["2001:db8:0:1::1", "2001:db8:0:1:ffff::2", "2001:db8:0:2::1", "192.0.2.1"];
        let addresses = addresses.into_iter().chain(["192.0.2.2", "192.0.2.1"]).map(str::to_owned);
        let refused: Vec<_> = admit_all(settings, addresses).into_iter().map(Result::err).collect();
        let full = Some(LimitReached::Address);
        assert_eq!(refused, [None, full, None, None, None, full]);
    }

    #[test]
    fn no_network_can_take_all_sessions() {
        let settings = SessionLimitSettings {
            sessions_max: 400,
            sessions_per_address_max: 50,
            sessions_per_network_max: 100,
        };
        let addresses = (0..400).map(|n| format!("192.0.2.{}", n % 256));
        let addresses = addresses.chain((0..400).map(|n| format!("2001:db8:1:{n:x}::1")));
        let slots = admit_all(settings, addresses.chain(["203.0.113.9".to_owned()]));
        assert_eq!(slots.iter().filter(|one| one.is_ok()).count(), 201);
        assert_eq!(
            slots.iter().filter(|one| one.as_ref().err() == Some(&LimitReached::Network)).count(),
            600
        );
        assert!(slots.last().unwrap().is_ok(), "there is room for others");
    }

    #[test]
    fn a_session_that_ends_makes_room() {
        let settings = SessionLimitSettings {
            sessions_max: 2,
            sessions_per_address_max: 1,
            sessions_per_network_max: 1,
        };
        let mut active = ActiveSessions::default();
        let address = "192.0.2.1".parse().unwrap();
        for _ in 0..3 {
            assert_eq!(active.add(address, &settings), Ok(()));
            assert_eq!(active.add(address, &settings), Err(LimitReached::Address));
            active.remove(address);
        }
        assert!(active.counts_by_client.is_empty() && active.counts_by_network.is_empty());
    }
}
