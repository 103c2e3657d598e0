//! What can be asked, and the two lines in which it is asked and answered.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::mail::{Domain, MessageId};

/// The version of the protocol that this program speaks.
pub(super) const VERSION: u32 = 1;

/// What a subcommand asks of the daemon.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "kebab-case")]
pub enum Request {
    /// Every message in the queue.
    QueueList,
    /// Try now what waits for its time.
    QueueRetry {
        /// Which messages.
        which: Which,
    },
    /// Give up a message without a report.
    QueueRemove {
        /// Which message.
        id: MessageId,
    },
    /// Every domain whose security level is known.
    DomainList,
    /// What is known of a domain.
    DomainShow {
        /// Which domain.
        domain: Domain,
    },
    /// Forget what is known of a domain.
    DomainForget {
        /// Which domain.
        domain: Domain,
    },
    /// Read the configuration again.
    Reload,
    /// How the daemon is.
    Status,
}

/// One message, or all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub enum Which {
    /// All of the queue.
    All,
    /// One.
    One(MessageId),
}

impl fmt::Display for Which {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("all"),
            Self::One(id) => id.fmt(f),
        }
    }
}

impl From<Which> for String {
    fn from(which: Which) -> Self {
        which.to_string()
    }
}

impl FromStr for Which {
    type Err = <MessageId as FromStr>::Err;

    /// `all`, or a message id.
    fn from_str(raw: &str) -> Result<Self, Self::Err> {
        if raw == "all" { Ok(Self::All) } else { raw.parse().map(Self::One) }
    }
}

impl TryFrom<String> for Which {
    type Error = <Self as FromStr>::Err;

    fn try_from(raw: String) -> Result<Self, Self::Error> {
        raw.parse()
    }
}

/// The line that asks.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Asked {
    pub(super) version: u32,
    #[serde(flatten)]
    pub(super) request: Request,
}

/// The line that answers: exactly one of the two is there.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Answered {
    pub(super) version: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) answer: Option<Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) error: Option<String>,
}

impl Answered {
    pub(super) fn new(result: Result<Value, String>) -> Self {
        let (answer, error) = match result {
            Ok(answer) => (Some(answer), None),
            Err(error) => (None, Some(error)),
        };
        Self { version: VERSION, answer, error }
    }
}

/// Reads the line that asks. What is wrong with it is a sentence for whoever sent it.
pub(super) fn read_request(line: &[u8]) -> Result<Request, String> {
    #[derive(Deserialize)]
    struct OnlyVersion {
        version: u32,
    }
    // The version first: a later version may know requests that we do not.
    match serde_json::from_slice::<OnlyVersion>(line) {
        Ok(OnlyVersion { version: VERSION }) => {}
        Ok(OnlyVersion { version }) => {
            return Err(format!(
                "the running postrider speaks version {VERSION} of the control protocol, not {version}: \
                 restart it after an upgrade"
            ));
        }
        Err(e) => return Err(format!("not a request: {e}")),
    }
    serde_json::from_slice::<Asked>(line)
        .map(|asked| asked.request)
        .map_err(|e| format!("not a request: {e}"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_request_is_one_flat_object() {
        let id: MessageId = "01h2xcejqtf2nbrexx3v".parse().unwrap();
        for (request, line) in [
            (Request::QueueList, json!({"version": 1, "request": "queue-list"})),
            (
                Request::QueueRetry { which: Which::All },
                json!({"version": 1, "request": "queue-retry", "which": "all"}),
            ),
            (
                Request::QueueRetry { which: Which::One(id) },
                json!({"version": 1, "request": "queue-retry", "which": "01h2xcejqtf2nbrexx3v"}),
            ),
            (
                Request::DomainShow { domain: Domain::parse("bücher.example").unwrap() },
                json!({"version": 1, "request": "domain-show", "domain": "bücher.example"}),
            ),
        ] {
            let asked = Asked { version: VERSION, request: request.clone() };
            assert_eq!(serde_json::to_value(asked).unwrap(), line);
            assert_eq!(read_request(line.to_string().as_bytes()), Ok(request));
        }
    }

    #[test]
    fn another_version_is_refused_with_a_remedy() {
        let error = read_request(br#"{"version":2,"request":"dance"}"#).unwrap_err();
        assert!(error.contains("restart"), "{error}");
        assert!(read_request(b"{}").is_err());
        assert!(read_request(br#"{"version":1,"request":"dance"}"#).is_err());
    }
}
