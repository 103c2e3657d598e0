//! Decides about the reverse-path of a client that has not logged in, and about the null reverse-path of a
//! user.
//!
//! The server remembers whether a domain has sent mail over TLS. Once it has, mail of this domain in plain
//! text is refused, because somebody on the way may have removed the encryption. This holds only for a domain
//! that SPF has confirmed, so that no other sender can raise the level or be refused for it. SPF is not
//! implemented yet: [`Unchecked`] confirms no sender.

use std::net::IpAddr;
use std::sync::Arc;

use super::circumstances::Circumstances;
use super::decision::Decision;
use super::reverse_names::ReverseNames;
use crate::domaininfo::DomainInfo;
use crate::mail::{Failure, Mailbox, ReversePath, SenderFacts, SpfResult};
use crate::observe::{CounterFamily, Metrics};
use crate::smtp::{Answer, Verdict};
use crate::tls::IncomingSecurityLevel;

/// Checks whether a client may send for a domain.
pub trait SenderCheck: Send + Sync {
    /// The result of RFC 7208 for this client and reverse-path.
    fn check_spf(&self, address: IpAddr, hello: &str, mailbox: &Mailbox) -> SpfResult;
}

/// Confirms no sender.
#[derive(Debug, Clone, Copy, Default)]
pub struct Unchecked;

impl SenderCheck for Unchecked {
    fn check_spf(&self, _address: IpAddr, _hello: &str, _mailbox: &Mailbox) -> SpfResult {
        SpfResult::None
    }
}

/// Decides about reverse-paths.
pub struct ReversePathPolicy {
    reverse_names: ReverseNames,
    spf_check: Arc<dyn SenderCheck>,
    domaininfo: Arc<DomainInfo>,
    level_results: CounterFamily,
}

impl ReversePathPolicy {
    /// Senders are confirmed by `spf_check`; their levels are kept in `domaininfo`.
    #[must_use]
    pub fn new(
        reverse_names: ReverseNames,
        spf_check: Arc<dyn SenderCheck>,
        domaininfo: Arc<DomainInfo>,
        metrics: &Metrics,
    ) -> Self {
        let level_results = metrics.counter_family(
            "sender_level",
            "Security levels of confirmed senders, by result",
            "result",
        );
        Self { reverse_names, spf_check, domaininfo, level_results }
    }

    /// Looks up what DNS has about the sender, and decides whether it may send here.
    pub fn decide(&self, circumstances: &Circumstances<'_>, reverse_path: &ReversePath) -> Verdict {
        let reverse_name = match circumstances.login {
            // The Received field of a user has no name.
            Some(_) => None,
            None => self.reverse_names.confirmed_name(circumstances.address()),
        };
        let facts = SenderFacts { reverse_name, spf: None };
        let mailbox = match reverse_path {
            ReversePath::Null => {
                return Verdict::new(Answer::Sender(facts))
                    .with_reason("no rule about senders applies to the null reverse-path");
            }
            ReversePath::Mailbox(mailbox) => mailbox,
        };
        let spf = self.spf_check.check_spf(circumstances.address(), circumstances.hello, mailbox);
        let accepted = Answer::Sender(SenderFacts { spf: Some(spf), ..facts });
        let because = format!("SPF says {spf} for {}", mailbox.domain);
        match spf {
            SpfResult::Pass => {
                self.check_level(circumstances, mailbox).into_verdict(accepted).with_reason(because)
            }
            SpfResult::None
            | SpfResult::Neutral
            | SpfResult::Fail
            | SpfResult::SoftFail
            | SpfResult::TempError
            | SpfResult::PermError => Verdict::new(accepted).with_reason(because),
        }
    }

    fn check_level(&self, circumstances: &Circumstances<'_>, mailbox: &Mailbox) -> Decision {
        let level = match circumstances.tls {
            Some(_) => IncomingSecurityLevel::Tls,
            None => IncomingSecurityLevel::Plain,
        };
        match self.domaininfo.check_incoming(&mailbox.domain, level) {
            Ok(()) => {
                self.level_results.add_one("accepted");
                Decision::allowed()
                    .with_reason(format!("{level} is not below the level known for its domain"))
            }
            Err(lower) => {
                self.level_results.add_one("lower");
                let text = format!(
                    "Mail from {} has come over TLS before, and this session has none",
                    mailbox.domain
                );
                Decision::refused(Failure::permanent(7, 3, text)).with_reason(lower.to_string())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::dns::Zone;
    use crate::domaininfo;
    use crate::fakes::{SeededRandom, TestClock};
    use crate::mail::{Domain, TlsInfo};
    use crate::sys::SystemDisk;

    struct FixedSpf(SpfResult);

    impl SenderCheck for FixedSpf {
        fn check_spf(&self, _address: IpAddr, _hello: &str, _mailbox: &Mailbox) -> SpfResult {
            self.0
        }
    }

    fn decide(dir: &Path, spf: SpfResult, is_encrypted: bool, reverse_path: &str) -> Answer {
        let info = DomainInfo::open(
            Arc::new(SystemDisk),
            Arc::new(SeededRandom::new(1)),
            Arc::new(TestClock::default()),
            &Metrics::default(),
            domaininfo::Settings::new(dir.to_owned()),
        );
        let zone = "1.2.0.192.in-addr.arpa. PTR mx.there.example.\nmx.there.example. A 192.0.2.1\n";
        let clock = Arc::new(TestClock::default());
        let senders = ReversePathPolicy::new(
            ReverseNames::new(Arc::new(Zone::parse(zone).unwrap()), clock),
            Arc::new(FixedSpf(spf)),
            Arc::new(info.unwrap()),
            &Metrics::default(),
        );
        let tls = TlsInfo { version: "TLSv1.3".into(), cipher: "TLS_AES_128_GCM_SHA256".into() };
        let circumstances = Circumstances {
            tls: is_encrypted.then_some(&tls),
            ..Circumstances::at_connection("192.0.2.1:49152".parse().unwrap())
        };
        let reverse_path = match reverse_path {
            "" => ReversePath::Null,
            path => ReversePath::Mailbox(Mailbox::parse(path).unwrap()),
        };
        senders.decide(&circumstances, &reverse_path).answer
    }

    fn accepted(spf: SpfResult) -> Answer {
        let reverse_name = Domain::parse("mx.there.example").ok();
        Answer::Sender(SenderFacts { reverse_name, spf: Some(spf) })
    }

    #[test]
    fn a_confirmed_domain_that_used_tls_may_not_go_back_to_plain_text() {
        let dir = tempfile::tempdir().unwrap();
        let ana = "ana@there.example";
        let (pass, accepted) = (SpfResult::Pass, accepted(SpfResult::Pass));
        assert_eq!(decide(dir.path(), pass, false, ana), accepted, "no level is known yet");
        assert_eq!(decide(dir.path(), pass, true, ana), accepted);
        let answer = decide(dir.path(), pass, false, ana);
        assert!(matches!(answer, Answer::Refused(Failure::Permanent(r)) if (r.subject, r.detail) == (7, 3)));
        assert_eq!(decide(dir.path(), pass, true, ana), accepted);
    }

    #[test]
    fn only_a_confirmed_sender_raises_or_needs_the_level_of_its_domain() {
        let dir = tempfile::tempdir().unwrap();
        let (ana, pass) = ("ana@there.example", SpfResult::Pass);
        for spf in [SpfResult::None, SpfResult::Neutral, SpfResult::SoftFail, SpfResult::TempError] {
            assert_eq!(decide(dir.path(), spf, true, ana), accepted(spf));
        }
        assert_eq!(decide(dir.path(), pass, false, ana), accepted(pass), "the level was not raised");
        assert_eq!(decide(dir.path(), pass, true, ana), accepted(pass));
        assert_eq!(decide(dir.path(), SpfResult::None, false, ana), accepted(SpfResult::None));
        let null = decide(dir.path(), pass, false, "");
        assert!(
            matches!(null, Answer::Sender(facts) if facts.spf.is_none()),
            "no rule about senders applies to null"
        );
    }
}
