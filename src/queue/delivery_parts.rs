//! What the queue needs to deliver mail.

use std::sync::Arc;

use arc_swap::ArcSwap;

use super::generated_mail::GeneratedMail;
use crate::courier::{Courier, CourierProfile};
use crate::mail::Domain;
use crate::observe::Traces;
use crate::route::{CourierKind, Route, Router};

/// The couriers, one for each kind.
#[derive(Clone)]
pub struct Couriers {
    /// For mailboxes on this host.
    pub local: Arc<dyn Courier>,
    /// For programs that an alias file names.
    pub program: Arc<dyn Courier>,
    /// For other servers.
    pub smtp: Arc<dyn Courier>,
}

impl Couriers {
    pub(super) fn for_kind(&self, kind: CourierKind) -> &dyn Courier {
        match kind {
            CourierKind::Local => self.local.as_ref(),
            CourierKind::Program => self.program.as_ref(),
            CourierKind::Smtp => self.smtp.as_ref(),
        }
    }

    pub(super) fn profile(&self, route: &Route) -> CourierProfile {
        self.for_kind(route.courier).profile()
    }

    pub(super) fn forget_host_failures(&self) {
        [&self.local, &self.program, &self.smtp]
            .into_iter()
            .for_each(|courier| courier.forget_host_failures());
    }
}

/// What the queue needs to deliver mail, beyond the spool.
#[derive(Clone)]
pub struct DeliveryParts {
    /// Chooses routes; a reload stores a new one.
    pub router: Arc<ArcSwap<Router>>,
    /// The couriers.
    pub couriers: Couriers,
    /// Queues bounces.
    pub generated_mail: GeneratedMail,
    /// Traces of attempts.
    pub traces: Arc<Traces>,
    /// The server's name, for bounces.
    pub hostname: Domain,
}
