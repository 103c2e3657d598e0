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

use super::origin::{network, origin};
use super::rates::Rates;
use super::seldom::Seldom;
use crate::observe::{Counter, CounterFamily, Gauge, Metrics};
use crate::smtp::End;
use crate::sys::{Clock, Interrupt, Mutex};

/// How many sessions there may be.
#[derive(Debug, Clone, Copy)]
pub struct Ceilings {
    /// In all.
    pub sessions_max: usize,
    /// From one IPv4 address, or one IPv6 network of 64 bits.
    pub sessions_per_address_max: usize,
    /// From one IPv4 network of 24 bits, or one IPv6 network of 48.
    pub sessions_per_network_max: usize,
}

/// Everyone who is inside: counted, and reachable when it is time to stop.
pub struct Doors {
    ceilings: Ceilings,
    rates: Arc<Rates>,
    clock: Arc<dyn Clock>,
    inside: Mutex<Inside>,
    refusals: Mutex<Seldom>,
    counters: Counters,
}

#[derive(Default)]
struct Inside {
    next: u64,
    sessions: HashMap<u64, Arc<Guest>>,
    by_origin: HashMap<IpAddr, usize>,
    by_network: HashMap<IpAddr, usize>,
}

impl Inside {
    fn add(&mut self, address: IpAddr, ceilings: &Ceilings) -> Result<(), Full> {
        let of = |counts: &HashMap<IpAddr, usize>, key| counts.get(&key).copied().unwrap_or(0);
        if of(&self.by_origin, origin(address)) >= ceilings.sessions_per_address_max {
            return Err(Full::Address);
        }
        if of(&self.by_network, network(address)) >= ceilings.sessions_per_network_max {
            return Err(Full::Network);
        }
        *self.by_origin.entry(origin(address)).or_default() += 1;
        *self.by_network.entry(network(address)).or_default() += 1;
        Ok(())
    }

    fn take(&mut self, address: IpAddr) {
        take_one(&mut self.by_origin, origin(address));
        take_one(&mut self.by_network, network(address));
    }
}

fn take_one(counts: &mut HashMap<IpAddr, usize>, key: IpAddr) {
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
pub(super) struct Guest {
    interrupt: Interrupt,
    /// Inside DATA: may finish, even when it is time to stop.
    busy: AtomicBool,
    leaving: AtomicBool,
}

impl Guest {
    /// From here to [`Self::idle`] the session is not interrupted.
    pub(super) fn busy(&self) {
        self.busy.store(true, Ordering::SeqCst);
    }

    /// Waits for a command again; ends at once if it is time to stop.
    pub(super) fn idle(&self) {
        self.busy.store(false, Ordering::SeqCst);
        if self.is_leaving() {
            self.interrupt.end_reads();
        }
    }

    fn is_busy(&self) -> bool {
        self.busy.load(Ordering::SeqCst)
    }

    /// It is time to stop: the next thing to say is goodbye.
    pub(super) fn is_leaving(&self) -> bool {
        self.leaving.load(Ordering::SeqCst)
    }

    pub(super) fn leave(&self) {
        self.leaving.store(true, Ordering::SeqCst);
        // `busy` is read after `leaving` is set, and the session does it the other way round: one
        // of the two always sees the other.
        if !self.busy.load(Ordering::SeqCst) {
            self.interrupt.end_reads();
        }
    }
}

/// Why nobody more may come in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Full {
    House,
    Address,
    Network,
    /// It has come too often.
    Rate,
}

impl Full {
    /// The limit that is reached, as the operator knows it.
    pub(super) fn limit(self) -> &'static str {
        match self {
            Self::House => "sessions-max",
            Self::Address => "sessions-per-address-max",
            Self::Network => "sessions-per-network-max",
            Self::Rate => "address-per-hour.connections",
        }
    }

    /// What the client hears.
    pub(super) fn end(self) -> End {
        match self {
            Self::House | Self::Address | Self::Network => End::TooManySessions,
            Self::Rate => End::TooOften,
        }
    }
}

impl Doors {
    /// Nobody is inside.
    #[must_use]
    pub fn new(ceilings: Ceilings, rates: Arc<Rates>, clock: Arc<dyn Clock>, metrics: &Metrics) -> Arc<Self> {
        let counters = Counters {
            accepted: metrics.family("session_accepted", "Sessions begun, by listener", "listener"),
            refused: metrics.family(
                "session_refused",
                "Connections refused because of a limit, by limit",
                "limit",
            ),
            open: metrics.gauge("session_open", "Sessions under way"),
            panicked: metrics.counter("session_panicked", "Sessions ended by a fault of ours"),
        };
        Arc::new(Self {
            ceilings,
            rates,
            clock,
            inside: Mutex::default(),
            refusals: Mutex::default(),
            counters,
        })
    }

    /// Sessions under way.
    #[must_use]
    pub fn count(&self) -> usize {
        self.inside.lock().sessions.len()
    }

    /// Sessions inside DATA: those that may finish when it is time to stop.
    #[must_use]
    pub fn busy(&self) -> usize {
        self.inside.lock().sessions.values().filter(|guest| guest.is_busy()).count()
    }

    /// Everyone leaves: idle sessions at once, those inside DATA when they are through.
    pub fn leave(&self) {
        let guests: Vec<_> = self.inside.lock().sessions.values().cloned().collect();
        for guest in guests {
            guest.leave();
        }
    }

    /// Lets somebody in by this listener, if the house has room. Who it is, is said to
    /// [`Ticket::belongs_to`] as soon as it is known.
    pub(super) fn enter(self: &Arc<Self>, interrupt: Interrupt, listener: &str) -> Result<Ticket, Full> {
        let mut inside = self.inside.lock();
        if inside.sessions.len() >= self.ceilings.sessions_max {
            return Err(Full::House);
        }
        let number = inside.next;
        inside.next += 1;
        let guest =
            Arc::new(Guest { interrupt, busy: AtomicBool::new(false), leaving: AtomicBool::new(false) });
        inside.sessions.insert(number, Arc::clone(&guest));
        self.counters.open.add_one();
        self.counters.accepted.add_one(listener);
        Ok(Ticket { doors: Arc::clone(self), number, address: None, guest })
    }

    /// Counts a client that is turned away, and says so in the log now and then.
    pub(super) fn turned_away(&self, address: IpAddr, full: Full) {
        self.counters.refused.add_one(full.limit());
        let times = self.refusals.lock().happened(self.clock.now());
        if let Some(times) = times {
            log::warn!("{address} refused: limits.{} is reached ({times} refused)", full.limit());
        }
    }
}

/// Held by a session while it is inside; given back when it ends, however it ends.
pub(super) struct Ticket {
    doors: Arc<Doors>,
    number: u64,
    /// Once it is known.
    address: Option<IpAddr>,
    pub(super) guest: Arc<Guest>,
}

impl Ticket {
    /// Counts sessions from the start of the process; it is in the thread's name.
    pub(super) fn number(&self) -> u64 {
        self.number
    }

    pub(super) fn doors(&self) -> &Doors {
        &self.doors
    }

    pub(super) fn rates(&self) -> &Rates {
        &self.doors.rates
    }

    /// The session is this address's, if there is room for one more from there.
    pub(super) fn belongs_to(&mut self, address: IpAddr) -> Result<(), Full> {
        if !self.doors.rates.connection(address) {
            return Err(Full::Rate);
        }
        self.doors.inside.lock().add(address, &self.doors.ceilings)?;
        self.address = Some(address);
        Ok(())
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut inside = self.doors.inside.lock();
        inside.sessions.remove(&self.number);
        if let Some(address) = self.address {
            inside.take(address);
        }
        self.doors.counters.open.take_one();
        if std::thread::panicking() {
            self.doors.counters.panicked.add_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::super::rates::HourlyMax;
    use super::*;
    use crate::sys::{self, SystemClock};

    /// Who is let in, one after the other, and stays.
    fn let_in(ceilings: Ceilings, addresses: impl IntoIterator<Item = String>) -> Vec<Result<Ticket, Full>> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (_stream, interrupt) = sys::accepted(stream, SystemClock.now()).unwrap();
        let (clock, metrics) = (Arc::new(SystemClock), Metrics::default());
        let rates = Arc::new(Rates::new(HourlyMax::default(), clock.clone(), &metrics));
        let doors = Doors::new(ceilings, rates, clock, &metrics);
        let enter = |address: String| {
            let mut ticket = doors.enter(interrupt.clone(), "smtp")?;
            ticket.belongs_to(address.parse().unwrap()).map(|()| ticket)
        };
        addresses.into_iter().map(enter).collect()
    }

    #[test]
    fn an_address_has_its_places_and_a_slash_64_is_one_address() {
        let ceilings =
            Ceilings { sessions_max: 10, sessions_per_address_max: 1, sessions_per_network_max: 10 };
        let addresses = ["2001:db8:0:1::1", "2001:db8:0:1:ffff::2", "2001:db8:0:2::1", "192.0.2.1"];
        let come = addresses.into_iter().chain(["192.0.2.2", "192.0.2.1"]).map(str::to_owned);
        let refused: Vec<_> = let_in(ceilings, come).into_iter().map(Result::err).collect();
        let full = Some(Full::Address);
        assert_eq!(refused, [None, full, None, None, None, full]);
    }

    #[test]
    fn no_network_can_take_all_places_however_many_addresses_it_has() {
        let ceilings =
            Ceilings { sessions_max: 400, sessions_per_address_max: 50, sessions_per_network_max: 100 };
        let crowds = (0..400).map(|n| format!("192.0.2.{}", n % 256));
        let crowds = crowds.chain((0..400).map(|n| format!("2001:db8:1:{n:x}::1")));
        let inside = let_in(ceilings, crowds.chain(["203.0.113.9".to_owned()]));
        assert_eq!(inside.iter().filter(|one| one.is_ok()).count(), 201);
        assert_eq!(inside.iter().filter(|one| one.as_ref().err() == Some(&Full::Network)).count(), 600);
        assert!(inside.last().unwrap().is_ok(), "there is room for others");
    }

    #[test]
    fn who_leaves_makes_room() {
        let ceilings = Ceilings { sessions_max: 2, sessions_per_address_max: 1, sessions_per_network_max: 1 };
        let mut inside = Inside::default();
        let address = "192.0.2.1".parse().unwrap();
        for _ in 0..3 {
            assert_eq!(inside.add(address, &ceilings), Ok(()));
            assert_eq!(inside.add(address, &ceilings), Err(Full::Address));
            inside.take(address);
        }
        assert!(inside.by_origin.is_empty() && inside.by_network.is_empty());
    }
}
