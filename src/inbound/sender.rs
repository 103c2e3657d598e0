//! May this reverse-path send here, from a client that has not logged in?
//!
//! A domain that has sent to us over TLS keeps doing so: mail in plain text that really comes from
//! it is refused, because somebody between us may have removed the encryption. Only a domain that
//! SPF has confirmed is looked at, so that nobody else can raise or trip its level.

use std::net::IpAddr;
use std::sync::Arc;

use super::circumstances::Circumstances;
use crate::domaininfo::DomainInfo;
use crate::mail::{Failure, Mailbox, ReversePath, SenderFacts, SpfResult};
use crate::observe::{CounterFamily, Metrics};
use crate::smtp::{Answer, Verdict};
use crate::tls::IncomingSecurityLevel;

/// Says whether a client may send for a domain.
pub trait SenderCheck: Send + Sync {
    /// The result of RFC 7208 for this client and reverse-path.
    fn check_spf(&self, address: IpAddr, hello: &str, mailbox: &Mailbox) -> SpfResult;
}

/// Nobody asks yet: no sender is confirmed.
#[derive(Debug, Clone, Copy, Default)]
pub struct Unchecked;

impl SenderCheck for Unchecked {
    fn check_spf(&self, _address: IpAddr, _hello: &str, _mailbox: &Mailbox) -> SpfResult {
        SpfResult::None
    }
}

/// Answers for reverse-paths.
pub struct ReversePathPolicy {
    spf_check: Arc<dyn SenderCheck>,
    domaininfo: Arc<DomainInfo>,
    level_results: CounterFamily,
}

impl ReversePathPolicy {
    /// Senders are confirmed by `check`, and their levels kept in `domaininfo`.
    #[must_use]
    pub fn new(check: Arc<dyn SenderCheck>, domaininfo: Arc<DomainInfo>, metrics: &Metrics) -> Self {
        let levels = metrics.counter_family(
            "sender_level",
            "Security levels of confirmed senders, by result",
            "result",
        );
        Self { spf_check: check, domaininfo, level_results: levels }
    }

    /// May it send here?
    pub fn decide(&self, circumstances: &Circumstances<'_>, reverse_path: &ReversePath) -> Verdict {
        let mailbox = match reverse_path {
            ReversePath::Null => {
                return Verdict::new(Answer::Sender(SenderFacts::default()))
                    .with_reason("the null reverse-path is never refused");
            }
            ReversePath::Mailbox(mailbox) => mailbox,
        };
        let spf = self.spf_check.check_spf(circumstances.address(), circumstances.hello, mailbox);
        let because = format!("SPF says {spf} for {}", mailbox.domain);
        match spf {
            SpfResult::Pass => self.check_level(circumstances, mailbox).with_reason(because),
            SpfResult::None
            | SpfResult::Neutral
            | SpfResult::Fail
            | SpfResult::SoftFail
            | SpfResult::TempError
            | SpfResult::PermError => {
                Verdict::new(Answer::Sender(SenderFacts::default())).with_reason(because)
            }
        }
    }

    fn check_level(&self, circumstances: &Circumstances<'_>, mailbox: &Mailbox) -> Verdict {
        let level = if circumstances.tls.is_some() {
            IncomingSecurityLevel::Tls
        } else {
            IncomingSecurityLevel::Plain
        };
        match self.domaininfo.check_incoming(&mailbox.domain, level) {
            Ok(()) => {
                self.level_results.add_one("fine");
                Verdict::new(Answer::Sender(SenderFacts::default()))
                    .with_reason(format!("{level} is no less than its domain used before"))
            }
            Err(lower) => {
                self.level_results.add_one("lower");
                let text = format!(
                    "Mail from {} has come over TLS before, and this session has none",
                    mailbox.domain
                );
                Verdict::refused(Failure::permanent(7, 3, text)).with_reason(lower.to_string())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::domaininfo;
    use crate::fakes::{SeededRandom, TestClock};
    use crate::mail::TlsInfo;
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
        let senders =
            ReversePathPolicy::new(Arc::new(FixedSpf(spf)), Arc::new(info.unwrap()), &Metrics::default());
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

    #[test]
    fn a_confirmed_domain_that_used_tls_may_not_go_back_to_plain_text() {
        let dir = tempfile::tempdir().unwrap();
        let ana = "ana@there.example";
        assert_eq!(
            decide(dir.path(), SpfResult::Pass, false, ana),
            Answer::Sender(SenderFacts::default()),
            "nothing known yet"
        );
        assert_eq!(decide(dir.path(), SpfResult::Pass, true, ana), Answer::Sender(SenderFacts::default()));
        let answer = decide(dir.path(), SpfResult::Pass, false, ana);
        assert!(matches!(answer, Answer::Refused(Failure::Permanent(r)) if (r.subject, r.detail) == (7, 3)));
        assert_eq!(decide(dir.path(), SpfResult::Pass, true, ana), Answer::Sender(SenderFacts::default()));
    }

    #[test]
    fn nobody_else_can_raise_or_trip_a_domains_level() {
        let dir = tempfile::tempdir().unwrap();
        for spf in [SpfResult::None, SpfResult::Neutral, SpfResult::SoftFail, SpfResult::TempError] {
            assert_eq!(
                decide(dir.path(), spf, true, "ana@there.example"),
                Answer::Sender(SenderFacts::default())
            );
        }
        assert_eq!(
            decide(dir.path(), SpfResult::Pass, false, "ana@there.example"),
            Answer::Sender(SenderFacts::default()),
            "not raised"
        );
        assert_eq!(
            decide(dir.path(), SpfResult::Pass, true, "ana@there.example"),
            Answer::Sender(SenderFacts::default())
        );
        assert_eq!(
            decide(dir.path(), SpfResult::None, false, "ana@there.example"),
            Answer::Sender(SenderFacts::default()),
            "not tripped"
        );
        assert_eq!(
            decide(dir.path(), SpfResult::Pass, false, ""),
            Answer::Sender(SenderFacts::default()),
            "null is never refused"
        );
    }
}
