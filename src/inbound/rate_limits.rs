//! Limits on what one client may do in an hour.
//!
//! A client that has logged in is counted by its login, so that the users of an office behind one address
//! are counted one by one. Any other client is counted by its address, an IPv6 client by its /64. Addresses
//! of this host and of the operator's relay networks are not counted. A client over a limit gets a 4yz
//! reply: the limits are for the pace of honest mail, and a permanent refusal would lose some of it.

use std::net::IpAddr;
use std::sync::Arc;

use super::address_prefix::client_prefix;
use super::circumstances::Circumstances;
use super::token_buckets::TokenBuckets;
use crate::mail::{Mailbox, Network};
use crate::observe::{CounterFamily, Metrics};
use crate::smtp::{Answer, Reply, Verdict};
use crate::sys::{Clock, Mutex};

/// The limits for one hour; 0 is no limit.
#[derive(Debug, Clone, Default)]
pub struct HourlyLimits {
    /// Connections from one address.
    pub address_connections: usize,
    /// MAIL commands from one address.
    pub address_messages: usize,
    /// RCPT commands from one address.
    pub address_recipients: usize,
    /// RCPT commands from one address for recipients that do not exist.
    pub address_unknown_recipients: usize,
    /// MAIL commands of one login.
    pub login_messages: usize,
    /// RCPT commands of one login.
    pub login_recipients: usize,
    /// Networks whose clients are not counted, beside this host.
    pub exempt_networks: Vec<Network>,
}

/// What all clients and users have done in the last hour.
pub struct RateLimits {
    clock: Arc<dyn Clock>,
    exempt_networks: Vec<Network>,
    connections: RateLimit<IpAddr>,
    messages: RateLimit<IpAddr>,
    recipients: RateLimit<IpAddr>,
    unknown_recipients: RateLimit<IpAddr>,
    login_messages: RateLimit<Mailbox>,
    login_recipients: RateLimit<Mailbox>,
    refusals: CounterFamily,
}

/// One limit of the configuration, and its counts.
struct RateLimit<K> {
    name: &'static str,
    buckets: Mutex<TokenBuckets<K>>,
}

impl<K: Eq + std::hash::Hash + Clone> RateLimit<K> {
    fn new(name: &'static str, per_hour: usize) -> Self {
        Self { name, buckets: Mutex::new(TokenBuckets::new(per_hour)) }
    }
}

impl RateLimits {
    /// All counts are zero.
    #[must_use]
    pub fn new(max: HourlyLimits, clock: Arc<dyn Clock>, metrics: &Metrics) -> Self {
        Self {
            clock,
            exempt_networks: max.exempt_networks,
            connections: RateLimit::new("address-per-hour.connections", max.address_connections),
            messages: RateLimit::new("address-per-hour.messages", max.address_messages),
            recipients: RateLimit::new("address-per-hour.recipients", max.address_recipients),
            unknown_recipients: RateLimit::new(
                "address-per-hour.unknown-recipients",
                max.address_unknown_recipients,
            ),
            login_messages: RateLimit::new("login-per-hour.messages", max.login_messages),
            login_recipients: RateLimit::new("login-per-hour.recipients", max.login_recipients),
            refusals: metrics.counter_family(
                "rate_limit_refused",
                "Commands deferred because of a rate limit, by limit",
                "limit",
            ),
        }
    }

    /// Counts a connection; whether it is within the limit.
    pub(super) fn admit_connection(&self, address: IpAddr) -> bool {
        self.rate_limit_key(address)
            .is_none_or(|prefix| self.connections.buckets.lock().take(&prefix, self.clock.now()))
    }

    /// Counts a message; the refusal if it is over the limit.
    pub(super) fn admit_message(&self, circumstances: &Circumstances<'_>) -> Result<(), Verdict> {
        match circumstances.login {
            Some(login) => self.take(&self.login_messages, login, "Too many messages from your account"),
            None => self.rate_limit_key(circumstances.address()).map_or(Ok(()), |prefix| {
                self.take(&self.messages, &prefix, "Too many messages from your address")
            }),
        }
    }

    /// Counts a recipient; the refusal if it is over the limit. A client that has named too many recipients
    /// that do not exist gets no answer about any other.
    pub(super) fn admit_recipient(&self, circumstances: &Circumstances<'_>) -> Result<(), Verdict> {
        if let Some(login) = circumstances.login {
            return self.take(&self.login_recipients, login, "Too many recipients from your account");
        }
        let Some(prefix) = self.rate_limit_key(circumstances.address()) else { return Ok(()) };
        let has_guessed_too_much =
            !self.unknown_recipients.buckets.lock().has_token(&prefix, self.clock.now());
        if has_guessed_too_much {
            return Err(self.refusal(
                self.unknown_recipients.name,
                "Too many recipients that do not exist from your address",
            ));
        }
        self.take(&self.recipients, &prefix, "Too many recipients from your address")
    }

    /// Counts a recipient that does not exist.
    pub(super) fn record_unknown_recipient(&self, circumstances: &Circumstances<'_>) {
        if let (None, Some(prefix)) = (circumstances.login, self.rate_limit_key(circumstances.address())) {
            self.unknown_recipients.buckets.lock().take(&prefix, self.clock.now());
        }
    }

    /// The address is of this host or of a network that the operator trusts.
    pub(super) fn is_exempt(&self, address: IpAddr) -> bool {
        address.is_loopback() || self.exempt_networks.iter().any(|network| network.contains(address))
    }

    /// The prefix by which an address is counted, if it is counted.
    fn rate_limit_key(&self, address: IpAddr) -> Option<IpAddr> {
        (!self.is_exempt(address)).then(|| client_prefix(address))
    }

    fn take<K: Eq + std::hash::Hash + Clone>(
        &self,
        limit: &RateLimit<K>,
        key: &K,
        text: &str,
    ) -> Result<(), Verdict> {
        let is_taken = limit.buckets.lock().take(key, self.clock.now());
        if is_taken { Ok(()) } else { Err(self.refusal(limit.name, text)) }
    }

    fn refusal(&self, limit: &'static str, text: &str) -> Verdict {
        self.refusals.add_one(limit);
        let reply = Reply::new(450, 7, 1, format!("{text} within an hour, try again later"));
        Verdict::new(Answer::RefusedWith(reply)).with_reason(format!("limits.{limit} is reached"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fakes::TestClock;

    fn rates(clock: &Arc<TestClock>) -> RateLimits {
        let max = HourlyLimits {
            address_connections: 1,
            address_messages: 1,
            address_recipients: 3,
            address_unknown_recipients: 1,
            login_messages: 2,
            login_recipients: 2,
            exempt_networks: vec!["198.51.100.0/24".parse().unwrap()],
        };
        RateLimits::new(max, clock.clone(), &Metrics::default())
    }

    fn client<'a>(address: &str, login: Option<&'a Mailbox>) -> Circumstances<'a> {
        Circumstances {
            login,
            ..Circumstances::at_connection((address.parse::<IpAddr>().unwrap(), 25).into())
        }
    }

    fn reply(refused: Result<(), Verdict>) -> String {
        match refused.unwrap_err().answer {
            Answer::RefusedWith(reply) => reply.printable_text(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_client_is_counted_by_address_before_its_login_and_by_user_after_it() {
        let clock = Arc::new(TestClock::default());
        let rates = rates(&clock);
        let stranger = client("192.0.2.1", None);
        assert!(rates.admit_message(&stranger).is_ok());
        assert_eq!(
            reply(rates.admit_message(&stranger)),
            "450 4.7.1 Too many messages from your address within an hour, try again later"
        );
        let ana = Mailbox::parse("ana@here.example").unwrap();
        for address in ["192.0.2.1", "203.0.113.9"] {
            assert!(rates.admit_message(&client(address, Some(&ana))).is_ok());
        }
        assert!(reply(rates.admit_message(&client("::1", Some(&ana)))).contains("your account"));
        clock.advance(std::time::Duration::from_secs(1800));
        assert!(
            rates.admit_message(&client("::1", Some(&ana))).is_ok(),
            "half an hour brings half of it back"
        );
    }

    #[test]
    fn exempt_networks_are_not_counted_and_a_slash_64_is_one_client() {
        let rates = rates(&Arc::new(TestClock::default()));
        for address in ["127.0.0.9", "::1", "198.51.100.7"] {
            assert!((0..9).all(|_| rates.admit_connection(address.parse().unwrap())), "{address}");
        }
        assert!(rates.admit_connection("2001:db8::1".parse().unwrap()));
        assert!(!rates.admit_connection("2001:db8::ffff".parse().unwrap()));
        assert!(rates.admit_connection("2001:db8:0:1::1".parse().unwrap()));
    }

    #[test]
    fn a_client_that_guesses_too_many_recipients_gets_no_more_answers() {
        let rates = rates(&Arc::new(TestClock::default()));
        let guesser = client("192.0.2.1", None);
        assert!(rates.admit_recipient(&guesser).is_ok());
        rates.record_unknown_recipient(&guesser);
        assert!(reply(rates.admit_recipient(&guesser)).contains("that do not exist"));
        let other = client("192.0.2.2", None);
        assert!((0..3).all(|_| rates.admit_recipient(&other).is_ok()));
        assert!(reply(rates.admit_recipient(&other)).contains("Too many recipients from"));
    }
}
