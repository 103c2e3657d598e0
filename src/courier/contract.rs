//! What the queue and every courier agree on.

use std::io::{self, Read};

use crate::mail::{Envelope, Outcome, Recipient};
use crate::observe::Trace;
use crate::sys::Moment;

/// Carries a message one hop, once.
///
/// A courier does not retry, does not sleep, and does not know the queue: it makes one attempt
/// and says what became of each recipient.
pub trait Courier: Send + Sync {
    /// The name used in routes, logs and metric labels: lower case, one word.
    fn name(&self) -> &'static str;

    /// Makes one attempt, and returns one outcome for each of `delivery.recipients`, in the same
    /// order. Is back by `delivery.deadline`, unless a peer has the whole message and only its
    /// last reply is missing; never panics on what the other side says.
    fn attempt(&self, delivery: &Delivery<'_>) -> Vec<Outcome>;

    /// An operator wants mail to be tried again: what was found out about hosts a moment ago, to
    /// spare others the wait, no longer counts.
    fn forget_host_failures(&self) {}
}

/// What an attempt is given.
pub struct Delivery<'a> {
    /// The message's envelope. Its recipients are all of the message's: most of them may be
    /// settled or go elsewhere. Carry to `recipients`, not to these.
    pub envelope: &'a Envelope,
    /// Whom to carry to: recipients of one route, at least one.
    pub recipients: &'a [&'a Recipient],
    /// The octets.
    pub message: &'a dyn Message,
    /// When the attempt must be over.
    pub deadline: Moment,
    /// More mail for the same destination is likely to follow soon: what was opened for this may be
    /// kept for that.
    pub more_follows: bool,
    /// Where to say what is being done.
    pub trace: &'a Trace,
}

/// The octets of a message as they go out: our stamp first, skipped ranges left out, CRLF line
/// ends, not dot-stuffed, and a line end at the end.
pub trait Message: Send + Sync {
    /// Length in octets, stamp included.
    fn octets(&self) -> u64;

    /// Reads the message from its beginning, through a small buffer.
    ///
    /// # Errors
    /// As the disk says; the message is then still safe, and the attempt is deferred.
    fn open(&self) -> io::Result<Box<dyn Read + '_>>;
}
