//! The requests, and the line in which one is sent.

use serde::{Deserialize, Serialize};

use crate::mail::{Domain, Mailbox, MessageId};
use crate::queue::{QueueChange, Selection};

/// The version of the protocol that this program speaks.
pub(super) const VERSION: u32 = 1;

/// What a subcommand asks the daemon for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "kebab-case", rename_all_fields = "kebab-case")]
pub enum ControlRequest {
    /// List messages in the queue, the oldest first.
    QueueList {
        /// Which messages.
        selection: Selection,
        /// At most this many.
        limit: usize,
    },
    /// Show all that is known of a message.
    QueueShow {
        /// Which message.
        id: MessageId,
        /// The part of the message that the answer includes.
        part: Option<MessagePart>,
    },
    /// Retry, hold, release, reroute or remove messages.
    QueueChange {
        /// Which messages; an empty selection means all of them.
        selection: Selection,
        /// The change.
        #[serde(flatten)]
        change: QueueChange,
    },
    /// List the other servers' domains whose security level is known.
    PeerList,
    /// Show what is known of another server's domain.
    PeerShow {
        /// The domain.
        domain: Domain,
    },
    /// Forget what is known of another server's domain.
    PeerForget {
        /// The domain.
        domain: Domain,
    },
    /// Resolve an address of a local domain, step by step.
    AliasResolve {
        /// The address.
        address: Mailbox,
    },
    /// List the aliases in the files of the local domains.
    AliasList {
        /// Only this domain's.
        domain: Option<Domain>,
    },
    /// Read users, aliases, senders, credentials and certificates again.
    Reload,
    /// Show the state of the daemon.
    Status,
}

impl ControlRequest {
    /// The error for a request that is not answered when the server stops: what the person can rely on.
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

/// A part of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MessagePart {
    /// Its header section.
    Header,
    /// All of it, up to a limit.
    Message,
}

/// The line of a request.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct RequestLine {
    pub(super) version: u32,
    #[serde(flatten)]
    pub(super) request: ControlRequest,
}

/// Reads the line of a request. The error is a sentence for the person who sent it.
pub(super) fn parse_request_line(line: &[u8]) -> Result<ControlRequest, String> {
    #[derive(Deserialize)]
    struct VersionField {
        version: u32,
    }
    // The version first: a later version may have requests that this one has not.
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
