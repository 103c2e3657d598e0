//! Decides whether mail for a forward-path is accepted.
//!
//! In a local domain the recipient must exist. For any other domain the client must have logged in or be in
//! a network that the operator named; otherwise the server would be an open relay.

use std::sync::Arc;

use super::circumstances::Circumstances;
use super::local_recipients::LocalRecipients;
use crate::mail::{Failure, ForwardPath, LocalPart, Mailbox, Recipient};
use crate::observe::{CounterFamily, Metrics};
use crate::smtp::{Answer, Verdict};

/// Decides about forward-paths.
pub struct RecipientPolicy {
    local_recipients: Arc<dyn LocalRecipients>,
    decisions: CounterFamily,
}

impl RecipientPolicy {
    /// `local_recipients` has the addresses of the local domains.
    #[must_use]
    pub fn new(local_recipients: Arc<dyn LocalRecipients>, metrics: &Metrics) -> Self {
        let decisions =
            metrics.counter_family("recipient_decision", "Forward-paths asked for, by decision", "decision");
        Self { local_recipients, decisions }
    }

    /// Whether mail for the forward-path is accepted from this client, and its recipients.
    pub fn decide(&self, circumstances: &Circumstances<'_>, forward_path: &ForwardPath) -> Verdict {
        let (decision, verdict) = match self.resolve_mailbox(forward_path) {
            Some(mailbox) if self.local_recipients.is_local_mailbox(&mailbox) => self.decide_local(&mailbox),
            Some(mailbox) => self.decide_relay(circumstances, mailbox),
            None => ("unknown", unknown_recipient()),
        };
        self.decisions.add_one(decision);
        verdict
    }

    fn resolve_mailbox(&self, forward_path: &ForwardPath) -> Option<Mailbox> {
        match forward_path {
            ForwardPath::Mailbox(mailbox) => Some(mailbox.clone()),
            ForwardPath::Postmaster => LocalPart::parse("postmaster")
                .ok()
                .map(|local_part| Mailbox { local_part, domain: self.local_recipients.postmaster_domain() }),
        }
    }

    fn decide_local(&self, mailbox: &Mailbox) -> (&'static str, Verdict) {
        match self.local_recipients.expand(mailbox) {
            Ok(recipients) if recipients.is_empty() => ("unknown", unknown_recipient()),
            Ok(recipients) => (
                "local",
                Verdict::new(Answer::Recipients(recipients)).with_reason("the address is one of ours"),
            ),
            Err(why) => {
                log::error!("{mailbox} cannot be looked up: {why}");
                let failure =
                    Failure::transient(3, 0, "This address cannot be looked up now, try again later");
                ("unavailable", Verdict::refused(failure).with_reason(why))
            }
        }
    }

    fn decide_relay(&self, circumstances: &Circumstances<'_>, mailbox: Mailbox) -> (&'static str, Verdict) {
        let why = match circumstances.login {
            Some(login) => format!("{login} has logged in and may send anywhere"),
            None if circumstances.is_in_relay_networks => {
                format!("{} is in relay.networks", circumstances.address())
            }
            None => {
                let failure = Failure::permanent(7, 1, "Relaying is not allowed without a login");
                let why = format!("{} is no local domain, and the client has not logged in", mailbox.domain);
                return ("relay-refused", Verdict::refused(failure).with_reason(why));
            }
        };
        // RFC 6409 §5.2: only this server could complete the domain.
        if !mailbox.domain.is_qualified_or_literal() {
            let text = format!("The domain {} is not complete, write it with all its parts", mailbox.domain);
            return ("incomplete", Verdict::refused(Failure::permanent(1, 2, text)));
        }
        ("relay", Verdict::new(Answer::Recipients(vec![Recipient::for_mailbox(mailbox)])).with_reason(why))
    }
}

fn unknown_recipient() -> Verdict {
    let failure = Failure::permanent(1, 1, "The recipient does not exist");
    Verdict::refused(failure).with_reason("no account and no alias has this address")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inbound::local_recipients::FixedRecipients;

    fn stranger() -> Circumstances<'static> {
        Circumstances::at_connection("198.51.100.1:49152".parse().unwrap())
    }

    fn decide(circumstances: &Circumstances<'_>, path: &str) -> Answer {
        let recipients = RecipientPolicy::new(Arc::new(FixedRecipients), &Metrics::default());
        let path = match path {
            "" => ForwardPath::Postmaster,
            path => ForwardPath::Mailbox(Mailbox::parse(path).unwrap()),
        };
        recipients.decide(circumstances, &path).answer
    }

    #[test]
    fn only_users_and_relay_networks_may_send_to_other_domains() {
        let ana = Mailbox::parse("ana@here.example").unwrap();
        let refused = |answer| matches!(answer, Answer::Refused(Failure::Permanent(reason)) if (reason.subject, reason.detail) == (7, 1));
        assert!(refused(decide(&stranger(), "bo@there.example")));
        assert!(refused(decide(&stranger(), "bo@[127.0.0.1]")));
        for circumstances in [
            Circumstances { login: Some(&ana), ..stranger() },
            Circumstances { is_in_relay_networks: true, ..stranger() },
        ] {
            let answer = decide(&circumstances, "bo@there.example");
            assert!(matches!(answer, Answer::Recipients(recipients) if recipients.len() == 1));
        }
    }

    #[test]
    fn an_incomplete_domain_is_refused() {
        let ana = Mailbox::parse("ana@here.example").unwrap();
        let answer = decide(&Circumstances { login: Some(&ana), ..stranger() }, "bo@there");
        assert!(matches!(answer, Answer::Refused(Failure::Permanent(r)) if (r.subject, r.detail) == (1, 2)));
    }

    #[test]
    fn an_unknown_local_address_is_refused_and_a_failed_look_up_is_transient() {
        assert!(matches!(decide(&stranger(), "ana@here.example"), Answer::Recipients(_)));
        assert!(matches!(decide(&stranger(), ""), Answer::Recipients(_)));
        assert!(matches!(decide(&stranger(), "no@here.example"), Answer::Refused(Failure::Permanent(_))));
        assert!(matches!(decide(&stranger(), "broken@here.example"), Answer::Refused(Failure::Transient(_))));
    }
}
