//! What can be asked, and the two lines in which it is asked and answered.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::mail::{Domain, Mailbox, MessageId};
use crate::queue::{QueueChange, Selection};

/// The version of the protocol that this program speaks.
pub(super) const VERSION: u32 = 1;

/// What a subcommand asks of the daemon.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "kebab-case", rename_all_fields = "kebab-case")]
pub enum ControlRequest {
    /// Messages in the queue, the oldest first.
    QueueList {
        /// Which messages.
        selection: Selection,
        /// At most so many.
        limit: usize,
    },
    /// All that is known of a message.
    QueueShow {
        /// Which message.
        id: MessageId,
        /// What of its octets is wanted.
        part: Option<MessagePart>,
    },
    /// Change what becomes of messages.
    QueueChange {
        /// Which messages; an empty selection means all of them.
        selection: Selection,
        /// How.
        #[serde(flatten)]
        change: QueueChange,
    },
    /// Every domain whose security level is known.
    PeerList,
    /// What is known of a domain.
    PeerShow {
        /// Which domain.
        domain: Domain,
    },
    /// Forget what is known of a domain.
    PeerForget {
        /// Which domain.
        domain: Domain,
    },
    /// Who is behind an address of ours, step by step.
    AliasResolve {
        /// Which address.
        address: Mailbox,
    },
    /// The aliases that the files of the local domains hold.
    AliasList {
        /// Of this domain only.
        domain: Option<Domain>,
    },
    /// Read the configuration again.
    Reload,
    /// How the daemon is.
    Status,
}

impl ControlRequest {
    /// The answer to one that takes long when the server stops: what is true then.
    pub(super) fn reply_at_stop(&self) -> &'static str {
        match self {
            Self::QueueList { .. }
            | Self::QueueShow { .. }
            | Self::PeerList
            | Self::PeerShow { .. }
            | Self::AliasResolve { .. }
            | Self::AliasList { .. }
            | Self::Status => "the server is stopping: ask again when it runs",
            Self::QueueChange { .. } => {
                "the server is stopping, and the command may be done in part: see what became of the messages \
                 with `postrider queue list` when it runs again"
            }
            Self::PeerForget { .. } => {
                "the server is stopping, and the domain may be forgotten or not: see `postrider peer list` \
                 when it runs again"
            }
            Self::Reload => "the server is stopping: it reads everything anew when it starts",
        }
    }
}

/// Octets of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MessagePart {
    /// Its header section.
    Header,
    /// All of it, up to a limit.
    Message,
}

/// The line that asks.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct RequestLine {
    pub(super) version: u32,
    #[serde(flatten)]
    pub(super) request: ControlRequest,
}

/// The line that answers: exactly one of the two is there.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct ReplyLine {
    pub(super) version: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) answer: Option<Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) error: Option<String>,
}

impl ReplyLine {
    pub(super) fn new(result: Result<Value, String>) -> Self {
        let (answer, error) = match result {
            Ok(answer) => (Some(answer), None),
            Err(error) => (None, Some(error)),
        };
        Self { version: VERSION, answer, error }
    }
}

/// Reads the line that asks. What is wrong with it is a sentence for whoever sent it.
pub(super) fn parse_request_line(line: &[u8]) -> Result<ControlRequest, String> {
    #[derive(Deserialize)]
    struct VersionField {
        version: u32,
    }
    // The version first: a later version may know requests that we do not.
    match serde_json::from_slice::<VersionField>(line) {
        Ok(VersionField { version: VERSION }) => {}
        Ok(VersionField { version }) => {
            return Err(format!(
                "the running postrider speaks version {VERSION} of the control protocol, not {version}: \
                 restart it after an upgrade"
            ));
        }
        Err(e) => return Err(format!("not a request: {e}")),
    }
    serde_json::from_slice::<RequestLine>(line)
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
        let selection =
            Selection { ids: vec![id], to: Some("there.example".parse().unwrap()), ..Selection::default() };
        let change = QueueChange::Remove { bounce_text: Some("no".to_owned()) };
        for (request, line) in [
            (
                ControlRequest::QueueList { selection: Selection::default(), limit: 7 },
                json!({"version": 1, "request": "queue-list", "selection": {}, "limit": 7}),
            ),
            (
                ControlRequest::QueueShow { id, part: Some(MessagePart::Header) },
                json!({"version": 1, "request": "queue-show", "id": "01h2xcejqtf2nbrexx3v", "part": "header"}),
            ),
            (
                ControlRequest::QueueChange { selection: Selection::default(), change: QueueChange::Hold },
                json!({"version": 1, "request": "queue-change", "selection": {}, "change": "hold"}),
            ),
            (
                ControlRequest::QueueChange { selection, change },
                json!({"version": 1, "request": "queue-change", "change": "remove", "bounce-text": "no",
                    "selection": {"ids": ["01h2xcejqtf2nbrexx3v"], "to": "there.example"}}),
            ),
            (
                ControlRequest::PeerShow { domain: Domain::parse("bücher.example").unwrap() },
                json!({"version": 1, "request": "peer-show", "domain": "bücher.example"}),
            ),
        ] {
            let asked = RequestLine { version: VERSION, request: request.clone() };
            assert_eq!(serde_json::to_value(asked).unwrap(), line);
            assert_eq!(parse_request_line(line.to_string().as_bytes()), Ok(request));
        }
    }

    #[test]
    fn another_version_is_refused_with_a_remedy() {
        let error = parse_request_line(br#"{"version":2,"request":"dance"}"#).unwrap_err();
        assert!(error.contains("restart"), "{error}");
        assert!(parse_request_line(b"{}").is_err());
        assert!(parse_request_line(br#"{"version":1,"request":"dance"}"#).is_err());
    }
}
