//! Selects messages and recipients for an operator.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::mail::{Domain, Envelope, Mailbox, MessageId, Recipient, ReversePath};
use crate::route::{RouteDestination, Router};
use crate::spool::{MessageProgress, RecipientState};

/// Selects messages, and of each the recipients that still wait and match all conditions.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Selection {
    /// These messages; if the list is empty, every message.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ids: Vec<MessageId>,
    /// Messages from this sender.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<AddressPattern>,
    /// This recipient, before or after aliases.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<AddressPattern>,
    /// This destination: a domain, a host that was named for it, or `local`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub destination: Option<String>,
    /// Only messages that are held.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_held: bool,
}

/// A mailbox, or all mailboxes of a domain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub enum AddressPattern {
    /// `<>`: the null reverse-path.
    Null,
    /// `ana@here.example`.
    Mailbox(Mailbox),
    /// `here.example`, or `@here.example`.
    Domain(Domain),
}

/// The text is neither an address nor a domain.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is neither an address nor a domain; write ana@here.example, here.example, or <> for bounces")]
pub struct AddressPatternError(String);

impl FromStr for AddressPattern {
    type Err = AddressPatternError;

    fn from_str(raw: &str) -> Result<Self, AddressPatternError> {
        let inner = raw.strip_prefix('<').and_then(|raw| raw.strip_suffix('>')).unwrap_or(raw);
        let domain = inner.strip_prefix('@').unwrap_or(inner);
        match Mailbox::parse(inner) {
            Ok(mailbox) => Ok(Self::Mailbox(mailbox)),
            Err(_) if inner.is_empty() && raw == "<>" => Ok(Self::Null),
            Err(_) => {
                Domain::parse(domain).map(Self::Domain).map_err(|_| AddressPatternError(raw.to_owned()))
            }
        }
    }
}

impl TryFrom<String> for AddressPattern {
    type Error = AddressPatternError;

    fn try_from(raw: String) -> Result<Self, AddressPatternError> {
        raw.parse()
    }
}

impl From<AddressPattern> for String {
    fn from(pattern: AddressPattern) -> Self {
        pattern.to_string()
    }
}

impl fmt::Display for AddressPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("<>"),
            Self::Mailbox(mailbox) => mailbox.fmt(f),
            Self::Domain(domain) => domain.fmt(f),
        }
    }
}

impl AddressPattern {
    fn matches(&self, mailbox: &Mailbox) -> bool {
        match self {
            Self::Null => false,
            Self::Mailbox(one) => one.is_same_user(mailbox),
            Self::Domain(domain) => *domain == mailbox.domain,
        }
    }

    fn matches_reverse_path(&self, reverse_path: &ReversePath) -> bool {
        match reverse_path.mailbox() {
            None => *self == Self::Null,
            Some(mailbox) => self.matches(mailbox),
        }
    }
}

impl Selection {
    /// Selects every message.
    #[must_use]
    pub fn is_all(&self) -> bool {
        *self == Self::default()
    }

    /// Has no condition but the ids.
    #[must_use]
    pub fn has_ids_only(&self) -> bool {
        Self { ids: Vec::new(), ..self.clone() }.is_all()
    }

    /// Positions of the selected recipients that still wait; if there are none, the message is not selected.
    pub(super) fn positions(
        &self,
        envelope: &Envelope,
        progress: &MessageProgress,
        router: &Router,
    ) -> Vec<usize> {
        let from =
            self.from.as_ref().is_none_or(|pattern| pattern.matches_reverse_path(&envelope.reverse_path));
        if !from || (self.is_held && !progress.is_held) {
            return Vec::new();
        }
        let is_selected = |(recipient, state): &(&Recipient, &RecipientState)| {
            let to = |pattern: &AddressPattern| {
                pattern.matches(&recipient.forward_path) || pattern.matches(recipient.final_mailbox())
            };
            !state.is_settled()
                && self.to.as_ref().is_none_or(to)
                && self.destination.as_deref().is_none_or(|name| is_routed_to(name, recipient, router))
        };
        let all = envelope.recipients.iter().zip(&progress.states).enumerate();
        all.filter(|(_, one)| is_selected(one)).map(|(position, _)| position).collect()
    }
}

/// Whether `name` is the destination of the route, one of its hosts, or the domain of a recipient that goes
/// by SMTP.
fn is_routed_to(name: &str, recipient: &Recipient, router: &Router) -> bool {
    let destination = router.route(recipient).destination;
    let is_its_domain = || Domain::parse(name).is_ok_and(|domain| domain == recipient.final_mailbox().domain);
    match &destination {
        RouteDestination::LocalMailboxes | RouteDestination::ProgramsOf(_) => destination.to_string() == name,
        RouteDestination::Domain(_) => is_its_domain(),
        RouteDestination::NamedHosts(via) => {
            destination.to_string() == name
                || is_its_domain()
                || via.hosts.iter().any(|host| host.to_string() == name)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mail::{Reason, Timestamp};

    #[test]
    fn a_pattern_is_read_and_written() {
        for (raw, shown) in [
            ("ana@here.example", "ana@here.example"),
            ("<ana@here.example>", "ana@here.example"),
            ("here.example", "here.example"),
            ("@here.example", "here.example"),
            ("<>", "<>"),
        ] {
            assert_eq!(raw.parse::<AddressPattern>().unwrap().to_string(), shown);
        }
        for raw in ["", "a b", "ana@", "@"] {
            assert!(raw.parse::<AddressPattern>().is_err(), "{raw}");
        }
    }

    #[test]
    fn all_conditions_must_match_and_only_waiting_recipients_are_selected() {
        let mailbox = |raw: &str| Mailbox::parse(raw).unwrap();
        let at = Timestamp::from_millis(0);
        let to = ["Bo@there.example", "cy@here.example", "eve@there.example"];
        let recipients = to.map(|raw| Recipient::for_mailbox(mailbox(raw))).to_vec();
        let from = ReversePath::Mailbox(mailbox("ana@here.example"));
        let envelope = Envelope::new(MessageId::new(at, 1), at, from, recipients);
        let mut progress = MessageProgress::new(&envelope);
        progress.states[2] = RecipientState::Delivered(Reason::new(0, 0, "taken"));
        let router = Router::new([Domain::parse("here.example").unwrap()]);
        let pattern = |raw: &str| Some(raw.parse::<AddressPattern>().unwrap());
        let every = Selection::default;
        for (selection, expected) in [
            (every(), vec![0, 1]),
            (Selection { from: pattern("ana@here.example"), ..every() }, vec![0, 1]),
            (Selection { from: pattern("there.example"), ..every() }, vec![]),
            (Selection { from: pattern("<>"), ..every() }, vec![]),
            (Selection { to: pattern("bo@there.example"), ..every() }, vec![0]),
            (Selection { to: pattern("there.example"), ..every() }, vec![0]),
            (Selection { destination: Some("local".to_owned()), ..every() }, vec![1]),
            (Selection { destination: Some("THERE.example".to_owned()), ..every() }, vec![0]),
            (Selection { destination: Some("here.example".to_owned()), ..every() }, vec![]),
            (
                Selection {
                    to: pattern("here.example"),
                    destination: Some("there.example".to_owned()),
                    ..every()
                },
                vec![],
            ),
            (Selection { is_held: true, ..every() }, vec![]),
        ] {
            assert_eq!(selection.positions(&envelope, &progress, &router), expected, "{selection:?}");
        }
        assert!(every().is_all() && !Selection { is_held: true, ..every() }.is_all());
    }
}
