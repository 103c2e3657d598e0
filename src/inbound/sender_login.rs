//! Decides as which addresses a user may write, in MAIL FROM and in the From and Sender fields.
//!
//! A user may write as the own address, as a local address that leads to the user (an alias, the own address
//! with a suffix), and as the addresses that the operator lists in `domains/DOMAIN/senders`. Any other address
//! is refused, and the reply says which ones are allowed, unless the operator has set `sender = "any"`. These
//! rules are for users: for the mail of other servers there is SPF.

use std::sync::Arc;

use super::decision::Decision;
use super::local_recipients::LocalRecipients;
use super::originator_field::OriginatorField;
use crate::mail::{Destination, Failure, Mailbox};
use crate::observe::{CounterFamily, Metrics};

/// Whether users are bound to their own addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SenderRestriction {
    /// A user writes as addresses that lead to the user.
    OwnAddresses,
    /// A user writes as any address.
    AnyAddress,
}

/// The addresses that the operator allows a user beside the own ones.
pub trait SenderPermissions: Send + Sync {
    /// Whether the operator allows the user to write as the address.
    fn may_send_as(&self, user: &Mailbox, address: &Mailbox) -> bool;
}

/// Decides about the addresses as which users write.
pub struct SenderLoginPolicy {
    local_recipients: Arc<dyn LocalRecipients>,
    permissions: Arc<dyn SenderPermissions>,
    restriction: SenderRestriction,
    refusals: CounterFamily,
}

/// Mailboxes in one field: each may have to be looked up, and the client waits.
const ORIGINATOR_MAILBOXES_MAX: usize = 10;

impl SenderLoginPolicy {
    /// Aliases are in `local_recipients`, exceptions in `permissions`.
    #[must_use]
    pub fn new(
        local_recipients: Arc<dyn LocalRecipients>,
        permissions: Arc<dyn SenderPermissions>,
        restriction: SenderRestriction,
        metrics: &Metrics,
    ) -> Self {
        let refusals = metrics.counter_family(
            "submission_sender_refused",
            "Addresses that users may not use as sender, by field",
            "field",
        );
        Self { local_recipients, permissions, restriction, refusals }
    }

    /// Whether `user` may send from this reverse-path.
    pub fn check_reverse_path(&self, user: &Mailbox, address: &Mailbox) -> Decision {
        let domain = &address.domain;
        // RFC 6409 §5.2: only this server could complete the domain.
        if !domain.is_qualified_or_literal() && !self.local_recipients.is_local(domain) {
            let text = format!("The domain {domain} is not complete, write it with all its parts");
            return Decision::refused(Failure::permanent(1, 8, text));
        }
        self.check_address("MAIL FROM", user, address)
    }

    /// Whether `user` may send a message with this field.
    pub fn check_field(&self, user: &Mailbox, field_value: &OriginatorField) -> Decision {
        let OriginatorField { name: field, mailboxes: named } = field_value;
        let not_known = |why: &str| {
            self.refusals.add_one(field);
            let text = format!("It is not clear that {field} names you: {why}");
            Decision::refused(Failure::permanent(6, 0, text))
        };
        match named {
            _ if self.restriction == SenderRestriction::AnyAddress => self.check_address(field, user, user),
            Err(why) => not_known(why),
            Ok(mailboxes) if mailboxes.is_empty() => not_known("it names no mailbox"),
            Ok(mailboxes) if mailboxes.len() > ORIGINATOR_MAILBOXES_MAX => not_known("it names too many"),
            Ok(mailboxes) => {
                let mut decision = Decision::allowed();
                for mailbox in mailboxes {
                    decision = self.check_address(field, user, mailbox);
                    if decision.refusal.is_some() {
                        return decision;
                    }
                }
                decision
            }
        }
    }

    fn check_address(&self, place: &str, user: &Mailbox, address: &Mailbox) -> Decision {
        let accepted = |why: String| Decision::allowed().with_reason(why);
        if self.restriction == SenderRestriction::AnyAddress {
            return accepted(format!("{user} has logged in, and users may send from any address"));
        }
        if address.is_same_user(user) {
            return accepted(format!("{address} has logged in"));
        }
        if self.permissions.may_send_as(user, address) {
            return accepted(format!("the operator lets {user} write as {address}"));
        }
        match self.delivers_to(address, user) {
            Ok(true) => accepted(format!("{address} leads to {user}, who has logged in")),
            Ok(false) => {
                self.refusals.add_one(place);
                let text = format!(
                    "You have logged in as {user} and may not write as {address}: use your own address in {place}, \
                     or an alias of yours"
                );
                Decision::refused(Failure::permanent(7, 1, text))
                    .with_reason(format!("{address} does not lead to {user}, and no senders file lists it"))
            }
            Err(why) => {
                log::error!("{address} cannot be looked up: {why}");
                let text = format!("Whether {address} is yours cannot be found out now, try again later");
                Decision::refused(Failure::transient(3, 0, text)).with_reason(why)
            }
        }
    }

    /// The address is local and leads to the user.
    fn delivers_to(&self, address: &Mailbox, user: &Mailbox) -> Result<bool, String> {
        if !self.local_recipients.is_local(&address.domain) {
            return Ok(false);
        }
        let recipients = self.local_recipients.expand(address)?;
        Ok(recipients.iter().any(|recipient| match &recipient.destination {
            Destination::Mailbox(mailbox) => mailbox.is_same_user(user),
            Destination::Program { .. } | Destination::Via { .. } => false,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inbound::local_recipients::FixedRecipients;

    impl SenderPermissions for FixedRecipients {
        fn may_send_as(&self, user: &Mailbox, address: &Mailbox) -> bool {
            user.local_part.as_str() == "ana" && address.domain.as_ascii() == "club.example"
        }
    }

    fn policy(restriction: SenderRestriction) -> SenderLoginPolicy {
        SenderLoginPolicy::new(
            Arc::new(FixedRecipients),
            Arc::new(FixedRecipients),
            restriction,
            &Metrics::default(),
        )
    }

    fn ana() -> Mailbox {
        Mailbox::parse("ana@here.example").unwrap()
    }

    /// The status of a refusal, or an empty text.
    fn status(decision: Decision) -> String {
        decision.refusal.map_or_else(String::new, |failure| {
            let class = if matches!(failure, Failure::Permanent(_)) { 5 } else { 4 };
            format!("{class}.{}.{}", failure.reason().subject, failure.reason().detail)
        })
    }

    #[test]
    fn a_user_writes_as_addresses_that_lead_to_the_user() {
        for (address, refused) in [
            ("ana@here.example", ""),
            ("ANA@HERE.example", ""),
            ("ana+lists@here.example", ""),
            ("info@here.example", ""),
            ("anybody@club.example", ""),
            ("bo@here.example", "5.7.1"),
            ("nobody@here.example", "5.7.1"),
            ("ana@there.example", "5.7.1"),
            ("ana@[127.0.0.1]", "5.7.1"),
            ("broken@here.example", "4.3.0"),
            ("ana@here", "5.1.8"),
        ] {
            let mailbox = Mailbox::parse(address).unwrap();
            assert_eq!(
                status(policy(SenderRestriction::OwnAddresses).check_reverse_path(&ana(), &mailbox)),
                refused,
                "{address}"
            );
            let in_any_name =
                status(policy(SenderRestriction::AnyAddress).check_reverse_path(&ana(), &mailbox));
            assert_eq!(in_any_name, if address == "ana@here" { "5.1.8" } else { "" }, "{address}");
        }
    }

    #[test]
    fn all_mailboxes_of_a_field_must_lead_to_the_user() {
        let both = |named: Result<&[&str], &str>| {
            let named = named.map(|names| names.iter().map(|raw| Mailbox::parse(raw).unwrap()).collect());
            let field = OriginatorField { name: "From", mailboxes: named.map_err(str::to_owned) };
            [SenderRestriction::OwnAddresses, SenderRestriction::AnyAddress]
                .map(|restriction| status(policy(restriction).check_field(&ana(), &field)))
        };
        assert_eq!(both(Ok(&["ana@here.example", "info@here.example"])), ["", ""]);
        assert_eq!(both(Ok(&["ana@here.example", "eve@there.example"])), ["5.7.1", ""]);
        assert_eq!(both(Ok(&["eve@there.example", "ana@here.example"])), ["5.7.1", ""]);
        assert_eq!(both(Ok(&[])), ["5.6.0", ""]);
        assert_eq!(both(Err("it is not UTF-8")), ["5.6.0", ""]);
    }
}
