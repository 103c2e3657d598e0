//! What a connection must offer before mail goes over it, decided before the conversation.
//!
//! Pure: [`Demand::decide`] makes one [`Demand`] of the facts about the target. Two rules exist, and the
//! stronger one decides: the configured TLS policy of a host that an alias or the configuration names, and
//! the best level that was seen on a connection before. A connection below the demand carries no mail of
//! this attempt; the mail waits.
//!
//! Called by `address_attempt` for each conversation. Standards: RFC 8314 §7.3 (port 465).

use crate::mail::{Domain, Failure, TlsPolicy};
use crate::tls::SecurityLevel;

/// The port on which TLS begins before the greeting (RFC 8314 §7.3).
const SUBMISSIONS_PORT: u16 = 465;

/// The hosts that the mail is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TargetHosts<'a> {
    /// The MX hosts of this domain.
    MxHostsOf(&'a Domain),
    /// A host that the operator has named.
    Named {
        /// Its name, or an address literal.
        host: &'a Domain,
        /// The configured TLS policy.
        tls: TlsPolicy,
    },
}

impl<'a> TargetHosts<'a> {
    /// The name under which levels are learned: the recipients' domain for MX hosts. A named host
    /// has a record of its own, because how it is reached says nothing about the domains behind it.
    pub(super) const fn learning_domain(self) -> &'a Domain {
        match self {
            Self::MxHostsOf(domain) => domain,
            Self::Named { host, .. } => host,
        }
    }

    /// A named host at this port speaks TLS from the first octet, and nothing else.
    pub(super) const fn is_implicit_tls(self, port: u16) -> bool {
        match self {
            Self::MxHostsOf(_) => false,
            Self::Named { .. } => port == SUBMISSIONS_PORT,
        }
    }

    /// The level that the configured TLS policy demands.
    fn operator_level(self, port: u16) -> SecurityLevel {
        match self {
            Self::MxHostsOf(_) => SecurityLevel::Plain,
            Self::Named { tls, .. } => match tls {
                TlsPolicy::Opportunistic if self.is_implicit_tls(port) => SecurityLevel::TlsUnverified,
                TlsPolicy::Opportunistic => SecurityLevel::Plain,
                TlsPolicy::Required => SecurityLevel::TlsUnverified,
                TlsPolicy::Verified => SecurityLevel::TlsVerified,
            },
        }
    }
}

/// What a connection must offer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Demand<'a> {
    /// The lowest level that is good enough.
    pub(super) level: SecurityLevel,
    /// The hosts that the demand is about.
    pub(super) hosts: TargetHosts<'a>,
    /// The rule that asks for the level.
    pub(super) why: DemandReason,
}

/// The rule behind a demand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum DemandReason {
    /// No rule asks for more than plain text.
    NoRule,
    /// The configured TLS policy.
    Operator,
    /// A connection had this level before.
    LearnedLevel,
}

impl<'a> Demand<'a> {
    /// The demand on a connection to one of `hosts` at `port`. `learned` is the best level that
    /// was seen of [`TargetHosts::learning_domain`].
    pub(super) fn decide(hosts: TargetHosts<'a>, port: u16, learned: SecurityLevel) -> Self {
        let operator = hosts.operator_level(port);
        let (level, why) = if learned > operator {
            (learned, DemandReason::LearnedLevel)
        } else if operator > SecurityLevel::Plain {
            (operator, DemandReason::Operator)
        } else {
            (SecurityLevel::Plain, DemandReason::NoRule)
        };
        Self { level, hosts, why }
    }

    /// A connection of this level may carry the mail.
    pub(super) fn is_met_by(&self, level: SecurityLevel) -> bool {
        level >= self.level
    }

    /// The failure of every recipient where the connection does not meet the demand. `offered` is a
    /// clause that says what the host offers instead.
    pub(super) fn failure(&self, offered: &str) -> Failure {
        let level = self.level;
        Failure::transient(
            7,
            5,
            match self.why {
                DemandReason::Operator | DemandReason::NoRule => {
                    format!("the configuration requires {level}; {offered}; the mail waits")
                }
                DemandReason::LearnedLevel => {
                    let domain = self.hosts.learning_domain();
                    format!(
                        "{domain} was reached at {level} before, and {offered}; the mail waits. If this change \
                     is wanted: postrider peer forget {domain}"
                    )
                }
            },
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stronger_of_the_operators_word_and_the_learned_level_is_demanded() {
        use DemandReason::{LearnedLevel, NoRule, Operator};
        use SecurityLevel::{Plain, TlsUnverified, TlsVerified};
        use TlsPolicy::{Opportunistic, Required, Verified};
        let name = Domain::parse("there.example").unwrap();
        for (tls, port, learned, level, why) in [
            (None, 25, Plain, Plain, NoRule),
            (None, 25, TlsVerified, TlsVerified, LearnedLevel),
            (None, 465, Plain, Plain, NoRule),
            (Some(Opportunistic), 25, Plain, Plain, NoRule),
            (Some(Opportunistic), 465, Plain, TlsUnverified, Operator),
            (Some(Opportunistic), 587, TlsUnverified, TlsUnverified, LearnedLevel),
            (Some(Required), 587, Plain, TlsUnverified, Operator),
            (Some(Required), 587, TlsUnverified, TlsUnverified, Operator),
            (Some(Required), 587, TlsVerified, TlsVerified, LearnedLevel),
            (Some(Verified), 465, Plain, TlsVerified, Operator),
            (Some(Verified), 25, TlsVerified, TlsVerified, Operator),
        ] {
            let hosts = match tls {
                None => TargetHosts::MxHostsOf(&name),
                Some(tls) => TargetHosts::Named { host: &name, tls },
            };
            let demand = Demand::decide(hosts, port, learned);
            assert_eq!(demand, Demand { level, hosts, why }, "{tls:?} {port} {learned}");
            for offered in [Plain, TlsUnverified, TlsVerified] {
                assert_eq!(demand.is_met_by(offered), offered >= level, "{offered}");
            }
        }
    }

    #[test]
    fn a_failure_names_the_rule_and_the_operators_remedy() {
        let name = Domain::parse("there.example").unwrap();
        let failure =
            |hosts, learned| Demand::decide(hosts, 25, learned).failure("it offers plain").to_string();
        let learned = failure(TargetHosts::MxHostsOf(&name), SecurityLevel::TlsVerified);
        assert!(
            learned.contains("tls-verified before") && learned.contains("forget there.example"),
            "{learned}"
        );
        let named = TargetHosts::Named { host: &name, tls: TlsPolicy::Required };
        let operator = failure(named, SecurityLevel::Plain);
        assert!(
            operator.contains("the configuration requires tls-unverified; it offers plain; the mail waits"),
            "{operator}"
        );
    }
}
