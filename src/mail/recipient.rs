//! A final destination of a message, after aliases, and the reports that its sender asked for.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::mailbox::Mailbox;
use super::via::Via;

/// One recipient, which has an outcome of its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Recipient {
    /// The final destination.
    pub destination: Destination,
    /// The forward-path in RCPT, before aliases: the address that the sender used.
    pub forward_path: Mailbox,
    /// ORCPT as the client sent it, `addr-type;xtext`, for the next hop (RFC 3461 §4.2).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub orcpt: Option<String>,
    /// NOTIFY (RFC 3461 §4.1).
    pub notify: Notify,
}

/// The destination of a recipient. Only the operator can name programs and hosts: in an alias file, or in the
/// answer of the hook `alias-resolve`; `queue reroute` can name hosts. An address from the network is always
/// a mailbox.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", rename_all_fields = "kebab-case")]
pub enum Destination {
    /// A mailbox, local or remote: the router decides.
    Mailbox(Mailbox),
    /// A program of the operator, which gets the message on its standard input.
    Program {
        /// Program and arguments, which no shell interprets. Not empty.
        command: Vec<String>,
        /// The address of the alias.
        alias_address: Mailbox,
    },
    /// A mailbox that is reached by these hosts instead of the MX hosts of its domain.
    Via {
        /// The mailbox.
        mailbox: Mailbox,
        /// The hosts and their options.
        #[serde(flatten)]
        via: Via,
    },
}

/// The reports that the sender asked for (RFC 3461 §4.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Notify {
    /// The parameter was not sent, and is not sent to the next hop: failures are reported and, by local
    /// choice, delays.
    #[default]
    Unspecified,
    /// `NEVER`: nothing is reported.
    Never,
    /// A list of the three. An empty list can be left of `SUCCESS` behind an alias; the next hop then gets
    /// `NEVER`.
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
    /// Failures are reported.
    #[must_use]
    pub fn includes_failure(self) -> bool {
        matches!(self, Self::Unspecified | Self::When { failure: true, .. })
    }

    /// Successes are reported.
    #[must_use]
    pub fn includes_success(self) -> bool {
        matches!(self, Self::When { success: true, .. })
    }

    /// Delays are reported; `by_default` applies if the sender sent no parameter.
    #[must_use]
    pub fn includes_delay(self, by_default: bool) -> bool {
        match self {
            Self::Unspecified => by_default,
            Self::Never => false,
            Self::When { delay, .. } => delay,
        }
    }

    /// The same without successes.
    #[must_use]
    pub fn without_success(self) -> Self {
        match self {
            Self::When { failure, delay, .. } => Self::When { success: false, failure, delay },
            other => other,
        }
    }
}

impl Recipient {
    /// A recipient whose destination is its forward-path.
    #[must_use]
    pub fn for_mailbox(mailbox: Mailbox) -> Self {
        Self {
            destination: Destination::Mailbox(mailbox.clone()),
            forward_path: mailbox,
            orcpt: None,
            notify: Notify::Unspecified,
        }
    }

    /// The mailbox of the destination; for a program the address of its alias.
    #[must_use]
    pub fn final_mailbox(&self) -> &Mailbox {
        match &self.destination {
            Destination::Mailbox(mailbox)
            | Destination::Via { mailbox, .. }
            | Destination::Program { alias_address: mailbox, .. } => mailbox,
        }
    }
}

/// The form for the log: a mailbox, or `|program` (RFC 3464 has no form for one).
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
