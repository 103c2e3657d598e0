//! The two pools of delivery threads.

use crate::route::{Route, Transport};

/// A pool of delivery threads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DeliveryPool {
    /// For mailboxes and programs on this host.
    Local,
    /// For other servers.
    Remote,
}

impl DeliveryPool {
    /// The pool of a route.
    #[must_use]
    pub fn of(route: &Route) -> Self {
        match route.transport {
            Transport::Local | Transport::Program => Self::Local,
            Transport::Smtp => Self::Remote,
        }
    }
}
