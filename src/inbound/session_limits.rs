//! Everyone who is inside: counted, in all, by address and by network, and reachable when it is time to stop.
//!
//! So that one client cannot keep the others out, and so that an idle session hears at once that
//! the house closes (docs/decisions/0007-stopping-without-losing.md).
//!
//! A network may have fewer than all places, so that even somebody who has a whole one leaves room for
//! others. What counts as one address and as one network is said in `origin`.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::address_prefix::{client_prefix, network_prefix};
use super::log_throttle::LogThrottle;
use super::rate_limits::RateLimits;
use crate::observe::{Counter, CounterFamily, Gauge, Metrics};
use crate::smtp::SessionEnd;
use crate::sys::{Clock, Mutex, ReadInterrupt};

/// How many sessions there may be.
#[derive(Debug, Clone, Copy)]
pub struct SessionLimitSettings {
    /// In all.
    pub sessions_max: usize,
    /// From one IPv4 address, or one IPv6 network of 64 bits.
    pub sessions_per_address_max: usize,
    /// From one IPv4 network of 24 bits, or one IPv6 network of 48.
    pub sessions_per_network_max: usize,
}

/// Everyone who is inside: counted, and reachable when it is time to stop.
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
    fn add(&mut self, address: IpAddr, ceilings: &SessionLimitSettings) -> Result<(), LimitReached> {
        let of = |counts: &HashMap<IpAddr, usize>, key| counts.get(&key).copied().unwrap_or(0);
        if of(&self.counts_by_client, client_prefix(address)) >= ceilings.sessions_per_address_max {
            return Err(LimitReached::Address);
        }
        if of(&self.counts_by_network, network_prefix(address)) >= ceilings.sessions_per_network_max {
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

/// One session, as the rest of the house sees it.
pub(super) struct SessionHandle {
    interrupt: ReadInterrupt,
    /// Inside DATA: may finish, even when it is time to stop.
    busy: AtomicBool,
    stopping: AtomicBool,
}

impl SessionHandle {
    /// From here to [`Self::idle`] the session is not interrupted.
    pub(super) fn mark_busy(&self) {
        self.busy.store(true, Ordering::SeqCst);
    }

    /// Waits for a command again; ends at once if it is time to stop.
    pub(super) fn mark_idle(&self) {
        self.busy.store(false, Ordering::SeqCst);
        if self.is_stopping() {
            self.interrupt.end_reads();
        }
    }

    fn is_busy(&self) -> bool {
        self.busy.load(Ordering::SeqCst)
    }

    /// It is time to stop: the next thing to say is goodbye.
    pub(super) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::SeqCst)
    }

    pub(super) fn stop(&self) {
        self.stopping.store(true, Ordering::SeqCst);
        // `busy` is read after `leaving` is set, and the session does it the other way round: one
        // of the two always sees the other.
        if !self.busy.load(Ordering::SeqCst) {
            self.interrupt.end_reads();
        }
    }
}

/// Why nobody more may come in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LimitReached {
    Total,
    Address,
    Network,
    /// It has come too often.
    ConnectionRate,
}

impl LimitReached {
    /// The limit that is reached, as the operator knows it.
    pub(super) fn limit_name(self) -> &'static str {
        match self {
            Self::Total => "sessions-max",
            Self::Address => "sessions-per-address-max",
            Self::Network => "sessions-per-network-max",
            Self::ConnectionRate => "address-per-hour.connections",
        }
    }

    /// What the client hears.
    pub(super) fn end_reason(self) -> SessionEnd {
        match self {
            Self::Total | Self::Address | Self::Network => SessionEnd::TooManySessions,
            Self::ConnectionRate => SessionEnd::RateLimited,
        }
    }
}

impl SessionLimits {
    /// Nobody is inside.
    #[must_use]
    pub fn new(
        ceilings: SessionLimitSettings,
        rates: Arc<RateLimits>,
        clock: Arc<dyn Clock>,
        metrics: &Metrics,
    ) -> Arc<Self> {
        let counters = Counters {
            accepted: metrics.counter_family("session_accepted", "Sessions begun, by listener", "listener"),
            refused: metrics.counter_family(
                "session_refused",
                "Connections refused because of a limit, by limit",
                "limit",
            ),
            open: metrics.gauge("session_open", "Sessions under way"),
            panicked: metrics.counter("session_panicked", "Sessions ended by a fault of ours"),
        };
        Arc::new(Self {
            settings: ceilings,
            rate_limits: rates,
            clock,
            active: Mutex::default(),
            refusal_log: Mutex::default(),
            counters,
        })
    }

    /// Sessions under way.
    #[must_use]
    pub fn session_count(&self) -> usize {
        self.active.lock().sessions.len()
    }

    /// Sessions inside DATA: those that may finish when it is time to stop.
    #[must_use]
    pub fn busy_count(&self) -> usize {
        self.active.lock().sessions.values().filter(|guest| guest.is_busy()).count()
    }

    /// Everyone leaves: idle sessions at once, those inside DATA when they are through.
    pub fn stop_sessions(&self) {
        let guests: Vec<_> = self.active.lock().sessions.values().cloned().collect();
        for guest in guests {
            guest.stop();
        }
    }

    /// Lets somebody in by this listener, if the house has room. Who it is, is said to
    /// [`Ticket::belongs_to`] as soon as it is known.
    pub(super) fn admit(
        self: &Arc<Self>,
        interrupt: ReadInterrupt,
        listener: &str,
    ) -> Result<SessionSlot, LimitReached> {
        let mut inside = self.active.lock();
        if inside.sessions.len() >= self.settings.sessions_max {
            return Err(LimitReached::Total);
        }
        let number = inside.next_number;
        inside.next_number += 1;
        let guest = Arc::new(SessionHandle {
            interrupt,
            busy: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
        });
        inside.sessions.insert(number, Arc::clone(&guest));
        self.counters.open.add_one();
        self.counters.accepted.add_one(listener);
        Ok(SessionSlot { limits: Arc::clone(self), number, address: None, handle: guest })
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

/// Held by a session while it is inside; given back when it ends, however it ends.
pub(super) struct SessionSlot {
    limits: Arc<SessionLimits>,
    number: u64,
    /// Once it is known.
    address: Option<IpAddr>,
    pub(super) handle: Arc<SessionHandle>,
}

impl SessionSlot {
    /// Counts sessions from the start of the process; it is in the thread's name.
    pub(super) fn number(&self) -> u64 {
        self.number
    }

    pub(super) fn limits(&self) -> &SessionLimits {
        &self.limits
    }

    pub(super) fn rate_limits(&self) -> &RateLimits {
        &self.limits.rate_limits
    }

    /// The session is this address's, if there is room for one more from there.
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
        let mut inside = self.limits.active.lock();
        inside.sessions.remove(&self.number);
        if let Some(address) = self.address {
            inside.remove(address);
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

    /// Who is let in, one after the other, and stays.
    fn admit_all(
        ceilings: SessionLimitSettings,
        addresses: impl IntoIterator<Item = String>,
    ) -> Vec<Result<SessionSlot, LimitReached>> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (_stream, interrupt) = sys::interruptible_stream(stream, SystemClock.now()).unwrap();
        let (clock, metrics) = (Arc::new(SystemClock), Metrics::default());
        let rates = Arc::new(RateLimits::new(HourlyLimits::default(), clock.clone(), &metrics));
        let doors = SessionLimits::new(ceilings, rates, clock, &metrics);
        let enter = |address: String| {
            let mut ticket = doors.admit(interrupt.clone(), "smtp")?;
            ticket.assign_address(address.parse().unwrap()).map(|()| ticket)
        };
        addresses.into_iter().map(enter).collect()
    }

    #[test]
    fn an_address_has_its_places_and_a_slash_64_is_one_address() {
        let ceilings = SessionLimitSettings {
            sessions_max: 10,
            sessions_per_address_max: 1,
            sessions_per_network_max: 10,
        };
        let addresses = ["2001:db8:0:1::1", "2001:db8:0:1:ffff::2", "2001:db8:0:2::1", "192.0.2.1"];
        let come = addresses.into_iter().chain(["192.0.2.2", "192.0.2.1"]).map(str::to_owned);
        let refused: Vec<_> = admit_all(ceilings, come).into_iter().map(Result::err).collect();
        let full = Some(LimitReached::Address);
        assert_eq!(refused, [None, full, None, None, None, full]);
    }

    #[test]
    fn no_network_can_take_all_places_however_many_addresses_it_has() {
        let ceilings = SessionLimitSettings {
            sessions_max: 400,
            sessions_per_address_max: 50,
            sessions_per_network_max: 100,
        };
        let crowds = (0..400).map(|n| format!("192.0.2.{}", n % 256));
        let crowds = crowds.chain((0..400).map(|n| format!("2001:db8:1:{n:x}::1")));
        let inside = admit_all(ceilings, crowds.chain(["203.0.113.9".to_owned()]));
        assert_eq!(inside.iter().filter(|one| one.is_ok()).count(), 201);
        assert_eq!(
            inside.iter().filter(|one| one.as_ref().err() == Some(&LimitReached::Network)).count(),
            600
        );
        assert!(inside.last().unwrap().is_ok(), "there is room for others");
    }

    #[test]
    fn who_leaves_makes_room() {
        let ceilings = SessionLimitSettings {
            sessions_max: 2,
            sessions_per_address_max: 1,
            sessions_per_network_max: 1,
        };
        let mut inside = ActiveSessions::default();
        let address = "192.0.2.1".parse().unwrap();
        for _ in 0..3 {
            assert_eq!(inside.add(address, &ceilings), Ok(()));
            assert_eq!(inside.add(address, &ceilings), Err(LimitReached::Address));
            inside.remove(address);
        }
        assert!(inside.counts_by_client.is_empty() && inside.counts_by_network.is_empty());
    }
}
