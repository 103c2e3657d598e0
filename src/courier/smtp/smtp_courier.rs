//! The courier that carries mail to other servers.

use std::sync::Arc;

use arc_swap::ArcSwap;

use super::attempt::SmtpAttempt;
use super::connection_pool::ConnectionPool;
use super::context::AttemptContext;
use super::parts::{Counters, CourierState, SmtpCourierParts};
use super::settings::Settings;
use super::unresponsive_hosts::UnresponsiveHosts;
use crate::courier::message_facts::MessageFacts;
use crate::courier::{Courier, CourierProfile, Delivery};
use crate::mail::{Failure, Outcome};
use crate::observe::Metrics;

/// Carries mail to other servers.
pub struct SmtpCourier(CourierState);

impl SmtpCourier {
    /// A courier; its counters are registered with `metrics`. Each attempt reads the settings once.
    #[must_use]
    pub fn new(settings: Arc<ArcSwap<Settings>>, parts: SmtpCourierParts, metrics: &Metrics) -> Self {
        Self(CourierState {
            settings,
            connection_pool: ConnectionPool::new(Arc::clone(&parts.clock)),
            parts,
            counters: Counters::new(metrics),
            unresponsive_hosts: UnresponsiveHosts::default(),
        })
    }
}

impl Courier for SmtpCourier {
    fn name(&self) -> &'static str {
        "smtp"
    }

    fn profile(&self) -> CourierProfile {
        CourierProfile::REMOTE
    }

    fn forget_host_failures(&self) {
        self.0.unresponsive_hosts.forget_failures();
    }

    fn attempt(&self, delivery: &Delivery<'_>) -> Vec<Outcome> {
        self.0.counters.attempts.add_one();
        match MessageFacts::from_delivery(delivery) {
            Ok(facts) => {
                let context = AttemptContext::new(&self.0, delivery, facts);
                SmtpAttempt::new(&context).run()
            }
            Err(error) => {
                let failure = Failure::transient(3, 0, format!("the message cannot be read here: {error}"));
                vec![failure.into(); delivery.recipients.len()]
            }
        }
    }
}
