//! How much DNS one attempt, session or message may use: a deadline, and a number of look-ups.
//!
//! A budget is made once by the caller for the whole of its work and passed to every call of a
//! resolver, so that a domain with many records cannot keep a thread busy: the limit holds for all
//! calls together, also for calls from several threads. One look-up is one question to a resolver
//! (one call of a method of [`Resolver`](super::Resolver)), whether the answer is cached or takes
//! many packets; so a result does not depend on what others have asked before.
//!
//! A budget that is used up is [`DnsError::BudgetExhausted`], which is temporary: it says nothing
//! about the name. Has no clock; a resolver that waits watches the deadline.

use std::sync::atomic::{AtomicU32, Ordering};

use super::error::DnsError;
use crate::sys::Moment;

/// What is left for DNS. Shared by all calls for one attempt, session or message.
#[derive(Debug)]
pub struct Budget {
    deadline: Moment,
    lookups_left: AtomicU32,
}

impl Budget {
    /// A budget of `lookups_max` questions, all to be answered by `deadline`.
    #[must_use]
    pub const fn new(deadline: Moment, lookups_max: u32) -> Self {
        Self { deadline, lookups_left: AtomicU32::new(lookups_max) }
    }

    /// Counts one look-up and returns the deadline by which it must be answered. A resolver calls
    /// this once for each question.
    ///
    /// # Errors
    /// [`DnsError::BudgetExhausted`] if no look-up is left.
    pub fn take_lookup(&self) -> Result<Moment, DnsError> {
        self.lookups_left
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1))
            .map(|_| self.deadline)
            .map_err(|_| DnsError::BudgetExhausted("no look-ups are left"))
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;
    use crate::dns::{Resolver as _, Zone};
    use crate::mail::Domain;

    #[test]
    fn calls_of_every_kind_share_one_budget() {
        let zone =
            Zone::parse("there.example. MX 10 mx.there.example.\nmx.there.example. A 192.0.2.1").unwrap();
        let name = |raw: &str| Domain::parse(raw).unwrap();
        let budget = Budget::new(Moment::default(), 3);
        assert_eq!(zone.mx_records(&name("there.example"), &budget).unwrap().len(), 1);
        assert_eq!(zone.addresses(&name("mx.there.example"), &budget).unwrap().len(), 1);
        let no_names = zone.ptr_names(IpAddr::from([192, 0, 2, 1]), &budget);
        assert_eq!(no_names, Err(DnsError::NoSuchDomain), "a question without an answer is counted");
        let used_up = Err(DnsError::BudgetExhausted("no look-ups are left"));
        assert_eq!(zone.mx_records(&name("there.example"), &budget).map(drop), used_up);
    }

    #[test]
    fn an_exhausted_budget_never_reads_as_an_absent_name() {
        let zone = Zone::parse("there.example. EMPTY").unwrap();
        let budget = Budget::new(Moment::default(), 0);
        for raw in ["there.example", "nowhere.example"] {
            let name = Domain::parse(raw).unwrap();
            for answer in
                [zone.mx_records(&name, &budget).map(drop), zone.addresses(&name, &budget).map(drop)]
            {
                assert!(matches!(answer, Err(DnsError::BudgetExhausted(_))), "{raw}: {answer:?}");
            }
        }
    }

    #[test]
    fn threads_take_no_more_look_ups_than_the_budget_has() {
        let budget = Budget::new(Moment::default(), 100);
        let taken: usize = std::thread::scope(|scope| {
            let take = || (0..50).filter(|_| budget.take_lookup().is_ok()).count();
            let threads = [0; 4].map(|_| scope.spawn(take));
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert_eq!(taken, 100);
    }
}
