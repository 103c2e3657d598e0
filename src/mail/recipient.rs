//! One final destination of a message, after aliases, and what its sender wants to hear of it.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::mailbox::Mailbox;
use super::via::Via;

/// One recipient. Settled by itself: each has an outcome of its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Recipient {
    /// Where it goes.
    pub destination: Destination,
    /// The forward-path the client named, before aliases: what the sender knows it by.
    pub forward_path: Mailbox,
    /// ORCPT as the client gave it, `addr-type;xtext`, kept to the next hop (RFC 3461 §4.2).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub orcpt: Option<String>,
    /// NOTIFY (RFC 3461 §4.1).
    pub notify: Notify,
}

/// Where one recipient's mail goes. Only an alias file can name a program or hosts; a text from
/// the network is never more than a mailbox.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", rename_all_fields = "kebab-case")]
pub enum Destination {
    /// A mailbox, here or elsewhere: the router decides.
    Mailbox(Mailbox),
    /// A program of the operator's, with its arguments; it reads the message.
    Program {
        /// Program and arguments, never seen by a shell. Not empty.
        command: Vec<String>,
        /// Whose alias this is.
        alias_address: Mailbox,
    },
    /// A mailbox, by way of these hosts instead of its domain's MX hosts.
    Via {
        /// The mailbox.
        mailbox: Mailbox,
        /// The hosts, and how to talk to them.
        #[serde(flatten)]
        via: Via,
    },
}

/// What the sender wants to be told (RFC 3461 §4.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Notify {
    /// The parameter was left out, and is left out to the next hop: failures and, by local choice,
    /// delays.
    #[default]
    Unspecified,
    /// `NEVER`: nothing, whatever happens.
    Never,
    /// Any of the three; none of them is what is left of `SUCCESS` behind an alias, and the next
    /// hop hears `NEVER`.
    When {
        /// `SUCCESS`.
        success: bool,
        /// `FAILURE`.
        failure: bool,
        /// `DELAY`.
        delay: bool,
    },
}

impl Notify {
    /// A failure is to be reported.
    #[must_use]
    pub fn includes_failure(self) -> bool {
        matches!(self, Self::Unspecified | Self::When { failure: true, .. })
    }

    /// A success is to be reported.
    #[must_use]
    pub fn includes_success(self) -> bool {
        matches!(self, Self::When { success: true, .. })
    }

    /// A delay is to be reported; `by_default` is our choice when the sender did not say.
    #[must_use]
    pub fn includes_delay(self, by_default: bool) -> bool {
        match self {
            Self::Unspecified => by_default,
            Self::Never => false,
            Self::When { delay, .. } => delay,
        }
    }

    /// The same, but for successes.
    #[must_use]
    pub fn without_success(self) -> Self {
        match self {
            Self::When { failure, delay, .. } => Self::When { success: false, failure, delay },
            other => other,
        }
    }
}

impl Recipient {
    /// A recipient who goes where its forward-path says.
    #[must_use]
    pub fn for_mailbox(mailbox: Mailbox) -> Self {
        Self {
            destination: Destination::Mailbox(mailbox.clone()),
            forward_path: mailbox,
            orcpt: None,
            notify: Notify::Unspecified,
        }
    }

    /// The final mailbox: the destination's, or for a program its owner's.
    #[must_use]
    pub fn final_mailbox(&self) -> &Mailbox {
        match &self.destination {
            Destination::Mailbox(mailbox)
            | Destination::Via { mailbox, .. }
            | Destination::Program { alias_address: mailbox, .. } => mailbox,
        }
    }
}

/// For the log: a mailbox, or `|program` (RFC 3464 has no word for one).
impl fmt::Display for Recipient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.destination {
            Destination::Mailbox(mailbox) | Destination::Via { mailbox, .. } => write!(f, "{mailbox}"),
            Destination::Program { command, alias_address: owner } => {
                write!(f, "{owner} |{}", command.first().map_or("", String::as_str))
            }
        }
    }
}
