//! How an attempt ended, for one recipient, and why.
//!
//! Whether trying again can help is decided where a failure is first understood, by choosing a
//! variant; it is never a flag that travels beside an error. This file imports no other module,
//! so that every layer can speak of outcomes.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What became of one recipient in one attempt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// The next hop took responsibility: a mailbox, a program, or another server.
    Delivered(Reason),
    /// Not now; the queue tries again.
    Deferred(Reason),
    /// Never; the sender gets a report.
    Failed(Reason),
}

/// Why one attempt did not deliver. The variant decides what the queue does.
///
/// There is deliberately no `From<io::Error>`: a broken pipe to an MX host is transient, a
/// program that is not there may not be, and only the caller knows which it holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    /// Trying again later may help: 4.x.x (RFC 3463 §2), replies 4yz (RFC 5321 §4.2.1).
    Transient(Reason),
    /// Trying again cannot help: 5.x.x, replies 5yz.
    Permanent(Reason),
}

/// An enhanced status (RFC 3463) without its class, and words for a person.
///
/// The class digit is not kept: the outcome decides it, so that the two cannot disagree.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Reason {
    /// Subject of the enhanced status, the middle digit group.
    pub subject: u16,
    /// Detail of the enhanced status, the last digit group.
    pub detail: u16,
    /// One sentence for the log and the report, printable and on one line.
    pub text: String,
    /// What the other side said, word for word, if there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub response: Option<RemoteResponse>,
    /// Whom it concerns.
    #[serde(default, skip_serializing_if = "FailureScope::is_message")]
    pub scope: FailureScope,
}

/// Whom a reason concerns: the queue spares a destination what it knows already.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FailureScope {
    /// This message or this recipient; others may fare better.
    #[default]
    Message,
    /// The destination: nobody there has heard of this message, and others would fare no better.
    Destination,
}

impl FailureScope {
    fn is_message(&self) -> bool {
        *self == Self::Message
    }
}

/// The remote side of a reason, for the report (RFC 3464 §2.3.5, §2.3.6).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct RemoteResponse {
    /// The host that spoke, by name or address literal; empty for a program.
    pub host: String,
    /// Its reply or output, escaped by [`super::printable`]; lines are joined by a space.
    pub text: String,
    /// It announced DSN and was handed the sender's wishes with the recipient: what becomes of the
    /// message from here on is its to report (RFC 3461 §5.2.2).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub has_accepted_dsn: bool,
}

impl Reason {
    /// A reason of our own. `subject` and `detail` as in RFC 3463 §3, for example 4 and 1.
    #[must_use]
    pub fn new(subject: u16, detail: u16, text: impl Into<String>) -> Self {
        Self { subject, detail, text: text.into(), response: None, scope: FailureScope::Message }
    }

    /// The same, with what the other side said.
    #[must_use]
    pub fn with_response(mut self, host: impl Into<String>, said: impl Into<String>) -> Self {
        self.response =
            Some(RemoteResponse { host: host.into(), text: said.into(), has_accepted_dsn: false });
        self
    }

    /// The same, when the other side reports to the sender from here on; see
    /// [`RemoteResponse::has_accepted_dsn`]. Without a remote side there is nobody to do so.
    #[must_use]
    pub fn with_dsn_accepted(mut self) -> Self {
        if let Some(remote) = &mut self.response {
            remote.has_accepted_dsn = true;
        }
        self
    }

    /// The same, of a destination and not of this mail alone.
    #[must_use]
    pub fn with_destination_scope(mut self) -> Self {
        self.scope = FailureScope::Destination;
        self
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)?;
        match &self.response {
            Some(RemoteResponse { host, text: said, .. }) if host.is_empty() => write!(f, ": {said}"),
            Some(RemoteResponse { host, text: said, .. }) => write!(f, ": {host} said: {said}"),
            None => Ok(()),
        }
    }
}

impl Failure {
    /// Trying again later may help.
    #[must_use]
    pub fn transient(subject: u16, detail: u16, text: impl Into<String>) -> Self {
        Self::Transient(Reason::new(subject, detail, text))
    }

    /// Trying again cannot help.
    #[must_use]
    pub fn permanent(subject: u16, detail: u16, text: impl Into<String>) -> Self {
        Self::Permanent(Reason::new(subject, detail, text))
    }

    /// The same, of a destination and not of this mail alone.
    #[must_use]
    pub fn with_destination_scope(self) -> Self {
        match self {
            Self::Transient(reason) => Self::Transient(reason.with_destination_scope()),
            Self::Permanent(reason) => Self::Permanent(reason.with_destination_scope()),
        }
    }

    /// Why, whichever it is.
    #[must_use]
    pub fn reason(&self) -> &Reason {
        match self {
            Self::Transient(reason) | Self::Permanent(reason) => reason,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (class, reason) = match self {
            Self::Transient(reason) => (4, reason),
            Self::Permanent(reason) => (5, reason),
        };
        write!(f, "{class}.{}.{} {reason}", reason.subject, reason.detail)
    }
}

impl Outcome {
    /// Why, whichever it is.
    #[must_use]
    pub fn reason(&self) -> &Reason {
        match self {
            Self::Delivered(reason) | Self::Deferred(reason) | Self::Failed(reason) => reason,
        }
    }

    /// The enhanced status, class and all: `2.0.0`, `4.4.1` … (RFC 3463 §2).
    #[must_use]
    pub fn status(&self) -> String {
        let class = match self {
            Self::Delivered(_) => 2,
            Self::Deferred(_) => 4,
            Self::Failed(_) => 5,
        };
        let Reason { subject, detail, .. } = self.reason();
        format!("{class}.{subject}.{detail}")
    }

    /// Nothing is left to try.
    #[must_use]
    pub fn is_final(&self) -> bool {
        !matches!(self, Self::Deferred(_))
    }
}

impl From<Failure> for Outcome {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Transient(reason) => Self::Deferred(reason),
            Failure::Permanent(reason) => Self::Failed(reason),
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.status(), self.reason())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_class_digit_follows_the_variant() {
        let reason = Reason::new(4, 1, "no answer");
        assert_eq!(Outcome::from(Failure::Transient(reason.clone())).status(), "4.4.1");
        assert_eq!(Outcome::from(Failure::Permanent(reason.clone())).status(), "5.4.1");
        assert_eq!(Outcome::Delivered(reason).status(), "2.4.1");
    }
}
