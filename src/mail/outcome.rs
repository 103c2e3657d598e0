//! How an attempt ended for one recipient, and why.
//!
//! The place that first understands a failure decides whether another attempt can help, by choosing a
//! variant. This file imports no other module, so that every layer can use it.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The result of one attempt for one recipient.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// The next hop accepted the message: a mailbox, a program, or another server.
    Delivered(Reason),
    /// A temporary failure: the queue tries again.
    Deferred(Reason),
    /// A permanent failure: the sender gets a bounce.
    Failed(Reason),
}

/// Why an attempt did not deliver. The variant decides what the queue does.
///
/// There is no `From<io::Error>` on purpose: a broken pipe to an MX host is transient, a missing program
/// may be permanent, and only the caller can tell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    /// Another attempt may help: 4.x.x (RFC 3463 §2), replies 4yz (RFC 5321 §4.2.1).
    Transient(Reason),
    /// Another attempt cannot help: 5.x.x, replies 5yz.
    Permanent(Reason),
}

/// An enhanced status (RFC 3463) without its class, and a sentence.
///
/// The outcome determines the class, so that the two cannot disagree.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Reason {
    /// Subject of the enhanced status, the middle digit group.
    pub subject: u16,
    /// Detail of the enhanced status, the last digit group.
    pub detail: u16,
    /// One sentence for the log and the bounce, printable and on one line.
    pub text: String,
    /// The response of the peer or the program, word for word, if there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub response: Option<RemoteResponse>,
    /// What the reason applies to.
    #[serde(default, skip_serializing_if = "FailureScope::is_message")]
    pub scope: FailureScope,
}

/// What a reason applies to. The queue does not try other messages at a destination that has failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FailureScope {
    /// This message or this recipient; other messages may be delivered.
    #[default]
    Message,
    /// The destination: the failure does not depend on the message, and others would fail, too.
    Destination,
}

impl FailureScope {
    fn is_message(&self) -> bool {
        *self == Self::Message
    }
}

/// The response of a peer or a program, for the bounce (RFC 3464 §2.3.5, §2.3.6).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct RemoteResponse {
    /// The host that responded, by name or address literal; empty for a program.
    pub host: String,
    /// The reply or output, escaped by [`super::printable()`]; lines are joined by a space.
    pub text: String,
    /// The host offered DSN and got the sender's requests with the recipient: from now on it sends the
    /// reports (RFC 3461 §5.2.2).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub has_accepted_dsn: bool,
}

impl Reason {
    /// A reason without a response. `subject` and `detail` as in RFC 3463 §3, for example 4 and 1.
    #[must_use]
    pub fn new(subject: u16, detail: u16, text: impl Into<String>) -> Self {
        Self { subject, detail, text: text.into(), response: None, scope: FailureScope::Message }
    }

    /// Adds a response.
    #[must_use]
    pub fn with_response(mut self, host: impl Into<String>, text: impl Into<String>) -> Self {
        self.response =
            Some(RemoteResponse { host: host.into(), text: text.into(), has_accepted_dsn: false });
        self
    }

    /// Records that the host sends the reports from now on; see [`RemoteResponse::has_accepted_dsn`]. Does
    /// nothing without a response.
    #[must_use]
    pub fn with_dsn_accepted(mut self) -> Self {
        if let Some(remote) = &mut self.response {
            remote.has_accepted_dsn = true;
        }
        self
    }

    /// Applies the reason to the destination instead of the message.
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
            Some(RemoteResponse { host, text, .. }) if host.is_empty() => write!(f, ": {text}"),
            Some(RemoteResponse { host, text, .. }) => write!(f, ": {host} said: {text}"),
            None => Ok(()),
        }
    }
}

impl Failure {
    /// A temporary failure.
    #[must_use]
    pub fn transient(subject: u16, detail: u16, text: impl Into<String>) -> Self {
        Self::Transient(Reason::new(subject, detail, text))
    }

    /// A permanent failure.
    #[must_use]
    pub fn permanent(subject: u16, detail: u16, text: impl Into<String>) -> Self {
        Self::Permanent(Reason::new(subject, detail, text))
    }

    /// Applies the reason to the destination instead of the message.
    #[must_use]
    pub fn with_destination_scope(self) -> Self {
        match self {
            Self::Transient(reason) => Self::Transient(reason.with_destination_scope()),
            Self::Permanent(reason) => Self::Permanent(reason.with_destination_scope()),
        }
    }

    /// The reason of either variant.
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
    /// The reason of any variant.
    #[must_use]
    pub fn reason(&self) -> &Reason {
        match self {
            Self::Delivered(reason) | Self::Deferred(reason) | Self::Failed(reason) => reason,
        }
    }

    /// The enhanced status with its class: `2.0.0`, `4.4.1` … (RFC 3463 §2).
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

    /// The outcome is delivered or failed: there will be no further attempt.
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
