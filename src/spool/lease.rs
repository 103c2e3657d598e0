//! The right to change one queued message on disk.
//!
//! A message has one lease at a time. Whoever holds it may write down outcomes, move the message,
//! settle it or set it aside; every function of the spool that does so asks for the lease. Reading
//! needs none.
//!
//! [`Leases`] makes them. There is one for each spool, returned by the opening of the spool: first the
//! opening has it, then the queue manager, and nobody else can lease a message. Dropping a lease gives
//! the message back.

use std::collections::HashSet;
use std::sync::Arc;

use crate::mail::MessageId;
use crate::sys::Mutex;

/// Messages that are leased.
type LeasedIds = Arc<Mutex<HashSet<MessageId>>>;

/// Makes leases.
pub(crate) struct Leases {
    leased: LeasedIds,
}

impl Leases {
    /// For a spool that is being opened.
    pub(super) fn new() -> Self {
        Self { leased: LeasedIds::default() }
    }

    /// The lease of a message; nothing if somebody holds it. The message need not be in the queue.
    pub(crate) fn take(&mut self, id: &MessageId) -> Option<Lease> {
        let is_free = self.leased.lock().insert(*id);
        is_free.then(|| Lease { id: *id, leased: Arc::clone(&self.leased) })
    }

    /// Whether somebody holds the lease of a message.
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
    /// Of which message.
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
    fn a_message_has_one_lease_until_it_is_dropped() {
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
