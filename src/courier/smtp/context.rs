//! What is the same for every host and every connection of one attempt.

use std::sync::Arc;

use super::hello;
use super::parts::{CourierState, CredentialsByName};
use super::settings::Settings;
use crate::courier::Delivery;
use crate::courier::message_facts::MessageFacts;
use crate::dns::Budget;
use crate::mail::Domain;

/// Look-ups of one attempt: the MX records, and for each of ten hosts its addresses, twice where this
/// host may be among them; the rest is room for other questions about a domain.
const DNS_LOOKUPS_MAX: u32 = 50;

/// One attempt, as every connection of it sees it.
pub(super) struct AttemptContext<'a> {
    pub(super) courier: &'a CourierState,
    /// The settings when the attempt began.
    pub(super) settings: Arc<Settings>,
    /// The credentials when the attempt began.
    pub(super) credentials: Arc<CredentialsByName>,
    pub(super) delivery: &'a Delivery<'a>,
    /// The name in EHLO.
    pub(super) hello: Domain,
    pub(super) facts: MessageFacts,
    /// For all questions of the attempt.
    pub(super) dns_budget: Budget,
}

impl<'a> AttemptContext<'a> {
    pub(super) fn new(courier: &'a CourierState, delivery: &'a Delivery<'a>, facts: MessageFacts) -> Self {
        let settings = courier.settings.load_full();
        let credentials = courier.parts.credentials.load_full();
        let hello = hello::hello_name(
            settings.hello_mode,
            &settings.hostname,
            &delivery.envelope.reverse_path,
            &courier.parts.router.load(),
        );
        let dns_budget = Budget::new(delivery.deadline, DNS_LOOKUPS_MAX);
        Self { courier, settings, credentials, delivery, hello, facts, dns_budget }
    }
}
