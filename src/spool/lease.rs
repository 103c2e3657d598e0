//! The right to change one queued message on disk.
//!
//! A message has one lease at a time. Every function of the spool that records an update, moves the message,
//! settles it or sets it aside takes the lease as an argument. Reading needs no lease.
//!
//! [`Leases`] makes them. There is one [`Leases`] for each spool: the opening of the spool returns it, and
//! then the queue manager owns it, so that no other thread can lease a message. A lease ends when it is
//! dropped.

use std::collections::HashSet;
use std::sync::Arc;

use crate::mail::MessageId;
use crate::sys::Mutex;

/// Messages that are leased.
type LeasedIds = Arc<Mutex<HashSet<MessageId>>>;

/// Makes the leases of one spool.
pub(crate) struct Leases {
    leased: LeasedIds,
}

impl Leases {
    /// No message is leased.
    pub(super) fn new() -> Self {
        Self { leased: LeasedIds::default() }
    }

    /// The lease of a message; `None` while another lease of it exists. The message need not be in the spool.
    pub(crate) fn take(&mut self, id: &MessageId) -> Option<Lease> {
        let is_free = self.leased.lock().insert(*id);
        is_free.then(|| Lease { id: *id, leased: Arc::clone(&self.leased) })
    }

    /// Whether a lease of the message exists.
    pub(super) fn is_leased(&self, id: &MessageId) -> bool {
        self.leased.lock().contains(id)
    }
}

/// The right to change this message, until it is dropped.
pub(crate) struct Lease {
    id: MessageId,
    leased: LeasedIds,
}

impl Lease {
    /// The message that the lease is for.
    pub(crate) fn id(&self) -> &MessageId {
        &self.id
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.leased.lock().remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mail::Timestamp;

    #[test]
    fn a_message_has_at_most_one_lease_until_it_is_dropped() {
        let mut leases = Leases::new();
        let [first, second] = [1, 2].map(|n| MessageId::new(Timestamp::from_millis(0), n));
        let lease = leases.take(&first).unwrap();
        assert_eq!(lease.id(), &first);
        assert!(leases.take(&first).is_none());
        assert!(leases.take(&second).is_some());
        drop(lease);
        assert!(!leases.is_leased(&first));
        assert!(leases.take(&first).is_some());
    }
}
