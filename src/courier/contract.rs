//! The interface between the queue and the couriers.

use std::io::{self, Read};

use crate::mail::{Envelope, Outcome, Recipient};
use crate::observe::Trace;
use crate::sys::Moment;

/// Makes single attempts to bring a message to the next hop.
///
/// A courier does not retry, does not sleep, and does not use the queue: it makes one attempt and returns the
/// outcome for each recipient.
pub trait Courier: Send + Sync {
    /// The name in logs and metric labels: lower case, one word.
    fn name(&self) -> &'static str;

    /// How the queue schedules the attempts of this courier. Always the same for one courier.
    fn profile(&self) -> CourierProfile;

    /// Makes one attempt. Returns one outcome for each of `delivery.recipients`, in the same order, and
    /// returns by `delivery.deadline`, unless a peer has the whole message and only its last reply is
    /// missing. Never panics because of what the peer sends.
    fn attempt(&self, delivery: &Delivery<'_>) -> Vec<Outcome>;

    /// Forgets recent failures of hosts, because an operator wants mail to be tried now. Until then, a host
    /// that did not answer may be left out for a while.
    fn forget_host_failures(&self) {}
}

/// How the queue schedules the attempts of a courier.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CourierProfile {
    /// The threads that make the attempts. A destination in the remote pool may not answer, and is then
    /// probed.
    pub pool: DeliveryPool,
    /// Whether the queue limits the attempts that are under way to one destination.
    pub has_concurrency_limit: bool,
    /// Recipients of one attempt at most. A crash during an attempt may repeat the delivery to so many.
    pub attempt_recipients_max: usize,
    /// Whether a delivered message is in its mailbox or program, and not at another server (RFC 3464 §2.3.3:
    /// *delivered*, not *relayed*).
    pub is_final_delivery: bool,
}

impl CourierProfile {
    /// For mailboxes on this host.
    pub const MAILBOXES: Self = Self {
        pool: DeliveryPool::Local,
        has_concurrency_limit: false,
        attempt_recipients_max: 16,
        is_final_delivery: true,
    };
    /// For programs on this host.
    pub const PROGRAMS: Self =
        Self { has_concurrency_limit: true, attempt_recipients_max: usize::MAX, ..Self::MAILBOXES };
    /// For other servers.
    pub const REMOTE: Self = Self {
        pool: DeliveryPool::Remote,
        has_concurrency_limit: true,
        attempt_recipients_max: usize::MAX,
        is_final_delivery: false,
    };
}

/// A pool of delivery threads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DeliveryPool {
    /// For mailboxes and programs on this host.
    Local,
    /// For other servers.
    Remote,
}

/// The input of an attempt.
pub struct Delivery<'a> {
    /// The envelope of the message. It has all recipients of the message; most of them may be settled or have
    /// another route. The attempt is for `recipients`.
    pub envelope: &'a Envelope,
    /// The recipients of the attempt, which have one route. At least one.
    pub recipients: &'a [&'a Recipient],
    /// The octets.
    pub message: &'a dyn Message,
    /// When the attempt must have ended.
    pub deadline: Moment,
    /// More mail for the same destination is likely to follow soon: a connection may be kept for it.
    pub is_more_mail_expected: bool,
    /// The trace of the attempt.
    pub trace: &'a Trace,
}

/// The octets of a message as they are sent: added fields first, without removed ranges, CRLF line ends, not
/// dot-stuffed, and with a line end at the end.
pub trait Message: Send + Sync {
    /// Length in octets, added fields included.
    fn octets(&self) -> u64;

    /// Reads the message from its beginning, through a small buffer.
    ///
    /// # Errors
    /// An error of the disk; the message is still safe, and the attempt is deferred.
    fn open(&self) -> io::Result<Box<dyn Read + '_>>;
}
