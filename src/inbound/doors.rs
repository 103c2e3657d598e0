//! Everyone who is inside: counted, in all and by address, and reachable when it is time to stop.
//!
//! So that one client cannot keep the others out, and so that an idle session hears at once that
//! the house closes (docs/decisions/0007-stopping-without-losing.md).
//!
//! By address means the whole of an IPv4 address and the first 64 bits of an IPv6 one: a host is
//! given a /64 to itself (RFC 4291 §2.5.1), and could come from another address each time.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::seldom::Seldom;
use crate::observe::{Counter, CounterFamily, Gauge, Metrics};
use crate::sys::{Clock, Interrupt, Mutex};

/// How many sessions there may be.
#[derive(Debug, Clone, Copy)]
pub struct Ceilings {
    /// In all.
    pub sessions_max: usize,
    /// From one IPv4 address, or one IPv6 network of 64 bits.
    pub sessions_per_address_max: usize,
}

/// Everyone who is inside: counted, and reachable when it is time to stop.
pub struct Doors {
    ceilings: Ceilings,
    clock: Arc<dyn Clock>,
    inside: Mutex<Inside>,
    refusals: Mutex<Seldom>,
    counters: Counters,
}

#[derive(Default)]
struct Inside {
    next: u64,
    sessions: HashMap<u64, Arc<Guest>>,
    /// By [`origin`].
    by_origin: HashMap<IpAddr, usize>,
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
}

impl Full {
    /// The limit that is reached, as the operator knows it.
    pub(super) fn limit(self) -> &'static str {
        match self {
            Self::House => "sessions-max",
            Self::Address => "sessions-per-address-max",
        }
    }
}

impl Doors {
    /// Nobody is inside.
    #[must_use]
    pub fn new(ceilings: Ceilings, clock: Arc<dyn Clock>, metrics: &Metrics) -> Arc<Self> {
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
        Arc::new(Self { ceilings, clock, inside: Mutex::default(), refusals: Mutex::default(), counters })
    }

    /// Sessions under way.
    #[must_use]
    pub fn count(&self) -> usize {
        self.inside.lock().sessions.len()
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
        Ok(Ticket { doors: Arc::clone(self), number, origin: None, guest })
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

/// Whose sessions are counted together with those of `address`.
fn origin(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(address) => {
            let network = u128::from(address) & (u128::MAX << 64);
            Ipv6Addr::from(network).into()
        }
    }
}

/// Held by a session while it is inside; given back when it ends, however it ends.
pub(super) struct Ticket {
    doors: Arc<Doors>,
    number: u64,
    /// Once it is known.
    origin: Option<IpAddr>,
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

    /// The session is this address's, if there is room for one more from there.
    pub(super) fn belongs_to(&mut self, address: IpAddr) -> Result<(), Full> {
        let origin = origin(address);
        let mut inside = self.doors.inside.lock();
        let from_there = inside.by_origin.entry(origin).or_insert(0);
        if *from_there >= self.doors.ceilings.sessions_per_address_max {
            return Err(Full::Address);
        }
        *from_there += 1;
        self.origin = Some(origin);
        Ok(())
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut inside = self.doors.inside.lock();
        inside.sessions.remove(&self.number);
        if let Some(origin) = self.origin
            && let Some(count) = inside.by_origin.get_mut(&origin)
        {
            *count -= 1;
            if *count == 0 {
                inside.by_origin.remove(&origin);
            }
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

    use super::*;
    use crate::sys::{self, SystemClock};

    #[test]
    fn ipv6_clients_are_counted_by_network_and_ipv4_clients_by_address() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (_stream, interrupt) = sys::accepted(stream, SystemClock.now()).unwrap();
        let ceilings = Ceilings { sessions_max: 10, sessions_per_address_max: 1 };
        let doors = Doors::new(ceilings, Arc::new(SystemClock), &Metrics::default());
        let enter = |address: &str| {
            let mut ticket = doors.enter(interrupt.clone(), "smtp")?;
            ticket.belongs_to(address.parse().unwrap()).map(|()| ticket)
        };

        let ticket = enter("2001:db8:0:1::1").ok();
        assert_eq!(enter("2001:db8:0:1:ffff::2").err(), Some(Full::Address), "the same /64");
        let others = [enter("2001:db8:0:2::1"), enter("192.0.2.1"), enter("192.0.2.2")];
        assert!(others.iter().all(Result::is_ok));
        assert_eq!(enter("192.0.2.1").err(), Some(Full::Address));
        drop(ticket);
        assert!(enter("2001:db8:0:1:ffff::2").is_ok());
    }
}
